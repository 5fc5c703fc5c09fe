"""The endpoints, in each framework, with a real transmitter, a real server and a list that is asked."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from aiohttp import web
from fastapi import Depends, FastAPI
from prometheus_client import CollectorRegistry

import jwt_events.aiohttp
import jwt_events.asgi
import jwt_events.fastapi
from jwt_events import (
    InvalidOption,
    MemoryTransport,
    Metrics,
    Publisher,
    RedisStream,
    RevocationList,
    SigningKeys,
    TokenRevoked,
    Verdict,
)
from jwt_events.embedded import EmbeddedServer
from jwt_events.signals import CAEP, LogoutEndpoint, LogoutTokens, SecurityEvents, SetEndpoint
from jwt_events.signals._rate import RateLimit
from jwt_events.testing import Listener, RecordingPublisher, Transmitter
from tests.support.faults import frozen
from tests.support.logs import everything_logged
from tests.support.services import aiohttp_server, uvicorn_server
from tests.support.tokens import decode
from tests.support.waiting import wait_until

FRAMEWORKS = ("aiohttp", "asgi", "fastapi")
FORM = "application/x-www-form-urlencoded"
SET = "application/secevent+jwt"
IDP = Transmitter()
REVOKED = f"{CAEP}session-revoked"
SECRET = "Bearer of the transmitter"


def tokens() -> LogoutTokens:
    """Return a receiver of logout tokens."""
    return LogoutTokens(IDP.issuer, IDP.audience, IDP.keys())


def events(**options: Any) -> SecurityEvents:
    """Return a receiver of security event tokens."""
    return SecurityEvents(IDP.issuer, IDP.audience, IDP.keys(), **options)


@asynccontextmanager
async def serving(framework: str, publisher: Publisher, **options: Any) -> AsyncIterator[str]:
    """Run both endpoints in a framework, behind a guard of the whole application where there is one; return its URL."""
    module = getattr(jwt_events, framework)
    one = module.logout_router(publisher, tokens())
    two = module.set_router(publisher, events(), authorization=SECRET, **options)
    revocations = RevocationList(MemoryTransport())
    if framework == "aiohttp":
        app = web.Application(middlewares=[jwt_events.aiohttp.BearerGuard(revocations, decode).middleware()])
        app.add_routes([*one, *two])
        server = aiohttp_server(app)
    elif framework == "fastapi":
        api = FastAPI(dependencies=[Depends(jwt_events.fastapi.BearerGuard(revocations, decode))])
        api.include_router(one)
        api.include_router(two)
        server = uvicorn_server(api)
    else:
        server = uvicorn_server(_both(one, two))
    async with server as address:
        yield f"http://{address}"


def _both(one: Any, two: Any) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        await (two if scope["path"] == "/events" else one)(scope, receive, send)

    return app


@pytest.mark.parametrize("framework", FRAMEWORKS)
class TestFrameworks:
    """What a sender sees, in each framework."""

    async def test_log_out(self, framework: str, url: str, key: str) -> None:
        """A logout token is in force in another list when it was accepted; a bad one is refused in JSON."""
        stream = RedisStream(url, key)
        async with (
            Publisher(stream) as publisher,
            RevocationList(stream) as revocations,
            serving(framework, publisher) as service,
        ):
            claims = {"sub": "alice", "sid": "s1", "iat": int(time.time()) - 1}
            assert revocations.check(claims) is Verdict.ALLOW
            assert await IDP.log_out(f"{service}/backchannel-logout", IDP.logout_token(sid="s1")) == (200, {})
            await wait_until(lambda: revocations.check(claims) is Verdict.REVOKED)
            bad, _ = IDP.bad_logout_tokens()["signature of another key"]
            status, body = await IDP.log_out(f"{service}/backchannel-logout", bad)
            assert (status, body["error"]) == (400, "invalid_request") or (status, body["error"]) == (
                400,
                "invalid_key",
            )

    async def test_push(self, framework: str, url: str, key: str) -> None:
        """A security event is in force when it was accepted; each bad one is refused with its code."""
        stream = RedisStream(url, key)
        async with (
            Publisher(stream) as publisher,
            RevocationList(stream) as revocations,
            serving(framework, publisher) as service,
        ):
            address = f"{service}/events"
            token = IDP.security_event(REVOKED, IDP.subject("alice"))
            assert await IDP.push(address, token, authorization=SECRET) == (202, {})
            await wait_until(lambda: revocations.check({"sub": "alice", "iat": 1}) is Verdict.REVOKED)
            for name, (bad, err) in IDP.bad_security_events().items():
                status, body = await IDP.push(address, bad, authorization=SECRET)
                assert (status, body["err"]) in {(400, err), (413, err)}, name
            for authorization in (None, "Bearer another", SECRET.lower(), "Bearer ünï"):
                headers = {"Content-Type": SET} | ({} if authorization is None else {"Authorization": authorization})
                async with httpx.AsyncClient() as client:
                    encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
                    response = await client.post(address, content=token, headers=encoded)
                assert (response.status_code, response.json()["err"]) == (401, "authentication_failed")

    async def test_headers(self, framework: str) -> None:
        """No response is stored; errors are JSON in a language."""
        transport = MemoryTransport()
        async with Publisher(transport) as publisher, serving(framework, publisher) as service:
            async with httpx.AsyncClient(base_url=service) as client:
                good = await client.post("/backchannel-logout", data={"logout_token": IDP.logout_token(sid="s")})
                bad = await client.post("/events", content="x", headers={"Content-Type": SET, "Authorization": SECRET})
                wrong = await client.get("/events")
            assert (good.status_code, good.content, good.headers["cache-control"]) == (200, b"", "no-store")
            assert (bad.status_code, bad.headers["cache-control"]) == (400, "no-store")
            assert bad.headers["content-type"] == "application/json"
            assert bad.headers["content-language"] == "en"
            assert wrong.status_code in (401, 405)  # a guard of the application may be asked before the method

    async def test_a_server_that_is_down(self, framework: str, own_server: Callable[[], EmbeddedServer]) -> None:
        """What the server does not have was not accepted, and may be sent again."""
        async with own_server() as server:
            stream = RedisStream(server.url)
            async with Publisher(stream, timeout=0.5) as publisher, serving(framework, publisher) as service:
                token, logout = IDP.security_event(REVOKED, IDP.subject("alice")), IDP.logout_token(sid="s")
                with frozen(server):
                    status, _ = await IDP.push(f"{service}/events", token, authorization=SECRET)
                    assert status == 503
                    status, body = await IDP.log_out(f"{service}/backchannel-logout", logout)
                    assert (status, body["error"]) == (400, "temporarily_unavailable")

                async def is_accepted() -> bool:  # the time-out is short
                    return (await IDP.push(f"{service}/events", token, authorization=SECRET)) == (202, {})

                async def is_logged_out() -> bool:
                    return (await IDP.log_out(f"{service}/backchannel-logout", logout)) == (200, {})

                await wait_until(is_accepted)
                await wait_until(is_logged_out)


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    """Send a body in parts."""
    for part in parts:
        yield part


async def push(
    endpoint: SetEndpoint | LogoutEndpoint, body: bytes | str, kind: str | None = None, **headers: str
) -> tuple[int, str]:
    """Send a body to an endpoint; return the status, and the code of an error."""
    kind = kind or endpoint.content_type
    encoded = body.encode() if isinstance(body, str) else body
    named = [("Content-Type", kind), *((name.replace("_", "-"), value) for name, value in headers.items())]
    response = await endpoint.respond("POST", named, chunks(encoded))
    body_ = json.loads(response.body) if response.body else {}
    return response.status, body_.get("err", body_.get("error", ""))


class TestRequests:
    """What is checked before anything is parsed."""

    @pytest.fixture
    def publisher(self) -> RecordingPublisher:
        """A publisher that records."""
        return RecordingPublisher(MemoryTransport())

    async def test_methods_and_types(self, publisher: RecordingPublisher) -> None:
        """Other methods and content types are refused, also if the token is good."""
        endpoint = SetEndpoint(publisher, events())
        token = IDP.security_event(REVOKED, IDP.subject("alice"))
        for method in ("GET", "PUT", "HEAD", "post"):
            response = await endpoint.respond(method, [("content-type", SET)], chunks(token.encode()))
            assert (response.status, response.headers["Allow"]) == (405, "POST")
        for kind in ("application/json", FORM, "text/plain", "application/jwt", "x"):
            assert await push(endpoint, token, kind) == (400, "invalid_request")
        response = await endpoint.respond("POST", [("content-type", SET)] * 2, chunks(token.encode()))
        assert response.status == 400
        assert await push(endpoint, token, f"{SET}; charset=utf-8") == (202, "")
        publisher.assert_published(TokenRevoked, user_id="alice")

    async def test_sizes(self, publisher: RecordingPublisher) -> None:
        """A body that says it is too large is not read, and one that lies is read only up to the limit."""
        endpoint = SetEndpoint(publisher, events())
        taken: list[int] = []

        async def endless() -> AsyncIterator[bytes]:
            while True:
                taken.append(1)
                yield b"a" * 1_000

        response = await endpoint.respond("POST", [("content-type", SET), ("content-length", "99999")], endless())
        assert (response.status, taken) == (413, [])
        response = await endpoint.respond("POST", [("content-type", SET), ("content-length", "x")], endless())
        assert (response.status, taken) == (400, [])
        response = await endpoint.respond("POST", [("content-type", SET)], endless())
        assert response.status == 413
        assert len(taken) < 30

    async def test_rate(self, publisher: RecordingPublisher) -> None:
        """Beyond the rate requests are refused at once; those without the right authorization do not count."""
        endpoint = SetEndpoint(publisher, events(), authorization=SECRET, rate=0.001)
        token = IDP.security_event(REVOKED, IDP.subject("alice"))
        assert await push(endpoint, token, authorization="wrong") == (401, "authentication_failed")
        assert await push(endpoint, token, authorization=SECRET) == (202, "")
        assert await push(endpoint, token, authorization=SECRET) == (429, "invalid_request")

    @pytest.mark.parametrize("body", ["", "logout_token", "token=x", "logout_token=a&logout_token=b", "%ff", "a&" * 99])
    async def test_forms(self, publisher: RecordingPublisher, body: str) -> None:
        """A form without exactly one logout token is refused."""
        assert await push(LogoutEndpoint(publisher, tokens()), body) == (400, "invalid_request")

    async def test_bytes(self, publisher: RecordingPublisher) -> None:
        """Bytes that are no text are refused."""
        assert await push(LogoutEndpoint(publisher, tokens()), b"logout_token=\xff") == (400, "invalid_request")
        assert await push(SetEndpoint(publisher, events()), b"\xff\xfe") == (400, "invalid_request")

    async def test_a_client_that_leaves(self, publisher: RecordingPublisher) -> None:
        """A body that breaks off is refused, and nothing is logged as an error."""

        async def broken() -> AsyncIterator[bytes]:
            yield b"ey"
            raise ConnectionResetError

        endpoint = SetEndpoint(publisher, events())
        response = await endpoint.respond("POST", [("content-type", SET)], broken())
        assert response.status == 400

    async def test_authorization_by_a_function(self, publisher: RecordingPublisher) -> None:
        """A function may be async; what it does not say clearly is no."""
        token = IDP.security_event(REVOKED, IDP.subject("alice"))

        async def later(value: str) -> bool:
            return value == SECRET

        endpoint = SetEndpoint(publisher, events(), authorization=later)
        assert await push(endpoint, token, authorization=SECRET) == (202, "")
        assert await push(endpoint, token, authorization="x") == (401, "authentication_failed")
        assert await push(endpoint, token) == (401, "authentication_failed")

    @pytest.mark.parametrize(
        "options", [{"rate": 0}, {"authorization": ""}, {"authorization": 7}, {"metrics": 7}, {"on_status": 7}], ids=str
    )
    def test_options(self, publisher: RecordingPublisher, options: dict[str, Any]) -> None:
        """Options that cannot work are refused when they are given; so are things in each other's place."""
        with pytest.raises(InvalidOption):
            SetEndpoint(publisher, events(), **options)
        with pytest.raises(InvalidOption):
            LogoutEndpoint(publisher, events())  # type: ignore[arg-type]  # it is what is tested
        with pytest.raises(InvalidOption):
            SetEndpoint(events(), events())  # type: ignore[arg-type]  # it is what is tested


