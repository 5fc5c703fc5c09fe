"""What a client is sent: refusals as FastAPI sends them, and the ends of streams and WebSockets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

from fastapi import HTTPException, WebSocketException
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from jwt_events._internal.cancellation import timeout
from jwt_events.guard import Refused

_CLOSE_TIMEOUT = 5.0  # seconds for a client that does not read to take the close; then the server hangs up


def closing_response(connection: HTTPConnection) -> Callable[[], Awaitable[None]] | None:
    """Return a function that ends the response to a request; ``None`` for a connection that cannot send."""
    send = getattr(connection, "_send", None)  # Starlette passes it to the response only
    if send is None:
        return None

    async def close() -> None:
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return close


class RefusedWhileOpen(WebSocketException, HTTPException):
    """A refusal on a WebSocket that was accepted: no HTTP response can be sent any more, so it closes it.

    It is an `HTTPException` as well, as that is what an endpoint catches which asks the guard itself.
    """

    def __init__(self, response: StarletteHTTPException, code: int, reason: str | None = None) -> None:
        HTTPException.__init__(self, response.status_code, response.detail, response.headers)
        WebSocketException.__init__(self, code, reason)


def refusal(connection: HTTPConnection, error: Exception) -> Exception:
    """Return the exception that FastAPI makes a refusal of; what ``decode`` raised for itself stays as it is."""
    if isinstance(error, Refused):
        response: StarletteHTTPException = HTTPException(error.status, error.body["detail"], dict(error.headers))
        code, reason = error.close_code, error.code
    elif isinstance(error, StarletteHTTPException):
        response, code, reason = error, 4000 + min(error.status_code, 999), None
    else:
        return error
    if connection.scope["type"] != "websocket":
        return response
    if getattr(connection, "application_state", None) is WebSocketState.CONNECTED:
        return RefusedWhileOpen(response, code, reason)
    if "websocket.http.response" in (connection.scope.get("extensions") or {}):
        return response
    return WebSocketException(code, reason)


async def close_websocket(websocket: WebSocket, refused: Refused) -> None:
    if websocket.application_state is WebSocketState.CONNECTING:
        raise refusal(websocket, refused)
    if WebSocketState.DISCONNECTED not in (websocket.application_state, websocket.client_state):
        with suppress(WebSocketDisconnect, TimeoutError):
            async with timeout(_CLOSE_TIMEOUT):
                await websocket.close(refused.close_code, refused.code)
