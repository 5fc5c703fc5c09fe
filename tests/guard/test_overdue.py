"""Handlers that do not end when their token is revoked: their clients are not served any longer all the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx
import pytest
from aiohttp import web
from fastapi import Depends, FastAPI, Request, WebSocket
from fastapi.responses import StreamingResponse
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

import jwt_events.aiohttp
import jwt_events.fastapi
from jwt_events import MemoryTransport, RevocationList, TokenRevoked
from jwt_events.guard import OverdueClose
from tests.support.handling import publish, soon
from tests.support.records import recorded
from tests.support.services import FRAMEWORKS, aiohttp_server, uvicorn_server
from tests.support.tokens import bearer, decode, token_of
from tests.support.waiting import wait_until


class Stubborn:
    """Swallows every cancellation until it is released.

    Attributes:
        released: set it to let the handler end.
        begun: whether the handler was called.
        cancelled: how many cancellations it swallowed.
    """

    def __init__(self) -> None:
        self.released = asyncio.Event()
        self.begun = False
        self.cancelled = 0

    async def go_on(self) -> None:
        """Go on whatever happens."""
        self.begun = True
        while not self.released.is_set():
            try:
                await self.released.wait()
            except asyncio.CancelledError:
                self.cancelled += 1

    async def items(self) -> AsyncIterator[bytes]:
        """Say one thing, and never stop by itself."""
        yield b"data: hello\n\n"
        await self.go_on()


Serve = Callable[[], AbstractAsyncContextManager[str]]


@pytest.fixture
def transport() -> MemoryTransport:
    """Where revocations come from."""
    return MemoryTransport()


@pytest.fixture
def handler() -> Stubborn:
    """The handler that does not end."""
    return Stubborn()


@pytest.fixture(params=FRAMEWORKS)
def serve(request: pytest.FixtureRequest, transport: MemoryTransport, handler: Stubborn) -> Serve:
    """Runs a service with the handler behind a WebSocket and behind a stream; returns its address."""

    @asynccontextmanager
    async def run() -> AsyncIterator[str]:
        revocations = RevocationList(transport)
        make = _aiohttp_server if request.param == "aiohttp" else _fastapi_server
        async with make(revocations, handler) as address:
            try:
                yield address
            finally:
                handler.released.set()

    return run


def _aiohttp_server(revocations: RevocationList, handler: Stubborn) -> AbstractAsyncContextManager[str]:
    guard = jwt_events.aiohttp.BearerGuard[Mapping[str, Any]](revocations, decode)

    @guard.websocket()
    async def feed(request: web.Request, websocket: web.WebSocketResponse) -> None:
        await handler.go_on()

    async def events(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        async for item in guard.until_revoked(request, handler.items()):
            await response.write(item)
        return response

    app = web.Application(middlewares=[guard.middleware()])
    app.cleanup_ctx.append(jwt_events.aiohttp.lifespan(revocations))
    app.router.add_get("/feed", feed)
    app.router.add_get("/events", events)
    return aiohttp_server(app)


def _fastapi_server(revocations: RevocationList, handler: Stubborn) -> AbstractAsyncContextManager[str]:
    guard = jwt_events.fastapi.BearerGuard[Mapping[str, Any]](revocations, decode)
    app = FastAPI(lifespan=jwt_events.fastapi.lifespan(revocations))

    @app.websocket("/feed", dependencies=[Depends(jwt_events.fastapi.WebSocketGuard(guard))])
    async def feed(websocket: WebSocket) -> None:
        await websocket.accept()
        await handler.go_on()

    @app.get("/events", dependencies=[Depends(guard)])
    async def events(request: Request) -> StreamingResponse:
        return StreamingResponse(guard.until_revoked(request, handler.items()))

    return uvicorn_server(app)


async def test_websocket(serve: Serve, transport: MemoryTransport, handler: Stubborn) -> None:
    """A WebSocket is closed with 4401 a second after the revocation, though its handler swallows the cancellation."""
    token = token_of()
    async with serve() as address, connect(f"ws://{address}/feed", additional_headers=bearer(token)) as websocket:
        await wait_until(lambda: handler.begun)
        with recorded() as records:
            await publish(transport, TokenRevoked.from_claims(decode(token)))
            with pytest.raises(ConnectionClosed):
                await soon(websocket.recv(), within=30)
        assert websocket.close_code == 4401
        assert handler.cancelled > 1
        assert records.of("handler goes on although its token is no longer good", "ERROR")


async def test_stream(serve: Serve, transport: MemoryTransport, handler: Stubborn) -> None:
    """A response is ended a second after the revocation, though what makes its items swallows the cancellation."""
    token = token_of()
    async with serve() as address, httpx.AsyncClient(base_url=f"http://{address}", timeout=None) as client:
        async with client.stream("GET", "/events", headers=bearer(token)) as response:
            chunks = response.aiter_bytes()
            assert await soon(anext(chunks)) == b"data: hello\n\n"
            await wait_until(lambda: handler.begun)
            await publish(transport, TokenRevoked.from_claims(decode(token)))
            with pytest.raises((StopAsyncIteration, httpx.RemoteProtocolError)):
                await soon(anext(chunks), within=30)
        handler.released.set()


async def test_ends_in_time() -> None:
    """What ends within the grace period is not closed from outside."""
    closed: list[str] = []

    async def close() -> None:
        closed.append("closed")

    async with OverdueClose(close) as overdue:
        overdue.start()
    async with OverdueClose(None) as overdue:
        pass
    assert closed == []


async def test_closing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """When closing fails, that is logged, and the handler goes on as it would."""
    monkeypatch.setattr("jwt_events.guard._overdue.GRACE", 0.0)

    async def close() -> None:
        raise OSError("gone")

    with recorded() as records:
        async with OverdueClose(close) as overdue:
            overdue.start()
            await wait_until(lambda: records.of("closing a connection failed", "ERROR"))
