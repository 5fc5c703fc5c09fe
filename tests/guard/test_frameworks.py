"""Guarded services as their clients see them: the same in every framework, on real servers."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from jwt_events import KeyRotated, RedisStream, RevocationList, SessionDestroyed, TokenRevoked, Unavailable
from jwt_events.embedded import EmbeddedServer
from tests.support import services
from tests.support.asgi_services import FRAMEWORKS, serving
from tests.support.faults import frozen
from tests.support.handling import publish, soon
from tests.support.records import recorded
from tests.support.services import Service
from tests.support.tokens import KID, SECRET, bearer, decode, decode_later, token_of
from tests.support.waiting import scaled, wait_until

Serve = Callable[..., AbstractAsyncContextManager[Service]]
MARK = "-".join(["marked", "as", "secret"])


@pytest.fixture(params=FRAMEWORKS)
def framework(request: pytest.FixtureRequest) -> str:
    """The name of a web framework."""
    return str(request.param)


@pytest.fixture
def stream(url: str, key: str) -> RedisStream:
    """The transport of the revocation list."""
    return RedisStream(url, key)


@pytest.fixture
def serve(framework: str, stream: RedisStream) -> Serve:
    """A function that runs the service in each framework; takes options of the guard."""

    @asynccontextmanager
    async def run(decode: Callable[[str], Any] = decode, **options: Any) -> AsyncIterator[Service]:
        await publish(stream, TokenRevoked(token_id="another"))  # a list of an empty stream takes longer to open
        async with serving(framework, RevocationList(stream, max_staleness=scaled(5)), decode, **options) as service:
            yield service

    return run


@asynccontextmanager
async def client_of(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client with connections that stay open."""
    async with httpx.AsyncClient(base_url=service.url, timeout=scaled(30)) as client:
        yield client


def feed(service: Service, token: str, path: str = "/feed") -> connect:
    """Open a WebSocket."""
    address = f"ws://{service.address}{path}"
    return connect(address, additional_headers=bearer(token), compression=None, open_timeout=scaled(30))


async def closed(websocket: ClientConnection) -> int | None:
    """Wait until the server closes, and return the close code."""
    with pytest.raises(ConnectionClosed):
        await soon(websocket.recv(), within=30)
    return websocket.close_code


async def refusal(client: httpx.AsyncClient, *headers: tuple[str, str]) -> tuple[int, str, dict[str, str]]:
    """Request the claims, and return status, challenge and the error in the body."""
    response = await client.get("/me", headers=list(headers))
    return response.status_code, response.headers.get("WWW-Authenticate", ""), response.json()["detail"]


