"""What users of common set-ups expect of the guards: CORS, proxies, whole applications, tests with overrides."""

# Annotations are not postponed here: FastAPI could not resolve those with local names.

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
import pytest
from aiohttp import web
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Security, WebSocket
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

import jwt_events.aiohttp
import jwt_events.fastapi
from jwt_events import InvalidOption, MemoryTransport, RevocationList, TokenRevoked
from jwt_events.guard import Guard, Refused
from tests.support.handling import soon
from tests.support.records import recorded
from tests.support.services import aiohttp_server, uvicorn_server
from tests.support.tokens import bearer, decode, token_of
from tests.support.waiting import scaled

PREFLIGHT = {"Origin": "https://spa.example", "Access-Control-Request-Method": "GET"}


@pytest.fixture
def revocations() -> RevocationList:
    """A list that an application opens."""
    return RevocationList(MemoryTransport(), max_staleness=scaled(5))


@asynccontextmanager
async def client_of(app: FastAPI | web.Application) -> AsyncIterator[httpx.AsyncClient]:
    """Run an application; return a client."""
    server = uvicorn_server(app) if isinstance(app, FastAPI) else aiohttp_server(app)
    async with server as address, httpx.AsyncClient(base_url=f"http://{address}", timeout=scaled(30)) as client:
        yield client


async def hello(request: web.Request) -> web.Response:
    """Answer."""
    return web.Response(text=request.method)


class Handlers:
    """Handlers that are methods."""

    @jwt_events.aiohttp.public
    async def marked(self, request: web.Request) -> web.Response:
        """Answer."""
        return await hello(request)

    async def other(self, request: web.Request) -> web.Response:
        """Answer."""
        return await hello(request)

    @jwt_events.aiohttp.public
    @staticmethod
    async def static(request: web.Request) -> web.Response:
        """Answer."""
        return await hello(request)


class HalfOpen(web.View):
    """A view with a public method."""

    @jwt_events.aiohttp.public
    async def get(self) -> web.Response:
        """Answer."""
        return await hello(self.request)

    async def post(self) -> web.Response:
        """Answer."""
        return await hello(self.request)


class Preflighted(HalfOpen):
    """A view that handles preflight requests, and replaces the public method."""

    async def get(self) -> web.Response:
        """Answer."""
        return await hello(self.request)

    async def options(self) -> web.Response:
        """Answer."""
        return await hello(self.request)


