"""Traces of several programs, as a collector receives them over real gRPC."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from subprocess import PIPE, Popen
from typing import Any

import pytest

from tests.support.collector import Collector, ReceivedSpan
from tests.support.servers import Server
from tests.support.waiting import block_until, scaled

KEY = "test:otlp"
PUBLISHED = 5

_BEGIN = """
    import asyncio, logging, sys
    from jwt_events import Publisher, RedisStream, Retry, SessionDestroyed, Subscriber, TokenRevoked
    from jwt_events.tracing import Tracing, setup

    logging.getLogger("jwt_events").addHandler(logging.NullHandler())  # the failure is meant
    service, url, key, endpoint = sys.argv[1:5]
    provider = setup(service, endpoint)
"""

_PUBLISHER = f"""{_BEGIN}
    async def main():
        async with Publisher(RedisStream(url, key)) as publisher:
            await publisher.publish(TokenRevoked(id="alone", token_id="t", user_id="alice"))
            await publisher.publish(TokenRevoked(id="broken", token_id="t", reason="broken"))
            await publisher.publish_many([SessionDestroyed(id=f"batch-{{n}}", session_id="s") for n in range(3)])

    asyncio.run(main())
    provider.shutdown()
"""

_SUBSCRIBER = f"""{_BEGIN}
    tracing = Tracing(parent=sys.argv[5])
    subscriber = Subscriber(RedisStream(url, key), tracer_provider=tracing, retry=Retry(attempts=2, initial=0.001))

    @subscriber.on()
    async def forget(event):
        if getattr(event, "reason", None) == "broken":
            raise ValueError("about alice")

    async def main():
        async with subscriber:
            print("listening", flush=True)
            while subscriber.stats.handled + subscriber.stats.failed < {PUBLISHED}:
                await asyncio.sleep(0.01)

    asyncio.run(main())
    provider.shutdown()
"""


@contextmanager
def _program(text: str, *arguments: str) -> Iterator[Popen[str]]:
    """Run a program beside the test; it must exit with 0 and write nothing to standard error."""
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(text), *arguments]
    with Popen(command, stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True) as process:
        try:
            yield process
            _, errors = process.communicate(timeout=scaled(30))
        finally:
            process.kill()
    assert (process.returncode, errors) == (0, "")


def _says(process: Popen[str], line: str) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == f"{line}\n"


@pytest.fixture(scope="module")
def server(_servers: Callable[[str], Server]) -> Iterator[Server]:
    """A server for all tests of the module, which share one run."""
    running = _servers("valkey")
    yield running
    running.delete(KEY)


@pytest.fixture(scope="module")
def collector(server: Server) -> Iterator[Collector]:
    """A collector with the spans of one run: *login* published; *shop* handled with links, *bank* as children."""
    with Collector() as collector:
        where = (server.url, KEY, collector.endpoint)
        with (
            _program(_SUBSCRIBER, "shop", *where, "link") as shop,
            _program(_SUBSCRIBER, "bank", *where, "child") as bank,
        ):
            _says(shop, "listening")
            _says(bank, "listening")
            with _program(_PUBLISHER, "login", *where):
                pass
        yield collector


@pytest.fixture
def origins(collector: Collector) -> dict[str, ReceivedSpan]:
    """The span whose context each event carries, by the event's id."""
    spans = [*collector.of("login", f"publish {KEY}"), *collector.of("login", f"create {KEY}")]
    return {
        span.attributes["messaging.message.id"]: span for span in spans if "messaging.message.id" in span.attributes
    }


def _handled(collector: Collector, service: str) -> dict[str, ReceivedSpan]:
    spans = collector.of(service, f"process {KEY}")
    by_id = {span.attributes["messaging.message.id"]: span for span in spans}
    assert len(by_id) == len(spans) == PUBLISHED
    return by_id


