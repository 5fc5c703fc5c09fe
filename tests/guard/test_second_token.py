"""Admissions of one request: one for each token, and checked again when asked about again."""

# Annotations are not postponed here: FastAPI could not resolve those with local names.

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
import pytest
from aiohttp import web
from fastapi import Depends, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import StreamingResponse
from websockets.asyncio.client import connect

import jwt_events.aiohttp
import jwt_events.fastapi
from jwt_events import MemoryTransport, RevocationList, TokenRevoked
from jwt_events.guard import Refused
from tests.support.handling import soon
from tests.support.services import aiohttp_server, uvicorn_server
from tests.support.tokens import SECRET, bearer, decode, token_of
from tests.support.waiting import scaled, wait_until

STEP_UP = "X-Step-Up"


class Shop:
    """A service that asks about a second token, in each framework.

    Attributes:
        revocations: its list.
        verified: the tokens that it verified, in order.
        expired: whether ``decode`` calls every token expired.
        address: where it listens.
        events: what its stream of events waits for.
    """

    def __init__(self, framework: str) -> None:
        self.revocations = RevocationList(MemoryTransport(), max_staleness=scaled(5))
        self.verified: list[str] = []
        self.expired = False
        self.address = ""
        self.waiting = 0
        self._framework = framework

    def decode(self, token: str) -> dict[str, Any]:
        """Verify a token."""
        self.verified.append(token)
        if self.expired:
            raise ValueError
        return decode(token)

    async def ticks(self) -> AsyncIterator[bytes]:
        """Yield one event, and wait."""
        yield b"tick"
        self.waiting += 1
        await asyncio.Event().wait()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[httpx.AsyncClient]:
        """Run the service; return a client."""
        server = aiohttp_server(self._aiohttp()) if self._framework == "aiohttp" else uvicorn_server(self._fastapi())
        async with server as self.address, httpx.AsyncClient(timeout=scaled(30)) as client:
            client.base_url = httpx.URL(f"http://{self.address}")
            yield client

    def _fastapi(self) -> FastAPI:
        guard = jwt_events.fastapi.BearerGuard(self.revocations, self.decode)
        app = FastAPI(lifespan=jwt_events.fastapi.lifespan(self.revocations))

        @app.get("/transfer")
        async def transfer(request: Request, who: Annotated[Any, Depends(guard)]) -> list[str]:
            second = await guard.admission(request, token=request.headers.get(STEP_UP))
            first = await guard.admission(request)
            return [who["sub"], second.value["sub"], first.value["sub"]]

        @app.get("/events")
        async def events(request: Request, who: Annotated[Any, Depends(guard)]) -> StreamingResponse:
            await guard.admission(request, token=request.headers.get(STEP_UP))
            return StreamingResponse(guard.until_revoked(request, self.ticks()))

        @app.websocket("/feed")
        async def feed(websocket: WebSocket, who: Annotated[Any, Depends(guard)]) -> None:
            await websocket.accept()
            async for text in websocket.iter_text():
                try:
                    await guard.admission(websocket, token=text or None)
                except HTTPException as refused:
                    await websocket.send_text(f"{refused.status_code}")
                else:
                    await websocket.send_text("in")

        @app.websocket("/first-message")
        async def first_message(websocket: WebSocket) -> None:
            await websocket.accept()
            await guard.admission(websocket, token=await websocket.receive_text())
            await websocket.send_text("in")

        return app

    def _aiohttp(self) -> web.Application:
        guard = jwt_events.aiohttp.BearerGuard(self.revocations, self.decode)

        async def transfer(request: web.Request) -> web.Response:
            second = await guard.admission(request, token=request.headers.get(STEP_UP))
            first = await guard.admission(request)
            return web.json_response([guard.claims(request)["sub"], second.value["sub"], first.value["sub"]])

        async def events(request: web.Request) -> web.StreamResponse:
            await guard.admission(request, token=request.headers.get(STEP_UP))
            response = web.StreamResponse()
            await response.prepare(request)
            async for item in guard.until_revoked(request, self.ticks()):
                await response.write(item)
            return response

        async def feed(request: web.Request) -> web.WebSocketResponse:
            websocket = web.WebSocketResponse()
            await websocket.prepare(request)
            async for message in websocket:
                try:
                    await guard.admission(request, token=message.data or None)
                except Refused as refused:
                    await websocket.send_str(f"{refused.status}")
                else:
                    await websocket.send_str("in")
            return websocket

        @guard.websocket(token=lambda request: token_of("anyone"))
        async def first_message(request: web.Request, websocket: web.WebSocketResponse) -> None:
            await guard.admission(request, token=await websocket.receive_str())
            await websocket.send_str("in")

        async def late(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            await response.write(b"begun")
            await guard.admission(request, token=request.headers.get(STEP_UP))
            return response

        app = web.Application(middlewares=[guard.middleware()])
        app.cleanup_ctx.append(jwt_events.aiohttp.lifespan(self.revocations))
        app.router.add_get("/first-message", first_message)
        app.router.add_get("/late", late)
        app.router.add_get("/transfer", transfer)
        app.router.add_get("/events", events)
        app.router.add_get("/feed", feed)
        return app


@pytest.fixture(params=["aiohttp", "fastapi"])
def shop(request: pytest.FixtureRequest) -> Shop:
    """A service that is not running yet."""
    return Shop(request.param)


class TestSecondToken:
    """A token besides that in the header."""

    async def test_other_user(self, shop: Shop) -> None:
        """The second token gives its own claims, and the first one keeps its own; each is verified once."""
        token, other = token_of(), token_of("bob")
        async with shop.open() as client:
            response = await client.get("/transfer", headers={**bearer(token), STEP_UP: other})
            assert response.json() == ["alice", "bob", "alice"]
            assert shop.verified == [token, other]
            assert (await client.get("/transfer", headers=bearer(token))).json() == ["alice"] * 3

    @pytest.mark.parametrize(
        "second",
        [
            pytest.param(lambda: "garbage", id="garbage"),
            pytest.param(lambda: token_of(exp=1), id="expired"),
            pytest.param(lambda: token_of(secret=SECRET[::-1]), id="forged"),
            pytest.param(lambda: token_of("mallory"), id="revoked"),
        ],
    )
    async def test_bad(self, shop: Shop, second: Callable[[], str]) -> None:
        """A second token that is not valid is refused, though the first one is good."""
        async with shop.open() as client:
            shop.revocations.apply(TokenRevoked(user_id="mallory"))
            response = await client.get("/transfer", headers={**bearer(token_of()), STEP_UP: second()})
            assert response.status_code == 401
            assert response.headers["WWW-Authenticate"].startswith('Bearer error="invalid_token"')

    @pytest.mark.parametrize("second", ["garbage", "no token"])
    async def test_first_message(self, shop: Shop, second: str) -> None:
        """A token that comes as the first message and is refused closes the WebSocket, as at any other time."""
        async with shop.open(), connect(f"ws://{shop.address}/first-message") as websocket:
            await websocket.send(second)
            await soon(websocket.wait_closed())
            assert websocket.close_code == (4401 if second == "garbage" else 4400)
            assert websocket.close_reason == ("invalid_token" if second == "garbage" else "invalid_request")

    async def test_too_late(self) -> None:
        """A refusal after the response has begun is no second response."""
        shop = Shop("aiohttp")

        async def ask() -> None:
            async with shop.open() as client:
                with pytest.raises(httpx.RemoteProtocolError):  # the response breaks off
                    await client.get("/late", headers={**bearer(token_of()), STEP_UP: "garbage"})

        with pytest.raises(AssertionError):  # as the server logs what its handler raised
            await ask()

    async def test_stream_depends_on_the_first(self, shop: Shop) -> None:
        """A stream ends with the token that the request was let in by, and not with another one."""
        token, other = token_of(), token_of("bob")
        headers = {**bearer(token), STEP_UP: other}
        async with shop.open() as client, client.stream("GET", "/events", headers=headers) as response:
            await wait_until(lambda: shop.waiting == 1)
            shop.revocations.apply(TokenRevoked(user_id="bob"))
            shop.revocations.apply(TokenRevoked.from_claims(decode(token)))
            assert await soon(response.aread()) == b"tick"


class TestAskedAgain:
    """The same token, asked about again."""

    @pytest.mark.parametrize("second", [False, True])
    async def test_revoked_websocket(self, shop: Shop, second: bool) -> None:
        """On an open WebSocket the answer changes when the token is revoked, also that of a second token."""
        token, other = token_of(), token_of("bob")
        async with shop.open(), self._feed(shop, token) as websocket:
            asked = other if second else ""
            await websocket.send(asked)
            assert await soon(websocket.recv()) == "in"
            shop.revocations.apply(TokenRevoked(user_id="bob" if second else "alice"))
            await websocket.send(asked)
            assert await soon(websocket.recv()) == "401"

    async def test_expired_websocket(self, shop: Shop) -> None:
        """On an open WebSocket the answer changes when ``decode`` calls the token expired."""
        async with shop.open(), self._feed(shop, token_of()) as websocket:
            await websocket.send("")
            assert await soon(websocket.recv()) == "in"
            shop.expired = True
            await websocket.send("")
            assert await soon(websocket.recv()) == "401"

    @pytest.mark.parametrize("exp", [None, "past"])
    async def test_unknown_expiry(self, exp: str | None) -> None:
        """Within a request, a token that is past its ``exp``, or has none among its claims, is verified again."""
        calls: list[str] = []

        def verify(token: str) -> dict[str, Any]:
            calls.append(token)
            if len(calls) == 3:
                raise ValueError
            return {"sub": token} | ({} if exp is None else {"exp": time.time() - 1})

        async with RevocationList(MemoryTransport(), max_staleness=scaled(5)) as revocations:
            guard = jwt_events.fastapi.BearerGuard(revocations, verify)
            request = Request({"type": "http", "headers": [(b"authorization", b"Bearer alice")]})
            assert (await guard.admission(request)).value["sub"] == "alice"
            assert (await guard.admission(request)).value["sub"] == "alice"
            with pytest.raises(HTTPException):
                await guard.admission(request)

    async def test_stale(self) -> None:
        """A list that went stale is asked again, too."""
        revocations = RevocationList(MemoryTransport(), max_staleness=scaled(5))
        guard = jwt_events.fastapi.BearerGuard(revocations, decode)
        request = Request({"type": "http", "headers": [(b"authorization", f"Bearer {token_of()}".encode())]})
        async with revocations:
            await guard.admission(request)
        with pytest.raises(HTTPException) as caught:
            await guard.admission(request)
        assert caught.value.status_code == 503

    @staticmethod
    def _feed(shop: Shop, token: str) -> connect:
        return connect(f"ws://{shop.address}/feed", additional_headers=bearer(token), open_timeout=scaled(30))