class TestAiohttp:
    """The middleware of aiohttp."""

    @pytest.fixture
    def app(self, revocations: RevocationList) -> web.Application:
        """Return an application whose middleware guards everything."""
        guard = jwt_events.aiohttp.BearerGuard(revocations, decode)
        app = web.Application(middlewares=[guard.middleware()])
        app.cleanup_ctx.append(jwt_events.aiohttp.lifespan(revocations))
        app.router.add_get("/me", hello)
        app.router.add_route("OPTIONS", "/cors", hello)
        app.router.add_route("*", "/all", hello)
        app.router.add_view("/half", HalfOpen)
        app.router.add_view("/view", Preflighted)
        return app

    async def test_preflight(self, app: web.Application) -> None:
        """A preflight request reaches what handles it, and nothing else."""
        async with client_of(app) as client:
            for path, status in {
                "/cors": 200,
                "/view": 200,
                "/me": 405,
                "/missing": 404,
                "/all": 401,
                "/half": 401,
            }.items():
                assert (await client.options(path, headers=PREFLIGHT)).status_code == status, path
            for left_out in PREFLIGHT:
                headers = {name: value for name, value in PREFLIGHT.items() if name != left_out}
                assert (await client.options("/cors", headers=headers)).status_code == 401
            assert (await client.get("/me", headers=PREFLIGHT)).status_code == 401
            assert (await client.post("/view", headers=PREFLIGHT)).status_code == 401

    async def test_public_methods(self, app: web.Application) -> None:
        """The decorator on a method makes that method public, and no other."""
        handlers, others = Handlers(), Handlers()
        app.router.add_get("/marked", handlers.marked)
        app.router.add_get("/static", handlers.static)
        app.router.add_get("/bound", jwt_events.aiohttp.public(handlers.other))
        app.router.add_get("/unbound", others.other)
        app.router.add_get("/unmarked", handlers.other)
        async with client_of(app) as client:
            for path in ("/marked", "/static", "/bound", "/half"):
                assert (await client.get(path)).status_code == 200, path
            for path in ("/unbound", "/unmarked", "/view"):
                assert (await client.get(path)).status_code == 401, path
            assert (await client.post("/half")).status_code == 401

    async def test_response_of_decode(self, revocations: RevocationList) -> None:
        """A refusal that ``decode`` raises as a response is sent as it is; one that lets in is none."""
        responses: list[Exception] = [
            web.HTTPForbidden(text="verify first"),
            web.HTTPFound("/login"),
            web.HTTPServiceUnavailable(),
            web.HTTPOk(),
            web.HTTPNoContent(),
            web.HTTPNotModified(),
        ]

        def verify(token: str) -> dict[str, Any]:
            raise responses[int(token)]

        guard = jwt_events.aiohttp.BearerGuard(revocations, verify)
        app = web.Application(middlewares=[guard.middleware()])
        app.router.add_get("/", hello)
        async with client_of(app) as client:
            got = [await client.get("/", headers=bearer(str(number))) for number in range(6)]
            assert [response.status_code for response in got] == [403, 302, 503, 401, 401, 401]
            assert got[0].text == "verify first"


class TestCredentialsOfAProxy:
    """Other credentials in the ``Authorization`` header."""

    @pytest.mark.parametrize("framework", ["aiohttp", "fastapi"])
    @pytest.mark.parametrize("authorization", ["Basic cHJveHk6c2VjcmV0", "Negotiate abc", ""])
    async def test_other_schemes(self, revocations: RevocationList, framework: str, authorization: str) -> None:
        """They do not switch the other source of the token off; a bearer token does, good or bad."""
        async with self.sockets(framework, revocations) as address:
            good, bad = token_of(), token_of(exp=1)
            assert await self.opened(address, good, authorization)
            assert not await self.opened(address, bad, authorization)
            assert not await self.opened(address, "", authorization)
            assert await self.opened(address, bad, f"Bearer {good}")
            assert not await self.opened(address, good, f"bearer {bad}")

    @staticmethod
    def sockets(framework: str, revocations: RevocationList) -> Any:
        """Run a server with a guarded WebSocket."""
        if framework == "aiohttp":
            guard = jwt_events.aiohttp.BearerGuard(revocations, decode)

            @guard.websocket(token=lambda request: request.query.get("token"))
            async def feed(request: web.Request, websocket: web.WebSocketResponse) -> None:
                await websocket.send_str("hello")

            app = web.Application(middlewares=[guard.middleware()])
            app.cleanup_ctx.append(jwt_events.aiohttp.lifespan(revocations))
            app.router.add_get("/feed", feed)
            return aiohttp_server(app)
        return uvicorn_server(whole_app(revocations))

    @staticmethod
    async def opened(address: str, token: str, authorization: str) -> bool:
        """Return whether a WebSocket is opened."""
        headers = {"Authorization": authorization} if authorization else {}
        uri = f"ws://{address}/feed?token={token}"
        try:
            async with connect(uri, additional_headers=headers, open_timeout=scaled(30)) as websocket:
                return await soon(websocket.recv()) == "hello"
        except InvalidStatus as refused:
            if refused.response.status_code not in (400, 401):
                raise
            return False


