"""`BearerMiddleware` around Starlette, Litestar and Quart, mounted applications, and some that do not end."""

# Annotations are not postponed here: FastAPI could not resolve those with local names.

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, HTTPException, Request, WebSocket
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

import jwt_events.fastapi
from jwt_events import InvalidOption, MemoryTransport, RevocationList, TokenRevoked
from jwt_events.asgi import BearerMiddleware
from jwt_events.guard import Guard
from tests.support.asgi_services import ASGI_FRAMEWORKS, PUBLIC, app_of, hypercorn_server, serving
from tests.support.handling import soon
from tests.support.records import recorded
from tests.support.services import Service, uvicorn_server
from tests.support.tokens import bearer, decode, token_of
from tests.support.waiting import scaled

PREFLIGHT = {"Origin": "https://spa.example", "Access-Control-Request-Method": "GET"}


@pytest.fixture
def revocations() -> RevocationList:
    """A list that an application opens."""
    return RevocationList(MemoryTransport(), max_staleness=scaled(5))


@pytest.fixture(params=ASGI_FRAMEWORKS)
def framework(request: pytest.FixtureRequest) -> str:
    """The name of a framework that has no guard of its own."""
    return str(request.param)


def server_of(framework: str, app: Any, *, expected: tuple[str, ...] = ()) -> Any:
    """Return the server that runs an application of a framework; uvicorn may log the expected errors."""
    return hypercorn_server(app) if framework == "quart" else uvicorn_server(app, expected=expected)


