"""What a revocation covers: how late its cutoff may be, and a sentence that says it to people. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jwt_events.events._models import TokenRevoked


# How far a cutoff may be ahead of the clock: as far as clocks differ.
_MAX_AHEAD = timedelta(minutes=5)


def cutoff_problem(cutoff: datetime, now: datetime) -> str | None:
    """Return what is wrong with the cutoff of a new revocation; ``None`` if nothing is."""
    if cutoff <= now + _MAX_AHEAD:
        return None
    return (
        "is more than five minutes ahead, and would revoke tokens that are not issued yet: revoke those that exist, and"
        " have the issuer refuse to issue new ones; revoke again for each that it issued all the same"
    )


def fingerprint(value: str) -> str:
    """Return eight hexadecimal digits that distinguish identifiers in a log without showing them."""
    return hashlib.blake2s(value.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()


def scope_problem(field: str, value: object, others: Mapping[str, Any]) -> str | None:
    """Return what contradicts a field that says how wide a revocation is; ``None`` if nothing does.

    Args:
        field: ``except_session_id`` or ``everyone``.
        value: its value.
        others: the valid fields before it.
    """
    given = [name for name in ("token_id", "session_id") if others.get(name) is not None]
    if field == "except_session_id" and value is not None:
        if given:
            return f"spares a session, but {given[0]} revokes less than a user's sessions: leave one of the two out"
        if others.get("user_id", "") is None:  # an invalid one is reported by itself
            return "spares a session of a user: name the user as user_id, or leave except_session_id out"
    if field == "everyone" and value:
        given += [name for name in ("user_id", "client_id", "claims") if others.get(name) is not None]
        if given:
            return f"revokes all tokens, but {given[0]} is given: leave everyone out, or all that narrows it"
    return None


def covered_by(event: TokenRevoked) -> str:
    """Return the sentence about an event that revokes tokens."""
    cutoff = event.issued_before or event.occurred_at
    where = _conditions(event.claims)
    if event.everyone:
        return _sentence("all users", cutoff)
    if event.token_id is not None:
        named = f"the token #{fingerprint(event.token_id)}"
        return f"Revokes {named}{where}." if where else f"Revokes {named} alone."
    if event.session_id is not None:
        return _sentence(f"the session #{fingerprint(event.session_id)}{where}", cutoff)
    client = "" if event.client_id is None else f"the client #{fingerprint(event.client_id)}"
    if event.user_id is None:
        return _sentence(f"{client}, of all users{where}" if client else f"all users{where}", cutoff)
    device = f"at {client}" if client else "in all sessions, on all devices"
    if event.except_session_id is not None:
        device += f", except in the session #{fingerprint(event.except_session_id)}"
    return _sentence(f"the user #{fingerprint(event.user_id)} {device}{where}", cutoff)


def _conditions(claims: Mapping[str, Any] | None) -> str:
    said = [f"{name} is #{fingerprint(str(value))}" for name, value in (claims or {}).items()]
    return f", where {' and '.join(said)}" if said else ""


def covered_in_session(session_id: str, cutoff: datetime) -> str:
    """Return the sentence about a session that has ended."""
    return _sentence(f"the session #{fingerprint(session_id)}", cutoff)


def covered_by_keys(keys: tuple[str, ...]) -> str:
    """Return the sentence about keys that leaked."""
    named = " or ".join(f"the key #{fingerprint(key)}" for key in keys)
    return f"Revokes all tokens that are signed with {named}." if keys else "Revokes nothing."


def _sentence(whose: str, cutoff: datetime) -> str:
    instant = cutoff.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return f"Revokes all tokens of {whose}, issued up to {instant}."
