"""Scopes: which tokens have them, and what the guards of both frameworks do about those that lack one."""

# Annotations are not postponed here: FastAPI could not resolve those with local names.

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated, Any

import httpx
import pytest
from aiohttp import web
from fastapi import APIRouter, Depends, FastAPI, Security, WebSocket
from fastapi.security import HTTPBearer
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

import jwt_events.aiohttp
import jwt_events.fastapi
from jwt_events import InvalidOption, MemoryTransport, RevocationList
from jwt_events.guard import Guard, Refused
from jwt_events.guard._requirement import Requirement
from tests.support.handling import soon
from tests.support.services import aiohttp_server, uvicorn_server
from tests.support.tokens import bearer, decode, token_of
from tests.support.waiting import scaled

BAD = [["a b"], [""], ['a"b'], ["a\\b"], ["ä"], ["a\n"], ["a\t"], [7], [None], [b"a"], ["a", ["b"]]]


@pytest.fixture
def revocations() -> RevocationList:
    """A list that an application opens."""
    return RevocationList(MemoryTransport(), max_staleness=scaled(5))


class TestRequirement:
    """Which claims meet it."""

    @pytest.mark.parametrize(
        ("claims", "is_met"),
        [
            ({"scope": "a b"}, True),
            ({"scope": "b c a"}, True),
            ({"scp": ["a", "b"]}, True),
            ({"scp": "a b"}, True),
            ({"scope": ["a", "b"]}, True),
            ({"scope": "a b", "scp": ["b", "a", "c"]}, True),
            ({"scope": "a b", "scp": None}, True),
            ({"scope": "a b", "scp": ["a"]}, False),
            ({"scope": "a", "scp": ["b"]}, False),
            ({"scope": "a b", "scp": 7}, False),
            ({"scope": "a"}, False),
            ({"scope": "A B"}, False),
            ({"scope": "ab"}, False),
            ({"scope": "a,b"}, False),
            ({"scp": ["a b"]}, False),
            ({"scope": {"a": 1, "b": 1}}, False),
            ({"scope": ""}, False),
            ({"scopes": "a b"}, False),
            ({}, False),
        ],
    )
    def test_claims(self, claims: dict[str, Any], is_met: bool) -> None:
        """All scopes are needed, whole, in each claim that the token has."""
        assert Requirement(["a", "b"]).is_met_by(claims) is is_met

    @given(st.dictionaries(st.sampled_from(["scope", "scp"]), st.recursive(st.text() | st.integers(), st.lists)))
    def test_any_claims(self, claims: dict[str, Any]) -> None:
        """No claims are an error, and those that do not contain the scope do not meet it."""
        needle = "orders:write"
        assert not Requirement([needle]).is_met_by(claims)

    @pytest.mark.parametrize("scopes", [*BAD, "a b"])
    def test_refused(self, scopes: Any) -> None:
        """What no token can grant is refused."""
        with pytest.raises(InvalidOption, match="scopes"):
            Requirement(scopes)


class TestConstruction:
    """Scopes that cannot be meant."""

    @pytest.mark.parametrize("scopes", [*BAD, []])
    def test_decorator(self, revocations: RevocationList, scopes: Any) -> None:
        """The decorator of aiohttp refuses them, and a decorator without scopes."""
        guard = jwt_events.aiohttp.BearerGuard(revocations, decode)
        with pytest.raises(InvalidOption, match="scopes"):
            guard.requires(*scopes)

    def test_decorated(self, revocations: RevocationList) -> None:
        """What is no handler is refused: a view as a whole, a generator, something that cannot be called."""
        guard = jwt_events.aiohttp.BearerGuard(revocations, decode)

        async def generator(request: web.Request) -> AsyncIterator[int]:
            yield 1

        for handler in (web.View, generator, 7):
            with pytest.raises(InvalidOption, match="handler"):
                guard.requires("a")(handler)  # type: ignore[type-var]  # what is tested

    @pytest.mark.parametrize("inside", [False, True])
    async def test_dependency(self, revocations: RevocationList, inside: bool) -> None:
        """An application of FastAPI does not start with them; without its lifespan, requests fail."""
        guard = jwt_events.fastapi.BearerGuard(revocations, decode)
        app = FastAPI(lifespan=jwt_events.fastapi.lifespan(revocations))
        routes = APIRouter() if inside else app

        @routes.get("/", dependencies=[Security(guard, scopes=["a b"])])
        async def never() -> None: ...

        if isinstance(routes, APIRouter):
            app.include_router(routes)
        with pytest.raises(InvalidOption, match="scopes"):
            async with app.router.lifespan_context(app):
                pass
        async with revocations, httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            with pytest.raises(InvalidOption, match="scopes"):
                await client.get("/", headers=bearer(token_of(scope="a b")))

    async def test_without_a_framework(self, revocations: RevocationList) -> None:
        """`Guard.admit` takes scopes; text is one."""
        guard = Guard(revocations, decode, realm="orders")
        async with revocations:
            token = [f"Bearer {token_of(scope='a b')}"]
            for good in (["a", "b"], "a", (), []):
                assert (await guard.admit(token, scopes=good)).value["scope"] == "a b"
            bad: list[Any] = ["a b", "", None, 7, [""], [None]]
            for scopes in bad:
                with pytest.raises(InvalidOption, match="scopes"):
                    await guard.admit(token, scopes=scopes)
            with pytest.raises(Refused) as caught:
                await guard.admit(token, scopes=["a", "c"])
        refused = caught.value
        assert (refused.status, refused.code, refused.close_code) == (403, "insufficient_scope", 4403)
        assert refused.headers["WWW-Authenticate"] == (
            'Bearer realm="orders", error="insufficient_scope", '
            'error_description="the token lacks a scope that is required", scope="a c"'
        )


