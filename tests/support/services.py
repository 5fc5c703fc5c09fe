"""The same small service in each web framework, on a real server on this machine.

=============  ====================================================================================
``/me``        the claims as JSON
``/public``    needs no token
``/ready``     readiness
``/events``    a response that says ``hello`` and then waits for ever
``/feed``      a WebSocket that replies with the user and the message
``/browser``   the same, which also takes the token from the query
``/flood``     a WebSocket that sends without end
=============  ====================================================================================
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from aiohttp import web
from fastapi import Depends, FastAPI, Request, WebSocket
from fastapi.responses import StreamingResponse

import jwt_events.aiohttp
import jwt_events.fastapi
from jwt_events import RevocationList
from tests.support.waiting import scaled, wait_until

FRAMEWORKS = ("aiohttp", "fastapi")


@dataclass
class Service:
    """A running service.

    Attributes:
        address: its host and port.
        begun: count of long-lived requests that were started.
        ended: count of long-lived requests that have ended.
        never: an event that is never set.
        flood: the task that serves ``/flood``.
    """

    address: str = ""
    begun: int = 0
    ended: int = 0
    never: asyncio.Event = field(default_factory=asyncio.Event)
    flood: asyncio.Task[Any] | None = None

    @property
    def url(self) -> str:
        """The address of the service."""
        return f"http://{self.address}"

    async def greetings(self) -> AsyncIterator[bytes]:
        """Yield a greeting, then wait for ever."""
        self.begun += 1
        try:
            yield b"data: hello\n\n"
            await self.never.wait()
        finally:
            self.ended += 1

    async def all_ended(self) -> None:
        """Wait until all long-lived requests have ended."""
        await wait_until(lambda: self.begun == self.ended, what=lambda: f"{self.begun - self.ended} more to end")


@asynccontextmanager
async def serving(
    framework: str, revocations: RevocationList, decode: Callable[[str], Any], **options: Any
) -> AsyncIterator[Service]:
    """Run the service in one of the frameworks; the options are those of the guard."""
    service = Service()
    async with AsyncExitStack() as stack:
        if framework == "aiohttp":
            server = aiohttp_server(_aiohttp_app(service, revocations, decode, **options))
        else:
            server = uvicorn_server(_fastapi_app(service, revocations, decode, **options))
        service.address = await stack.enter_async_context(server)
        yield service


def _fastapi_app(
    service: Service, revocations: RevocationList, decode: Callable[[str], Any], **options: Any
) -> FastAPI:
    guard = jwt_events.fastapi.BearerGuard[Mapping[str, Any]](revocations, decode, **options)
    from_query = jwt_events.fastapi.WebSocketGuard(guard, token=lambda websocket: websocket.query_params.get("token"))
    app = FastAPI(lifespan=jwt_events.fastapi.lifespan(revocations))
    app.include_router(jwt_events.fastapi.readiness_router(revocations))

    @app.get("/me")
    async def me(claims: Mapping[str, Any] = Depends(guard)) -> Mapping[str, Any]:
        return claims

    @app.get("/public")
    async def public() -> str:
        return "hello"

    @app.get("/events", dependencies=[Depends(guard)])
    async def events(request: Request) -> StreamingResponse:
        return StreamingResponse(guard.until_revoked(request, service.greetings()), media_type="text/event-stream")

    async def serve(websocket: WebSocket, claims: Mapping[str, Any]) -> None:
        await websocket.accept()
        service.begun += 1
        try:
            async for text in websocket.iter_text():
                await websocket.send_text(f"{claims['sub']}: {text}")
        finally:
            service.ended += 1

    @app.websocket("/feed")
    async def feed(
        websocket: WebSocket, claims: Mapping[str, Any] = Depends(jwt_events.fastapi.WebSocketGuard(guard))
    ) -> None:
        await serve(websocket, claims)

    @app.websocket("/browser")
    async def browser(websocket: WebSocket, claims: Mapping[str, Any] = Depends(from_query)) -> None:
        await serve(websocket, claims)

    @app.websocket("/flood", dependencies=[Depends(jwt_events.fastapi.WebSocketGuard(guard))])
    async def flood(websocket: WebSocket) -> None:
        await websocket.accept()
        service.flood = asyncio.current_task()
        while True:
            await websocket.send_bytes(bytes(100_000))
            service.begun += 1

    return app


def _aiohttp_app(
    service: Service, revocations: RevocationList, decode: Callable[[str], Any], **options: Any
) -> web.Application:
    guard = jwt_events.aiohttp.BearerGuard[Mapping[str, Any]](revocations, decode, **options)

    async def me(request: web.Request) -> web.Response:
        return web.json_response(dict(guard.claims(request)))

    @jwt_events.aiohttp.public
    async def public(request: web.Request) -> web.Response:
        return web.json_response("hello")

    async def events(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        async for item in guard.until_revoked(request, service.greetings()):
            await response.write(item)
        return response

    async def serve(request: web.Request, websocket: web.WebSocketResponse) -> None:
        service.begun += 1
        try:
            async for message in websocket:
                await websocket.send_str(f"{guard.claims(request)['sub']}: {message.data}")
        finally:
            service.ended += 1

    async def flood(request: web.Request, websocket: web.WebSocketResponse) -> None:
        service.flood = asyncio.current_task()
        while True:
            await websocket.send_bytes(bytes(100_000))
            service.begun += 1

    app = web.Application(middlewares=[guard.middleware()])
    app.router.add_get("/flood", guard.websocket()(flood))
    app.cleanup_ctx.append(jwt_events.aiohttp.lifespan(revocations))
    app.router.add_get("/me", me)
    app.router.add_get("/public", public)
    app.router.add_get("/ready", jwt_events.aiohttp.readiness_handler(revocations))
    app.router.add_get("/events", events)
    app.router.add_get("/feed", guard.websocket()(serve))
    app.router.add_get("/browser", guard.websocket(token=lambda request: request.query.get("token"))(serve))
    return app


# uvicorn (0.54, websockets-sansio) logs this for every WebSocket that was refused properly by an HTTP response.
_UNJUST = "ASGI callable returned without completing handshake."


class _Errors(logging.Handler):
    def __init__(self, *expected: str) -> None:
        super().__init__(logging.ERROR)
        self.expected = {_UNJUST, *expected}
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the text of a record."""
        if record.getMessage() not in self.expected:
            self.texts.append(self.format(record))


