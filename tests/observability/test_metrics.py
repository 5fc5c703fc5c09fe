"""Prometheus metrics: every value in the text that is scraped."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
import redis.asyncio
from prometheus_client import REGISTRY, CollectorRegistry, Gauge, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from jwt_events import (
    Event,
    EventTooLarge,
    Gap,
    InvalidOption,
    MemoryTransport,
    Publisher,
    PublishFailed,
    PublishOutcomeUnknown,
    RedisPubSub,
    RedisStream,
    Retry,
    SessionCreated,
    Subscriber,
    TokenRevoked,
    TransportError,
    UnknownEvent,
)
from jwt_events.metrics import Metrics
from jwt_events.metrics._instruments import SECONDS
from jwt_events.transport.base import Sent
from tests.support.examples import revoked
from tests.support.handling import Gate, Recorder, publish
from tests.support.scripted import ScriptedTransport
from tests.support.waiting import scaled, wait_until

Series = dict[tuple[str, ...], float]


class Scrape:
    """The samples of a registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.samples: dict[str, Series] = {}
        for family in text_string_to_metric_families(generate_latest(registry).decode()):
            for sample in family.samples:
                series = self.samples.setdefault(sample.name.removeprefix("jwt_events_"), {})
                series[tuple(sorted(sample.labels.values()))] = sample.value

    def __getitem__(self, name: str) -> Series:
        """Return the series of a metric that are not zero, by the sorted values of their labels."""
        return {labels: value for labels, value in self.samples.get(name, {}).items() if value}


@pytest.fixture
def registry() -> CollectorRegistry:
    """A new registry for the test."""
    return CollectorRegistry()