def fastapi_app(revocations: RevocationList) -> FastAPI:
    """Return an application whose endpoints require scopes in every way."""
    guard = jwt_events.fastapi.BearerGuard(revocations, decode)
    live = jwt_events.fastapi.WebSocketGuard(guard, token=lambda websocket: websocket.query_params.get("token"))
    app = FastAPI(lifespan=jwt_events.fastapi.lifespan(revocations), dependencies=[Depends(guard)])

    async def user(claims: Annotated[Any, Security(guard, scopes=["orders:read"])]) -> str:
        return str(claims["sub"])

    @app.get("/read")
    async def read(name: Annotated[str, Depends(user)]) -> str:
        return name

    @app.get("/write")
    async def write(name: Annotated[str, Security(user, scopes=["orders:write"])]) -> str:
        return name

    inner = APIRouter(dependencies=[Security(guard, scopes=["admin"])])

    @inner.get("/admin")
    async def admin(name: Annotated[str, Depends(user)]) -> str:
        return name

    app.include_router(inner)

    @app.websocket("/feed")
    async def feed(websocket: WebSocket, claims: Annotated[Any, Security(live, scopes=["orders:read"])]) -> None:
        await websocket.accept()
        await websocket.send_text(claims["sub"])

    return app


def aiohttp_app(revocations: RevocationList) -> web.Application:
    """Return the same in aiohttp: functions, methods, views, and both orders of the decorators of a WebSocket."""
    guard = jwt_events.aiohttp.BearerGuard(revocations, decode)

    @guard.requires("orders:read")
    async def read(request: web.Request) -> web.Response:
        return web.json_response(guard.claims(request)["sub"])

    class Orders:
        @guard.requires("orders:write")
        @guard.requires("orders:read")
        async def write(self, request: web.Request) -> web.Response:
            return web.json_response(guard.claims(request)["sub"])

    class Admin(web.View):
        @jwt_events.aiohttp.public
        @guard.requires("admin", "orders:read")
        async def get(self) -> web.Response:
            return web.json_response(guard.claims(self.request)["sub"])

    async def serve(request: web.Request, websocket: web.WebSocketResponse) -> None:
        await websocket.send_str(guard.claims(request)["sub"])

    source: Callable[[web.Request], str | None] = lambda request: request.query.get("token")  # noqa: E731 - a function is wanted
    app = web.Application(middlewares=[guard.middleware()])
    app.cleanup_ctx.append(jwt_events.aiohttp.lifespan(revocations))
    app.router.add_get("/read", read)
    app.router.add_get("/write", Orders().write)
    app.router.add_view("/admin", Admin)
    app.router.add_get("/feed", guard.requires("orders:read")(guard.websocket(token=source)(serve)))
    app.router.add_get("/inner", guard.websocket(token=source)(guard.requires("orders:read")(serve)))
    app.router.add_get("/both", guard.requires("a")(guard.requires("b")(guard.websocket(token=source)(serve))))
    return app