def test_nothing_else(collector: Collector) -> None:
    """There is a span for each publish, each event of a batch and each handling, and none for reading."""
    names = sorted((span.service, span.name.partition(" ")[0]) for span in collector.spans)
    handled = [(service, "process") for service in ("bank", "shop") for _ in range(PUBLISHED)]
    assert names == sorted([*handled, *[("login", "create")] * 3, *[("login", "publish")] * 3])
    assert {(span.scope, span.schema) for span in collector.spans} == {
        ("jwt_events", "https://opentelemetry.io/schemas/1.44.0")
    }


def test_linked(collector: Collector, origins: dict[str, ReceivedSpan]) -> None:
    """By default the process span in another program starts a new trace, linked to the publish."""
    for event_id, span in _handled(collector, "shop").items():
        assert span.kind == "CONSUMER"
        assert span.parent == b""
        assert span.ids[0] != origins[event_id].ids[0]
        assert span.links == [origins[event_id].ids]


def test_child(collector: Collector, origins: dict[str, ReceivedSpan]) -> None:
    """With parent="child" it is part of the publish's trace, a child of the span whose context the event carries."""
    for event_id, span in _handled(collector, "bank").items():
        assert span.kind == "CONSUMER"
        assert (span.ids[0], span.parent) == origins[event_id].ids
        assert span.links == [origins[event_id].ids]


def test_batch(collector: Collector) -> None:
    """The publish span of a batch has the event count and links to the create spans, which are its children."""
    (sent,) = [span for span in collector.of("login", f"publish {KEY}") if span.kind == "CLIENT"]
    created = collector.of("login", f"create {KEY}")
    assert sent.attributes["messaging.batch.message_count"] == 3
    assert sent.links == [span.ids for span in created]
    assert {(span.kind, span.ids[0], span.parent) for span in created} == {("PRODUCER", *sent.ids)}


def _conventional(name: str, kind: str, **more: Any) -> dict[str, Any]:
    return {
        "messaging.system": "redis",
        "messaging.destination.name": KEY,
        "messaging.operation.name": name,
        "messaging.operation.type": kind,
        **more,
    }


def test_attributes(collector: Collector, origins: dict[str, ReceivedSpan]) -> None:
    """The attributes are exactly those of the conventions: none identifies a person."""
    published, processed = origins["alone"], _handled(collector, "shop")["alone"]
    place = {name: value for name, value in published.attributes.items() if name.startswith("server.")}
    assert "server.address" in place
    about = {"messaging.message.id": "alone", **place}
    assert published.kind == "PRODUCER"
    assert published.attributes == _conventional("publish", "send", **about)
    assert processed.attributes == _conventional("process", "process", **about)


def test_failure(collector: Collector) -> None:
    """A finally failed handler records each attempt's error on the span, without its message."""
    failed = {event_id: span for event_id, span in _handled(collector, "shop").items() if span.failed}
    assert failed.keys() == {"broken"}
    assert failed["broken"].attributes["error.type"] == "ValueError"
    assert failed["broken"].events == ["exception", "exception"]
    assert "alice" not in repr(collector.spans)


def test_endpoint_that_does_not_reply(server: Server, key: str) -> None:
    """While a collector receives exports without a reply, publishing is not delayed."""
    program = f"""{_BEGIN}
    import logging, time
    logging.disable()  # on a slow machine the exporter may give up meanwhile and say so

    async def main():
        async with Publisher(RedisStream(url, key)) as publisher:
            for _ in range(2):
                for _ in range(600):  # more than go into one export
                    began = time.monotonic()
                    await publisher.publish(TokenRevoked(token_id="t"))
                    assert time.monotonic() - began < 4  # an export is waited for five seconds
                print("published", flush=True)
                sys.stdin.readline()

    asyncio.run(main())
    provider.shutdown()
    """
    with (
        Collector(replies=False) as collector,
        _program(program, "login", server.url, key, collector.endpoint) as login,
    ):
        assert login.stdin is not None
        _says(login, "published")
        block_until(collector.requested.is_set, what="an export")
        login.stdin.write("\n")
        login.stdin.flush()
        _says(login, "published")
        collector.reply()
