"""Optional guards: anonymous or valid, never invalid."""

# Annotations are not postponed here: FastAPI could not resolve those with local names.

from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Annotated, Any, assert_type

import httpx
import pytest
from aiohttp import web
from fastapi import Depends, FastAPI, Request, Security, WebSocket
from fastapi.responses import StreamingResponse
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

import jwt_events.aiohttp
import jwt_events.fastapi
from jwt_events import InvalidOption, MemoryTransport, RevocationList, TokenRevoked
from jwt_events.guard import Admission, Guard, Refused
from tests.support.handling import soon
from tests.support.services import aiohttp_server, uvicorn_server
from tests.support.tokens import bearer, decode, token_of
from tests.support.waiting import scaled

User = Mapping[str, Any] | None
FRAMEWORKS = ["aiohttp", "fastapi"]


@pytest.fixture
def revocations() -> RevocationList:
    """A list that an application opens."""
    return RevocationList(MemoryTransport(), max_staleness=scaled(5))


def name_of(user: User) -> str:
    """Return who sends a request."""
    return "nobody" if user is None else str(user["sub"])


async def ticks() -> AsyncIterator[str]:
    """Yield two items."""
    yield "one "
    yield "two"


def fastapi_app(revocations: RevocationList, **options: Any) -> FastAPI:
    """Return an application with an optional guard."""
    guard = jwt_events.fastapi.BearerGuard(revocations, decode, optional=True, **options)
    live = jwt_events.fastapi.WebSocketGuard(guard, token=lambda websocket: websocket.query_params.get("token"))
    app = FastAPI(lifespan=jwt_events.fastapi.lifespan(revocations))

    @app.get("/me")
    async def me(user: Annotated[User, Depends(guard)]) -> str:
        return name_of(user)

    @app.get("/scoped")
    async def scoped(user: Annotated[User, Security(guard, scopes=["a"])]) -> str:
        return name_of(user)

    @app.get("/stream", dependencies=[Depends(guard)])
    async def stream(request: Request) -> StreamingResponse:
        return StreamingResponse(guard.until_revoked(request, ticks()))

    @app.websocket("/feed")
    async def feed(websocket: WebSocket, user: Annotated[User, Depends(live)]) -> None:
        await websocket.accept()
        async for _ in websocket.iter_text():
            await websocket.send_text(name_of(user))

    return app


def aiohttp_app(revocations: RevocationList, **options: Any) -> web.Application:
    """Return the same in aiohttp."""
    guard = jwt_events.aiohttp.BearerGuard(revocations, decode, optional=True, **options)

    async def me(request: web.Request) -> web.Response:
        return web.json_response(name_of(guard.claims(request)))

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        async for item in guard.until_revoked(request, ticks()):
            await response.write(item.encode())
        return response

    @guard.websocket(token=lambda request: request.query.get("token"))
    async def feed(request: web.Request, websocket: web.WebSocketResponse) -> None:
        async for _ in websocket:
            await websocket.send_str(name_of(guard.claims(request)))

    app = web.Application(middlewares=[guard.middleware()])
    app.cleanup_ctx.append(jwt_events.aiohttp.lifespan(revocations))
    app.router.add_get("/me", me)
    app.router.add_get("/scoped", guard.requires("a")(me))
    app.router.add_get("/stream", stream)
    app.router.add_get("/feed", feed)
    return app


def serving(framework: str, revocations: RevocationList, **options: Any) -> Any:
    """Run one of both."""
    if framework == "aiohttp":
        return aiohttp_server(aiohttp_app(revocations, **options))
    return uvicorn_server(fastapi_app(revocations, **options))


def typed(token: str) -> dict[str, str]:
    """Return claims of a known type."""
    return {"sub": token}


async def typed_later(token: str) -> dict[str, str]:
    """Do the same as a coroutine function."""
    return typed(token)


def _returned(value: Any, token: str) -> Any:
    return value


async def refusal(uri: str, headers: Mapping[str, str]) -> int:
    """Return the status with which a WebSocket is refused."""
    with pytest.raises(InvalidStatus) as caught:
        await connect(uri, additional_headers=headers).__aenter__()
    return caught.value.response.status_code