class TestTruth:
    """Metrics of publishers and subscribers."""

    async def test_a_long_run(
        self, registry: CollectorRegistry, url: str, key: str, client: redis.asyncio.Redis
    ) -> None:
        """After 20,000 events with failures, retries, duplicates, unknown and invalid ones, every value is right."""
        transport, metrics = RedisStream(url, key, dead_letter=f"{key}:dead"), Metrics(registry)
        subscriber = Subscriber(transport, retry=Retry(attempts=3, initial=0.001), metrics=metrics)
        calls: Counter[str] = Counter()

        @subscriber.on(TokenRevoked)
        async def enforce(event: TokenRevoked) -> None:
            calls[event.id] += 1
            if event.reason == "never" or (event.reason == "later" and calls[event.id] == 1):
                raise ValueError

        @subscriber.on()
        async def audit(event: Event) -> None:
            pass

        reasons = ["never" if i % 500 == 0 else "later" if i % 100 == 1 else None for i in range(15_000)]
        events: list[Event] = [TokenRevoked(token_id=f"t{i}", reason=reason) for i, reason in enumerate(reasons)]
        events += [SessionCreated(session_id=f"s{i}", user_id="u") for i in range(4_900)]
        events += [UnknownEvent(type=f"jwt.hostile_{i}.v1", source="x") for i in range(100)]
        again = events[15_000:15_250]
        async with subscriber, Publisher(transport, timeout=scaled(30), metrics=metrics) as publisher:
            for start in range(0, 20_000, 1_000):
                await publisher.publish_many(events[start : start + 1_000])
            await publisher.publish_many(again)
            for number in range(40):
                await client.xadd(key, {"event": b"poison" if number % 4 else b"{}"})
            await wait_until(lambda: subscriber.stats.handled + subscriber.stats.failed == 20_000, within=60)
            await wait_until(lambda: subscriber.stats.decode_errors == 40)
        seen = Scrape(registry)
        never, later = reasons.count("never"), reasons.count("later")
        enforcing, auditing = (f"{self.test_a_long_run.__qualname__}.<locals>.{name}" for name in ("enforce", "audit"))
        per_type = {("token_revoked",): 15_000, ("session_created",): 4_900, ("unknown",): 100}
        assert seen["published_total"] == {
            ("published", "stream", "token_revoked"): 15_000,
            ("published", "session_created", "stream"): 5_150,
            ("published", "stream", "unknown"): 100,
        }
        assert seen["publish_duration_seconds_count"] == {(): 21}
        assert seen["received_total"] == {
            ("stream", "token_revoked"): 15_000,
            ("session_created", "stream"): 5_150,
            ("stream", "unknown"): 100,
        }
        assert seen["duplicates_total"] == {("stream",): 250}
        assert seen["decode_errors_total"] == {("not_json",): 30, ("not_an_envelope",): 10}
        assert seen["handled_total"] == {
            tuple(sorted((enforcing, "token_revoked", "handled"))): 15_000 - never,
            tuple(sorted((enforcing, "token_revoked", "retried"))): 2 * never + later,
            tuple(sorted((enforcing, "token_revoked", "failed"))): never,
            **{tuple(sorted((auditing, kind, "handled"))): number for (kind,), number in per_type.items()},
        }
        assert seen["handler_duration_seconds_count"] == {
            tuple(sorted((enforcing, "token_revoked"))): 15_000 + 2 * never + later,
            **{tuple(sorted((auditing, kind))): number for (kind,), number in per_type.items()},
        }
        assert seen["propagation_seconds_count"] == per_type | {("token_revoked",): 15_000 - never}
        assert seen["dead_lettered_total"] == {("token_revoked",): never}
        assert seen["in_flight"] == seen["gaps_total"] == seen["reconnects_total"] == {}
        assert subscriber.stats.handled == 20_000 - never

    async def test_what_became_of_a_publish(self, registry: CollectorRegistry) -> None:
        """An event is counted as published, failed, unknown or refused."""
        replies: list[Sent | TransportError] = []

        class Replying(ScriptedTransport):
            def sender(self) -> Any:
                return self.Open()

            class Open:
                async def __aenter__(self) -> Any:
                    return self

                async def __aexit__(self, *_: object) -> None: ...

                async def send(self, payloads: list[bytes], *, within: float) -> list[Sent | TransportError]:
                    return [replies.pop(0) for _ in payloads]

        async with Publisher(Replying(), max_event_bytes=300, metrics=Metrics(registry)) as publisher:
            replies += [
                Sent(),
                TransportError("no"),
                TransportError("?", maybe_done=True),
                Sent(),
                TransportError("no"),
            ]
            await publisher.publish(revoked())
            with pytest.raises(PublishFailed):
                await publisher.publish(revoked())
            with pytest.raises(PublishOutcomeUnknown):
                await publisher.publish(revoked())
            with pytest.raises(PublishFailed):
                await publisher.publish_many([revoked(), revoked()])
            with pytest.raises(EventTooLarge):
                await publisher.publish(revoked(reason="x" * 300))
            await publisher.publish_many([])
        assert Scrape(registry)["published_total"] == {
            ("published", "scripted", "token_revoked"): 2,
            ("failed", "scripted", "token_revoked"): 2,
            ("scripted", "token_revoked", "unknown"): 1,
            ("refused", "scripted", "token_revoked"): 1,
        }
        assert Scrape(registry)["publish_duration_seconds_count"] == {(): 4}

    @pytest.mark.parametrize("kind", [RedisStream, RedisPubSub])
    async def test_reconnection(
        self,
        registry: CollectorRegistry,
        url: str,
        key: str,
        client: redis.asyncio.Redis,
        kind: type[RedisStream | RedisPubSub],
    ) -> None:
        """A lost and restored subscription is counted, as is its gap."""
        transport = kind(url, key)
        async with Subscriber(transport, metrics=Metrics(registry)):
            name = "pubsub" if kind is RedisPubSub else "xread"
            await wait_until(lambda: _listening(client, name))
            for connection in await client.client_list():
                if _listens(connection, name):
                    await client.client_kill_filter(_id=connection["id"])
            await wait_until(lambda: Scrape(registry)["reconnects_total"] == {(transport.name,): 1})
        gaps = {("pubsub", "reconnected"): 1.0} if kind is RedisPubSub else {}
        assert Scrape(registry)["gaps_total"] == gaps

    async def test_gaps(self, registry: CollectorRegistry) -> None:
        """Gaps are counted by cause."""
        transport = ScriptedTransport()
        async with Subscriber(transport, metrics=Metrics(registry)) as subscriber:
            transport.deliver(gaps=(Gap("1-0", "trimmed", 3), Gap("2-0", "restarted")))
            await wait_until(lambda: subscriber.stats.gaps == 2)
        assert Scrape(registry)["gaps_total"] == {("scripted", "trimmed"): 1, ("restarted", "scripted"): 1}

    async def test_in_flight(self, registry: CollectorRegistry) -> None:
        """Handlers count as in flight from their start until they return, fail or are cancelled."""
        transport, gate, metrics = MemoryTransport(), Gate(), Metrics(registry)
        subscriber = Subscriber(transport, drain_timeout=0.01, metrics=metrics)
        subscriber.on()(gate)
        async with subscriber:
            await publish(transport, revoked(), revoked(id="another"))
            await wait_until(lambda: gate.running == 2)
            assert Scrape(registry)["in_flight"] == {(): 2}
        assert Scrape(registry)["in_flight"] == {}
        assert Scrape(registry)["handled_total"] == {("Gate", "cancelled", "token_revoked"): 2}
        assert Scrape(registry)["propagation_seconds_count"] == {}

    async def test_pulled(self, registry: CollectorRegistry) -> None:
        """An event from events() is counted as handled when the next one is requested."""
        transport = MemoryTransport(start="all")
        await publish(transport, revoked(), revoked(id="another"))
        async for event in Subscriber(transport, metrics=Metrics(registry)).events():
            if event.id == "another":
                break
        await wait_until(lambda: len(Scrape(registry)["handled_total"]) == 2)
        assert Scrape(registry)["handled_total"] == {
            ("events()", "handled", "token_revoked"): 1,
            ("cancelled", "events()", "token_revoked"): 1,
        }

    @pytest.mark.parametrize(("age", "bucket"), [(-60.0, "0.0002"), (0.7, "1.0"), (40.0, "60.0"), (3600.0, "+Inf")])
    async def test_propagation(self, registry: CollectorRegistry, age: float, bucket: str) -> None:
        """Propagation is the time since the event occurred; it is zero for an event from the future."""
        transport, recorder = MemoryTransport(), Recorder()
        subscriber = Subscriber(transport, metrics=Metrics(registry))
        subscriber.on()(recorder)
        async with subscriber:
            await publish(transport, revoked(occurred_at=datetime.now(UTC) - timedelta(seconds=age)))
            await wait_until(lambda: subscriber.stats.handled == 1)
        seen = Scrape(registry)
        smallest = next(labels for labels in seen["propagation_seconds_bucket"])
        assert bucket in smallest
        assert seen["propagation_seconds_sum"].get(("token_revoked",), 0.0) >= max(0.0, age)

    def test_buckets(self) -> None:
        """Boundaries range from 0.2 ms to a minute, each at most 2.5 times the previous one."""
        assert (SECONDS[0], SECONDS[-1]) == (0.0002, 60)
        assert all(1 < b / a <= 2.5001 for a, b in pairwise(SECONDS))


