"""WebSockets and streams that end with the expiry of their token, and WebSockets that go on with a new one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import httpx
import jwt
import pytest
from aiohttp import web
from fastapi import Depends, FastAPI, Request, Security, WebSocket
from fastapi.responses import StreamingResponse
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

import jwt_events.aiohttp
import jwt_events.fastapi
from jwt_events import MemoryTransport, RevocationList, TokenRevoked
from jwt_events.asgi import BearerMiddleware
from jwt_events.guard import Guard, Refused
from jwt_events.testing import ManualClock
from tests.support.handling import publish, soon
from tests.support.services import FRAMEWORKS, aiohttp_server, uvicorn_server
from tests.support.tokens import SECRET, bearer, decode, token_of
from tests.support.waiting import wait_until

Renew = Callable[[Any, str], Any]
Ask = Callable[[], Awaitable[Any]]

# Seconds after which a token of a minute has expired, however long it took from making the clock to making the token.
_PAST = 600.0


async def _talk(text: str, websocket: Any, renew: Renew, ask: Ask) -> str:
    """Reply to a message of the client: ``token …`` renews, ``insist …`` does not handle a refusal, ``ask`` asks."""
    word, _, token = text.partition(" ")
    if word == "ask":
        return str((await ask()).value["jti"])
    if word == "insist":
        await renew(websocket, token)
    if word != "token":
        return text
    try:
        admission = await renew(websocket, token)
    except Refused as refused:
        return refused.code
    return f"renewed {admission.value['jti']}"


async def _hello() -> AsyncIterator[bytes]:
    yield b"hello\n"
    await asyncio.Event().wait()


def _aiohttp(
    revocations: RevocationList, decode: Callable[[str], Any] = decode, **options: Any
) -> AbstractAsyncContextManager[str]:
    guard = jwt_events.aiohttp.BearerGuard[Mapping[str, Any]](revocations, decode, **options)

    @guard.requires("feed")
    @guard.websocket()
    async def feed(request: web.Request, websocket: web.WebSocketResponse) -> None:
        async for message in websocket:
            await websocket.send_str(
                await _talk(message.data, websocket, guard.renew, partial(guard.admission, request))
            )

    async def events(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        async for item in guard.until_revoked(request, _hello()):
            await response.write(item)
        return response

    app = web.Application(middlewares=[guard.middleware()])
    app.cleanup_ctx.append(jwt_events.aiohttp.lifespan(revocations))
    app.router.add_get("/feed", feed)
    app.router.add_get("/events", events)
    return aiohttp_server(app)


def _fastapi(
    revocations: RevocationList, decode: Callable[[str], Any] = decode, **options: Any
) -> AbstractAsyncContextManager[str]:
    guard = jwt_events.fastapi.BearerGuard[Mapping[str, Any]](revocations, decode, **options)
    live = jwt_events.fastapi.WebSocketGuard(guard)
    app = FastAPI(lifespan=jwt_events.fastapi.lifespan(revocations))

    @app.websocket("/feed")
    async def feed(websocket: WebSocket, claims: Mapping[str, Any] = Security(live, scopes=["feed"])) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(await _talk(text, websocket, live.renew, partial(guard.admission, websocket)))

    @app.get("/events", dependencies=[Depends(guard)])
    async def events(request: Request) -> StreamingResponse:
        return StreamingResponse(guard.until_revoked(request, _hello()))

    return uvicorn_server(app)


@pytest.fixture(params=FRAMEWORKS)
def serve(request: pytest.FixtureRequest) -> Callable[..., AbstractAsyncContextManager[str]]:
    """Runs the service in a framework; returns its address."""
    return _aiohttp if request.param == "aiohttp" else _fastapi


@pytest.fixture
def clock() -> ManualClock:
    """Decides what has expired while a connection is open."""
    return ManualClock()


@pytest.fixture
def transport() -> MemoryTransport:
    """Where revocations come from."""
    return MemoryTransport()


@pytest.fixture
def revocations(transport: MemoryTransport, clock: ManualClock) -> RevocationList:
    """The list of the service."""
    return RevocationList(transport, clock=clock, max_staleness=1e9)


def token(jti: str, life: int = 60, **claims: Any) -> str:
    """Sign a token that may use the feed."""
    now = int(time.time())
    return token_of(**{"jti": jti, "iat": now, "exp": now + life, "scope": "feed", **claims})


async def say(websocket: ClientConnection, text: str) -> str:
    """Send a message, and return the reply."""
    await websocket.send(text)
    return str(await soon(websocket.recv()))


async def end_of(websocket: ClientConnection) -> tuple[int | None, str | None]:
    """Wait until the server closes, and return the code and the reason."""
    with pytest.raises(ConnectionClosed):
        await soon(websocket.recv())
    return websocket.close_code, websocket.close_reason


async def test_expires(serve: Any, revocations: RevocationList, clock: ManualClock) -> None:
    """A WebSocket is closed with 4401 and a reason of its own when its token expires."""
    async with (
        serve(revocations) as address,
        connect(f"ws://{address}/feed", additional_headers=bearer(token("1"))) as websocket,
    ):
        assert await say(websocket, "hello") == "hello"
        clock.advance(_PAST)
        assert await end_of(websocket) == (4401, "expired_token")


async def test_stream_expires(serve: Any, revocations: RevocationList, clock: ManualClock) -> None:
    """A stream ends as if its items had ended."""
    async with (
        serve(revocations) as address,
        httpx.AsyncClient(base_url=f"http://{address}") as client,
        client.stream("GET", "/events", headers=bearer(token("1"))) as response,
    ):
        chunks = response.aiter_bytes()
        assert await soon(anext(chunks)) == b"hello\n"
        clock.advance(_PAST)
        with pytest.raises(StopAsyncIteration):
            await soon(anext(chunks))


async def test_not_until_expiry(
    serve: Any, revocations: RevocationList, clock: ManualClock, transport: MemoryTransport
) -> None:
    """With ``until_expiry=False`` only a revocation ends it."""
    async with (
        serve(revocations, until_expiry=False) as address,
        connect(f"ws://{address}/feed", additional_headers=bearer(token("1"))) as websocket,
    ):
        assert await say(websocket, "hello") == "hello"
        clock.advance(_PAST)
        assert await say(websocket, "hello") == "hello"
        await publish(transport, TokenRevoked(token_id="1"))
        assert await end_of(websocket) == (4401, "revoked_token")


async def test_renewed(serve: Any, revocations: RevocationList, clock: ManualClock, transport: MemoryTransport) -> None:
    """With a new token it goes on; its expiry and its revocation count, those of the one before do not."""
    async with (
        serve(revocations) as address,
        connect(f"ws://{address}/feed", additional_headers=bearer(token("1"))) as websocket,
    ):
        assert await say(websocket, f"token {token('2', 3_600)}") == "renewed 2"
        clock.advance(_PAST)
        await publish(transport, TokenRevoked(token_id="1"))
        await wait_until(lambda: not revocations.check({"jti": "1", "iat": 1}))
        assert await say(websocket, "hello") == "hello"
        await publish(transport, TokenRevoked(token_id="2"))
        assert await end_of(websocket) == (4401, "revoked_token")


async def test_asked_again(serve: Any, revocations: RevocationList, transport: MemoryTransport) -> None:
    """A guard that is asked again decides about the new token: the one before may be revoked, the new one may not."""
    async with (
        serve(revocations) as address,
        connect(f"ws://{address}/feed", additional_headers=bearer(token("1"))) as websocket,
    ):
        assert await say(websocket, "ask") == "1"
        assert await say(websocket, f"token {token('2', 3_600)}") == "renewed 2"
        assert await say(websocket, "ask") == "2"
        await publish(transport, TokenRevoked(token_id="1"))
        await wait_until(lambda: not revocations.check({"jti": "1", "iat": 1}))
        assert [await say(websocket, "ask") for _ in range(2)] == ["2", "2"]
        assert await say(websocket, f"token {token('3', 3_600)}") == "renewed 3"
        assert await say(websocket, "ask") == "3"


async def test_refused(serve: Any, revocations: RevocationList, clock: ManualClock, transport: MemoryTransport) -> None:
    """A token that is not accepted is refused by name, and the one before stays in use."""
    async with serve(revocations) as address:
        await publish(transport, TokenRevoked(token_id="revoked"))
        await wait_until(lambda: not revocations.check({"jti": "revoked", "iat": 1}))
        tokens = {
            "another_subject": token("2", user="bob"),
            "older_token": token("2", iat=int(time.time()) - 600),
            "revoked_token": token("revoked"),
            "insufficient_scope": token("2", scope="other"),
            "invalid_token": token("2", secret="another secret, and a long one, too"),
            "invalid_request": "two words",
        }
        async with connect(f"ws://{address}/feed", additional_headers=bearer(token("1"))) as websocket:
            assert {code: await say(websocket, f"token {one}") for code, one in tokens.items()} == {
                code: code for code in tokens
            }
            clock.advance(_PAST)
            assert await end_of(websocket) == (4401, "expired_token")


@pytest.mark.parametrize("whose", ["2", "1", "alice"])
async def test_revoked_meanwhile(
    serve: Any, revocations: RevocationList, transport: MemoryTransport, whose: str
) -> None:
    """What is revoked while ``decode`` is verifying the new token counts: of it, of the one in use, of both."""
    is_verifying, may_end = asyncio.Event(), asyncio.Event()

    async def slowly(token: str) -> dict[str, Any]:
        claims = decode(token)
        if claims["jti"] == "2":
            is_verifying.set()
            await may_end.wait()
        return claims

    async with (
        serve(revocations, slowly) as address,
        connect(f"ws://{address}/feed", additional_headers=bearer(token("1"))) as websocket,
    ):
        await websocket.send(f"token {token('2')}")
        await soon(is_verifying.wait())
        event = TokenRevoked(user_id=whose) if whose == "alice" else TokenRevoked(token_id=whose)
        await publish(transport, event)
        await wait_until(lambda: not revocations.check({"jti": whose, "sub": whose, "iat": 1}))
        if whose == "2":
            may_end.set()
            assert await soon(websocket.recv()) == "revoked_token"
            assert await say(websocket, "hello") == "hello"
        else:  # the handler is cancelled where it waits for ``decode``
            assert await end_of(websocket) == (4401, "revoked_token")
        may_end.set()


async def test_without_scopes(revocations: RevocationList) -> None:
    """Where no scope is required, a token without any takes the place of another."""
    guard = jwt_events.fastapi.BearerGuard[Mapping[str, Any]](revocations, decode)
    live = jwt_events.fastapi.WebSocketGuard(guard)
    app = FastAPI(lifespan=jwt_events.fastapi.lifespan(revocations))

    @app.websocket("/feed")
    async def feed(websocket: WebSocket, claims: Mapping[str, Any] = Depends(live)) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(await _talk(text, websocket, live.renew, partial(guard.admission, websocket)))

    async with (
        uvicorn_server(app) as address,
        connect(f"ws://{address}/feed", additional_headers=bearer(token("1", scope=None))) as websocket,
    ):
        assert await say(websocket, f"token {token('2', scope=None)}") == "renewed 2"


async def test_unhandled(serve: Any, revocations: RevocationList) -> None:
    """A refusal that the handler does not handle closes the WebSocket with its code."""
    async with (
        serve(revocations) as address,
        connect(f"ws://{address}/feed", additional_headers=bearer(token("1"))) as websocket,
    ):
        await websocket.send(f"insist {token('2', user='bob')}")
        assert await end_of(websocket) == (4401, "another_subject")


async def test_odd_expiry(serve: Any, revocations: RevocationList) -> None:
    """A token whose ``exp`` is no number is refused, although the library that verified it accepts it."""
    claims = b'{"sub":"alice","jti":"1","scope":"feed","iat":1,"exp":"9999999999"}'
    odd = jwt.api_jws.encode(claims, SECRET, "HS256")
    assert decode(odd)["exp"] == "9999999999"
    async with serve(revocations) as address:
        with pytest.raises(InvalidStatus, match="401"):
            async with connect(f"ws://{address}/feed", additional_headers=bearer(odd)):
                pytest.fail("it was let in")


async def test_behind_the_middleware(revocations: RevocationList, clock: ManualClock) -> None:
    """Behind the ASGI middleware a WebSocket is closed in the same way."""
    app = FastAPI(lifespan=jwt_events.fastapi.lifespan(revocations))

    @app.websocket("/feed")
    async def feed(websocket: WebSocket) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(text)

    async with (
        uvicorn_server(BearerMiddleware(app, Guard(revocations, decode))) as address,
        connect(f"ws://{address}/feed", additional_headers=bearer(token("1"))) as websocket,
    ):
        assert await say(websocket, "hello") == "hello"
        clock.advance(_PAST)
        assert await end_of(websocket) == (4401, "expired_token")