class TestRequests:
    """Requests that are let in, and the responses to all others."""

    @pytest.mark.parametrize("verify", [decode, decode_later])
    async def test_good_token(self, serve: Serve, verify: Callable[[str], Any]) -> None:
        """A valid token is let in, whether it is verified by a plain or a coroutine function, and gives its claims."""
        token = token_of()
        async with serve(verify) as service, client_of(service) as client:
            for scheme in ("Bearer", "bearer", "BEARER"):
                response = await client.get("/me", headers={"Authorization": f"{scheme} {token}"})
                assert (response.status_code, response.json()) == (200, decode(token))

    async def test_public(self, serve: Serve) -> None:
        """A public path needs no token."""
        async with serve() as service, client_of(service) as client:
            assert (await client.get("/public")).json() == "hello"

    async def test_refusals(self, serve: Serve) -> None:
        """Every reason for a refusal has its status, its challenge and its code, in the words of RFC 6750."""
        good = token_of()
        cases: list[tuple[list[str], tuple[int, str | None, str]]] = [
            ([], (401, None, "missing_token")),
            ([""], (401, None, "missing_token")),
            (["Basic YTpi"], (401, None, "missing_token")),
            (["Bearer"], (400, "invalid_request", "invalid_request")),
            ([f"Bearer {good} {good}"], (400, "invalid_request", "invalid_request")),
            ([f"Bearer {good}, Bearer {good}"], (400, "invalid_request", "invalid_request")),
            ([f"Bearer {good}", f"Bearer {good}"], (400, "invalid_request", "invalid_request")),
            (["Bearer " + "x" * 4001], (400, "invalid_request", "invalid_request")),
            (["Bearer tökén"], (400, "invalid_request", "invalid_request")),
            (["Bearer no.jwt.atall"], (401, "invalid_token", "invalid_token")),
            ([f"Bearer {token_of(exp=1)}"], (401, "invalid_token", "invalid_token")),
            ([f"Bearer {token_of(secret=SECRET[::-1])}"], (401, "invalid_token", "invalid_token")),
        ]
        async with serve(realm="orders", max_token_bytes=4000) as service, client_of(service) as client:
            for values, (status, error, code) in cases:
                headers = [(b"Authorization", value.encode()) for value in values]
                response = await client.get("/me", headers=headers)
                detail = response.json()["detail"]
                challenge = 'Bearer realm="orders"'
                if error is not None:
                    challenge += f', error="{error}", error_description="{detail["error_description"]}"'
                seen = (response.status_code, detail["error"], response.headers["WWW-Authenticate"])
                assert seen == (status, code, challenge), values

    async def test_no_realm(self, serve: Serve) -> None:
        """Without a realm and without credentials the challenge is ``Bearer`` alone."""
        async with serve() as service, client_of(service) as client:
            assert (await client.get("/me")).headers["WWW-Authenticate"] == "Bearer"

    async def test_revoked_between_two_requests(self, serve: Serve, stream: RedisStream) -> None:
        """A token that was accepted on a connection is refused on the same connection once it is revoked."""
        token, other = token_of(), token_of()
        async with serve() as service, client_of(service) as client:
            assert (await client.get("/me", headers=bearer(token))).status_code == 200
            await publish(stream, TokenRevoked.from_claims(decode(token)))
            await wait_until(partial(_is, client, token, 401), what="the refusal of a revoked token")
            response = await client.get("/me", headers=bearer(token))
            assert response.headers["WWW-Authenticate"].startswith('Bearer error="invalid_token"')
            assert response.json()["detail"]["error"] == "revoked_token"
            assert (await client.get("/me", headers=bearer(other))).status_code == 200

    async def test_compromised_key(self, serve: Serve, stream: RedisStream) -> None:
        """Tokens of a compromised key are refused, others are not, though `decode` does not return the key."""
        token, other = token_of(), token_of(kid="key-2")
        async with serve() as service, client_of(service) as client:
            await publish(
                stream, KeyRotated(key_id="key-2", previous_key_id=KID), KeyRotated(key_id=KID, compromised=True)
            )
            await wait_until(partial(_is, client, token, 401), what="the refusal of tokens of a compromised key")
            assert (await client.get("/me", headers=bearer(other))).status_code == 200

    async def test_unavailable(self, serve: Serve) -> None:
        """If verification raises `Unavailable`, the response is 503, not that the token is invalid."""

        def away(token: str) -> dict[str, Any]:
            raise Unavailable("the keys are away", retry_after=6.5)

        async with serve(away) as service, client_of(service) as client:
            response = await client.get("/me", headers=bearer(token_of()))
            assert (response.status_code, response.headers["Retry-After"]) == (503, "7")
            assert "WWW-Authenticate" not in response.headers
            assert response.json()["detail"]["error"] == "unavailable"

    async def test_nothing_leaks(self, serve: Serve, stream: RedisStream) -> None:
        """Neither token nor claims are in the responses to refused requests, nor in the log."""

        def wrong(token: str) -> dict[str, Any]:
            raise TypeError(token, decode(token))

        token = token_of(MARK, jti=MARK)
        for verify in (decode, wrong):
            with recorded() as records:
                async with serve(verify) as service, client_of(service) as client:
                    await publish(stream, TokenRevoked(user_id=MARK))
                    await wait_until(partial(_is, client, token, 401), what="the refusal")
                    refused = await client.get("/me", headers=bearer(token))
                    await client.get("/me", headers=bearer(token[:-2]))
            said = [refused.text, str(refused.headers), *(f"{one['message']} {one['extra']}" for one in records)]
            assert [text for text in said if MARK in text or token[:12] in text] == []