def _listens(connection: dict[str, Any], name: str) -> bool:
    return connection["cmd"] == "xread" if name == "xread" else "P" in connection["flags"]


async def _listening(client: redis.asyncio.Redis, name: str) -> bool:
    return any(_listens(connection, name) for connection in await client.client_list())


class TestSeries:
    """Existence of series."""

    async def test_hostile_types(self, registry: CollectorRegistry) -> None:
        """Unknown event types on the wire do not create new series."""
        transport, metrics = MemoryTransport(), Metrics(registry)
        subscriber, recorder = Subscriber(transport, metrics=metrics), Recorder()
        subscriber.on()(recorder)

        async def send(*events: Event) -> int:
            async with Publisher(transport, metrics=metrics) as publisher:
                await publisher.publish_many(events)
            await wait_until(lambda: len(recorder.seen) == len(transport._log))
            await wait_until(lambda: not subscriber.stats.in_flight)
            return sum(map(len, Scrape(registry).samples.values()))

        async with subscriber:
            before = await send(UnknownEvent(type="a", source="x"))
            after = await send(*(UnknownEvent(type=f"{i}\n" * 20, source="x") for i in range(200)))
        assert before == after

    def test_at_zero(self, registry: CollectorRegistry) -> None:
        """Series that alerts query exist before the first occurrence."""
        metrics = Metrics(registry)
        Subscriber(MemoryTransport(), metrics=metrics)
        Publisher(MemoryTransport(), metrics=metrics)
        samples = Scrape(registry).samples
        assert samples["dead_lettered_total"][("token_revoked",)] == 0
        assert samples["decode_errors_total"][("not_json",)] == 0
        assert samples["gaps_total"][("memory", "trimmed")] == 0
        assert samples["published_total"][("failed", "memory", "token_revoked")] == 0

    def test_shared(self, registry: CollectorRegistry) -> None:
        """Several Metrics on one registry share their series."""
        one, other = Metrics(registry), Metrics(registry)
        one.publishing("memory").refused(revoked())
        other.publishing("memory").refused(revoked())
        assert list(Scrape(registry)["published_total"].values()) == [2]

    def test_taken_name(self, registry: CollectorRegistry) -> None:
        """A registry in which a name is taken is refused, and left unchanged."""
        Gauge("jwt_events_gaps_total", "Another program's.", registry=registry)
        before = generate_latest(registry)
        for _ in range(2):
            with pytest.raises(InvalidOption, match="jwt_events_gaps_total") as caught:
                Metrics(registry)
            assert caught.value.option == "registry"
            assert generate_latest(registry) == before

    @pytest.mark.parametrize("registry", ["registry", object(), CollectorRegistry])
    def test_no_registry(self, registry: Any) -> None:
        """A value that is not a registry is refused."""
        with pytest.raises(InvalidOption, match="registry"):
            Metrics(registry)

    @pytest.mark.parametrize("metrics", [True, REGISTRY, Metrics])
    @pytest.mark.parametrize("part", [Publisher, Subscriber])
    def test_no_metrics(self, part: Any, metrics: Any) -> None:
        """Publisher and subscriber refuse metrics that are not a `Metrics`."""
        with pytest.raises(InvalidOption, match="metrics"):
            part(MemoryTransport(), metrics=metrics)

    def test_released_with_its_registry(self) -> None:
        """A registry without other references is garbage-collected."""
        program = """
            import gc, weakref
            from prometheus_client import CollectorRegistry
            from jwt_events.metrics import Metrics
            registry = CollectorRegistry()
            Metrics(registry)
            gone = weakref.ref(registry)
            del registry
            gc.collect()
            assert gone() is None
        """
        _run(program)

    def test_default_registry(self) -> None:
        """Importing the package does not import prometheus_client; constructing Metrics uses the default registry."""
        program = """
            import sys
            import jwt_events
            assert "prometheus_client" not in sys.modules
            from prometheus_client import REGISTRY, generate_latest
            import jwt_events.metrics
            assert b"jwt_events" not in generate_latest()
            assert jwt_events.Metrics is jwt_events.metrics.Metrics
            jwt_events.Metrics()
            assert b"jwt_events_gaps_total" in generate_latest()
        """
        _run(program)


