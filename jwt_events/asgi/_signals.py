"""Endpoints for signals as plain ASGI applications, for every ASGI server and framework.

::

    app = logout_router(publisher, LogoutTokens(issuer, client_id, keys))

An application may be mounted, or run as it is; it replies to its path alone, and with 404 to all others.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from jwt_events.asgi._types import App, Receive, Scope, Send
from jwt_events.publisher import Publisher
from jwt_events.signals import LogoutEndpoint, LogoutTokens, Response, SecurityEvents, SetEndpoint


def logout_router(publisher: Publisher, tokens: LogoutTokens, path: str = "/backchannel-logout", **options: Any) -> App:
    """Return an application that receives logout tokens (OpenID Connect Back-Channel Logout 1.0).

    It replies 200 when the server has the event, else 400 with JSON.

    Args:
        publisher: publishes the events; open it before.
        tokens: verifies the tokens.
        path: the path to reply to.
        options: ``rate``, requests per second, by default 500; and ``metrics``.

    Raises:
        InvalidOption: an option cannot work.
    """
    return _application(LogoutEndpoint(publisher, tokens, **options), path)


def set_router(publisher: Publisher, events: SecurityEvents, path: str = "/events", **options: Any) -> App:
    """Return an application that receives security event tokens that are pushed (RFC 8935).

    It replies 202 when the server has the events, 400 with the code of a refusal, 401 without the right authorization,
    and 503 if the sender should try again.

    Args:
        publisher: publishes the events; open it before.
        events: verifies the tokens.
        path: the path to reply to.
        options: ``authorization``, the value that this header must have, or a function that returns whether its value
            is right; ``verification``, a function that returns whether it expects the ``state`` of a verification event
            (without it each state is refused); ``on_status``, which is called with the new status of the stream;
            ``rate`` and ``metrics``.

    Raises:
        InvalidOption: an option cannot work.
    """
    return _application(SetEndpoint(publisher, events, **options), path)


def _application(endpoint: LogoutEndpoint | SetEndpoint, path: str) -> App:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"only HTTP is served here, not {scope['type']}")
        here = str(scope["path"]).removeprefix(scope.get("root_path", "")) or "/"
        if here != path and scope["path"] != path:
            await _send(send, Response(404))
            return
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        await _send(send, await endpoint.respond(scope["method"], headers, _chunks(receive)))

    return app


async def _chunks(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ConnectionError("the client left before its body was complete")
        yield message.get("body", b"")
        if not message.get("more_body", False):
            return


async def _send(send: Send, response: Response) -> None:
    headers = response.headers | {"Content-Length": str(len(response.body))}
    encoded = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": response.status, "headers": encoded})
    await send({"type": "http.response.body", "body": response.body})