@asynccontextmanager
async def serving(framework: str, revocations: RevocationList) -> AsyncIterator[str]:
    """Run one of both."""
    async with AsyncExitStack() as stack:
        if framework == "aiohttp":
            yield await stack.enter_async_context(aiohttp_server(aiohttp_app(revocations)))
        else:
            yield await stack.enter_async_context(uvicorn_server(fastapi_app(revocations)))


@pytest.mark.parametrize("framework", ["aiohttp", "fastapi"])
class TestServed:
    """Real servers and clients."""

    async def test_requests(self, revocations: RevocationList, framework: str) -> None:
        """An endpoint needs all scopes of what leads to it; the challenge names them."""
        async with serving(framework, revocations) as address, httpx.AsyncClient(timeout=scaled(30)) as client:

            async def status(path: str, scope: str | None) -> tuple[int, str]:
                response = await client.get(f"http://{address}{path}", headers=bearer(token_of(scope=scope)))
                _, _, required = response.headers.get("WWW-Authenticate", "").partition(' scope="')
                assert (response.status_code == 403) is bool(required)
                if response.status_code == 403:
                    assert response.json()["detail"]["error"] == "insufficient_scope"
                    assert 'error="insufficient_scope"' in response.headers["WWW-Authenticate"]
                return response.status_code, required.rstrip('"')

            assert await status("/read", "orders:read") == (200, "")
            assert await status("/read", "orders:reads") == (403, "orders:read")
            assert await status("/read", None) == (403, "orders:read")
            assert await status("/write", "orders:write orders:read") == (200, "")
            code, missing = await status("/write", "orders:read")
            assert (code, "orders:write" in missing) == (403, True)
            assert (await status("/write", "orders:write"))[0] == 403
            assert await status("/admin", "admin orders:read") == (200, "")
            for scope in ("admin", "orders:read", "orders:read Admin"):
                assert (await status("/admin", scope))[0] == 403
            for path in ("/read", "/write", "/admin"):
                assert (await client.get(f"http://{address}{path}")).status_code == 401
                headers = bearer(token_of(scope="admin orders:read orders:write", exp=1))
                assert (await client.get(f"http://{address}{path}", headers=headers)).status_code == 401

    async def test_websockets(self, revocations: RevocationList, framework: str) -> None:
        """A WebSocket without the scope is refused before it is accepted, wherever its token comes from."""
        paths = ["/feed"] if framework == "fastapi" else ["/feed", "/inner"]
        async with serving(framework, revocations) as address:
            for path in paths:
                for query, headers in self.ways("orders:read"):
                    async with connect(f"ws://{address}{path}{query}", additional_headers=headers) as websocket:
                        assert await soon(websocket.recv()) == "alice"
                for query, headers in self.ways("orders:write"):
                    assert await self.refusal(f"ws://{address}{path}{query}", headers) == 403
                assert await self.refusal(f"ws://{address}{path}", {}) == 401
            if framework == "aiohttp":
                for scope, status in (("a", 403), ("b", 403), ("a b", 101)):
                    assert await self.refusal(f"ws://{address}/both?token={token_of(scope=scope)}", {}) == status

    @staticmethod
    def ways(scope: str) -> list[tuple[str, dict[str, str]]]:
        """Return the ways in which a token may be sent."""
        token = token_of(scope=scope)
        return [("", bearer(token)), (f"?token={token}", {})]

    @staticmethod
    async def refusal(uri: str, headers: dict[str, str]) -> int:
        """Return the status with which a WebSocket is refused."""
        try:
            async with connect(uri, additional_headers=headers):
                return 101
        except InvalidStatus as refused:
            return refused.response.status_code


@pytest.mark.parametrize("scopes", [["orders:read"], ["a", "b"]])
async def test_documentation_page(revocations: RevocationList, scopes: list[str]) -> None:
    """OpenAPI shows which scopes an endpoint requires, as far as this FastAPI shows those of its own bearer tokens."""
    app = FastAPI()

    @app.get("/ours", dependencies=[Security(jwt_events.fastapi.BearerGuard(revocations, decode), scopes=scopes)])
    @app.get("/theirs", dependencies=[Security(HTTPBearer(), scopes=scopes)])
    async def never() -> None: ...

    paths = app.openapi()["paths"]
    ((ours,), (theirs,)) = [paths[path]["get"]["security"] for path in ("/ours", "/theirs")]
    assert ours["Bearer"] == theirs["HTTPBearer"]
    assert ours["Bearer"] in (scopes, [])
