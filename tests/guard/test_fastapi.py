"""The parts that only FastAPI has: dependencies, documentation page, lifespan."""

# Annotations are not postponed here: FastAPI could not resolve names that tests define.

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Request, WebSocket
from fastapi.responses import PlainTextResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedOK, InvalidStatus

from jwt_events import InvalidOption, MemoryTransport, RevocationList, TokenRevoked
from jwt_events.fastapi import BearerGuard, WebSocketGuard, lifespan, readiness_router
from tests.support.handling import publish, soon
from tests.support.services import serving, uvicorn_server
from tests.support.tokens import bearer, decode, decode_later, token_of
from tests.support.waiting import scaled


@dataclass
class User:
    """A model that an application decodes its tokens to."""

    name: str


async def user_in(token: str) -> User:
    """Verify a token."""
    return User((await decode_later(token))["sub"])


@pytest.fixture
def transport() -> MemoryTransport:
    """The transport of the revocation list."""
    return MemoryTransport()


@pytest.fixture
def revocations(transport: MemoryTransport) -> RevocationList:
    """An open revocation list."""
    return RevocationList(transport, max_staleness=scaled(5))


@pytest.fixture
def guard(revocations: RevocationList) -> BearerGuard[Any]:
    """A guard."""
    return BearerGuard(revocations, decode, realm="a realm")


@asynccontextmanager
async def client_of(app: ASGIApp) -> AsyncIterator[httpx.AsyncClient]:
    """Run an application on a real server; return a client of it."""
    async with (
        uvicorn_server(app) as address,
        httpx.AsyncClient(base_url=f"http://{address}", timeout=scaled(30)) as client,
    ):
        yield client


class Resource:
    """A resource that records when it is opened and closed."""

    def __init__(self, name: str, notes: list[str], *, fails: bool = False) -> None:
        self._name, self._notes, self._fails = name, notes, fails

    async def __aenter__(self) -> None:
        if self._fails:
            raise LookupError(self._name)
        self._notes.append(f"+{self._name}")

    async def __aexit__(self, *exc_info: object) -> None:
        self._notes.append(f"-{self._name}")


