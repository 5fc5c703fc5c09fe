"""Extraction of the identifiers that revocation rules can name from the claims of a token. Pure.

Source: RFC 7519 §4.1 (``jti``, ``sub``, ``iat``), OpenID Connect Core §2 (``azp``) and Front-Channel Logout 1.0 §3
(``sid``), RFC 8693 §4.3 (``client_id``), RFC 7515 §4.1.4 (``kid``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from jwt_events.errors import InvalidClaims
from jwt_events.events import MAX_NUMERIC_DATE, STANDARD, ClaimNames, name_of

RuleKind = Literal["token", "session", "user_at_client", "user", "client", "key", "claims", "everyone"]
"""The kind of identifier that a rule names; ``claims`` if it names other claims, ``everyone`` if none."""


class Subjects(NamedTuple):
    """What rules look at in a token's claims.

    Attributes:
        digests: the kind and digest of each identifier; kinds that the claims lack are left out.
        issued_at: the token's ``iat`` in milliseconds since 1970; ``None`` if it has none.
        session: the name of its session; ``None`` if it has none.
        claims: all of its claims.
    """

    digests: tuple[tuple[RuleKind, int], ...]
    issued_at: float | None
    session: str | None
    claims: Mapping[str, object]


class KeyedClaims(dict[str, object]):
    """The claims of a token that several keys vouch for; rules about each of them cover it.

    Their ``kid`` is one of the keys. A copy, ``{**claims}``, knows that one only.

    A mapping may know more names than it lists, as one does that ignores case: these are asked of it.

    Attributes:
        other_kids: the other keys.
    """

    def __init__(self, claims: Mapping[str, object], kid: str, other_kids: tuple[str, ...] = ()) -> None:
        super().__init__({**claims, "kid": kid})
        self.other_kids = other_kids
        self._claims = claims

    def get(self, name: str, default: Any = None, /) -> Any:
        """Return a claim; see `dict.get`."""
        return self[name] if name in self else self._claims.get(name, default)


def digest(*identifiers: str) -> int:
    """Return the hash of an identifier, or of a pair of identifiers, in this process.

    Python's own hash: 64 bits, keyed with a secret of the process. Among a million rules, one token in 10¹³ is mistaken
    for another one, and then refused.
    """
    return hash(identifiers[0]) if len(identifiers) == 1 else hash(identifiers)


def subjects_of(claims: Mapping[str, object], names: ClaimNames = STANDARD) -> Subjects:
    """Read the claims that rules look at: those with these names, and the ``kid``.

    Raises:
        InvalidClaims: ``claims`` is not a mapping, or one of these claims has the wrong type.
    """
    if not isinstance(claims, Mapping):
        raise InvalidClaims("claims", f"must be a mapping, the decoded payload of a token, not {_kind(claims)}")
    token = identifier_in(claims, names.token, is_token=True)
    user, session = identifier_in(claims, names.user), identifier_in(claims, names.session)
    named: dict[RuleKind, str | None] = {
        "token": token,
        "session": session,
        "user": user,
        "key": _text(claims, "kid"),
    }
    digests = [(kind, digest(value)) for kind, value in named.items() if value is not None]
    if isinstance(claims, KeyedClaims):
        digests.extend(("key", digest(kid)) for kid in claims.other_kids)
    for party in dict.fromkeys(identifier_in(claims, claim) for claim in names.clients):
        if party is not None:
            digests.append(("client", digest(party)))
        if user is not None and party is not None:
            digests.append(("user_at_client", digest(user, party)))
    return Subjects(tuple(digests), _milliseconds(claims.get(names.issued_at), names.issued_at), session, claims)


def is_reachable(claims: Mapping[str, object], names: ClaimNames = STANDARD) -> bool:
    """Return whether a rule about a token, session, user or client can ever cover the token with these claims.

    If not, the token cannot be logged out: `TokenRevoked.from_claims` finds nothing in them either.

    Raises:
        InvalidClaims: as `subjects_of` does.
    """
    return any(kind != "key" for kind, _ in subjects_of(claims, names).digests)


def identifier_in(claims: Mapping[str, object], claim: str, *, is_token: bool = False) -> str | None:
    """Return the name by which events name the identifier in a claim; ``None`` if it is missing or empty."""
    text = _text(claims, claim)
    return name_of(text, is_token=is_token) if text else None


def expiry_of(claims: Mapping[str, object], names: ClaimNames = STANDARD) -> float:
    """Return when a token expires, in seconds since 1970; infinity if it never does, or too late to matter.

    Raises:
        InvalidClaims: the claim is not a number.
    """
    value = claims.get(names.expires_at)
    if value is None:
        return math.inf
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidClaims(names.expires_at, f"must be a number of seconds since 1970, not {_kind(value)}")
    if value != value:  # noqa: PLR0124 - not a number; math.isnan fails for large ones
        raise InvalidClaims(names.expires_at, "must be a number of seconds since 1970, not NaN")
    return math.inf if value >= MAX_NUMERIC_DATE else float(max(value, 0))


def _text(claims: Mapping[str, object], name: str) -> str | None:
    value = claims.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidClaims(name, f"must be text, not {_kind(value)}")
    return str.__str__(value)  # a subclass may define its own hash


def _milliseconds(value: object, claim: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidClaims(claim, f"must be a number of seconds since 1970, not {_kind(value)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidClaims(claim, "must be a finite number of seconds since 1970")
    if value >= MAX_NUMERIC_DATE:
        raise InvalidClaims(claim, "looks like milliseconds; a NumericDate is in seconds")
    return value * 1000


def _kind(value: object) -> str:
    return type(value).__name__
