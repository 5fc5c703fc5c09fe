"""The parts that only aiohttp has: middleware, application keys, decorated WebSocket handlers."""

from __future__ import annotations

import asyncio
import functools
import gc
import warnings
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from jwt_events import InvalidOption, MemoryTransport, Publisher, RevocationList, TokenRevoked
from jwt_events.aiohttp import PUBLISHER, REVOCATIONS, SUBSCRIBER, BearerGuard, lifespan, public, readiness_handler
from tests.support.handling import publish, soon
from tests.support.services import aiohttp_server
from tests.support.tokens import bearer, decode, token_of
from tests.support.waiting import scaled, wait_until


@pytest.fixture
def transport() -> MemoryTransport:
    """The transport of the revocation list."""
    return MemoryTransport()


@pytest.fixture
def revocations(transport: MemoryTransport) -> RevocationList:
    """An open revocation list."""
    return RevocationList(transport, max_staleness=scaled(5))


@pytest.fixture
def guard(revocations: RevocationList) -> BearerGuard[dict[str, Any]]:
    """A guard."""
    return BearerGuard(revocations, decode)


@pytest.fixture
def app(revocations: RevocationList, guard: BearerGuard[Any]) -> web.Application:
    """An application whose middleware guards all that is not public."""
    app = web.Application(middlewares=[guard.middleware(is_public=lambda request: request.path.startswith("/docs/"))])
    app.cleanup_ctx.append(lifespan(revocations))
    return app


@asynccontextmanager
async def client_of(app: web.Application, **options: Any) -> AsyncIterator[aiohttp.ClientSession]:
    """Run an application on a real server; return a client of it."""
    async with aiohttp_server(app, **options) as address, aiohttp.ClientSession(f"http://{address}") as client:
        yield client


async def status(client: aiohttp.ClientSession, path: str, headers: Mapping[str, str] | None = None) -> int:
    """Request a path and return the status of the response."""
    async with client.get(path, headers=headers) as response:
        return response.status


async def hello(request: web.Request) -> web.Response:
    """Answer."""
    return web.Response(text="hello")


@public
class Open(web.View):
    """A public view."""

    async def get(self) -> web.Response:
        """Answer."""
        return web.Response()


class Narrower(Open):
    """A view that inherits from it."""


class TestMiddleware:
    """The middleware: which requests need a token."""

    async def test_exempt(self, app: web.Application) -> None:
        """Public handlers and paths need no token; all other paths do, even those that do not exist."""
        inner = web.Application()
        inner.router.add_get("/closed", hello)
        inner.router.add_view("/open", Open)
        app.add_subapp("/inner", inner)
        app.router.add_get("/docs/page", hello)
        app.router.add_get("/closed", hello)
        app.router.add_view("/open", Open)
        app.router.add_view("/narrower", Narrower)
        async with client_of(app) as client:
            for path in ("/open", "/inner/open", "/docs/page"):
                assert await status(client, path) == 200, path
            for path in ("/closed", "/inner/closed", "/narrower", "/missing"):
                assert await status(client, path) == 401, path
            headers = bearer(token_of())
            assert await status(client, "/inner/closed", headers) == 200
            assert await status(client, "/missing", headers) == 404
            assert await status(client, "/docs/missing") == 404

    async def test_claims_of_a_public_request(self, app: web.Application, guard: BearerGuard[Any]) -> None:
        """Asking for the claims of a request that was not guarded is an error that says so."""
        raised: list[Exception] = []

        @public
        async def handler(request: web.Request) -> web.Response:
            try:
                guard.claims(request)
            except InvalidOption as error:
                raised.append(error)
            return web.Response()

        app.router.add_get("/", handler)
        async with client_of(app) as client:
            assert await status(client, "/", bearer(token_of())) == 200
        assert len(raised) == 1

    async def test_two_guards(self, revocations: RevocationList, guard: BearerGuard[Any]) -> None:
        """Each guard keeps its own admission of a request."""
        names = BearerGuard(revocations, lambda token: decode(token)["sub"], claims_of=lambda name: {"sub": name})

        async def handler(request: web.Request) -> web.Response:
            return web.json_response([guard.claims(request)["sub"], names.claims(request)])

        @guard.websocket(token=lambda request: request.query.get("token"))
        async def feed(request: web.Request, websocket: web.WebSocketResponse) -> None: ...

        app = web.Application(middlewares=[guard.middleware(), names.middleware()])
        app.cleanup_ctx.append(lifespan(revocations))
        app.router.add_get("/", handler)
        app.router.add_get("/feed", feed)
        async with client_of(app) as client:
            async with client.get("/", headers=bearer(token_of())) as response:
                assert await response.json() == ["alice", "alice"]
            assert await status(client, f"/feed?token={token_of()}") == 401

    def test_options(self, guard: BearerGuard[Any]) -> None:
        """An option that is not callable is refused at once."""
        with pytest.raises(InvalidOption):
            guard.middleware(is_public="/docs")  # type: ignore[arg-type]  # the wrong type is under test
        with pytest.raises(InvalidOption):
            guard.websocket(token="token")  # type: ignore[arg-type]  # the wrong type is under test