@asynccontextmanager
async def client_at(address: str) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of a server."""
    async with httpx.AsyncClient(base_url=f"http://{address}", timeout=scaled(30)) as client:
        yield client


async def raw_status(address: str, target: str) -> int:
    """Request a path as it is written, which clients would change, and return the status."""
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port), family=socket.AF_INET)
    writer.write(f"GET {target} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n".encode("latin-1"))
    try:
        line = await soon(reader.readline(), within=30)
        await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()
    return int(line.split()[1])


async def denied(uri: str, headers: dict[str, str] | None = None) -> int:
    """Return the status with which a WebSocket is refused."""
    with pytest.raises(InvalidStatus) as caught:
        await connect(uri, additional_headers=headers, open_timeout=scaled(30)).__aenter__()
    return caught.value.response.status_code


class TestEveryFramework:
    """The same application in three frameworks, on uvicorn and hypercorn."""

    async def test_all_is_covered(self, revocations: RevocationList, framework: str) -> None:
        """Routes, mounted applications and paths that do not exist need a token; public ones do not."""
        async with (
            serving(framework, revocations, decode) as service,
            client_at(service.address) as client,
        ):
            token = token_of()
            for path in ("/me", "/private", "/mount/me", "/missing", "/openapi.json"):
                assert (await client.get(path)).status_code == 401, path
                assert (await client.head(path)).status_code == 401, path
            assert (await client.get("/mount/me", headers=bearer(token))).json() == decode(token)
            assert (await client.get("/missing", headers=bearer(token))).status_code == 404
            for path in ("/public", "/ready", "/static/curl.py"):
                assert (await client.get(path)).status_code == 200, path
                assert (await client.get(path, headers=bearer("forged"))).status_code == 200, path
            assert (await client.get("/public", headers=bearer(token))).json() == "hello"

    @pytest.mark.parametrize(
        "target",
        [
            *("/private/", "//private", "/public/../private", "/public/..%2fprivate", "/static/../private"),
            *("/static/%2e%2e/private", "/static/..%2fprivate", "/static//../private", "/public%2f..%2fprivate"),
            *("/static/%252e%252e/private", "/%70rivate", "/private?/public", "/private;/public", "/static/"),
            *("http://here/private", "/private%3f/public", "/PUBLIC/../private", "/static/..;/private"),
        ],
    )
    async def test_no_way_round(self, revocations: RevocationList, framework: str, target: str) -> None:
        """However a path is written, what is private is never served without a token."""
        async with serving(framework, revocations, decode) as service:
            assert await raw_status(service.address, target) in (400, 401)

    async def test_log_out(self, revocations: RevocationList, framework: str) -> None:
        """The endpoint that revokes its own token still says so; the next request is refused."""
        async with (
            serving(framework, revocations, decode) as service,
            client_at(service.address) as client,
        ):
            token = token_of()
            response = await client.get("/logout", headers=bearer(token))
            assert (response.status_code, response.text) == (200, "bye")
            assert (await client.get("/me", headers=bearer(token))).status_code == 401

    async def test_half_a_file(self, revocations: RevocationList, framework: str) -> None:
        """A response of an announced length is not made to look complete."""
        token = token_of()
        app = app_of(framework, service := Service(), revocations)
        guarded = BearerMiddleware(app, Guard(revocations, decode))
        expected = "ASGI callable returned without completing response."  # how uvicorn closes such a connection
        async with server_of(framework, guarded, expected=(expected,)) as address, client_at(address) as client:
            async with client.stream("GET", "/file", headers=bearer(token)) as response:
                chunks = response.aiter_bytes()
                assert await soon(anext(chunks)) == b"01234"
                revocations.apply(TokenRevoked.from_claims(decode(token)))
                with pytest.raises(httpx.RemoteProtocolError):
                    await soon(anext(chunks))
            await service.all_ended()

    async def test_preflight(self, revocations: RevocationList, framework: str) -> None:
        """A preflight request is answered by a middleware for CORS around the guard; without one it is refused."""
        guarded = BearerMiddleware(app_of(framework, Service(), revocations), Guard(revocations, decode))
        around = CORSMiddleware(guarded, allow_origins=["https://spa.example"], allow_headers=["Authorization"])
        async with server_of(framework, around) as address, client_at(address) as client:
            assert (await client.options("/me", headers=PREFLIGHT)).status_code == 200
            refused = await client.get("/me", headers={"Origin": "https://spa.example"})
            assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
            assert refused.headers["Access-Control-Allow-Origin"] == "https://spa.example"
        with recorded() as records:
            async with server_of(framework, guarded) as address, client_at(address) as client:
                assert (await client.options("/me", headers=PREFLIGHT)).status_code == 401
        assert "preflight request refused, it brings no token" in [record["message"] for record in records]

    async def test_optional_with_cookie(self, revocations: RevocationList, framework: str) -> None:
        """Options of the guard hold here, too."""
        options: dict[str, Any] = {"optional": True, "cookie": "token"}
        async with (
            serving(framework, revocations, decode, **options) as service,
            client_at(service.address) as client,
        ):
            token = token_of()
            assert (await client.get("/private")).status_code == 200
            assert (await client.get("/private", headers={"Cookie": "token=forged"})).status_code == 401
            assert (await client.get("/me", headers={"Cookie": f"token={token}"})).json() == decode(token)
            both = bearer(token) | {"Cookie": f"token={token}"}
            assert (await client.get("/me", headers=both)).status_code == 400

    async def test_scopes(self, revocations: RevocationList, framework: str) -> None:
        """The middleware can require scopes, of WebSockets too."""
        app = app_of(framework, Service(), revocations)
        guarded = BearerMiddleware(app, Guard(revocations, decode), scopes=["a"], public=PUBLIC)
        async with server_of(framework, guarded) as address, client_at(address) as client:
            assert (await client.get("/me", headers=bearer(token_of(scope="a")))).status_code == 200
            refused = await client.get("/me", headers=bearer(token_of(scope="b")))
            assert (refused.status_code, refused.json()["detail"]["error"]) == (403, "insufficient_scope")
            assert refused.headers["WWW-Authenticate"].endswith('scope="a"')
            assert await denied(f"ws://{address}/feed", bearer(token_of(scope="b"))) == 403

    async def test_without_the_extension(self, revocations: RevocationList, framework: str) -> None:
        """On a server that cannot send an HTTP response to a WebSocket, it is closed before it is accepted: 403."""
        guarded = BearerMiddleware(app_of(framework, Service(), revocations), Guard(revocations, decode))
        said: list[Any] = []

        async def old(scope: Scope, receive: Receive, send: Send) -> None:
            async def kept(message: Any) -> None:
                said.append(message)
                await send(message)

            scope.pop("extensions", None)
            await guarded(scope, receive, kept if scope["type"] == "websocket" else send)

        async with server_of(framework, old) as address:
            assert await denied(f"ws://{address}/feed", bearer("forged")) == 403
        assert said == [{"type": "websocket.close", "code": 4401, "reason": "invalid_token"}]


@pytest.fixture
def shop(revocations: RevocationList, tmp_path: Path) -> FastAPI:
    """A FastAPI application with everything that its own dependencies do not cover."""
    (tmp_path / "secret.txt").write_text("secret file")
    guard = jwt_events.fastapi.BearerGuard(revocations, decode)
    app = FastAPI(lifespan=jwt_events.fastapi.lifespan(revocations))
    app.include_router(jwt_events.fastapi.readiness_router(revocations))
    app.mount("/files", StaticFiles(directory=tmp_path))
    app.mount("/sub", sub := FastAPI())

    @sub.get("/x")
    async def x(request: Request) -> str:
        return str(request.state.claims["sub"])

    @app.get("/me")
    async def me(claims: Annotated[Any, Depends(guard)]) -> str:
        return str(claims["sub"])

    @app.websocket("/ws")
    async def ws(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(websocket.state.claims["sub"])

    app.add_middleware(BearerMiddleware, guard=guard, public=["/ready"])
    return app


class TestWholeFastAPI:
    """What ``FastAPI(dependencies=…)`` leaves open."""

    async def test_covered(self, shop: FastAPI) -> None:
        """Mounted applications, static files and the documentation pages need a token; readiness does not."""
        async with uvicorn_server(shop) as address, client_at(address) as client:
            for path in ("/me", "/docs", "/openapi.json", "/files/secret.txt", "/sub/x", "/sub/docs"):
                assert (await client.get(path)).status_code == 401, path
                assert (await client.get(path, headers=bearer(token_of()))).status_code == 200, path
            assert (await client.get("/ready")).json()["ready"] is True
            assert await denied(f"ws://{address}/ws") == 401
            async with connect(f"ws://{address}/ws", additional_headers=bearer(token_of())) as websocket:
                assert await soon(websocket.recv()) == "alice"

    async def test_mounted(self, revocations: RevocationList) -> None:
        """Around a mounted application its public paths are those below the mount, and another root changes nothing."""

        async def hello(scope: Scope, receive: Receive, send: Send) -> None:
            await PlainTextResponse("hello")(scope, receive, send)

        app = FastAPI(lifespan=jwt_events.fastapi.lifespan(revocations))
        app.mount("/a", BearerMiddleware(hello, Guard(revocations, decode), public=["/open"]))
        for root_path in ("", "/api"):
            async with uvicorn_server(app, root_path=root_path) as address, client_at(address) as client:
                assert (await client.get("/a/open")).text == "hello"
                for path in ("/a/shut", "/a/a/open", "/a/api/a/open", "/a//open", "/a/open/"):
                    assert (await client.get(path)).status_code == 401, path
                    assert (await client.get(path, headers=bearer(token_of()))).text == "hello"

    async def test_token_elsewhere(self, revocations: RevocationList) -> None:
        """A path that is public for the middleware can have a guard of its own, which looks elsewhere for the token."""
        guard = jwt_events.fastapi.BearerGuard(revocations, decode)
        live = jwt_events.fastapi.WebSocketGuard(guard, token=lambda websocket: websocket.query_params.get("token"))
        app = FastAPI(lifespan=jwt_events.fastapi.lifespan(revocations))
        app.add_middleware(BearerMiddleware, guard=guard, public=["/live"])

        @app.websocket("/live")
        @app.websocket("/shut")
        async def feed(websocket: WebSocket, claims: Annotated[Any, Depends(live)]) -> None:
            await websocket.accept()
            await websocket.send_text(claims["sub"])

        async with uvicorn_server(app) as address:
            async with connect(f"ws://{address}/live?token={token_of()}") as websocket:
                assert await soon(websocket.recv()) == "alice"
            for target in ("/live", "/live?token=forged", f"/shut?token={token_of()}"):
                assert await denied(f"ws://{address}{target}") == 401

    async def test_verified_once(self, revocations: RevocationList) -> None:
        """A dependency on the same guard finds the token that the middleware verified, and checks it again."""
        calls: list[str] = []

        def verify(token: str) -> dict[str, Any]:
            calls.append(token)
            return decode(token)

        guard = jwt_events.fastapi.BearerGuard(revocations, verify)
        app = FastAPI(lifespan=jwt_events.fastapi.lifespan(revocations))
        app.add_middleware(BearerMiddleware, guard=guard)

        @app.get("/me")
        async def me(request: Request, claims: Annotated[Any, Depends(guard)]) -> bool:
            return bool(request.state.claims is claims)

        async with uvicorn_server(app) as address, client_at(address) as client:
            assert (await client.get("/me", headers=bearer(token_of()))).json() is True
            assert len(calls) == 1

    @pytest.mark.parametrize("has_extension", [True, False])
    async def test_response_of_decode(self, revocations: RevocationList, has_extension: bool) -> None:
        """A refusal that ``decode`` raises as a response of FastAPI is sent, and one that lets in is none."""

        def verify(token: str) -> dict[str, Any]:
            status: Any = int(token) if token.isdigit() else token  # what cannot be a status is none
            raise HTTPException(status, "verify first", {"X-Why": "unverified"})

        app = FastAPI(lifespan=jwt_events.fastapi.lifespan(revocations))
        guarded = BearerMiddleware(app, jwt_events.fastapi.BearerGuard(revocations, verify))

        async def served(scope: Scope, receive: Receive, send: Send) -> None:
            if not has_extension:
                scope.pop("extensions", None)
            await guarded(scope, receive, send)

        async with uvicorn_server(served) as address, client_at(address) as client:
            response = await client.get("/me", headers=bearer("403"))
            assert (response.status_code, response.json()) == (403, {"detail": "verify first"})
            assert response.headers["X-Why"] == "unverified"
            for other in ("200", "304", "1000", "text"):
                assert (await client.get("/me", headers=bearer(other))).status_code == 401
            assert await denied(f"ws://{address}/", bearer("403")) == 403

    @pytest.mark.parametrize(
        ("detail", "headers"),
        [
            ({"at": {1, 2}}, None),
            ("\ud800", None),
            ("no", {"Retry-After": 30}),
            ("no", {"X-Why": "\u20ac"}),
            ("no", {"X-Why": "a\r\nSet-Cookie: b=c"}),
        ],
    )
    async def test_response_that_cannot_be_sent(
        self, revocations: RevocationList, detail: Any, headers: dict[str, Any] | None
    ) -> None:
        """It refuses the token all the same, and the log says why the client gets another response."""

        def verify(token: str) -> dict[str, Any]:
            raise HTTPException(403, detail, headers)

        app = FastAPI(lifespan=jwt_events.fastapi.lifespan(revocations))
        guarded = BearerMiddleware(app, jwt_events.fastapi.BearerGuard(revocations, verify))
        with recorded() as records:
            async with uvicorn_server(guarded) as address, client_at(address) as client:
                response = await client.get("/me", headers=bearer("a.b.c"))
        assert (response.status_code, response.json()["detail"]["error"]) == (401, "invalid_token")
        assert "Set-Cookie" not in response.headers
        assert len(records.of("token refused, the response of decode cannot be sent", "ERROR")) == 1


class TestEnds:
    """The end of a connection, whatever its application does."""

    async def test_first_part(self, revocations: RevocationList) -> None:
        """A response in parts whose token is revoked before the first one ends after it."""
        token = token_of()

        async def parts() -> AsyncIterator[bytes]:
            yield b"one"
            yield b"two"

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            revocations.apply(TokenRevoked.from_claims(decode(token)))
            await StreamingResponse(parts())(scope, receive, send)

        async with revocations, self.serving(app, revocations) as address, client_at(address) as client:
            assert (await client.get("/", headers=bearer(token))).text == "one"

    @pytest.mark.parametrize("when", ["before", "after"])
    async def test_nothing_sent_yet(self, revocations: RevocationList, when: str) -> None:
        """A stream whose first part does not come ends too, whether its token is revoked before its status or after."""
        token = token_of()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if when == "before":
                revocations.apply(TokenRevoked.from_claims(decode(token)))
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await asyncio.Event().wait()

        async with (
            revocations,
            self.serving(app, revocations) as address,
            client_at(address) as client,
            client.stream("GET", "/", headers=bearer(token)) as response,
        ):
            if when == "after":
                revocations.apply(TokenRevoked.from_claims(decode(token)))
            assert await soon(response.aread(), within=30) == b""

    async def test_log_out_without_a_length(self, revocations: RevocationList) -> None:
        """An endpoint that revokes its own token may leave out how long its response is."""

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            revocations.apply(TokenRevoked.from_claims(scope["state"]["claims"]))
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await asyncio.sleep(0)
            await send({"type": "http.response.body", "body": b"bye"})

        async with revocations, self.serving(app, revocations) as address, client_at(address) as client:
            assert (await client.get("/", headers=bearer(token_of()))).text == "bye"

    async def test_log_out_behind_a_middleware(self, revocations: RevocationList) -> None:
        """A middleware that passes bodies on in parts does not keep the endpoint that logs out from answering."""

        async def pass_on(request: Any, call_next: Any) -> Response:
            response: Response = await call_next(request)
            return response

        app = FastAPI(lifespan=jwt_events.fastapi.lifespan(revocations))

        @app.post("/logout")
        async def logout(request: Request) -> str:
            revocations.apply(TokenRevoked.from_claims(request.state.claims))
            return "bye"

        app.add_middleware(BaseHTTPMiddleware, dispatch=pass_on)
        app.add_middleware(BearerMiddleware, guard=Guard(revocations, decode))
        async with uvicorn_server(app) as address, client_at(address) as client:
            response = await client.post("/logout", headers=bearer(token_of()))
            assert (response.status_code, response.json()) == (200, "bye")

    async def test_background(self, revocations: RevocationList) -> None:
        """What goes on after the response, without its client, is not cancelled."""
        token, begun, may_end, ended = token_of(), asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def work() -> None:
            begun.set()
            await may_end.wait()
            ended.set()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await PlainTextResponse("later", background=BackgroundTask(work))(scope, receive, send)

        async with revocations, self.serving(app, revocations) as address, client_at(address) as client:
            assert (await client.get("/", headers=bearer(token))).text == "later"
            await soon(begun.wait())
            revocations.apply(TokenRevoked.from_claims(decode(token)))
            may_end.set()
            await soon(ended.wait())

    @pytest.mark.parametrize("reads", [True, False])
    async def test_stubborn(self, revocations: RevocationList, reads: bool) -> None:
        """A client is cut off at once, although its application swallows what should end it, and sends on."""
        token, told = token_of(), asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            while True:
                try:
                    if reads:
                        message = await receive()
                        if message["type"] == "websocket.disconnect":
                            assert message["code"] == 4401
                            told.set()
                            return
                    else:
                        await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    told.set()
                    break
            for _ in range(3):
                await send({"type": "websocket.send", "text": "still here"})

        async with revocations, self.serving(app, revocations) as address:
            async with connect(f"ws://{address}/", additional_headers=bearer(token)) as websocket:
                revocations.apply(TokenRevoked.from_claims(decode(token)))
                with pytest.raises(ConnectionClosed):
                    await soon(websocket.recv())
                assert (websocket.close_code, websocket.close_reason) == (4401, "revoked_token")
            await soon(told.wait(), within=30)

    async def test_before_it_is_accepted(self, revocations: RevocationList) -> None:
        """A WebSocket whose token is revoked before it is accepted is refused with the status."""
        token = token_of()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            revocations.apply(TokenRevoked.from_claims(decode(token)))
            await send({"type": "websocket.accept"})

        async with revocations, self.serving(app, revocations) as address:
            assert await denied(f"ws://{address}/", bearer(token)) == 401

    async def test_endless(self, revocations: RevocationList) -> None:
        """An application that sends without ever waiting does not stop the event loop after its client was cut off."""
        token, over = token_of(), asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            try:
                while True:
                    await send({"type": "http.response.body", "body": b"tick ", "more_body": True})
                    if over.is_set():
                        continue
                    await asyncio.sleep(0)
            finally:
                over.set()

        async with revocations, self.serving(app, revocations) as address, client_at(address) as client:
            async with client.stream("GET", "/", headers=bearer(token)) as response:
                chunks = response.aiter_bytes()
                await soon(anext(chunks))
                revocations.apply(TokenRevoked.from_claims(decode(token)))
                async for _ in chunks:
                    pass
            await soon(over.wait(), within=30)

    async def test_errors_pass(self, revocations: RevocationList) -> None:
        """An error of the application is raised, as without the middleware."""

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            raise ZeroDivisionError

        guarded = BearerMiddleware(app, Guard(revocations, decode))
        async with revocations:
            transport = httpx.ASGITransport(guarded)
            async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
                with pytest.raises(ZeroDivisionError):
                    await client.get("/", headers=bearer(token_of()))

    async def test_cancelled_from_outside(self, revocations: RevocationList) -> None:
        """A server that cancels a request cancels its application, and nothing is left."""
        begun, ended = asyncio.Event(), asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            begun.set()
            try:
                await receive()
            finally:
                ended.set()

        async def never() -> Any:
            await asyncio.Event().wait()

        guarded = BearerMiddleware(app, Guard(revocations, decode))
        headers = [(b"authorization", f"Bearer {token_of()}".encode())]
        scope = {"type": "http", "path": "/", "method": "GET", "headers": headers}
        async with revocations:
            task = asyncio.create_task(guarded(scope, never, never))  # type: ignore[arg-type]  # nothing is sent
            await soon(begun.wait())
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert ended.is_set()

    @staticmethod
    def serving(app: Any, revocations: RevocationList) -> Any:
        """Run an application behind the middleware; its list is open."""

        async def with_lifespan(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "lifespan":
                await app(scope, receive, send)
                return
            for kind in ("startup", "shutdown"):
                assert (await receive())["type"] == f"lifespan.{kind}"
                await send({"type": f"lifespan.{kind}.complete"})

        return uvicorn_server(BearerMiddleware(with_lifespan, Guard(revocations, decode)))


class TestConstruction:
    """Options that cannot be meant, and scopes that are not served."""

    @pytest.mark.parametrize(
        ("options", "name"),
        [
            ({"guard": None}, "guard"),
            ({"guard": decode}, "guard"),
            ({"app": None}, "app"),
            ({"public": "/health"}, "public"),
            ({"public": ["/*"]}, "public"),
            ({"scopes": ["a b"]}, "scopes"),
        ],
    )
    def test_refused(self, revocations: RevocationList, options: dict[str, Any], name: str) -> None:
        """The error names the option."""
        good: dict[str, Any] = {"app": FastAPI(), "guard": Guard(revocations, decode)}
        with pytest.raises(InvalidOption, match=name):
            BearerMiddleware(**good | options)

    async def test_other_protocols(self, revocations: RevocationList) -> None:
        """What is neither HTTP nor a WebSocket is not passed on unguarded."""
        called: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            called.append(scope)

        guarded = BearerMiddleware(app, Guard(revocations, decode))

        async def nothing(*arguments: Any) -> Any: ...

        with pytest.raises(RuntimeError, match="only HTTP and WebSockets"):
            await guarded({"type": "webtransport", "path": "/"}, nothing, nothing)
        await guarded({"type": "lifespan"}, nothing, nothing)
        assert called == [{"type": "lifespan"}]

    async def test_state_of_the_lifespan(self, revocations: RevocationList) -> None:
        """Claims that something else left in the state are no claims of this request."""
        seen: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            seen.append(scope["state"])

        async def nothing(*arguments: Any) -> Any: ...

        guarded = BearerMiddleware(app, Guard(revocations, decode, optional=True), public=["/open"])
        async with revocations:
            for path in ("/open", "/shut"):
                scope: dict[str, Any] = {
                    "type": "http",
                    "path": path,
                    "headers": [],
                    "state": {"claims": {"sub": "root"}, "x": 1},
                }
                await guarded(scope, nothing, nothing)
        assert seen == [{"claims": None, "x": 1}] * 2

    async def test_as_middleware_of_frameworks(self, revocations: RevocationList) -> None:
        """Starlette takes it as one of its middlewares, whose exceptions and routes stay what they are."""
        app = Starlette(middleware=[Middleware(BearerMiddleware, guard=Guard(revocations, decode))])
        async with (
            revocations,
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client,
        ):
            assert (await client.get("/")).status_code == 401
            assert (await client.get("/", headers=bearer(token_of()))).status_code == 404


async def test_an_import_needs_no_framework() -> None:
    """The module imports neither Starlette nor any other framework."""
    program = (
        "import sys, jwt_events.asgi; "
        "print([name for name in ('fastapi', 'starlette', 'aiohttp', 'litestar', 'quart') if name in sys.modules])"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    out, _ = await process.communicate()
    assert out.decode().strip() == "[]"
