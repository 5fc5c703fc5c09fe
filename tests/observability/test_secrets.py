"""No log line, error, repr, metric or span contains a secret."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import redis.asyncio
from loguru import logger
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, generate_latest
from rich.pretty import pretty_repr

from jwt_events import (
    Event,
    InvalidEvent,
    InvalidOption,
    KeyRotated,
    MemoryTransport,
    Publisher,
    RedisPubSub,
    RedisStream,
    Retry,
    SessionCreated,
    Subscriber,
    TokenRevoked,
    TransportError,
    UnknownEvent,
)
from jwt_events.embedded import EmbeddedServer
from jwt_events.envelope import Envelope, encode
from jwt_events.instrumentation import UNOBSERVED
from jwt_events.metrics import Metrics
from jwt_events.publisher._call import PublishCall
from jwt_events.publisher._under_way import CallsUnderWay
from jwt_events.subscriber._job import Job
from jwt_events.transport._redis.commands import CommandTemplate
from jwt_events.transport._redis.protocol import Request
from jwt_events.transport.base import Batch, Delivery
from tests.support.examples import all_that_is_said
from tests.support.handling import Gate
from tests.support.records import watching
from tests.support.scripted import ScriptedTransport
from tests.support.waiting import wait_until

SECRET = "-".join(["the", "secret", "itself"])  # not in one piece, so that a traceback does not quote it from here


def _with_password(server: EmbeddedServer) -> str:
    return server.url.replace("unix://", f"unix://:{SECRET}@")


def _secret_events() -> list[Event]:
    """Return events with a secret in every field that an application sets."""
    common: dict[str, Any] = {"source": SECRET, "metadata": {SECRET: [SECRET]}}
    return [
        TokenRevoked(token_id=SECRET, user_id=SECRET, session_id=SECRET, client_id=SECRET, reason=SECRET, **common),
        SessionCreated(session_id=SECRET, user_id=SECRET, client_id=SECRET, **common),
        KeyRotated(key_id=SECRET, previous_key_id=f"{SECRET}2", issuer=SECRET, algorithm=SECRET, **common),
        UnknownEvent(type="jwt.other.v1", source=SECRET, data={SECRET: SECRET}),
    ]


class TestLogs:
    """Log lines."""

    @pytest.mark.parametrize("kind", [RedisStream, RedisPubSub])
    async def test_everything_that_can_be_logged(
        self, own_server: Callable[..., EmbeddedServer], kind: type[RedisStream | RedisPubSub]
    ) -> None:
        """Events, failing handlers, invalid messages, a lost connection and a hard stop, with secrets everywhere."""
        async with own_server(config={"requirepass": SECRET}) as server:
            url, gate = _with_password(server), Gate()
            transport = kind(url, "events")
            registry, spans = CollectorRegistry(), InMemorySpanExporter()
            tracing = TracerProvider()
            tracing.add_span_processor(SimpleSpanProcessor(spans))
            watched: dict[str, Any] = {"metrics": Metrics(registry), "tracer_provider": tracing}
            subscriber = Subscriber(transport, retry=Retry(attempts=2, initial=0.001), drain_timeout=0.05, **watched)

            @subscriber.on()
            async def fail(subject: object) -> None:
                raise ValueError(subject, SECRET)

            subscriber.on()(gate)
            subscriber.on_gap(fail)
            with watching(SECRET, "eyJ") as records:
                async with subscriber, redis.asyncio.Redis.from_url(url) as client:
                    async with Publisher(transport, max_event_bytes=2_000, **watched) as publisher:
                        await publisher.publish_many(_secret_events())
                        await publisher.publish_many(_secret_events()[:1] * 2)
                        with pytest.raises(InvalidEvent):
                            await publisher.publish(TokenRevoked(token_id=SECRET, metadata={SECRET: SECRET * 200}))
                        assert SECRET not in repr(publisher)
                    hostile = Envelope(TokenRevoked(token_id=SECRET), SECRET, f"{SECRET}={SECRET},{SECRET.upper()}")
                    for poison in (
                        encode(hostile, source=SECRET),
                        SECRET.encode(),
                        b'{"%s": 1}' % SECRET.encode(),
                        b'"eyJhbGciOiJIUzI1NiJ9.e30.c2ln"',
                    ):
                        if kind is RedisStream:
                            await client.xadd("events", {"event": poison})
                        else:
                            await client.publish("events", poison)
                    await wait_until(lambda: subscriber.stats.decode_errors == 3)
                    await client.client_kill_filter(_type="pubsub" if kind is RedisPubSub else "normal", skipme=True)
                    await wait_until(lambda: records.of("connection lost"))
                    await wait_until(lambda: len(records.of("connection state changed")) >= 3)
                    await wait_until(lambda: subscriber.stats.in_flight == gate.running == 6)
            assert len(records.of("handler cancelled")) == 6
            assert SECRET not in repr(transport) + repr(subscriber)
            assert SECRET not in generate_latest(registry).decode()
            finished = spans.get_finished_spans()
            assert {span.name for span in finished} == {f"{name} events" for name in ("publish", "create", "process")}
            assert [span.name for span in finished if SECRET in span.to_json()] == []

    async def test_refused_access(self, own_server: Callable[..., EmbeddedServer]) -> None:
        """A password that the server refuses is neither logged nor in the error."""
        async with own_server(config={"requirepass": "another"}) as server:
            subscriber = Subscriber(RedisStream(_with_password(server), "events"))
            with watching(SECRET), pytest.raises(TransportError) as caught:
                await subscriber.__aenter__()
            assert SECRET not in all_that_is_said(caught.value)

    def test_malformed_url(self) -> None:
        """An invalid URL is not repeated."""
        for url in (f"http://:{SECRET}@localhost", f"redis://:{SECRET}@localhost:port", f"{SECRET}"):
            with pytest.raises(InvalidOption) as caught:
                RedisStream(url)
            assert SECRET not in all_that_is_said(caught.value)

    async def test_refused_events(self) -> None:
        """Events that cannot be published are described without their content, and not logged."""
        transport = MemoryTransport()
        with watching(SECRET):
            async with Publisher(transport, max_event_bytes=200) as publisher:
                for payload in ({"token_id": f"eyJ{SECRET}.{SECRET}.{SECRET}"}, {"user_id": [SECRET]}, {SECRET: 1}):
                    with pytest.raises(InvalidEvent) as caught:
                        await publisher.publish("token_revoked", payload)
                    assert SECRET not in all_that_is_said(caught.value).replace(f"{SECRET}: is no field", "")
                with pytest.raises(InvalidEvent) as caught:
                    await publisher.publish(_secret_events()[0])
                assert SECRET not in all_that_is_said(caught.value)

    async def test_representations(self) -> None:
        """A repr that can appear in a traceback or a log shows no payload."""
        payload, events = SECRET.encode(), _secret_events()
        delivery = Delivery(payload, "1-0")
        settled = asyncio.get_running_loop().create_future()
        words, (filled,) = ("PING", SECRET), CommandTemplate(b"PING").fill([payload])
        jobs = [Job(event, delivery=delivery, key=SECRET) for event in events]
        requests = [Request([command], settled, replies=[payload]) for command in (words, filled)]
        async with MemoryTransport().sender() as sender:
            call = PublishCall(sender, UNOBSERVED, logger, events, [payload], None, CallsUnderWay())
        for thing in (delivery, Batch([delivery]), call, *events, *jobs, *requests):
            assert SECRET not in repr(thing)
            assert SECRET not in pretty_repr(thing)

    async def test_blocked_listener(self) -> None:
        """The content of an event that is dropped is not logged."""
        transport = ScriptedTransport()
        with watching(SECRET) as records:
            async with Subscriber(transport) as subscriber:
                transport.deliver(*_secret_events())
                await wait_until(lambda: subscriber.stats.received == 1)
                await asyncio.sleep(0)
        assert records.of("deliveries dropped, the subscriber was stopped", "WARNING") == [{"count": 4}]
