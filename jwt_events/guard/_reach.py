"""Which claims are missing in a token, so that revocations do not reach it. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from jwt_events.events import ClaimNames
from jwt_events.revocation import is_reachable

# Where a token carries one of these instead, its issuer has another name for the claim.
_OTHER_NAMES = {
    "token": ("token_id", "tokenId"),
    "user": ("user_id", "userId", "uid"),
    "session": ("session_id", "sessionId", "session_state", "sessionHandle"),
}


def missing_claims(claims: Mapping[str, object], names: ClaimNames) -> tuple[str, ...]:
    """Return the names of the claims that a revocation would look at and not find; empty if it can reach the token.

    All of them, if the token has none: it was decoded to something else than its payload, for example to a mapping that
    contains it. Else those that it seems to carry under another name.
    """
    looked_at = {role: getattr(names, role) for role in _OTHER_NAMES}
    missing = {role: name for role, name in looked_at.items() if not _names_something(claims, name)}
    if len(missing) == len(looked_at) and not is_reachable(claims, names):
        return (*looked_at.values(), *names.clients[:1])
    return tuple(
        name for role, name in missing.items() if any(_names_something(claims, other) for other in _OTHER_NAMES[role])
    )


def _names_something(claims: Mapping[str, object], name: str) -> bool:
    return claims.get(name) not in (None, "")