class TestLifespan:
    """`lifespan`: opening and closing resources."""

    async def test_keys(self, transport: MemoryTransport, revocations: RevocationList) -> None:
        """Handlers find the opened resources in the application; a second one of a kind is opened, too."""
        publisher, second = Publisher(transport), RevocationList(transport)
        app = web.Application()
        app.cleanup_ctx.append(lifespan(revocations, publisher, second))
        async with client_of(app):
            assert (app[REVOCATIONS], app[PUBLISHER], SUBSCRIBER in app) == (revocations, publisher, False)
            assert revocations.is_fresh
            assert second.is_fresh
        assert not revocations.is_fresh

    async def test_failure(self, revocations: RevocationList) -> None:
        """If one cannot be opened, those before it are closed and the application does not start."""

        @asynccontextmanager
        async def broken() -> AsyncIterator[None]:
            assert revocations.is_fresh
            raise LookupError
            yield

        app = web.Application()
        app.cleanup_ctx.append(lifespan(revocations, broken()))
        with pytest.raises(LookupError):
            async with client_of(app):
                pass
        assert revocations.state == "closed"

    def test_no_resource(self) -> None:
        """A value that is not a context manager is refused at once, with its type."""
        with pytest.raises(InvalidOption, match="not str"):
            lifespan("redis://:password@localhost")  # type: ignore[arg-type]  # the wrong type is under test

    async def test_readiness_while_closed(self, app: web.Application) -> None:
        """A list that is not open is not ready; the readiness route needs no token."""
        app.router.add_get("/ready", readiness_handler(RevocationList(MemoryTransport())))
        async with client_of(app) as client, client.get("/ready") as response:
            assert response.status == 503
            assert (await response.json())["revocations"] == [{"state": "closed", "staleness": None}]


