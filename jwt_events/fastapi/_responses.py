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


def refusal(connection: HTTPConnection, error: Exception) -> Exception:
    """Return the exception that FastAPI makes a refusal of; what ``decode`` raised for itself stays as it is."""
    is_websocket = connection.scope["type"] == "websocket"
    if is_websocket and "websocket.http.response" not in (connection.scope.get("extensions") or {}):
        if isinstance(error, Refused):
            return WebSocketException(error.close_code, error.code)
        if isinstance(error, StarletteHTTPException):
            return WebSocketException(4000 + min(error.status_code, 999))
    if isinstance(error, Refused):
        return HTTPException(error.status, error.body["detail"], dict(error.headers))
    return error


async def close_websocket(websocket: WebSocket, refused: Refused) -> None:
    if websocket.application_state is WebSocketState.CONNECTING:
        raise refusal(websocket, refused)
    if WebSocketState.DISCONNECTED not in (websocket.application_state, websocket.client_state):
        with suppress(WebSocketDisconnect, TimeoutError):
            async with timeout(_CLOSE_TIMEOUT):
                await websocket.close(refused.close_code, refused.code)