class TestView:
    """Metrics of views."""

    def test_staleness(self, registry: CollectorRegistry) -> None:
        """Staleness is computed on scrape; of several views of one destination the stalest counts."""
        metrics, ages = Metrics(registry), {"a": 1.0, "b": 7.0, "c": 2.0}
        a = metrics.view("stream", "one", staleness=lambda: ages["a"])
        b = metrics.view("stream", "one", staleness=lambda: ages["b"])
        metrics.view("stream", "two", staleness=lambda: ages["c"])
        assert Scrape(registry)["staleness_seconds"] == {("one",): 7, ("two",): 2}
        ages["a"] = 30.0
        assert Scrape(registry)["staleness_seconds"] == {("one",): 30, ("two",): 2}
        a.close()
        a.close()
        assert Scrape(registry)["staleness_seconds"] == {("one",): 7, ("two",): 2}
        b.close()
        assert Scrape(registry)["staleness_seconds"] == {("two",): 2}

    def test_rules_and_checks(self, registry: CollectorRegistry) -> None:
        """Rules are the current number over all views; checks are summed."""
        metrics = Metrics(registry)
        one, two = (metrics.view("stream", name, staleness=lambda: 0.0) for name in "ab")
        one.rules("token", 5)
        two.rules("token", 3)
        one.rules("token", 2)
        one.checked("allow", 1_000)
        two.checked("allow", 1)
        two.checked("stale", 2)
        one.applied(revoked())
        assert Scrape(registry)["revocation_rules"] == {("token",): 5}
        assert Scrape(registry)["revocation_checks_total"] == {("allow",): 1_001, ("stale",): 2}
        assert Scrape(registry)["propagation_seconds_count"] == {("token_revoked",): 1}
        one.close()
        assert Scrape(registry)["revocation_rules"] == {("token",): 3}