@pytest.mark.parametrize("framework", FRAMEWORKS)
class TestServed:
    """Real servers and clients."""

    async def test_requests(self, revocations: RevocationList, framework: str) -> None:
        """Without a token a request is anonymous, with a bad one refused, and scopes need a token."""
        revoked = token_of()
        async with (
            serving(framework, revocations, cookie="t") as address,
            httpx.AsyncClient(base_url=f"http://{address}", timeout=scaled(30)) as client,
        ):
            revocations.apply(TokenRevoked.from_claims(decode(revoked)))
            for path in ("/me", "/stream"):
                for headers in ({}, {"Authorization": "Basic abc"}, {"Cookie": "t="}, {"Cookie": "other=abc"}):
                    response = await client.get(path, headers=headers)
                    assert response.status_code == 200
                    assert response.text in ('"nobody"', "one two")
                for headers, status in (
                    (bearer("no.jwt.atall"), 401),
                    (bearer(token_of(exp=1)), 401),
                    (bearer(revoked), 401),
                    ({"Authorization": "Bearer"}, 400),
                    ({"Authorization": "Bearer a b"}, 400),
                    ({"Cookie": "t=forged"}, 401),
                    ({"Cookie": "t=a; t=b"}, 400),
                ):
                    assert (await client.get(path, headers=headers)).status_code == status, headers
            assert (await client.get("/me", headers=bearer(token_of()))).json() == "alice"
            assert (await client.get("/stream", headers=bearer(token_of()))).text == "one two"
            refused = await client.get("/scoped")
            assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
            assert (await client.get("/scoped", headers=bearer(token_of()))).status_code == 403
            assert (await client.get("/scoped", headers=bearer(token_of(scope="a")))).json() == "alice"

    async def test_websockets(self, revocations: RevocationList, framework: str) -> None:
        """An anonymous WebSocket is served, whatever is revoked; one with a token ends with it."""
        token = token_of()
        async with serving(framework, revocations) as address:
            uri = f"ws://{address}/feed"
            async with connect(uri) as anonymous, connect(f"{uri}?token={token}") as alice:
                for websocket, name in ((anonymous, "nobody"), (alice, "alice")):
                    await websocket.send("who?")
                    assert await soon(websocket.recv()) == name
                revocations.apply(TokenRevoked(everyone=True))
                with pytest.raises(ConnectionClosed):
                    await soon(alice.recv())
                assert alice.close_code == 4401
                await anonymous.send("who?")
                assert await soon(anonymous.recv()) == "nobody"
            assert await refusal(f"{uri}?token={token}", {}) == 401
            assert await refusal(f"{uri}?token=forged", {}) == 401
            assert await refusal(f"{uri}?token=", {}) == 400
            assert await refusal(uri, bearer("forged")) == 401


class TestWithoutAFramework:
    """The guard itself."""

    async def test_admissions(self, revocations: RevocationList) -> None:
        """An anonymous request has no value and no claims, and meets no requirement."""
        guard = Guard(revocations, decode, optional=True)
        async with revocations:
            for admission in (await guard.admit([]), await guard.admit(["Basic x"]), await guard.admit_token(None)):
                assert admission == Admission(None, {}, is_anonymous=True)
            assert not (await guard.admit_token(token_of())).is_anonymous
            with pytest.raises(Refused, match="a bearer token is required"):
                await guard.admit([], scopes=["a"])

    async def test_nothing_is_not_anonymous(self, revocations: RevocationList) -> None:
        """A ``decode`` that returns nothing, or claims that cannot be read, do not make a request anonymous."""
        values: list[Any] = [None, False, {"sub": 7}, [], "claims"]
        async with revocations:
            for value in values:
                guard: Guard[Any] = Guard(revocations, partial(_returned, value), optional=True)
                with pytest.raises(Refused, match="invalid"):
                    await guard.admit_token("token")

    @pytest.mark.parametrize("value", [1, "yes", None])
    def test_option(self, revocations: RevocationList, value: Any) -> None:
        """Only a truth value is accepted."""
        with pytest.raises(InvalidOption, match="optional"):
            Guard(revocations, decode, optional=value)

    def test_types(self, revocations: RevocationList) -> None:
        """Type checkers know that there may be no user."""
        assert_type(Guard(revocations, typed), Guard[dict[str, str]])
        assert_type(Guard(revocations, typed, optional=True), Guard[dict[str, str] | None])
        assert_type(Guard(revocations, typed_later, optional=True), Guard[dict[str, str] | None])
        guard = jwt_events.fastapi.BearerGuard(revocations, typed_later, optional=True, realm="a")
        assert_type(guard, jwt_events.fastapi.BearerGuard[dict[str, str] | None])
        assert_type(jwt_events.fastapi.WebSocketGuard(guard), jwt_events.fastapi.WebSocketGuard[dict[str, str] | None])
        assert_type(
            jwt_events.aiohttp.BearerGuard(revocations, typed, optional=True),
            jwt_events.aiohttp.BearerGuard[dict[str, str] | None],
        )
        assert_type(
            jwt_events.aiohttp.BearerGuard(revocations, typed_later, optional=False),
            jwt_events.aiohttp.BearerGuard[dict[str, str]],
        )