@contextmanager
def without_errors(*expected: str) -> Iterator[None]:
    """Fail if the server logs an error that is not expected."""
    errors = _Errors(*expected)
    logging.getLogger().addHandler(errors)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(errors)
    assert errors.texts == []


@asynccontextmanager
async def uvicorn_server(app: Any, *, expected: tuple[str, ...] = (), **options: Any) -> AsyncIterator[str]:
    """Run an ASGI application, which may log the expected errors and no other; return its address."""
    with without_errors(*expected), socket.create_server(("127.0.0.1", 0)) as listener:
        # A short graceful shutdown: a client that is still connected is a mistake of the test, and fails it.
        config = uvicorn.Config(app, log_config=None, lifespan="on", timeout_graceful_shutdown=5, **options)
        server = uvicorn.Server(config)
        running = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            await wait_until(lambda: server.started or running.done(), what="the start of uvicorn")
            yield address_of(listener)
        finally:
            server.should_exit = True
            await running


@asynccontextmanager
async def aiohttp_server(app: web.Application, **options: Any) -> AsyncIterator[str]:
    """Run an aiohttp application; return its address."""
    runner = web.AppRunner(app, shutdown_timeout=scaled(5), **options)
    with without_errors():
        await runner.setup()
        try:
            listener = socket.create_server(("127.0.0.1", 0))  # closed by the runner
            await web.SockSite(runner, listener).start()
            yield address_of(listener)
        finally:
            await runner.cleanup()


def address_of(listener: socket.socket) -> str:
    """Return the address that a server listens to."""
    host, port = listener.getsockname()
    return f"{host}:{port}"