class TestWebSockets:
    """WebSocket handlers by `BearerGuard.websocket`."""

    async def test_without_middleware(self, revocations: RevocationList, guard: BearerGuard[Any]) -> None:
        """A WebSocket is guarded without the middleware, and takes the options of aiohttp's response."""

        @guard.websocket(protocols=["chat"])
        async def chat(request: web.Request, websocket: web.WebSocketResponse) -> None:
            await websocket.send_str(guard.claims(request)["sub"])

        app = web.Application()
        app.cleanup_ctx.append(lifespan(revocations))
        app.router.add_get("/chat", chat)
        async with client_of(app) as client:
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                await client.ws_connect("/chat")
            assert caught.value.status == 401
            async with client.ws_connect("/chat", headers=bearer(token_of()), protocols=["chat"]) as websocket:
                assert (await soon(websocket.receive_str()), websocket.protocol) == ("alice", "chat")
                assert (await soon(websocket.receive())).type is aiohttp.WSMsgType.CLOSE
                assert websocket.close_code == 1000

    async def test_decorated(self, app: web.Application, guard: BearerGuard[Any]) -> None:
        """What a decorator makes of a handler is guarded, too, and finds the token of a WebSocket where that does."""
        asked: list[str] = []

        def source(request: web.Request) -> str | None:
            asked.append(request.path)
            return request.query.get("token")

        @guard.websocket(token=source)
        async def feed(request: web.Request, websocket: web.WebSocketResponse) -> None:
            await websocket.send_str(guard.claims(request)["sub"])

        @functools.wraps(feed)
        async def newest(request: web.Request) -> web.StreamResponse:
            return await feed(request) if "Upgrade" in request.headers else web.Response(text="a secret")

        app.router.add_get("/newest", newest)
        app.router.add_get("/scoped", guard.requires("news")(newest))
        app.router.add_get("/feed", guard.requires("news")(feed))
        path = f"token={token_of(scope='news')}"
        async with client_of(app) as client:
            for name in ("/newest", "/scoped", "/feed"):
                assert await status(client, name) == 401, name
                assert await status(client, f"{name}?token=no") == 401, name
            assert await status(client, "/newest", bearer(token_of())) == 200
            assert await status(client, "/scoped", bearer(token_of())) == 403
            assert await status(client, f"/newest?{path}") == 401  # only of a WebSocket
            asked.clear()
            for name in ("/newest", "/scoped", "/feed"):
                async with client.ws_connect(f"{name}?{path}") as websocket:
                    assert await soon(websocket.receive_str()) == "alice", name
            assert asked == ["/newest", "/scoped", "/feed"]
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                await client.ws_connect(f"/scoped?token={token_of()}")
            assert caught.value.status == 403

    async def test_no_handshake(self, app: web.Application, guard: BearerGuard[Any]) -> None:
        """A request that asks for no WebSocket is refused, and leaves nothing behind of which Python warns."""

        @guard.websocket()
        async def feed(request: web.Request, websocket: web.WebSocketResponse) -> None: ...

        app.router.add_get("/feed", feed)
        async with client_of(app) as client:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                assert await status(client, "/feed", bearer(token_of())) == 400
                gc.collect()
        assert [str(one.message) for one in caught] == []

    async def test_raised_response(self, revocations: RevocationList, guard: BearerGuard[Any]) -> None:
        """A response that is raised once a WebSocket is open closes it: it cannot be sent any more."""
        states: list[str] = []

        def verify(token: str) -> dict[str, Any]:
            if states:
                raise web.HTTPForbidden
            return decode(token)

        asking = BearerGuard(revocations, verify)

        @asking.websocket()
        async def ask(request: web.Request, websocket: web.WebSocketResponse) -> None:
            states.append("open")
            await asking.admission(request)

        app = web.Application()
        app.cleanup_ctx.append(lifespan(revocations))
        app.router.add_get("/ask", ask)
        async with client_of(app) as client, client.ws_connect("/ask", headers=bearer(token_of())) as websocket:
            await soon(websocket.receive())
            assert websocket.close_code == 4403

    async def test_during_the_handshake(
        self, app: web.Application, guard: BearerGuard[Any], transport: MemoryTransport, revocations: RevocationList
    ) -> None:
        """A WebSocket whose token is revoked during the handshake is closed, and never served."""
        token = token_of()
        served: list[web.Request] = []

        @guard.websocket()
        async def feed(request: web.Request, websocket: web.WebSocketResponse) -> None:
            served.append(request)

        async def revoke(request: web.Request, response: web.StreamResponse) -> None:
            await publish(transport, TokenRevoked.from_claims(decode(token)))
            await wait_until(lambda: not revocations.check(decode(token)), what="the revocation")

        app.router.add_get("/feed", feed)
        app.on_response_prepare.append(revoke)
        async with client_of(app) as client, client.ws_connect("/feed", headers=bearer(token)) as websocket:
            assert (await soon(websocket.receive())).type is aiohttp.WSMsgType.CLOSE
            assert (websocket.close_code, served) == (4401, [])


async def test_client_of_events_leaves(app: web.Application, guard: BearerGuard[Any]) -> None:
    """With handler cancellation, the iterator of the events ends when the client leaves."""
    ended = asyncio.Event()

    async def items() -> AsyncIterator[bytes]:
        try:
            yield b"data: hello\n\n"
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def events(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        async for item in guard.until_revoked(request, items()):
            await response.write(item)
        return response

    app.router.add_get("/events", events)
    async with client_of(app, handler_cancellation=True) as client:
        async with client.get("/events", headers=bearer(token_of())) as response:
            assert await soon(response.content.readany()) == b"data: hello\n\n"
        await wait_until(ended.is_set, what="the end of what makes the events")
