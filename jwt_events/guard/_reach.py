"""Which claims are missing in a token, so that revocations do not reach it. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from jwt_events.revocation import is_reachable

# Where a token carries one of these instead, its issuer has another name for the claim.
_OTHER_NAMES = {
    "jti": ("token_id", "tokenId"),
    "sub": ("user_id", "userId", "uid"),
    "sid": ("session_id", "sessionId", "session_state", "sessionHandle"),
}


def missing_claims(claims: Mapping[str, object]) -> tuple[str, ...]:
    """Return the names of the claims that a revocation would look at and not find; empty if it can reach the token.

    All of them, if the token has none: it was decoded to something else than its payload, for example to a mapping that
    contains it. Else those that it seems to carry under another name.
    """
    if not is_reachable(claims):
        return ("jti", "sub", "sid", "client_id")
    return tuple(
        name
        for name, others in _OTHER_NAMES.items()
        if not _names_something(claims, name) and any(_names_something(claims, other) for other in others)
    )


def _names_something(claims: Mapping[str, object], name: str) -> bool:
    return claims.get(name) not in (None, "")