class TestManyProcesses:
    """With PROMETHEUS_MULTIPROC_DIR, one scrape covers all workers."""

    _WORKER = """
        import asyncio, sys
        from jwt_events import MemoryTransport, Publisher, Retry, Subscriber, TokenRevoked
        from jwt_events.metrics import Metrics

        async def main(number, staleness):
            metrics, transport = Metrics(), MemoryTransport()
            subscriber = Subscriber(transport, metrics=metrics, drain_timeout=0.01, retry=Retry(attempts=1))

            @subscriber.on(TokenRevoked)
            async def handle(event):
                if event.reason == "hang":
                    await asyncio.Event().wait()
                if event.reason == "fail":
                    raise ValueError

            view = metrics.view("memory", "memory", staleness=lambda: staleness)
            view.rules("token", number)
            async with subscriber, Publisher(transport, metrics=metrics) as publisher:
                await publisher.publish_many([TokenRevoked(token_id="t") for _ in range(number)])
                await publisher.publish(TokenRevoked(token_id="t", reason="fail"))
                await publisher.publish(TokenRevoked(token_id="t", reason="hang"))
                while subscriber.stats.handled != number or subscriber.stats.in_flight != 1:
                    await asyncio.sleep(0.001)
                view.refresh()
                print("ready", flush=True)
                await asyncio.to_thread(sys.stdin.readline)

        asyncio.run(main(int(sys.argv[1]), float(sys.argv[2])))
    """

    _SCRAPE = """
        import sys
        from prometheus_client import CollectorRegistry, generate_latest, multiprocess
        for pid in sys.argv[1:]:
            multiprocess.mark_process_dead(int(pid))
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
        print(generate_latest(registry).decode())
    """

    def test_real_workers(self, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Counters are summed over all workers; of live ones, in_flight is summed and staleness is the maximum."""
        monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
        workers = [
            subprocess.Popen(
                [sys.executable, "-c", textwrap.dedent(self._WORKER), str(number), str(staleness)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for number, staleness in ((100, 0.5), (20, 4.5), (3, 90.0))
        ]
        try:
            for worker in workers:
                assert worker.stdout is not None
                assert worker.stdout.readline() == "ready\n"
            workers[2].kill()
            workers[2].wait()
            text = _run(self._SCRAPE, str(workers[2].pid))
        finally:
            for worker in workers:
                worker.communicate("\n", timeout=scaled(30))
        seen = {
            (sample.name.removeprefix("jwt_events_"), *sorted(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
        assert seen["published_total", "memory", "published", "token_revoked"] == 129
        assert seen["received_total", "memory", "token_revoked"] == 129
        assert seen["handled_total", "failed", "main.<locals>.handle", "token_revoked"] == 3
        assert seen["propagation_seconds_count", "token_revoked"] == 123
        assert seen["dead_lettered_total", "token_revoked"] == 3
        assert seen["in_flight",] == 2
        assert seen["staleness_seconds", "memory"] == 4.5
        assert seen["revocation_rules", "token"] == 100


def _run(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout
