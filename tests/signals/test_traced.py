"""One span from the request to the response; that of the publish is its child; neither says who is concerned."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

import jwt_events.fastapi
from jwt_events import InvalidOption, MemoryTransport, Publisher, RedisStream
from jwt_events.embedded import EmbeddedServer
from jwt_events.signals import CAEP, LogoutEndpoint, LogoutTokens, SecurityEvents, SetEndpoint
from jwt_events.testing import Transmitter
from jwt_events.tracing import Tracing
from tests.support.faults import frozen
from tests.support.services import uvicorn_server

IDP = Transmitter()
REVOKED = f"{CAEP}session-revoked"
AUTHORIZATION = "Bearer secret-of-the-transmitter"


class Collector:
    """Finished spans in memory."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        """The finished spans by name."""
        return {span.name: span for span in self._exporter.get_finished_spans()}


@pytest.fixture
def collector() -> Iterator[Collector]:
    """Collector of the spans of the test."""
    made = Collector()
    yield made
    made.provider.shutdown()


def events() -> SecurityEvents:
    """Return a receiver of security event tokens."""
    return SecurityEvents(IDP.issuer, IDP.audience, IDP.keys())


async def send(endpoint: SetEndpoint | LogoutEndpoint, body: str) -> int:
    """Send a body to an endpoint; return the status."""

    async def chunks() -> AsyncIterator[bytes]:
        yield body.encode()

    headers = [("Content-Type", endpoint.content_type), ("Authorization", AUTHORIZATION)]
    return (await endpoint.respond("POST", headers, chunks())).status


async def test_from_the_request_to_the_publish(own_server: Callable[[], EmbeddedServer], collector: Collector) -> None:
    """The publish span is a child of the one span of the request, in which nothing says who is concerned."""
    token = IDP.security_event(REVOKED, IDP.subject("alice-the-user"), jti="jti-of-the-token")
    async with own_server() as server:
        stream = RedisStream(server.url, "test:traced")
        async with Publisher(stream, tracer_provider=collector.provider) as publisher:
            app = FastAPI()
            options: dict[str, Any] = {"authorization": AUTHORIZATION, "tracer_provider": collector.provider}
            app.include_router(jwt_events.fastapi.set_router(publisher, events(), **options))
            async with uvicorn_server(app) as address:
                assert (await IDP.push(f"http://{address}/events", token, authorization=AUTHORIZATION))[0] == 202
    received, published = collector.spans["receive signal"], collector.spans["publish test:traced"]
    assert len(collector.spans) == 2
    assert received.parent is None
    assert received.kind is SpanKind.INTERNAL
    assert published.parent is not None
    assert published.parent == received.get_span_context()
    assert dict(received.attributes or {}) == {
        "jwt_events.signal.source": IDP.issuer,
        "jwt_events.signal.kind": "session-revoked",
        "jwt_events.signal.outcome": "published",
        "http.response.status_code": 202,
    }
    said = received.to_json() + published.to_json()
    assert not any(part in said for part in (*token.split("."), "alice-the-user", "jti-of-the-token", AUTHORIZATION))
    assert received.status.status_code is StatusCode.UNSET


async def test_within_the_span_of_the_application(collector: Collector) -> None:
    """It is a child of the span of the HTTP server, if that is traced."""
    async with Publisher(MemoryTransport(), tracer_provider=collector.provider) as publisher:
        tokens = LogoutTokens(IDP.issuer, IDP.audience, IDP.keys())
        endpoint = LogoutEndpoint(publisher, tokens, tracer_provider=Tracing(collector.provider, ratio=0.0))
        body = f"logout_token={IDP.logout_token(sid='s1')}"
        assert await send(endpoint, body) == 200
        assert list(collector.spans) == ["publish memory"]  # not traced by the ratio, unless the request is
        with collector.provider.get_tracer("http").start_as_current_span("POST") as request:
            assert await send(endpoint, body) == 200
    received = collector.spans["receive signal"]
    assert received.parent is not None
    assert received.parent.span_id == request.get_span_context().span_id
    assert (received.attributes or {})["jwt_events.signal.kind"] == "logout"


async def test_refusals_and_failures(own_server: Callable[[], EmbeddedServer], collector: Collector) -> None:
    """They have the code that was replied, and no message."""
    async with own_server() as server, Publisher(RedisStream(server.url, "test:traced"), timeout=0.2) as publisher:
        endpoint = SetEndpoint(publisher, events(), tracer_provider=collector.provider)
        bad, _ = IDP.bad_security_events()["signature of another key"]
        assert await send(endpoint, bad) == 400
        received = collector.spans["receive signal"]
        assert (received.attributes or {})["error.type"] == "invalid_key"
        assert (received.attributes or {})["jwt_events.signal.outcome"] == "refused"
        assert received.status.status_code is StatusCode.ERROR
        assert received.status.description is None
        with frozen(server):
            assert await send(endpoint, IDP.security_event(REVOKED, IDP.subject("alice"))) == 503
        received = collector.spans["receive signal"]
        assert (received.attributes or {})["error.type"] == "temporarily_unavailable"
        assert (received.attributes or {})["http.response.status_code"] == 503


async def test_cancelled(collector: Collector) -> None:
    """A request that is cancelled has ended its span, with the reason."""
    endpoint = SetEndpoint(Publisher(MemoryTransport()), events(), tracer_provider=collector.provider)
    reading = asyncio.Event()

    async def never() -> AsyncIterator[bytes]:
        reading.set()
        await asyncio.Event().wait()
        yield b""

    task = asyncio.create_task(endpoint.respond("POST", [("Content-Type", endpoint.content_type)], never()))
    await reading.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (collector.spans["receive signal"].attributes or {})["error.type"] == "CancelledError"


async def test_a_trace_that_is_not_recorded() -> None:
    """What the sampler leaves out is left out as a whole."""
    collector, provider = Collector(), TracerProvider(sampler=ALWAYS_OFF)
    async with Publisher(MemoryTransport(), tracer_provider=collector.provider) as publisher:
        endpoint = SetEndpoint(publisher, events(), tracer_provider=provider)
        assert await send(endpoint, IDP.security_event(REVOKED, IDP.subject("alice"))) == 202
    assert collector.spans == {}
    assert not trace.get_current_span().get_span_context().is_valid
    collector.provider.shutdown()
    provider.shutdown()


async def test_options() -> None:
    """What is no provider is refused when it is given."""
    async with Publisher(MemoryTransport()) as publisher:
        with pytest.raises(InvalidOption, match="tracer_provider"):
            SetEndpoint(publisher, events(), tracer_provider=7)
