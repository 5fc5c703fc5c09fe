"""The small service of `tests.support.services` behind `BearerMiddleware`, in frameworks without a guard of their own.

Starlette and Litestar run on uvicorn, Quart on hypercorn. ``/browser`` is missing: the middleware looks for tokens in
headers and cookies only. Besides there are these:

==================  ================================================================================
``/mount/me``       the claims as JSON, of an application that is mounted
``/static/*``       public files
``/private``        needs a token; answers ``private``
``/logout``         revokes the token of the request, then answers
``/file``           a response of an announced length that stops in the middle
==================  ================================================================================
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import hypercorn
import hypercorn.asyncio
import litestar
import quart
from litestar.response import Response as LitestarResponse
from litestar.response import Stream
from litestar.static_files import create_static_files_router
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

from jwt_events import RevocationList, TokenRevoked
from jwt_events.asgi import BearerMiddleware
from jwt_events.guard import Guard, readiness_of
from tests.support import services
from tests.support.services import Service, address_of, uvicorn_server, without_errors

FRAMEWORKS = (*services.FRAMEWORKS, "starlette", "litestar", "quart")
ASGI_FRAMEWORKS = ("starlette", "litestar", "quart")

PUBLIC = ("/public", "/ready", "/static/*")


@asynccontextmanager
async def serving(
    framework: str, revocations: RevocationList, decode: Callable[[str], Any], **options: Any
) -> AsyncIterator[Service]:
    """Run the service in one of the five frameworks; the options are those of the guard."""
    if framework in services.FRAMEWORKS:
        async with services.serving(framework, revocations, decode, **options) as service:
            yield service
        return
    service = Service()
    app = app_of(framework, service, revocations)
    guarded = BearerMiddleware(app, Guard(revocations, decode, **options), public=PUBLIC)
    async with AsyncExitStack() as stack:
        server = hypercorn_server(guarded) if framework == "quart" else uvicorn_server(guarded)
        service.address = await stack.enter_async_context(server)
        yield service


def app_of(framework: str, service: Service, revocations: RevocationList) -> Any:
    """Return the application without its guard."""
    make = {"starlette": _starlette_app, "litestar": _litestar_app, "quart": _quart_app}[framework]
    return make(service, revocations)


def _log_out(revocations: RevocationList, claims: Mapping[str, Any]) -> None:
    revocations.apply(TokenRevoked.from_claims(claims))


async def half_a_file(service: Service) -> AsyncIterator[bytes]:
    """Yield the first half of ten bytes, then wait for ever."""
    service.begun += 1
    try:
        yield b"01234"
        await service.never.wait()
    finally:
        service.ended += 1


def _starlette_app(service: Service, revocations: RevocationList) -> Starlette:  # noqa: C901 - one handler after the other
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with revocations:
            yield

    async def me(request: Request) -> Response:
        return JSONResponse(dict(request.state.claims))

    async def public(request: Request) -> Response:
        return JSONResponse("hello" if request.state.claims is None else "?")

    async def ready(request: Request) -> Response:
        status, body = readiness_of(revocations)
        return JSONResponse(body, status, {"Cache-Control": "no-store"})

    async def events(request: Request) -> Response:
        return StreamingResponse(service.greetings(), media_type="text/event-stream")

    async def private(request: Request) -> Response:
        return PlainTextResponse("private")

    async def logout(request: Request) -> Response:
        _log_out(revocations, request.state.claims)
        await asyncio.sleep(0)
        return PlainTextResponse("bye")

    async def file(request: Request) -> Response:
        return StreamingResponse(half_a_file(service), headers={"Content-Length": "10"})

    async def feed(websocket: WebSocket) -> None:
        await websocket.accept()
        service.begun += 1
        try:
            async for text in websocket.iter_text():
                await websocket.send_text(f"{websocket.state.claims['sub']}: {text}")
        finally:
            service.ended += 1

    async def flood(websocket: WebSocket) -> None:
        await websocket.accept()
        service.flood = asyncio.current_task()
        while True:
            await websocket.send_bytes(bytes(100_000))
            service.begun += 1

    routes = [
        Route("/me", me),
        Route("/public", public),
        Route("/ready", ready),
        Route("/events", events),
        Route("/private", private),
        Route("/logout", logout),
        Route("/file", file),
        WebSocketRoute("/feed", feed),
        WebSocketRoute("/flood", flood),
        Mount("/mount", Starlette(routes=[Route("/me", me)])),
        Mount("/static", StaticFiles(directory=Path(__file__).parent)),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


def _litestar_app(service: Service, revocations: RevocationList) -> litestar.Litestar:  # noqa: C901 - one handler after the other
    @asynccontextmanager
    async def lifespan(app: litestar.Litestar) -> AsyncIterator[None]:
        async with revocations:
            yield

    @litestar.get("/me")
    async def me(request: litestar.Request[Any, Any, Any]) -> dict[str, Any]:
        return dict(request.scope["state"]["claims"])

    @litestar.get("/public", media_type="application/json")
    async def public(request: litestar.Request[Any, Any, Any]) -> str:
        return '"hello"' if request.scope["state"]["claims"] is None else "?"

    @litestar.get("/ready")
    async def ready() -> LitestarResponse[dict[str, Any]]:
        status, body = readiness_of(revocations)
        return LitestarResponse(body, status_code=status, headers={"Cache-Control": "no-store"})

    @litestar.get("/events")
    async def events() -> Stream:
        return Stream(service.greetings(), media_type="text/event-stream")

    @litestar.get("/private")
    async def private() -> str:
        return "private"

    @litestar.get("/logout", media_type="text/plain")
    async def logout(request: litestar.Request[Any, Any, Any]) -> str:
        _log_out(revocations, request.scope["state"]["claims"])
        await asyncio.sleep(0)
        return "bye"

    @litestar.get("/file")
    async def file() -> Stream:
        return Stream(half_a_file(service), headers={"Content-Length": "10"})

    @litestar.websocket("/feed")
    async def feed(socket: litestar.WebSocket[Any, Any, Any]) -> None:
        await socket.accept()
        service.begun += 1
        try:
            while True:
                text = await socket.receive_text()
                await socket.send_text(f"{socket.scope['state']['claims']['sub']}: {text}")
        except litestar.exceptions.WebSocketDisconnect:
            pass
        finally:
            service.ended += 1

    @litestar.websocket("/flood")
    async def flood(socket: litestar.WebSocket[Any, Any, Any]) -> None:
        await socket.accept()
        service.flood = asyncio.current_task()
        while True:
            await socket.send_bytes(bytes(100_000))
            service.begun += 1

    @litestar.asgi("/mount", is_mount=True, copy_scope=True)
    async def mount(scope: Any, receive: Any, send: Any) -> None:
        await JSONResponse(dict(scope["state"]["claims"]))(scope, receive, send)

    static = create_static_files_router(path="/static", directories=[Path(__file__).parent])
    handlers: list[Any] = [me, public, ready, events, private, logout, file, feed, flood, mount, static]
    return litestar.Litestar(handlers, lifespan=[lifespan], openapi_config=None)


def _quart_app(service: Service, revocations: RevocationList) -> quart.Quart:  # noqa: C901 - one handler after the other
    app = quart.Quart(__name__, static_folder=str(Path(__file__).parent), static_url_path="/static")
    app.config["RESPONSE_TIMEOUT"] = None
    stack = AsyncExitStack()

    @app.before_serving
    async def start() -> None:
        await stack.enter_async_context(revocations)

    @app.after_serving
    async def end() -> None:
        await stack.aclose()

    def claims() -> dict[str, Any]:
        connection: Any = quart.request if quart.has_request_context() else quart.websocket
        found: dict[str, Any] = connection.scope["state"]["claims"]
        return found

    @app.get("/me")
    @app.get("/mount/me")
    async def me() -> dict[str, Any]:
        return claims()

    @app.get("/public")
    async def public() -> quart.Response:
        return quart.jsonify("hello" if claims() is None else "?")

    @app.get("/ready")
    async def ready() -> tuple[dict[str, Any], int, dict[str, str]]:
        status, body = readiness_of(revocations)
        return body, status, {"Cache-Control": "no-store"}

    @app.get("/events")
    async def events() -> quart.Response:
        return quart.Response(service.greetings(), content_type="text/event-stream")

    @app.get("/private")
    async def private() -> str:
        return "private"

    @app.get("/logout")
    async def logout() -> str:
        _log_out(revocations, claims())
        await asyncio.sleep(0)
        return "bye"

    @app.get("/file")
    async def file() -> quart.Response:
        return quart.Response(half_a_file(service), headers={"Content-Length": "10"})

    @app.websocket("/feed")
    async def feed() -> None:
        await quart.websocket.accept()
        service.begun += 1
        try:
            while True:
                text = await quart.websocket.receive()
                await quart.websocket.send(f"{claims()['sub']}: {text!s}")
        finally:
            service.ended += 1

    @app.websocket("/flood")
    async def flood() -> None:
        await quart.websocket.accept()
        service.flood = asyncio.current_task()
        while True:
            await quart.websocket.send(bytes(100_000))
            service.begun += 1

    return app


@asynccontextmanager
async def hypercorn_server(app: Any, **options: Any) -> AsyncIterator[str]:
    """Run an ASGI application on hypercorn; return its address."""
    config = hypercorn.Config()
    config.accesslog = None
    config.errorlog = logging.getLogger("tests.hypercorn")
    config.graceful_timeout = 5.0
    for name, value in options.items():
        setattr(config, name, value)
    stop = asyncio.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    address = address_of(listener)
    config.bind = [f"fd://{listener.detach()}"]  # closed by hypercorn
    with without_errors():
        running = asyncio.create_task(hypercorn.asyncio.serve(app, config, shutdown_trigger=stop.wait))
        try:
            yield address
        finally:
            stop.set()
            await running