class TestStale:
    """Stale revocation lists, and readiness."""

    async def test_frozen_server(self, framework: str, own_server: Callable[..., EmbeddedServer]) -> None:
        """While Redis does not reply, requests get 503 and readiness fails; afterwards both recover."""
        token = token_of()
        async with own_server() as server:
            revocations = RevocationList(RedisStream(server.url), max_staleness=0.5)
            async with serving(framework, revocations, decode) as service, client_of(service) as client:
                await wait_until(partial(_is, client, token, 200), within=30, what="a token to be let in")
                with frozen(server):
                    await wait_until(partial(_is, client, token, 503), what="a stale list")
                    response = await client.get("/me", headers=bearer(token))
                    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
                    assert "WWW-Authenticate" not in response.headers
                    assert response.json()["detail"]["error"] == "stale_revocations"
                    assert (await client.get("/me", headers=bearer(token[:-9]))).status_code == 401
                    ready = await client.get("/ready")
                    assert (ready.status_code, ready.json()["ready"]) == (503, False)
                    assert ready.json()["revocations"][0]["state"] == "stale"
                    assert ready.json()["revocations"][0]["staleness"] > 0.5
                    with pytest.raises(InvalidStatus) as caught:
                        await feed(service, token).__aenter__()
                    assert (caught.value.response.status_code, caught.value.response.headers["Retry-After"]) == (
                        503,
                        "1",
                    )
                await wait_until(partial(_is, client, token, 200), within=30, what="a fresh list")

                async def is_ready() -> bool:
                    ready = await client.get("/ready")
                    return ready.status_code == 200 and ready.json()["ready"] is True

                await wait_until(is_ready, within=30, what="readiness")

    async def test_ready(self, serve: Serve) -> None:
        """A fresh list is ready, and its response has the age and must not be cached."""
        async with serve() as service, client_of(service) as client:
            response = await client.get("/ready")
            assert (response.status_code, response.headers["Cache-Control"]) == (200, "no-store")
            (one,) = response.json()["revocations"]
            assert one["state"] == "fresh"
            assert math.isfinite(one["staleness"])


