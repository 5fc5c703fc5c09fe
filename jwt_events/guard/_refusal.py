"""`Refused`: the HTTP response or WebSocket close for a request that is refused. Pure.

Sources: RFC 6750 §3 (challenges, which status for what), RFC 9110 §10.2.3 (``Retry-After``), RFC 6455 §7.4.2 and the
IANA registry of WebSocket close codes (1013, and 4000 to 4999 for applications).
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

from jwt_events.errors import JWTEventsError

RefusalCode = Literal[
    "missing_token",
    "invalid_request",
    "invalid_position",
    "invalid_token",
    "revoked_token",
    "expired_token",
    "another_subject",
    "older_token",
    "insufficient_scope",
    "stale_revocations",
    "unavailable",
]
"""Why a request is refused, as a constant for programs."""

_MAX_RETRY_AFTER = 3600.0
_NOT_MODIFIED = 304  # lets a client go on with what it has


class _Response(NamedTuple):
    status: int
    challenge: str | None  # the error of RFC 6750 §3.1 that the challenge names
    close_code: int
    text: str


_RESPONSES: dict[RefusalCode, _Response] = {
    "missing_token": _Response(401, None, 4401, "a bearer token is required"),
    "invalid_request": _Response(400, "invalid_request", 4400, "one well-formed bearer token is required"),
    "invalid_position": _Response(400, "invalid_request", 4400, "what should be the position of an event is none"),
    "invalid_token": _Response(401, "invalid_token", 4401, "the token is invalid or has expired"),
    "revoked_token": _Response(401, "invalid_token", 4401, "the token was revoked"),
    "expired_token": _Response(401, "invalid_token", 4401, "the token has expired"),
    "another_subject": _Response(401, "invalid_token", 4401, "the new token is not about the same user and client"),
    "older_token": _Response(401, "invalid_token", 4401, "the new token is older than the one in use"),
    "insufficient_scope": _Response(403, "insufficient_scope", 4403, "the token lacks a scope that is required"),
    "stale_revocations": _Response(503, None, 1013, "whether the token was revoked is not known at the moment"),
    "unavailable": _Response(503, None, 1013, "whether the token is valid is not known at the moment"),
}


def is_refusal(status: object) -> bool:
    """Return whether a status refuses a request: a redirection or an error that an HTTP server can send."""
    return isinstance(status, int) and 300 <= status <= 599 and status != _NOT_MODIFIED


class Refused(JWTEventsError):
    """A request that is refused, with the response to its client. It contains no part of the token.

    Attributes:
        code: the reason: ``missing_token``, ``invalid_request``, ``invalid_position``, ``invalid_token``,
            ``revoked_token``, ``expired_token``, ``another_subject``, ``older_token``, ``insufficient_scope``,
            ``stale_revocations`` or ``unavailable``.
        status: the HTTP status. 401: get another token. 403: get one with the scopes in the challenge. 400: the request
            is malformed. 503: the same token may be accepted in a moment; a 401 would make clients discard valid
            tokens.
        headers: the HTTP headers: ``WWW-Authenticate`` with 400, 401 and 403, ``Retry-After`` with 503.
        body: the response body, to send as JSON.
        close_code: the code to close a WebSocket with instead: 4401, 4400, 4403, or 1013 ("try again later").
    """

    def __init__(
        self,
        code: RefusalCode,
        *,
        realm: str | None = None,
        retry_after: float | None = None,
        scope: str | None = None,
    ) -> None:
        response = _RESPONSES[code]
        super().__init__(response.text)
        self.code = code
        self.status: int = response.status
        self.close_code: int = response.close_code
        self.body: dict[str, Any] = {"detail": {"error": code, "error_description": response.text}}
        if response.status == 503:
            seconds = math.ceil(min(max(1.0, retry_after or 1.0), _MAX_RETRY_AFTER))
            self.headers: dict[str, str] = {"Retry-After": str(seconds)}
        else:
            self.headers = {"WWW-Authenticate": _challenge(realm, response, scope)}


def _challenge(realm: str | None, response: _Response, scope: str | None) -> str:
    parameters = {"realm": realm}
    if response.challenge is not None:
        parameters |= {"error": response.challenge, "error_description": response.text, "scope": scope}
    listed = ", ".join(f'{name}="{value}"' for name, value in parameters.items() if value is not None)
    return f"Bearer {listed}".rstrip()
