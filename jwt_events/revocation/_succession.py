"""Whether a token may take the place of another one that is in use. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from jwt_events.errors import AnotherSubject, OlderToken
from jwt_events.events import ClaimNames
from jwt_events.revocation._claims import Subjects, expiry_of, identifier_in


def check_successor(old: Subjects, new: Subjects, names: ClaimNames) -> None:
    """Return if a new token may take the place of the old one: it is about the same subject, and not older.

    The subject is the user, else, of tokens for machines, the session and the client; and who issued the token, for
    which client. A claim that only one of them has is a difference.

    Raises:
        AnotherSubject: it is about another one, or nothing says that it is not.
        OlderToken: it was issued before, or does not say when, or at the same time and expires earlier.
        InvalidClaims: a claim has the wrong type.
    """
    _check_subject(old.claims, new.claims, names)
    if old.issued_at is not None and (new.issued_at is None or new.issued_at < old.issued_at):
        problem = "is missing" if new.issued_at is None else "is before that of the token in use"
        raise OlderToken(names.issued_at, f"{problem}: a token that is older cannot take its place")
    is_later = new.issued_at is not None and (old.issued_at is None or new.issued_at > old.issued_at)
    if not is_later and expiry_of(new.claims, names) < expiry_of(old.claims, names):
        raise OlderToken(names.expires_at, "is before that of the token in use, and it was not issued later")


def _check_subject(old: Mapping[str, object], new: Mapping[str, object], names: ClaimNames) -> None:
    if old.get("iss") != new.get("iss"):
        raise AnotherSubject("iss", "differs from that of the token in use")
    user = identifier_in(old, names.user)
    if user != identifier_in(new, names.user):
        raise AnotherSubject(names.user, "differs from that of the token in use")
    clients = _clients_in(old, names)
    if clients != _clients_in(new, names):
        raise AnotherSubject(_first(names), "differs from that of the token in use")
    if user is not None:
        return
    session = identifier_in(old, names.session)
    if session != identifier_in(new, names.session):
        raise AnotherSubject(names.session, "differs from that of the token in use, and neither names a user")
    if session is None and not clients:
        raise AnotherSubject(names.user, "is missing in both, and nothing else says that they are about the same one")


def _clients_in(claims: Mapping[str, object], names: ClaimNames) -> frozenset[str]:
    found = (identifier_in(claims, name) for name in names.clients)
    return frozenset(name for name in found if name is not None)


def _first(names: ClaimNames) -> str:
    return next(iter(names.clients), "client_id")
