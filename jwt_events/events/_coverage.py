"""What a revocation covers: how late its cutoff may be, and a sentence that says it to people. Pure."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

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


def covered_by(event: TokenRevoked) -> str:
    """Return the sentence about an event that revokes tokens."""
    if event.token_id is not None:
        return f"Revokes the token #{fingerprint(event.token_id)} alone."
    cutoff = event.issued_before or event.occurred_at
    if event.session_id is not None:
        return covered_in_session(event.session_id, cutoff)
    client = "" if event.client_id is None else f"the client #{fingerprint(event.client_id)}"
    if event.user_id is None:
        return _sentence(f"{client}, of all users", cutoff)
    where = f"at {client}" if client else "in all sessions, on all devices"
    return _sentence(f"the user #{fingerprint(event.user_id)} {where}", cutoff)


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