class TestMeaning:
    """What an endpoint does with what it received."""

    @pytest.fixture
    def publisher(self) -> RecordingPublisher:
        """A publisher that records."""
        return RecordingPublisher(MemoryTransport())

    async def test_verification(self, publisher: RecordingPublisher) -> None:
        """A state that was asked for is accepted, another one is refused; a verification without one is accepted."""
        plain = SetEndpoint(publisher, events())
        assert await push(plain, IDP.verification()) == (202, "")
        assert await push(plain, IDP.verification("s")) == (400, "invalid_state")

        async def expected(state: str) -> bool:
            return state == "s"

        asking = SetEndpoint(publisher, events(), verification=expected)
        assert await push(asking, IDP.verification("s")) == (202, "")
        assert await push(asking, IDP.verification("t")) == (400, "invalid_state")
        assert publisher.published == []

    async def test_stream_updated(self, publisher: RecordingPublisher) -> None:
        """The new status is passed on."""
        seen: list[str] = []
        endpoint = SetEndpoint(publisher, events(), on_status=seen.append)
        assert await push(endpoint, IDP.stream_updated("paused")) == (202, "")
        assert seen == ["paused"]

    async def test_redelivery(self, publisher: RecordingPublisher) -> None:
        """A token that is sent again, also to another instance, is handled once."""
        token = IDP.security_event(REVOKED, IDP.subject("alice"))
        transport = MemoryTransport()
        async with Publisher(transport) as one, Publisher(transport) as two, Listener(transport) as listener:
            for publisher_ in (one, two, one):
                assert await push(SetEndpoint(publisher_, events()), token) == (202, "")
            await one.publish(TokenRevoked(token_id="last"))
            await wait_until(lambda: any(event.subject == "last" for event in listener.events))
            assert [event.subject for event in listener.events] == ["alice", "last"]

    async def test_functions_that_fail(self, publisher: RecordingPublisher) -> None:
        """A resolver that fails is a failure of the receiver: the sender tries again, and the log says where."""

        def resolve(subject: object) -> str:
            raise LookupError("a secret")

        endpoint = SetEndpoint(publisher, events(subject=resolve))
        token = IDP.security_event(REVOKED, {"format": "opaque", "id": "private"})
        with everything_logged() as lines:
            assert await push(endpoint, token) == (500, "server_error")
        (line,) = [line for line in lines if line.startswith("signal failed")]
        assert "LookupError at test_endpoints.py" in line
        assert "secret" not in line
        assert "private" not in line

    async def test_keys_that_are_down(self, publisher: RecordingPublisher) -> None:
        """Without keys nothing can be verified: try again."""

        async def fetch() -> dict[str, Any]:
            raise OSError

        endpoint = SetEndpoint(publisher, SecurityEvents(IDP.issuer, IDP.audience, SigningKeys(fetch)))
        token = IDP.security_event(REVOKED, IDP.subject("alice"))
        assert await push(endpoint, token) == (503, "temporarily_unavailable")

    async def test_metrics(self, publisher: RecordingPublisher) -> None:
        """Signals are counted by what became of them, and their age is measured."""
        registry = CollectorRegistry()
        endpoint = SetEndpoint(publisher, events(), metrics=Metrics(registry))
        await push(endpoint, IDP.security_event(REVOKED, IDP.subject("alice")))
        await push(endpoint, IDP.verification())
        await push(endpoint, "x")
        await push(endpoint, IDP.security_event("https://new.example/" + "x" * 99, IDP.subject("alice")))
        for kind, outcome in {
            "session-revoked": "published",
            "verification": "ignored",
            "unverified": "refused",
            "other": "ignored",
        }.items():
            labels = {"source": IDP.issuer, "kind": kind, "outcome": outcome}
            assert registry.get_sample_value("jwt_events_signals_received_total", labels) == 1, kind
        source = {"source": IDP.issuer}
        assert registry.get_sample_value("jwt_events_signal_age_seconds_count", source) == 1

    async def test_cancelled(self) -> None:
        """A request that is cancelled before the receipt is no success, and can be sent again."""
        waiting = asyncio.Event()

        class Slow(RecordingPublisher):
            async def publish_many(self, *args: Any, **options: Any) -> Any:
                waiting.set()
                await asyncio.Event().wait()

        endpoint = SetEndpoint(Slow(MemoryTransport()), events())
        task = asyncio.create_task(push(endpoint, IDP.security_event(REVOKED, IDP.subject("alice"))))
        await waiting.wait()
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def test_rate_limit() -> None:
    """It lets the rate through, at once or spread, and forgets what lies further back."""
    limit = RateLimit(10)
    assert [limit.admit(0.0) for _ in range(12)] == [True] * 10 + [False] * 2
    assert limit.admit(0.1)
    assert not limit.admit(0.1)
    assert [limit.admit(100.0) for _ in range(12)] == [True] * 10 + [False] * 2
    assert not limit.admit(50.0)