class TestDependencies:
    """The guard as a dependency."""

    async def test_everywhere(self, revocations: RevocationList, guard: BearerGuard[Any]) -> None:
        """Endpoints, plain ones too, routers and other dependencies get claims of a token that is verified once."""
        users = BearerGuard(revocations, user_in, claims_of=lambda user: {"sub": user.name})
        seen: list[str] = []

        def name_of(claims: Annotated[Any, Depends(guard)]) -> str:
            return str(claims["sub"])

        @asynccontextmanager
        async def with_state(app: FastAPI) -> AsyncIterator[dict[str, str]]:
            yield {"colour": "green"}

        app = FastAPI(lifespan=lifespan(revocations, then=with_state))
        router = APIRouter(dependencies=[Depends(guard)])

        @router.get("/plain")
        def plain(
            claims: Annotated[Any, Depends(guard)], name: Annotated[str, Depends(name_of)], request: Request
        ) -> list[str]:
            seen.append(name)
            return [str(claims["sub"]), name, request.state.colour]

        @router.get("/model")
        async def model(user: Annotated[User, Depends(users)]) -> str:
            return user.name

        app.include_router(router)
        async with client_of(app) as client:
            assert (await client.get("/plain")).status_code == 401
            assert seen == []
            assert (await client.get("/plain", headers=bearer(token_of()))).json() == ["alice", "alice", "green"]
            assert (await client.get("/model", headers=bearer(token_of("bob")))).json() == "bob"

    def test_documentation(self, revocations: RevocationList, guard: BearerGuard[Any]) -> None:
        """The documentation shows which routes need a token, and not the readiness route."""
        app = FastAPI()
        app.include_router(readiness_router(revocations))

        @app.get("/me")
        async def me(claims: Annotated[Any, Depends(guard)]) -> None: ...

        @app.get("/public")
        async def public() -> None: ...

        documented = app.openapi()
        schemes = {"Bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}
        assert documented["components"]["securitySchemes"] == schemes
        assert documented["paths"].keys() == {"/me", "/public"}
        assert documented["paths"]["/me"]["get"]["security"] == [{"Bearer": []}]
        assert "parameters" not in documented["paths"]["/me"]["get"]
        assert "security" not in documented["paths"]["/public"]["get"]

    async def test_own_handler(self, revocations: RevocationList, guard: BearerGuard[Any]) -> None:
        """An application's own exception handler also handles refusals."""
        app = FastAPI(lifespan=lifespan(revocations))

        @app.exception_handler(HTTPException)
        async def answer(request: Request, error: HTTPException) -> PlainTextResponse:
            return PlainTextResponse("no", error.status_code, error.headers)

        @app.get("/me")
        async def me(claims: Annotated[Any, Depends(guard)]) -> None: ...

        async with client_of(app) as client:
            response = await client.get("/me")
            assert (response.status_code, response.text) == (401, "no")
            assert response.headers["WWW-Authenticate"] == 'Bearer realm="a realm"'

    async def test_events_of_an_unguarded_endpoint(self, guard: BearerGuard[Any]) -> None:
        """`until_revoked` is refused in an endpoint that does not depend on the guard."""
        request = Request({"type": "http", "headers": []})

        async def items() -> AsyncIterator[bytes]:
            yield b""

        with pytest.raises(InvalidOption):
            guard.until_revoked(request, items())

    async def test_client_of_events_leaves(self) -> None:
        """The iterator of the events ends when the client leaves."""
        async with serving("fastapi", RevocationList(MemoryTransport()), decode) as service:
            headers = bearer(token_of())
            async with (
                httpx.AsyncClient(base_url=service.url, timeout=scaled(30)) as client,
                client.stream("GET", "/events", headers=headers) as response,
            ):
                assert await soon(anext(response.aiter_bytes())) == b"data: hello\n\n"
            await service.all_ended()

    def test_websocket_guard_of_something_else(self, revocations: RevocationList) -> None:
        """A `WebSocketGuard` without a guard is refused."""
        with pytest.raises(InvalidOption, match="not RevocationList"):
            WebSocketGuard(revocations)  # type: ignore[arg-type]  # the wrong type is under test


class TestWebSockets:
    """WebSockets whose token is revoked in each phase."""

    async def test_before_it_was_accepted(
        self, transport: MemoryTransport, revocations: RevocationList, guard: BearerGuard[Any]
    ) -> None:
        """A WebSocket that was not accepted yet is refused with an HTTP response when its token is revoked."""
        app = FastAPI(lifespan=lifespan(revocations))
        waiting = asyncio.Event()

        @app.websocket("/feed")
        async def feed(websocket: WebSocket, claims: Annotated[Any, Depends(WebSocketGuard(guard))]) -> None:
            waiting.set()
            await asyncio.Event().wait()

        token = token_of()
        async with uvicorn_server(app) as address:
            connecting = asyncio.ensure_future(
                connect(f"ws://{address}/feed", additional_headers=bearer(token), open_timeout=scaled(30)).__aenter__()
            )
            await soon(waiting.wait())
            await publish(transport, TokenRevoked.from_claims(decode(token)))
            with pytest.raises(InvalidStatus) as caught:
                await soon(connecting)
            assert caught.value.response.status_code == 401

    async def test_token_in_the_first_message(self, revocations: RevocationList, guard: BearerGuard[Any]) -> None:
        """What finds the token may accept the WebSocket and wait for a message, once for all dependencies."""

        async def first_message(websocket: WebSocket) -> str | None:
            await websocket.accept()
            return await websocket.receive_text() or None

        live = WebSocketGuard(guard, token=first_message)
        app = FastAPI(lifespan=lifespan(revocations), dependencies=[Depends(guard)])

        @app.websocket("/feed")
        async def feed(websocket: WebSocket, claims: Annotated[Any, Depends(live)]) -> None:
            async for text in websocket.iter_text():
                await websocket.send_text(f"{claims['sub']}: {text}")

        async with uvicorn_server(app) as address:
            for said, reason in (("", "missing_token"), ("a.b.c", "invalid_token")):
                async with connect(f"ws://{address}/feed") as websocket:
                    await websocket.send(said)
                    await soon(websocket.wait_closed())
                    assert (websocket.close_code, websocket.close_reason) == (4401, reason)
            async with connect(f"ws://{address}/feed") as websocket:
                await websocket.send(token_of())
                await websocket.send("hello")
                assert await soon(websocket.recv()) == "alice: hello"
                revocations.apply(TokenRevoked(user_id="alice"))
                await soon(websocket.wait_closed())
                assert (websocket.close_code, websocket.close_reason) == (4401, "revoked_token")

    async def test_while_it_cleans_up(
        self, transport: MemoryTransport, revocations: RevocationList, guard: BearerGuard[Any]
    ) -> None:
        """An endpoint that closes the WebSocket itself when it is cancelled decides the close code."""
        app = FastAPI(lifespan=lifespan(revocations))
        cancelled = asyncio.Event()

        @app.websocket("/feed")
        async def feed(websocket: WebSocket, claims: Annotated[Any, Depends(WebSocketGuard(guard))]) -> None:
            await websocket.accept()
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(asyncio.Event().wait())
                    await websocket.send_text("hello")
            except asyncio.CancelledError:
                cancelled.set()
                await websocket.close(1000, "goodbye")
                raise

        token = token_of()
        async with (
            uvicorn_server(app) as address,
            connect(f"ws://{address}/feed", additional_headers=bearer(token), open_timeout=scaled(30)) as websocket,
        ):
            assert await soon(websocket.recv()) == "hello"
            await publish(transport, TokenRevoked.from_claims(decode(token)))
            with pytest.raises(ConnectionClosedOK):
                await soon(websocket.recv())
            assert (websocket.close_reason, cancelled.is_set()) == ("goodbye", True)

    async def test_server_without_the_extension(self, revocations: RevocationList, guard: BearerGuard[Any]) -> None:
        """If a server cannot send an HTTP response, the WebSocket is closed, which clients see as 403."""
        app = FastAPI(lifespan=lifespan(revocations))

        @app.websocket("/feed")
        async def feed(websocket: WebSocket, claims: Annotated[Any, Depends(WebSocketGuard(guard))]) -> None:
            await websocket.accept()

        async def plain(scope: Scope, receive: Receive, send: Send) -> None:
            scope.pop("extensions", None)
            await app(scope, receive, send)

        async with uvicorn_server(plain) as address:
            with pytest.raises(InvalidStatus) as caught:
                await connect(f"ws://{address}/feed").__aenter__()
            assert caught.value.response.status_code == 403


class TestLifespan:
    """`lifespan`: opening and closing resources."""

    async def test_order(self) -> None:
        """Resources are opened in order, then the application's own lifespan runs; all are closed in reverse."""
        notes: list[str] = []

        @asynccontextmanager
        async def own(app: FastAPI) -> AsyncIterator[None]:
            async with Resource("own", notes):
                yield

        app = FastAPI(lifespan=lifespan(Resource("a", notes), Resource("b", notes), then=own))
        async with client_of(app):
            notes.append("serving")
        assert notes == ["+a", "+b", "+own", "serving", "-own", "-b", "-a"]

    async def test_failure(self) -> None:
        """If one cannot be opened, those before it are closed and the application does not start."""
        notes: list[str] = []
        app = FastAPI(lifespan=lifespan(Resource("a", notes), Resource("b", notes, fails=True), Resource("c", notes)))
        with pytest.raises(LookupError):
            async with app.router.lifespan_context(app):
                notes.append("serving")
        assert notes == ["+a", "-a"]

    def test_no_resource(self) -> None:
        """A value that is not a context manager is refused at once, with its type."""
        with pytest.raises(InvalidOption, match="not str"):
            lifespan("redis://:password@localhost")  # type: ignore[arg-type]  # the wrong type is under test

    async def test_readiness_while_closed(self) -> None:
        """A list that is not open is not ready."""
        app = FastAPI()
        app.include_router(readiness_router(RevocationList(MemoryTransport()), path="/healthz"))
        async with client_of(app) as client:
            response = await client.get("/healthz")
            assert response.status_code == 503
            assert response.json()["revocations"] == [{"state": "closed", "staleness": None}]


@pytest.mark.parametrize("name", ["fastapi", "aiohttp"])
def test_missing_extra(name: str) -> None:
    """Without the framework, the error says what to install."""
    program = f"import sys; sys.modules[{name!r}] = None\nimport jwt_events.{name}"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.stderr.splitlines()[-1].startswith("ImportError: ")
    assert f"pip install '.[{name}]'" in result.stderr.splitlines()[-1]
