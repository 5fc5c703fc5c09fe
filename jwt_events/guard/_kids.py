"""Which keys a token may depend on, whatever its header, its claims and `decode` call them. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from jwt_events.guard._header import HeaderTooLarge, UnreadableHeader, kid_of
from jwt_events.revocation import KeyedClaims


def header_kid(token: str) -> tuple[str | None, UnreadableHeader | None]:
    """Return the ``kid`` of a token, and what is wrong with its header if it cannot be read.

    Raises:
        HeaderTooLarge: the token must not be given to ``decode``.
    """
    try:
        return kid_of(token), None
    except HeaderTooLarge:
        raise
    except UnreadableHeader as error:
        return None, error


def with_kids(claims: Mapping[str, object], value: object, kid: str | None) -> Mapping[str, object]:
    """Return the claims with all keys that a token may depend on, so that rules about each of them cover it.

    Args:
        claims: may name a ``kid`` of their own: that of a token inside the token, or one with its issuer's name.
        value: the return value of ``decode``; may name another one, or contain the header that it read.
        kid: the one in the token's header.
    """
    if not isinstance(claims, Mapping):
        return claims  # refused by the check, as is a `kid` that is not text
    own = claims.get("kid")
    if own is not None and not isinstance(own, str):
        return claims
    decoded = value if isinstance(value, Mapping) else {}
    header = decoded.get("header", getattr(value, "header", None))
    found = (own, decoded.get("kid"), kid, header.get("kid") if isinstance(header, Mapping) else None)
    kids = list(dict.fromkeys(str.__str__(one) for one in found if isinstance(one, str)))
    if not kids:
        return claims
    if len(kids) == 1 and type(claims).get is dict.get:
        return {**claims, "kid": kids[0]}
    return KeyedClaims(claims, kids[0], tuple(kids[1:]))