class TestWebSockets:
    """Connections that outlive a request."""

    async def test_closes_on_revocation(self, serve: Serve, stream: RedisStream) -> None:
        """A WebSocket is closed with 4401 when its token is revoked, and its handler is cancelled."""
        token = token_of()
        async with serve() as service, feed(service, token) as websocket:
            await websocket.send("hello")
            assert await soon(websocket.recv()) == "alice: hello"
            await publish(stream, TokenRevoked.from_claims(decode(token)))
            assert await closed(websocket) == 4401
            assert websocket.close_reason == "revoked_token"
            await service.all_ended()

    async def test_only_those_of_the_user_close(self, serve: Serve, stream: RedisStream) -> None:
        """Of fifty WebSockets exactly those of the user whose tokens are all revoked are closed."""
        async with serve() as service, AsyncExitStack() as stack:
            users = ["alice" if number % 5 == 0 else f"user-{number}" for number in range(50)]
            websockets = [await stack.enter_async_context(feed(service, token_of(user))) for user in users]
            await wait_until(lambda: service.begun == 50)
            await publish(stream, TokenRevoked(user_id="alice"))
            theirs = [websocket for user, websocket in zip(users, websockets, strict=True) if user == "alice"]
            assert [await closed(websocket) for websocket in theirs] == [4401] * 10
            for user, websocket in zip(users, websockets, strict=True):
                if user != "alice":
                    await websocket.send("still here")
                    assert await soon(websocket.recv()) == f"{user}: still here"
            assert service.ended == 10
        await service.all_ended()

    async def test_client_leaves_first(self, serve: Serve, stream: RedisStream) -> None:
        """When the client closes first, the handler ends; a later revocation finds no watch."""
        token = token_of()
        async with serve() as service:
            async with feed(service, token):
                await wait_until(lambda: service.begun == 1)
            await service.all_ended()
            await publish(stream, TokenRevoked.from_claims(decode(token)))
            async with client_of(service) as client:
                await wait_until(partial(_is, client, token, 401), what="the refusal of a revoked token")

    async def test_client_vanishes(self, serve: Serve, stream: RedisStream) -> None:
        """A client that vanishes without a close, just when its token is revoked, leaves nothing behind."""
        tokens = [token_of() for _ in range(5)]
        async with serve() as service:
            websockets = [await feed(service, token) for token in tokens]
            await wait_until(lambda: service.begun == 5)
            leaving = asyncio.create_task(publish(stream, *[TokenRevoked.from_claims(decode(one)) for one in tokens]))
            for websocket in websockets:
                websocket.transport.abort()
            await leaving
            await service.all_ended()
            for websocket in websockets:
                await websocket.wait_closed()

    async def test_client_does_not_read(self, serve: Serve, stream: RedisStream) -> None:
        """A client that stops reading, even the close, cannot keep its handler running."""
        token = token_of()
        async with serve() as service:
            websocket = await feed(service, token, "/flood")
            websocket.transport.pause_reading()
            said: list[int] = []

            def is_full() -> bool:
                said.append(service.begun)
                return said[-50:].count(service.begun) == 50

            await wait_until(is_full, what="the moment when nothing more fits between the two")
            await publish(stream, TokenRevoked.from_claims(decode(token)))
            flood = service.flood
            assert flood is not None
            await wait_until(flood.done, within=30, what="the end of what served a client that does not read")
            websocket.transport.abort()
            await websocket.wait_closed()

    async def test_refused_before_it_is_accepted(self, serve: Serve) -> None:
        """Without a valid token a WebSocket gets the same HTTP response as any other request."""
        async with serve() as service, client_of(service) as client:
            for headers in ({}, bearer("no.jwt.atall"), {"Authorization": "Bearer"}):
                expected = await client.get("/me", headers=headers)
                with pytest.raises(InvalidStatus) as caught:
                    await connect(f"ws://{service.address}/feed", additional_headers=headers).__aenter__()
                answer = caught.value.response
                assert answer.status_code == expected.status_code
                assert answer.headers["WWW-Authenticate"] == expected.headers["WWW-Authenticate"]
                assert answer.body == expected.content
            assert service.begun == 0

    @pytest.mark.parametrize("framework", services.FRAMEWORKS, indirect=True)
    async def test_token_from_elsewhere(self, serve: Serve, stream: RedisStream) -> None:
        """A token from the query is accepted, for browsers, which cannot set headers; a header takes precedence."""
        token = token_of()
        async with serve() as service:
            there = f"ws://{service.address}/browser?token={token}"
            async with connect(there) as websocket:
                await wait_until(lambda: service.begun == 1)
                for address, headers in (
                    (there[:-9], {}),
                    (there.partition("?")[0], {}),
                    (there, bearer("no.jwt.atall")),
                ):
                    with pytest.raises(InvalidStatus) as caught:
                        await connect(address, additional_headers=headers).__aenter__()
                    assert caught.value.response.status_code == 401
                await publish(stream, TokenRevoked.from_claims(decode(token)))
                assert await closed(websocket) == 4401


class TestStreams:
    """Streaming responses."""

    async def test_ends_on_revocation(self, serve: Serve, stream: RedisStream) -> None:
        """Server-sent events end when the session of the token is destroyed, even while none is being sent."""
        token = token_of(sid="laptop")
        async with serve() as service, client_of(service) as client:
            async with client.stream("GET", "/events", headers=bearer(token)) as response:
                chunks = response.aiter_bytes()
                assert await soon(anext(chunks)) == b"data: hello\n\n"
                await publish(stream, SessionDestroyed(session_id="laptop"))
                assert [chunk async for chunk in chunks] == []
            await service.all_ended()
            assert (await client.get("/events", headers=bearer(token))).status_code == 401


async def _is(client: httpx.AsyncClient, token: str, status: int) -> bool:
    """Return whether the service responds with this status to the token."""
    return (await client.get("/me", headers=bearer(token))).status_code == status
