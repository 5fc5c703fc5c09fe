"""Traces across the wire, by the messaging conventions of OpenTelemetry 1.44."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import context, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import NoOpTracerProvider, SpanKind, StatusCode

from jwt_events import (
    EventTooLarge,
    InvalidOption,
    MemoryTransport,
    Publisher,
    RedisPubSub,
    RedisStream,
    Retry,
    Subscriber,
    Transport,
)
from jwt_events.envelope import Envelope, encode
from jwt_events.tracing import AnyTracing, Tracing, setup
from tests.support.examples import revoked
from tests.support.handling import Gate, Recorder
from tests.support.records import watching
from tests.support.waiting import wait_until

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"


class Collector:
    """Collector of finished spans in memory.

    Attributes:
        provider: makes those spans.
    """

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        """All finished spans, in the order of their ends."""
        return self._exporter.get_finished_spans()

    def of(self, name: str) -> list[ReadableSpan]:
        """Return the spans with this name."""
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        """Return the only span with this name."""
        (span,) = self.of(name)
        return span


@pytest.fixture
def collector() -> Iterator[Collector]:
    """Collector of the spans of the test."""
    made = Collector()
    yield made
    made.provider.shutdown()


def _ids(span: Any) -> tuple[int, int]:
    found = span if isinstance(span, trace.SpanContext) else span.get_span_context()
    return found.trace_id, found.span_id


async def _send(transport: Transport, tracing: AnyTracing, *reasons: str, handler: Any = None, **options: Any) -> Any:
    """Publish events with these reasons in one call and handle them; return the events."""
    subscriber = Subscriber(transport, tracer_provider=tracing, **options)
    subscriber.on()(handler or Recorder())
    events = [revoked(id=f"id-{reason}", reason=reason) for reason in reasons]
    async with subscriber:
        async with Publisher(transport, tracer_provider=tracing) as publisher:
            if len(events) == 1:
                await publisher.publish(events[0])
            else:
                await publisher.publish_many(events)
        await wait_until(lambda: subscriber.stats.handled + subscriber.stats.failed == len(events))
    return events


class TestStructure:
    """Spans and their relations."""

    async def test_linked(self, collector: Collector) -> None:
        """The process span starts a new trace with a link to the publish span."""
        await _send(MemoryTransport(), collector.provider, "one")
        published, processed = collector.one("publish memory"), collector.one("process memory")
        assert (published.kind, processed.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
        assert processed.parent is None
        assert [_ids(link.context) for link in processed.links] == [_ids(published)]
        assert _ids(processed)[0] != _ids(published)[0]
        assert len(collector.spans) == 2
        assert published.instrumentation_scope is not None
        assert published.instrumentation_scope.schema_url == "https://opentelemetry.io/schemas/1.44.0"

    async def test_child(self, collector: Collector) -> None:
        """With parent="child", the process span is a child of the publish span, and linked to it."""
        await _send(MemoryTransport(), Tracing(collector.provider, parent="child"), "one")
        published, processed = collector.one("publish memory"), collector.one("process memory")
        assert processed.parent is not None
        assert _ids(processed.parent) == _ids(published)
        assert processed.parent.is_remote
        assert [_ids(link.context) for link in processed.links] == [_ids(published)]

    async def test_caller(self, collector: Collector) -> None:
        """The publish span is part of the caller's trace; the process span is not part of the subscriber's."""
        with collector.provider.get_tracer("test").start_as_current_span("around") as around:
            await _send(MemoryTransport(), collector.provider, "one")
        published = collector.one("publish memory")
        assert published.parent is not None
        assert _ids(published.parent) == _ids(around)
        assert collector.one("process memory").parent is None

    async def test_batch(self, collector: Collector) -> None:
        """Each event of a batch has a create span; the publish span and the process spans link to it."""
        await _send(MemoryTransport(), collector.provider, "one", "two", "three")
        sent, created = collector.one("publish memory"), collector.of("create memory")
        assert sent.kind is SpanKind.CLIENT
        assert [span.kind for span in created] == [SpanKind.PRODUCER] * 3
        assert [_ids(link.context) for link in sent.links] == [_ids(span) for span in created]
        assert sent.attributes is not None
        assert sent.attributes["messaging.batch.message_count"] == 3
        assert "messaging.message.id" not in sent.attributes
        by_id = {span.attributes["messaging.message.id"]: span for span in created if span.attributes}
        for span in collector.of("process memory"):
            assert span.attributes is not None
            assert "messaging.batch.message_count" not in span.attributes
            assert [_ids(link.context) for link in span.links] == [_ids(by_id[span.attributes["messaging.message.id"]])]

    async def test_batch_in_one(self, collector: Collector) -> None:
        """With create_spans=False, all events of a batch carry the context of the publish span."""
        await _send(MemoryTransport(), Tracing(collector.provider, create_spans=False), "one", "two")
        sent = collector.one("publish memory")
        assert sent.kind is SpanKind.PRODUCER
        assert [[_ids(link.context) for link in s.links] for s in collector.of("process memory")] == [[_ids(sent)]] * 2
        assert len(collector.spans) == 3

    @pytest.mark.parametrize("sync", [False, True])
    async def test_inside_a_handler(self, collector: Collector, sync: bool) -> None:
        """Spans created by handlers are children of the process span, in threads too; two handlers share one span."""
        tracer, around = collector.provider.get_tracer("test"), trace.get_current_span()

        def work(event: Any) -> None:
            tracer.start_span("inner").end()

        async def work_async(event: Any) -> None:
            work(event)

        subscriber = Subscriber(transport := MemoryTransport(), tracer_provider=collector.provider)
        subscriber.on()(work if sync else work_async)
        subscriber.on()(Recorder())
        async with subscriber, Publisher(transport) as publisher:
            await publisher.publish(revoked())
            await wait_until(lambda: subscriber.stats.handled == 1)
        inner, processed = collector.one("inner"), collector.one("process memory")
        assert inner.parent is not None
        assert _ids(inner.parent) == _ids(processed)
        assert processed.links == ()
        assert trace.get_current_span() is around

    async def test_pulled(self, collector: Collector) -> None:
        """An event from events() has a span until the next one is requested."""
        transport = MemoryTransport(start="all")
        async with Publisher(transport, tracer_provider=collector.provider) as publisher:
            await publisher.publish(revoked())
            await publisher.publish(revoked(id="another"))
        async for event in Subscriber(transport, tracer_provider=collector.provider).events():
            if event.id == "another":
                break
        await wait_until(lambda: len(collector.of("process memory")) == 2)
        assert [s.status.status_code for s in collector.of("process memory")] == [StatusCode.UNSET, StatusCode.ERROR]

    async def test_nothing_for_polling(self, collector: Collector, url: str, key: str) -> None:
        """Connecting, reading and settling create no spans."""
        await _send(RedisStream(url, key, group="g", block=0.01), collector.provider, "one")
        assert {span.name for span in collector.spans} == {f"publish {key}", f"process {key}"}


class TestAttributes:
    """Attributes and events of spans."""

    @pytest.mark.parametrize("group", [None, "mailer"])
    async def test_conventions(self, collector: Collector, url: str, key: str, group: str | None) -> None:
        """Attributes describe system, destination, operation, message and server, and no person."""
        await _send(RedisStream(url, key, group=group), collector.provider, "one")
        common = {"messaging.system": "redis", "messaging.destination.name": key, "messaging.message.id": "id-one"}
        published, processed = collector.one(f"publish {key}").attributes, collector.one(f"process {key}").attributes
        assert published is not None
        assert processed is not None
        common["server.address"] = str(published["server.address"])
        assert common["server.address"] in url
        port = {"server.port": published["server.port"]} if "server.port" in published else {}
        assert published == common | port | {
            "messaging.operation.name": "publish",
            "messaging.operation.type": "send",
        }
        mine = {} if group is None else {"messaging.consumer.group.name": group}
        assert processed == common | port | mine | {
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
        }

    def test_server(self) -> None:
        """Host and port are those of the URL; a password is in no attribute."""
        server = RedisPubSub("redis://user:hush@example.com:7000/0").server
        assert (server.address, server.port, server.group) == ("example.com", 7000, None)
        assert "hush" not in repr(server)

    async def test_failed_handler(self, collector: Collector) -> None:
        """Each failure is a span event with class, place and handler, without its message; the last sets the status."""

        async def fail(event: Any) -> None:
            raise LookupError(event.reason)

        retry = Retry(attempts=2, initial=0.001)
        await _send(MemoryTransport(), collector.provider, "hush", handler=fail, retry=retry)
        processed = collector.one("process memory")
        assert processed.status.status_code is StatusCode.ERROR
        assert processed.attributes is not None
        assert processed.attributes["error.type"] == "LookupError"
        assert [event.name for event in processed.events] == ["exception"] * 2
        details = dict(processed.events[0].attributes or {})
        assert details["exception.type"] == "LookupError"
        assert str(details["exception.stacktrace"]).startswith("LookupError at test_tracing.py:")
        assert str(details["jwt_events.handler"]).endswith("fail")
        assert "exception.message" not in details
        assert "hush" not in processed.to_json().replace("id-hush", "")

    async def test_recovered_handler(self, collector: Collector) -> None:
        """A handler that succeeds on a retry leaves no error status, but the failure is recorded."""
        outcomes = [ValueError(), None]

        async def flaky(event: Any) -> None:
            if (error := outcomes.pop(0)) is not None:
                raise error

        await _send(MemoryTransport(), collector.provider, "one", handler=flaky, retry=Retry(initial=0.001))
        processed = collector.one("process memory")
        assert processed.status.status_code is StatusCode.UNSET
        assert "error.type" not in (processed.attributes or {})
        assert len(processed.events) == 1

    async def test_cancelled_handler(self, collector: Collector) -> None:
        """A cancelled handler ends its span with an error status."""
        transport, gate = MemoryTransport(), Gate()
        subscriber = Subscriber(transport, drain_timeout=0.01, tracer_provider=collector.provider)
        subscriber.on()(gate)
        async with subscriber, Publisher(transport) as publisher:
            await publisher.publish(revoked())
            await wait_until(lambda: gate.running == 1)
        processed = collector.one("process memory")
        assert (processed.attributes or {})["error.type"] == "CancelledError"
        assert trace.get_current_span() is trace.INVALID_SPAN

    async def test_failed_publish(self, collector: Collector) -> None:
        """A failed publish has its class as error.type, and its context is detached."""
        before = context.get_current()
        async with Publisher(MemoryTransport(), max_event_bytes=10, tracer_provider=collector.provider) as publisher:
            with pytest.raises(EventTooLarge):
                await publisher.publish(revoked())
        published = collector.one("publish memory")
        assert published.status.status_code is StatusCode.ERROR
        assert (published.attributes or {})["error.type"] == "EventTooLarge"
        assert context.get_current() == before

    async def test_log_lines(self, collector: Collector) -> None:
        """Log lines have the ids of the current span, and none without a span."""

        async def fail(event: Any) -> None:
            raise ValueError

        with watching() as records:
            await _send(MemoryTransport(), collector.provider, "one", handler=fail, retry=Retry(attempts=1))
        for message, name in (("event published", "publish memory"), ("handler failed", "process memory")):
            (fields,), ids = records.of(message), collector.one(name).get_span_context()
            assert ids is not None
            assert (fields["trace_id"], fields["span_id"]) == (f"{ids.trace_id:032x}", f"{ids.span_id:016x}")
        assert not any("trace_id" in fields for fields in records.of("subscribed") + records.of("unsubscribed"))


class TestContext:
    """Trace context on the wire."""

    async def _handle(self, tracing: AnyTracing, traceparent: str | None, tracestate: str | None = None) -> Any:
        """Handle an event with this context and publish another from the handler; return the message on the wire."""
        transport, onward = MemoryTransport(), MemoryTransport()
        subscriber = Subscriber(transport, tracer_provider=tracing)
        async with subscriber, Publisher(onward, tracer_provider=tracing) as publisher:

            @subscriber.on()
            async def pass_on(event: Any) -> None:
                await publisher.publish(event)

            transport.append([encode(Envelope(revoked(), traceparent, tracestate), source="test")])
            await wait_until(lambda: subscriber.stats.handled == 1)
        return json.loads(onward._log[0].payload)

    @pytest.mark.parametrize(
        "traceparent",
        [
            None,
            "",
            "garbage",
            PARENT[:-1],
            PARENT + "-more",
            PARENT.upper(),
            PARENT.replace("00-", "ff-", 1),
            PARENT.replace(TRACE, "0" * 32),
            PARENT.replace(SPAN, "0" * 16),
            PARENT.replace("0af", "٣af"),
            PARENT + "\n",
            "01" + PARENT[2:] + "-" + "x" * 10_000,
        ],
    )
    async def test_malformed(self, collector: Collector, traceparent: str | None) -> None:
        """An invalid context is ignored: the event is handled in a new trace."""
        with watching(TRACE):
            await self._handle(Tracing(collector.provider, parent="child"), traceparent)
        processed = collector.of("process memory")[0]
        assert processed.parent is None
        assert processed.links == ()

    @pytest.mark.parametrize("traceparent", [PARENT, "01" + PARENT[2:] + "-of-the-future", PARENT[:-2] + "00"])
    async def test_accepted(self, collector: Collector, traceparent: str) -> None:
        """The process span links to a context of this version or a later one."""
        await self._handle(collector.provider, traceparent)
        (link,) = collector.of("process memory")[0].links
        assert _ids(link.context) == (int(TRACE, 16), int(SPAN, 16))

    @pytest.mark.parametrize(
        ("tracestate", "kept"),
        [
            ("vendor=1,t61@other=x/y", "vendor=1,t61@other=x/y"),
            (" vendor=1 ,, other=2", "vendor=1,other=2"),
            ("hush=" + "x" * 10_000, None),
            (",".join(f"hush{i}={'x' * 250}" for i in range(32)), None),
            (",".join(f"hush{i}=1" for i in range(33)), None),
            ("hush", None),
            ("hush=1,hush=2", None),
            ("HUSH=1", None),
            ("hush=é", None),
            ("hush=1\n", None),
        ],
    )
    async def test_tracestate(self, collector: Collector, tracestate: str, kept: str | None) -> None:
        """A valid tracestate is propagated; an invalid one is dropped without a log line."""
        with watching("hush"):
            wire = await self._handle(Tracing(collector.provider, parent="child"), PARENT, tracestate)
        assert wire.get("tracestate") == kept
        (link,) = collector.of("process memory")[0].links
        assert bool(link.context.trace_state) == (kept is not None)
        assert wire["traceparent"].startswith(f"00-{TRACE}-")

    async def test_unsampled(self) -> None:
        """A publisher that does not sample propagates the context with that decision."""
        provider = TracerProvider(sampler=ALWAYS_OFF)
        wire = await self._handle(Tracing(provider, parent="child"), PARENT)
        assert wire["traceparent"].startswith(f"00-{TRACE}-")
        assert wire["traceparent"].endswith("-00")

    @pytest.mark.parametrize("tracing", [None, NoOpTracerProvider()])
    async def test_without_a_collector(self, tracing: Any) -> None:
        """Without an SDK events carry no context."""
        assert "traceparent" not in await self._handle(tracing, PARENT)

    def test_global_provider(self) -> None:
        """The global provider is used once it is set, even after publishers and subscribers were constructed."""
        program = """
            import asyncio
            from opentelemetry import trace
            from opentelemetry.sdk.trace import TracerProvider
            from jwt_events import MemoryTransport, Publisher, Subscriber, TokenRevoked

            async def main():
                transport = MemoryTransport()
                async with Publisher(transport) as publisher:
                    await publisher.publish(TokenRevoked(token_id="a"))
                    trace.set_tracer_provider(TracerProvider())
                    while b"traceparent" not in transport._log[-1].payload:
                        await asyncio.sleep(0.01)
                        await publisher.publish(TokenRevoked(token_id="a"))
                async with Publisher(transport) as publisher:
                    await publisher.publish(TokenRevoked(token_id="a"))
                    assert b"traceparent" in transport._log[-1].payload

            asyncio.run(asyncio.wait_for(main(), 30))
        """
        _run(program)


class TestRatio:
    """Tracing of a fraction of the events."""

    async def test_both_ends_or_neither(self, collector: Collector) -> None:
        """Receivers trace the events that the publisher traces, whatever their own ratio is."""
        transport = MemoryTransport()
        subscriber = Subscriber(transport, tracer_provider=Tracing(collector.provider, ratio=0.0))
        subscriber.on()(Recorder())
        tracing = Tracing(collector.provider, ratio=0.5)
        async with subscriber, Publisher(transport, tracer_provider=tracing) as publisher:
            for number in range(200):
                await publisher.publish(revoked(id=str(number)))
            await wait_until(lambda: subscriber.stats.handled == 200)
        published, processed = collector.of("publish memory"), collector.of("process memory")
        assert 0 < len(published) < 200
        assert {_ids(link.context) for span in processed for link in span.links} == {_ids(span) for span in published}
        assert len(processed) == len(published)

    async def test_within_a_trace(self, collector: Collector) -> None:
        """A publish within a recorded span is always traced."""
        tracing = Tracing(collector.provider, ratio=0.0)
        with collector.provider.get_tracer("test").start_as_current_span("around"):
            await _send(MemoryTransport(), tracing, "one")
        await _send(MemoryTransport(), tracing, "two")
        assert len(collector.of("publish memory")) == len(collector.of("process memory")) == 1


class TestOptions:
    """Values of ``tracer_provider``."""

    @pytest.mark.parametrize("part", [Publisher, Subscriber])
    @pytest.mark.parametrize("tracing", [True, "provider", TracerProvider])
    def test_refused(self, part: Any, tracing: Any) -> None:
        """A value that is neither a provider nor a `Tracing` is refused."""
        with pytest.raises(InvalidOption, match="tracer_provider"):
            part(MemoryTransport(), tracer_provider=tracing)

    @pytest.mark.parametrize(
        "options",
        [{"ratio": 2}, {"ratio": True}, {"parent": "sibling"}, {"meter_provider": True}, {"tracer_provider": 1}],
    )
    def test_refused_choices(self, options: Any) -> None:
        """An invalid option is refused by its name."""
        with pytest.raises(InvalidOption, match=next(iter(options))):
            Tracing(**options)


class TestMeters:
    """OpenTelemetry metrics by the messaging conventions."""

    async def test_counts(self) -> None:
        """Sending, delivery and processing are counted and timed, failures by class."""
        reader = InMemoryMetricReader()
        provider = MeterProvider([reader])

        async def fail_once(event: Any) -> None:
            if event.reason == "two":
                raise ValueError

        tracing = Tracing(NoOpTracerProvider(), provider)
        await _send(MemoryTransport(), tracing, "one", "two", "three", handler=fail_once, retry=Retry(attempts=1))
        data = reader.get_metrics_data()
        assert data is not None
        points = {
            (metric.name, str((point.attributes or {}).get("error.type", ""))): point
            for metric in data.resource_metrics[0].scope_metrics[0].metrics
            for point in metric.data.data_points
        }
        numbers = {key: getattr(point, "value", getattr(point, "count", None)) for key, point in points.items()}
        assert numbers == {
            ("messaging.client.sent.messages", ""): 3,
            ("messaging.client.operation.duration", ""): 1,
            ("messaging.client.consumed.messages", ""): 3,
            ("messaging.process.duration", ""): 2,
            ("messaging.process.duration", "ValueError"): 1,
        }
        assert points["messaging.client.sent.messages", ""].attributes == {
            "messaging.system": "memory",
            "messaging.destination.name": "memory",
            "messaging.operation.name": "publish",
            "messaging.operation.type": "send",
        }
        provider.shutdown()


class TestSetup:
    """The function setup."""

    def test_endpoint_down(self) -> None:
        """Without a collector, publishing is not delayed, one warning is logged, and shutdown is quick."""
        program = """
            import asyncio, logging, time
            from jwt_events import MemoryTransport, Publisher, TokenRevoked
            from jwt_events.tracing import setup

            warnings = []
            class Keep(logging.Handler):
                def emit(self, record):
                    warnings.append(record.getMessage())
            logging.getLogger().addHandler(Keep(logging.WARNING))
            provider = setup("shop", "http://127.0.0.1:1")

            async def main():
                transport = MemoryTransport()
                async with Publisher(transport) as publisher:
                    slowest = 0.0
                    for number in range(5_000):
                        began = time.perf_counter()
                        await publisher.publish(TokenRevoked(token_id="a"))
                        slowest = max(slowest, time.perf_counter() - began)
                    while not warnings:
                        await asyncio.sleep(0.01)
                assert b"traceparent" in transport._log[-1].payload
                assert slowest < 2.0, slowest

            asyncio.run(asyncio.wait_for(main(), 30))
            provider.shutdown()
            assert len(warnings) == 1, warnings
            print(warnings[0])
        """
        assert "127.0.0.1:1" in _run(program)

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            (("", "http://localhost:4317"), "service_name"),
            (("shop", "localhost:4317"), "endpoint"),
            (("shop", None), "endpoint"),
            (("shop", "http://localhost:4317", 2), "ratio"),
        ],
    )
    def test_refused(self, arguments: Any, named: str) -> None:
        """An invalid argument is refused by its name, and starts no thread."""
        before = threading.active_count()
        with pytest.raises(InvalidOption, match=named):
            setup(*arguments[:2], **({"ratio": arguments[2]} if len(arguments) > 2 else {}))
        assert threading.active_count() == before

    def test_twice(self) -> None:
        """A second global provider is refused."""
        program = """
            from jwt_events import InvalidOption
            from jwt_events.tracing import setup
            provider = setup("shop")
            try:
                setup("shop")
            except InvalidOption as error:
                print(error)
            provider.shutdown()
        """
        assert "already" in _run(program)


def _run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


class TestTasks:
    """Publishing in many tasks at once."""

    async def test_contexts_do_not_mix(self, collector: Collector) -> None:
        """Each publish is a child of the span of its own task."""
        transport, tracer = MemoryTransport(), collector.provider.get_tracer("test")
        async with Publisher(transport, tracer_provider=collector.provider) as publisher:

            async def one(number: int) -> None:
                with tracer.start_as_current_span(f"task {number}"):
                    await publisher.publish(revoked(id=str(number)))

            await asyncio.gather(*map(one, range(20)))
        around = {_ids(span): span.name for span in collector.spans if span.name.startswith("task")}
        for span in collector.of("publish memory"):
            assert span.parent is not None
            assert around[_ids(span.parent)] == f"task {(span.attributes or {})['messaging.message.id']!s}"
