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
    if not is_reachable(claims, names):
        return (names.token, names.user, names.session, *names.clients[:1])
    return tuple(
        name
        for role, others in _OTHER_NAMES.items()
        if (name := getattr(names, role))
        and not _names_something(claims, name)
        and any(_names_something(claims, other) for other in others)
    )


def _names_something(claims: Mapping[str, object], name: str) -> bool:
    return claims.get(name) not in (None, "")