def whole_app(revocations: RevocationList, verify: Callable[[str], Any] = decode, *, inside: bool = False) -> FastAPI:
    """Return an application with the guard as a dependency of the whole, and its routes in a router or not."""
    guard = jwt_events.fastapi.BearerGuard(revocations, verify)
    live = jwt_events.fastapi.WebSocketGuard(guard, token=lambda websocket: websocket.query_params.get("token"))
    app = FastAPI(lifespan=jwt_events.fastapi.lifespan(revocations), dependencies=[Depends(guard)])
    routes = APIRouter(dependencies=[Depends(guard)]) if inside else app

    @routes.get("/me")
    async def me() -> str:
        return "me"

    @routes.websocket("/feed")
    async def feed(websocket: WebSocket, claims: Annotated[Any, Depends(live)]) -> None:
        await websocket.accept()
        await websocket.send_text("hello")

    @routes.websocket("/plain")
    async def plain(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("hello")

    if isinstance(routes, APIRouter):
        app.include_router(routes)
    app.include_router(jwt_events.fastapi.readiness_router(revocations))
    return app


class TestWholeApplication:
    """The guard as a dependency of a whole FastAPI application."""

    async def test_websocket_guard(self, revocations: RevocationList) -> None:
        """A `WebSocketGuard` there, or of an endpoint for HTTP, guards requests as its guard does."""
        guard = jwt_events.fastapi.BearerGuard(revocations, decode)
        live = jwt_events.fastapi.WebSocketGuard(guard)
        app = FastAPI(lifespan=jwt_events.fastapi.lifespan(revocations), dependencies=[Depends(live)])
        app.include_router(jwt_events.fastapi.readiness_router(revocations))

        @app.get("/me")
        async def me(claims: Annotated[Any, Depends(live)]) -> str:
            return str(claims["sub"])

        @app.get("/orders", dependencies=[Security(live, scopes=["orders"])])
        async def orders(request: Request) -> StreamingResponse:
            async def one() -> AsyncIterator[bytes]:
                yield b"one"

            return StreamingResponse(guard.until_revoked(request, one()))

        @app.websocket("/feed")
        async def feed(websocket: WebSocket) -> None:
            await websocket.accept()
            await websocket.receive()

        async with uvicorn_server(app) as address, httpx.AsyncClient(base_url=f"http://{address}") as client:
            assert (await client.get("/ready")).status_code == 200
            assert [(await client.get(path)).status_code for path in ("/me", "/orders")] == [401, 401]
            token = token_of(sid="s")
            assert (await client.get("/me", headers=bearer(token))).json() == "alice"
            assert (await client.get("/orders", headers=bearer(token))).status_code == 403
            assert (await client.get("/orders", headers=bearer(token_of(scope="orders")))).text == "one"
            with pytest.raises(InvalidStatus):
                await connect(f"ws://{address}/feed").__aenter__()
            async with connect(f"ws://{address}/feed", additional_headers=bearer(token)) as websocket:
                revocations.apply(TokenRevoked(session_id="s"))
                await soon(websocket.wait_closed())
                assert websocket.close_code == 4401

    @pytest.mark.parametrize("inside", [False, True])
    async def test_beside_it(self, revocations: RevocationList, inside: bool) -> None:
        """Readiness needs no token, a WebSocket takes it from where its own guard does, all else needs the header."""
        calls: list[str] = []

        def verify(token: str) -> dict[str, Any]:
            calls.append(token)
            return decode(token)

        app = whole_app(revocations, verify, inside=inside)
        async with client_of(app) as client:
            assert (await client.get("/ready")).json()["ready"] is True
            assert (await client.get("/me")).status_code == 401
            assert (await client.get("/me", headers=bearer(token_of()))).json() == "me"
            address, token = client.base_url.netloc.decode(), token_of()
            calls.clear()
            async with connect(f"ws://{address}/feed?token={token}", open_timeout=scaled(30)) as websocket:
                assert await soon(websocket.recv()) == "hello"
            assert calls == [token]
            for path in (f"/plain?token={token}", "/feed", "/feed?token=forged", f"/feed?token={token_of(exp=1)}"):
                with pytest.raises(InvalidStatus) as caught:
                    await connect(f"ws://{address}{path}", open_timeout=scaled(30)).__aenter__()
                assert caught.value.response.status_code == 401, path

    async def test_tickets(self, revocations: RevocationList) -> None:
        """A source that redeems a ticket, or fails, is called once for each WebSocket."""
        tickets = {"one": token_of()}
        guard = jwt_events.fastapi.BearerGuard(revocations, decode)
        live = jwt_events.fastapi.WebSocketGuard(
            guard, token=lambda websocket: tickets.pop(websocket.query_params["ticket"])
        )
        app = FastAPI(lifespan=jwt_events.fastapi.lifespan(revocations), dependencies=[Depends(guard)])

        @app.websocket("/feed")
        async def feed(websocket: WebSocket, claims: Annotated[Any, Depends(live)]) -> None:
            await websocket.accept()
            await websocket.send_text("hello")

        async with uvicorn_server(app) as address:
            async with connect(f"ws://{address}/feed?ticket=one", open_timeout=scaled(30)) as websocket:
                assert await soon(websocket.recv()) == "hello"
            with pytest.raises(InvalidStatus) as caught:
                await connect(f"ws://{address}/feed?ticket=one", open_timeout=scaled(30)).__aenter__()
            assert caught.value.response.status_code == 401

    async def test_preflight(self, revocations: RevocationList) -> None:
        """FastAPI's CORS middleware answers preflight requests, and refusals carry its headers."""
        app = whole_app(revocations)
        app.add_middleware(CORSMiddleware, allow_origins=["https://spa.example"], allow_headers=["Authorization"])
        async with client_of(app) as client:
            assert (await client.options("/me", headers=PREFLIGHT)).status_code == 200
            refused = await client.get("/me", headers={"Origin": "https://spa.example"})
            assert refused.status_code == 401
            assert refused.headers["Access-Control-Allow-Origin"] == "https://spa.example"

    @pytest.mark.parametrize("has_extension", [True, False])
    async def test_response_of_decode(self, revocations: RevocationList, has_extension: bool) -> None:
        """A refusal that ``decode`` raises as a response is sent as it is, to a WebSocket too."""

        def verify(token: str) -> dict[str, Any]:
            status: Any = int(token) if token.isdigit() else token  # what cannot be a status is none
            raise HTTPException(status, "verify first", {"X-Why": "unverified"})

        app = whole_app(revocations, verify)

        async def served(scope: Scope, receive: Receive, send: Send) -> None:
            if not has_extension:
                scope.pop("extensions", None)
            await app(scope, receive, send)

        async with uvicorn_server(served) as address, httpx.AsyncClient(timeout=scaled(30)) as client:
            response = await client.get(f"http://{address}/me", headers=bearer("403"))
            assert (response.status_code, response.json()) == (403, {"detail": "verify first"})
            assert response.headers["X-Why"] == "unverified"
            for status in (200, 204, 304, 42, 1000, "text"):
                assert (await client.get(f"http://{address}/me", headers=bearer(str(status)))).status_code == 401
            with pytest.raises(InvalidStatus) as caught:
                await connect(f"ws://{address}/plain", additional_headers=bearer("403")).__aenter__()
            assert caught.value.response.status_code == 403


class TestOverrides:
    """``until_revoked`` where a test has replaced the guard."""

    @pytest.mark.parametrize("which", ["guard", "user", "live", "other", "none"])
    @pytest.mark.parametrize("inside", [False, True])
    async def test_stream(self, revocations: RevocationList, which: str, inside: bool) -> None:
        """The items pass if the guard, or what contains it, is replaced; else an unguarded endpoint is an error."""
        guard = jwt_events.fastapi.BearerGuard(revocations, decode)
        app = FastAPI(lifespan=jwt_events.fastapi.lifespan(revocations))
        raised: list[Exception] = []

        async def user(claims: Annotated[Any, Depends(guard)]) -> str:
            return str(claims["sub"])

        async def other() -> str:
            return "other"

        async def items() -> AsyncIterator[bytes]:
            yield b"one"
            yield b"two"

        routes = APIRouter(dependencies=[Depends(user)]) if inside else app
        of_route = [] if inside else [Depends(user)]

        @routes.get("/events", dependencies=[*of_route, Depends(other)])
        async def events(request: Request) -> StreamingResponse:
            return StreamingResponse(guard.until_revoked(request, items()))

        @routes.get("/open", dependencies=[Depends(other)]) if not inside else app.get("/open")
        async def unguarded(request: Request) -> str:
            try:
                guard.until_revoked(request, items())
            except InvalidOption as error:
                raised.append(error)
            return ""

        if isinstance(routes, APIRouter):
            app.include_router(routes)
        replaced: dict[str, Any] = {"guard": guard, "user": user, "other": other, "live": object, "none": None}
        app.dependency_overrides = {} if which == "none" else {replaced[which]: lambda: {"sub": "alice"}}
        async with client_of(app) as client:
            await client.get("/open")
            assert len(raised) == 1
            response = await client.get("/events")
            if which in ("guard", "user"):
                assert (response.status_code, response.content) == (200, b"onetwo")
            else:
                assert response.status_code == 401
                response = await client.get("/events", headers=bearer(token_of()))
                assert (response.status_code, response.content) == (200, b"onetwo")


class TestOutOfReach:
    """Tokens that no revocation reaches."""

    @pytest.mark.parametrize(
        ("claims", "missing"),
        [
            ({"user_id": 7, "session_id": "s"}, "jti, sub, sid, client_id"),
            ({"header": {"kid": "k"}, "payload": {"sub": "alice", "jti": "1"}}, "jti, sub, sid, client_id"),
            ({"iat": 1}, "jti, sub, sid, client_id"),
            ({"sub": "", "jti": ""}, "jti, sub, sid, client_id"),
            ({"iat": 1, "aud": "a", "kid": "k"}, "jti, sub, sid, client_id"),
            ({"jti": "1", "user_id": 7, "token_type": "access"}, "sub"),
            ({"sub": "alice", "session_state": "s"}, "sid"),
            ({"jti": "1", "uid": "u", "sessionHandle": "s"}, "sub, sid"),
            ({"sub": "alice"}, None),
            ({"azp": "app"}, None),
            ({"sub": "alice", "user_id": "alice"}, None),
        ],
    )
    async def test_warned_once(self, revocations: RevocationList, claims: dict[str, Any], missing: str | None) -> None:
        """They are let in, with one warning that names the claims which are missing, and quotes none."""
        async with revocations:
            guard = Guard(revocations, lambda token: claims)
            with recorded() as records:
                for _ in range(3):
                    await guard.admit_token("opaque")
            expected = [] if missing is None else [{"claim": missing}]
            assert records.of("token let in that revocations do not reach, claims are missing", "WARNING") == expected

    async def test_not_for_refused_ones(self, revocations: RevocationList) -> None:
        """A token that is refused is no reason to warn; another gap is."""
        tokens: dict[str, dict[str, Any]] = {
            "a": {"user_id": 1, "iat": "x"},
            "b": {"iat": 1},
            "c": {"jti": "1", "user_id": 7},
        }
        async with revocations:
            guard = Guard(revocations, tokens.__getitem__)
            with recorded() as records:
                with pytest.raises(Refused):
                    await guard.admit_token("a")
                await guard.admit_token("b")
                await guard.admit_token("c")
            found = records.of("token let in that revocations do not reach, claims are missing", "WARNING")
            assert [one["claim"] for one in found] == ["jti, sub, sid, client_id", "sub"]
            revocations.apply(TokenRevoked(token_id="1"))
            with pytest.raises(Refused):
                await guard.admit_token("c")
