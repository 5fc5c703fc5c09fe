"""An application whose resources are not open, or were closed because one failed: it is not ready, and says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

import aiohttp.test_utils
import httpx
import pytest
from aiohttp import web
from fastapi import FastAPI
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

import jwt_events.aiohttp
import jwt_events.fastapi
from jwt_events import (
    Closed,
    MemoryTransport,
    Publisher,
    RevocationList,
    StaleRevocationsError,
    Subscriber,
    TransportError,
)
from jwt_events.guard import Guard, Refused, readiness_of, until_revoked
from tests.support.asgi_services import FRAMEWORKS, serving
from tests.support.handling import soon
from tests.support.records import recorded
from tests.support.scripted import ScriptedTransport
from tests.support.services import Service
from tests.support.tokens import bearer, decode, token_of
from tests.support.waiting import scaled, wait_until

_ENDED = "the lifespan ended early, the application goes on without it"
_NOT_OPEN = "revocation list is not open, so every token is stale"


class TestFastAPI:
    """A lifespan, in a task of its own as under uvicorn, with a subscriber that fails."""

    async def test_failed_subscriber(self) -> None:
        """Readiness is red from then on, though the list is fresh, and one line at ERROR says why."""
        transport, scripted = MemoryTransport(), ScriptedTransport()
        subscriber, publisher = Subscriber(scripted), Publisher(transport)
        async with RevocationList(transport) as revocations:
            app = FastAPI(lifespan=jwt_events.fastapi.lifespan(publisher, subscriber))
            app.include_router(jwt_events.fastapi.readiness_router(revocations))

            async def serve() -> None:
                async with app.router.lifespan_context(app):
                    await asyncio.Event().wait()

            serving = asyncio.create_task(serve())
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
                await wait_until(lambda: subscriber.is_live)
                assert (await client.get("/ready")).status_code == 200
                with recorded() as records:
                    scripted.fail()
                    with pytest.raises(TransportError, match="the script says so"):
                        await serving
                assert records.of(_ENDED, "ERROR") == [{"error": "the script says so"}]
                response = await client.get("/ready")
                assert (response.status_code, response.json()["ready"]) == (503, False)
                assert response.json()["subscribers"] == [{"state": "failed", "staleness": None}]

    async def test_ordinary_end(self) -> None:
        """An application that ends as it should says nothing; nor does one that cannot start."""
        app = FastAPI(lifespan=jwt_events.fastapi.lifespan(Subscriber(ScriptedTransport())))
        refused = RevocationList(MemoryTransport())
        again = FastAPI(lifespan=jwt_events.fastapi.lifespan(refused))
        with recorded() as records:
            async with app.router.lifespan_context(app):
                pass
            async with refused:
                with pytest.raises(RuntimeError, match="open already"):
                    await again.router.lifespan_context(again).__aenter__()
        assert records.of(_ENDED) == []


class TestAiohttp:
    """A cleanup context with a subscriber that fails, started by a task that has ended."""

    async def test_failed_subscriber(self) -> None:
        """Readiness is red from then on, in sub-applications, too; closing says why, in one line at ERROR."""
        transport, scripted = MemoryTransport(), ScriptedTransport()
        subscriber = Subscriber(scripted)
        async with RevocationList(transport) as revocations:
            app, inner = web.Application(), web.Application()
            app.cleanup_ctx.append(jwt_events.aiohttp.lifespan(subscriber))
            inner.router.add_get("/ready", jwt_events.aiohttp.readiness_handler(revocations))
            app.add_subapp("/inner", inner)
            client = aiohttp.test_utils.TestClient(aiohttp.test_utils.TestServer(app))
            await asyncio.create_task(client.start_server())
            async with client.get("/inner/ready") as response:
                assert response.status == 200
            with recorded() as records:
                scripted.fail()
                await wait_until(lambda: subscriber.failure is not None)
                async with client.get("/inner/ready") as response:
                    assert response.status == 503
                    assert [one["state"] for one in (await response.json())["subscribers"]] == ["failed"]
                with pytest.raises(TransportError):
                    await client.close()
            assert len(records.of("listening failed", "ERROR")) == len(records.of(_ENDED, "ERROR")) == 1


class TestReadiness:
    """A subscriber that is passed to the readiness probe."""

    @pytest.mark.parametrize("opens", [True, False])
    async def test_subscriber(self, opens: bool) -> None:
        """It is ready while it receives events, with or without a list."""
        subscriber = Subscriber(MemoryTransport())
        if not opens:
            assert readiness_of(subscriber) == (
                503,
                {"ready": False, "revocations": [], "subscribers": [{"state": "closed", "staleness": None}]},
            )
            return
        async with subscriber:
            await wait_until(lambda: subscriber.staleness < 5)
            status, body = readiness_of(subscriber)
            assert (status, body["ready"], body["subscribers"][0]["state"]) == (200, True, "live")


class TestOpenConnections:
    """A list is closed while connections are open, as when a subscriber beside it fails."""

    @pytest.fixture(params=FRAMEWORKS)
    async def service(self, request: pytest.FixtureRequest, revocations: RevocationList) -> AsyncIterator[Service]:
        """A running service."""
        async with serving(request.param, revocations, decode) as service:
            yield service

    @pytest.fixture
    def revocations(self) -> RevocationList:
        """The list of the service."""
        return RevocationList(MemoryTransport(), max_staleness=scaled(5))

    async def test_websocket(self, service: Service, revocations: RevocationList) -> None:
        """A WebSocket is closed with 1013, as nothing would tell of its revocation, and its handler has ended."""
        async with connect(f"ws://{service.address}/feed", additional_headers=bearer(token_of())) as websocket:
            await websocket.send("hello")
            assert await soon(websocket.recv()) == "alice: hello"
            await revocations.aclose()
            with pytest.raises(ConnectionClosed):
                await soon(websocket.recv())
            assert (websocket.close_code, websocket.close_reason) == (1013, "stale_revocations")
            await service.all_ended()

    async def test_stream(self, service: Service, revocations: RevocationList) -> None:
        """A stream ends as if its items had ended, and requests get 503."""
        headers = bearer(token_of())
        async with httpx.AsyncClient(base_url=service.url, timeout=scaled(30)) as client:
            async with client.stream("GET", "/events", headers=headers) as response:
                chunks = response.aiter_bytes()
                assert await soon(anext(chunks)) == b"data: hello\n\n"
                await revocations.aclose()
                assert [chunk async for chunk in chunks] == []
            await service.all_ended()
            assert (await client.get("/me", headers=headers)).status_code == 503

    async def test_between_two_items(self, revocations: RevocationList) -> None:
        """A stream whose list was closed while its consumer was busy ends; one that never began raises `Closed`."""
        closed: list[str] = []

        async def items() -> AsyncIterator[int]:
            try:
                yield 1
                yield 2
            finally:
                closed.append("items")

        async with revocations:
            passed_on = until_revoked(revocations, {"sub": "alice"}, items())
            assert await anext(passed_on) == 1
            late = until_revoked(revocations, {"sub": "alice"}, items())
        with pytest.raises(StopAsyncIteration):
            await anext(passed_on)
        with pytest.raises(Closed):
            await anext(late)
        assert closed == ["items"]

    async def test_something_else_is_closed(self, revocations: RevocationList) -> None:
        """`Closed` of something else that the items use is an error as before."""

        async def items() -> AsyncIterator[int]:
            yield 1
            raise Closed("the publisher is not open")

        async with revocations, aclosing(until_revoked(revocations, {"sub": "alice"}, items())) as passed_on:
            assert await anext(passed_on) == 1
            with pytest.raises(Closed, match="publisher"):
                await anext(passed_on)


class TestNeverOpened:
    """A list that is not open, because the lifespan was forgotten."""

    async def test_said_once(self, caplog: pytest.LogCaptureFixture) -> None:
        """The first refusal is one line at ERROR, with what to do; without the logs it is told as well."""
        guards: list[Guard[object]] = [Guard(RevocationList(MemoryTransport()), decode) for _ in range(2)]

        async def refuse(guard: Guard[object]) -> None:
            with pytest.raises(Refused) as caught:
                await guard.admit_token(token_of())
            assert caught.value.status == 503

        with recorded() as records:
            for _ in range(3):
                await refuse(guards[0])
        (fields,) = records.of(_NOT_OPEN, "ERROR")
        assert [record["level"].name for record in records].count("ERROR") == 1
        assert "lifespan=lifespan(revocations)" in fields["problem"]
        await refuse(guards[1])
        assert [_NOT_OPEN in record.getMessage() for record in caplog.records] == [True]

    @pytest.mark.parametrize("use", [RevocationList.ensure_live])
    def test_the_error(self, use: Callable[..., object]) -> None:
        """The error says what is so, in a sentence."""
        with pytest.raises(StaleRevocationsError, match="is not current: it is not open, or has not read its history"):
            use(RevocationList(MemoryTransport()), {"jti": "t"})
