"""What the claims of a token say about the token, its session, its user and its client. Pure.

Revocations are made from claims here, and a revocation list reads claims by the same names (`name_of`), so that what a
list can read can also be revoked.

Sources: OpenID Connect Back-Channel Logout 1.0 §2.4 (logout tokens), RFC 8417 §2.2 (``events``), RFC 8693 §4.3
(``client_id``), OpenID Connect Core §2 (``azp``).
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from jwt_events.errors import InvalidClaims
from jwt_events.events._fields import MAX_IDENTIFIER_LENGTH, Identifier, TokenId

ALIAS_PREFIX = "sha256:"
"""Beginning of the names of identifiers that cannot be published as they are."""

_STRICT = ConfigDict(strict=True)
_IDENTIFIER: TypeAdapter[str] = TypeAdapter(Identifier, config=_STRICT)
_TOKEN_ID: TypeAdapter[str] = TypeAdapter(TokenId, config=_STRICT)

_LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"

# Claims in which issuers say what a token is for: Keycloak, Cognito, simplejwt and Flask-JWT-Extended, in this order.
_PURPOSE_CLAIMS = ("typ", "token_use", "token_type", "type")
_LOGOUT = frozenset({"logout", "logout+jwt", "logout_token"})
_REFRESH = frozenset({"refresh", "refresh+jwt", "refresh_token", "rt+jwt", "offline"})
_ID = frozenset({"id", "id+jwt", "id_token"})

_LAST_INSTANT = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


def is_plain(text: str) -> bool:
    """Return whether an identifier can certainly be published as it is: a quick look that says no if in doubt."""
    return len(text) <= MAX_IDENTIFIER_LENGTH and text.isascii() and text.count(".") < 2 and not text.isspace()


def name_of(text: str, *, is_token: bool = False) -> str:
    """Return the name by which events name an identifier: itself, or its SHA-256 if it must not or cannot travel.

    Args:
        text: the identifier, which is not empty.
        is_token: whether it is a ``jti``, which must not look like a token even remotely.
    """
    if is_plain(text):
        return text
    try:
        return (_TOKEN_ID if is_token else _IDENTIFIER).validate_python(text)
    except ValidationError:
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        return ALIAS_PREFIX + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def revocation_from(claims: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the `TokenRevoked` that revokes what these claims stand for.

    Raises:
        InvalidClaims: they are not those of an access token, and name no session (or user) to revoke instead.
    """
    token, session, user = _name(claims, "jti", is_token=True), _name(claims, "sid"), _name(claims, "sub")
    client = _name(claims, "client_id")
    fields = {"session_id": session, "user_id": user, "client_id": _name(claims, "azp") if client is None else client}
    purposes = {value.lower() for name in _PURPOSE_CLAIMS if isinstance(value := claims.get(name), str)}
    events = claims.get("events")
    if purposes & _LOGOUT or (isinstance(events, Mapping) and _LOGOUT_EVENT in events):
        if session is None and user is None:
            raise InvalidClaims("sid", "is missing in a logout token, and so is sub: it names no session and no user")
        return fields | {"client_id": None}  # the client that is told, which would narrow the user's rule to itself
    if isinstance(events, Mapping) and events and all(_is_uri(name) for name in events):
        problem = (
            "are those of a security event token, whose jti names the event: name what it is about in TokenRevoked"
        )
        raise InvalidClaims("events", problem)
    if purposes & _REFRESH and session is None:
        raise InvalidClaims(
            "sid",
            "is missing in a refresh token, whose jti is not that of the access tokens: revoke"
            " TokenRevoked(user_id=…), all tokens of its user, or TokenRevoked(token_id=…), this token alone",
        )
    if purposes & (_REFRESH | _ID) and session is not None:
        return fields
    if token is None:
        return fields
    return fields | {"token_id": token, "expires_at": _expiry(claims.get("exp"))}


def _name(claims: Mapping[str, Any], claim: str, *, is_token: bool = False) -> Any:
    """Return the name in a claim; ``None`` if it is missing or empty. Other types are left for the model to refuse."""
    value = claims.get(claim)
    if not isinstance(value, str):
        return value
    return name_of(str.__str__(value), is_token=is_token) if value else None


def _is_uri(name: object) -> bool:
    return isinstance(name, str) and ("://" in name or name.startswith("urn:"))


def _expiry(exp: Any) -> Any:
    """Return an ``exp`` as an instant that exists: JWT libraries accept any number of seconds."""
    if isinstance(exp, bool) or not isinstance(exp, (int, float)) or exp != exp:  # noqa: PLR0124 - not a number
        return exp
    if exp == math.inf or exp >= _LAST_INSTANT.timestamp():
        return _LAST_INSTANT
    return datetime.fromtimestamp(max(0, exp), UTC)
