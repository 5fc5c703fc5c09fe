"""The two verbs to end: `stop` drops what was not started, `drain` finishes what was read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from jwt_events import Event, Gap, InvalidOption, MemoryTransport, RedisPubSub, RedisStream, Subscriber
from tests.support.examples import revoked
from tests.support.handling import Gate, Recorder, publish, running, soon
from tests.support.records import recorded
from tests.support.scripted import ScriptedTransport
from tests.support.servers import Server
from tests.support.waiting import scaled, wait_until

Verb = Callable[[Subscriber], Coroutine[Any, Any, None]]

_verbs = pytest.mark.parametrize("end", [Subscriber.stop, Subscriber.drain], ids=["stop", "drain"])


@pytest.fixture
def transport() -> ScriptedTransport:
    """Where the events of a test come from."""
    return ScriptedTransport()


async def _with_ten_waiting(transport: ScriptedTransport, gate: Gate, subscriber: Subscriber) -> None:
    """Let two of twelve handlers run, one wait for a slot, and the other events wait behind it."""
    subscriber.on()(gate)
    transport.deliver(*map(revoked, range(12)))
    await wait_until(lambda: gate.running == 2 and subscriber.stats.received == 3)


class TestStop:
    """Dropping what was not started."""

    async def test_drops_the_rest(self, transport: ScriptedTransport) -> None:
        """Handlers that run may finish; what was read and not started is counted and named as dropped."""
        subscriber, gate = Subscriber(transport, concurrency=2), Gate()
        with recorded() as records:
            async with subscriber:
                await _with_ten_waiting(transport, gate, subscriber)
                async with running(subscriber.stop()) as stopping:
                    await wait_until(lambda: subscriber.stats.dropped == 10)
                    gate.open()
                    await soon(stopping)
                assert transport.open == 0
        assert (len(gate.finished), subscriber.stats.handled) == (2, 2)
        assert records.of("deliveries dropped, the subscriber was stopped", "WARNING") == [{"count": 10}]

    async def test_event_with_some_handlers_started(self, transport: ScriptedTransport) -> None:
        """An event is failed, not handled, if only some of its handlers were started."""
        subscriber, gate = Subscriber(transport, concurrency=2), Gate()
        for _ in range(3):
            subscriber.on()(gate)
        async with subscriber:
            transport.deliver(revoked())
            await wait_until(lambda: gate.running == 2)
            async with running(subscriber.stop()) as stopping:
                await wait_until(lambda: subscriber.stats.failed == 1)
                gate.open()
                await soon(stopping)
        assert len(gate.finished) == 2
        assert (subscriber.stats.handled, subscriber.stats.failed) == (0, 1)

        assert subscriber.stats.dropped == 0  # it is counted once

    @pytest.mark.parametrize("concurrency", [1, 2, 3])
    async def test_each_event_is_counted_once(self, transport: ScriptedTransport, concurrency: int) -> None:
        """An event that was read when the subscriber was stopped is handled, failed or dropped: one of them."""
        subscriber, gate = Subscriber(transport, concurrency=concurrency, drain_timeout=0.05), Gate()
        subscriber.on()(gate)
        subscriber.on()(gate)
        async with subscriber:
            transport.deliver(*map(revoked, range(5)))
            await wait_until(lambda: gate.running == concurrency)
            await soon(subscriber.stop())
        stats = subscriber.stats
        assert stats.handled + stats.failed + stats.dropped == 5
        assert stats.failed == (concurrency + 1) // 2

    async def test_within_drain_timeout(self, transport: ScriptedTransport) -> None:
        """Handlers that run on are cancelled when the drain_timeout is over."""
        subscriber, gate = Subscriber(transport, concurrency=2, drain_timeout=0.05), Gate()
        async with subscriber:
            await _with_ten_waiting(transport, gate, subscriber)
            await soon(subscriber.stop())
            assert (len(gate.cancelled), subscriber.stats.in_flight) == (2, 0)


async def _wait_for(coroutine: Coroutine[Any, Any, None]) -> None:
    await asyncio.wait_for(coroutine, scaled(10))


async def _gather(coroutine: Coroutine[Any, Any, None]) -> None:
    await asyncio.gather(coroutine)


async def _task_group(coroutine: Coroutine[Any, Any, None]) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(coroutine)


async def _task_of_a_task(coroutine: Coroutine[Any, Any, None]) -> None:
    await asyncio.create_task(_gather(coroutine))


class TestFromAHandler:
    """A handler that ends its subscriber, in whichever way, does not wait for itself."""

    @_verbs
    @pytest.mark.parametrize("way", [_wait_for, _gather, _task_group, _task_of_a_task])
    async def test_task(self, transport: ScriptedTransport, end: Verb, way: Callable[..., Awaitable[None]]) -> None:
        """A task that the handler started returns at once, whether it is a handler of events or of gaps."""
        subscriber, returned = Subscriber(transport, drain_timeout=3_600.0), list[object]()

        async def stop(subject: object) -> None:
            await way(end(subscriber))
            returned.append(subject)

        subscriber.on()(stop)
        subscriber.on_gap(stop)
        async with subscriber:
            transport.deliver(revoked(), gaps=(Gap(None, "reconnected"),))
            await wait_until(lambda: len(returned) == 2)
            await wait_until(lambda: transport.open == 0)
        assert (subscriber.stats.handled, subscriber.stats.failed) == (1, 0)

    @_verbs
    async def test_plain_function(self, transport: ScriptedTransport, end: Verb) -> None:
        """A plain function that lets the event loop do it, from its thread, gets its answer at once."""
        subscriber, loop = Subscriber(transport, drain_timeout=3_600.0), asyncio.get_running_loop()
        subscriber.on()(lambda _: asyncio.run_coroutine_threadsafe(end(subscriber), loop).result(scaled(10)))
        async with subscriber:
            transport.deliver(revoked())
            await wait_until(lambda: transport.open == 0)
        assert (subscriber.stats.handled, subscriber.stats.failed) == (1, 0)

    @_verbs
    async def test_inner_subscriber(self, transport: ScriptedTransport, end: Verb) -> None:
        """So does a handler of a subscriber that was entered inside of the handler."""
        outer, inner_transport = Subscriber(transport, drain_timeout=3_600.0), ScriptedTransport()

        @outer.on()
        async def nest(event: Event) -> None:
            inner = Subscriber(inner_transport)

            @inner.on()
            async def end_outer(event: Event) -> None:
                await end(outer)

            async with inner:
                inner_transport.deliver(revoked())
                await wait_until(lambda: inner.stats.handled == 1)

        async with outer:
            transport.deliver(revoked())
            await wait_until(lambda: transport.open == 0)
        assert (outer.stats.handled, outer.stats.failed) == (1, 0)

    async def test_a_task_that_outlives_its_handler(self, transport: ScriptedTransport) -> None:
        """A task whose handler has ended waits for the end, like anybody else."""
        subscriber, gate, tasks = Subscriber(transport), Gate(), list[asyncio.Task[None]]()
        go = asyncio.Event()

        async def later() -> None:
            await go.wait()
            await subscriber.drain()

        @subscriber.on()
        async def start(event: Event) -> None:
            if not tasks:
                tasks.append(asyncio.create_task(later()))
            else:
                await gate(event)

        async with subscriber:
            transport.deliver(revoked(1))
            await wait_until(lambda: subscriber.stats.handled == 1)
            transport.deliver(revoked(2))
            await wait_until(lambda: gate.running == 1)
            go.set()
            await wait_until(lambda: subscriber.state == "closed")
            assert not tasks[0].done()
            gate.open()
            await soon(tasks[0])
        assert subscriber.stats.handled == 2


class TestDrain:
    """Finishing what was read."""

    async def test_finishes_the_rest(self, transport: ScriptedTransport) -> None:
        """What was read is handled, nothing more is read, and the connection is closed."""
        subscriber, gate = Subscriber(transport, concurrency=2), Gate()
        async with subscriber:
            await _with_ten_waiting(transport, gate, subscriber)
            async with running(subscriber.drain()) as draining:
                transport.deliver(revoked(99))
                gate.open()
                await soon(draining)
            assert transport.open == 0
        assert gate.subjects == [f"token-{n}" for n in range(12)]
        assert subscriber.stats.dropped == 0

    async def test_own_timeout(self, transport: ScriptedTransport) -> None:
        """It takes its own timeout instead of the drain_timeout."""
        subscriber, gate = Subscriber(transport, concurrency=2, drain_timeout=3_600), Gate()
        async with subscriber:
            await _with_ten_waiting(transport, gate, subscriber)
            await soon(subscriber.drain(timeout=0.05))
            assert len(gate.cancelled) == 2
            assert subscriber.stats.dropped == 10

    @pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), True])
    async def test_bad_timeout(self, transport: ScriptedTransport, timeout: float) -> None:
        """A timeout that cannot work is refused, whether it is running or not, and ends nothing."""
        subscriber, recorder = Subscriber(transport), Recorder()
        subscriber.on()(recorder)
        with pytest.raises(InvalidOption, match="timeout"):
            await subscriber.drain(timeout)
        async with subscriber:
            with pytest.raises(InvalidOption, match="timeout"):
                await subscriber.drain(timeout)
            transport.deliver(revoked())
            await recorder.has_seen(1)

    async def test_stop_cuts_a_drain_short(self, transport: ScriptedTransport) -> None:
        """To stop while draining drops what the drain had not started."""
        subscriber, gate = Subscriber(transport, concurrency=2), Gate()
        async with subscriber:
            await _with_ten_waiting(transport, gate, subscriber)
            async with running(subscriber.drain()) as draining, running(subscriber.stop()) as stopping:
                await wait_until(lambda: subscriber.stats.dropped == 10)
                gate.open()
                await soon(asyncio.gather(draining, stopping))
        assert len(gate.finished) == 2

    @pytest.mark.parametrize("kind", [RedisStream, RedisPubSub])
    async def test_on_redis(self, server: Server, key: str, kind: type[RedisStream | RedisPubSub]) -> None:
        """On a server, everything that was read is handled too, and the connection is gone before the body ends."""
        subscriber, gate = Subscriber(kind(server.url, key), concurrency=2), Gate()
        subscriber.on()(gate)
        before = server.connections().keys()
        async with subscriber:
            await publish(kind(server.url, key), *map(revoked, range(20)))
            await wait_until(lambda: gate.running == 2)
            gate.open()
            await subscriber.drain()
            await wait_until(lambda: server.connections().keys() <= before)
            assert subscriber.stats.received == subscriber.stats.handled == len(gate.finished)


@_verbs
class TestBoth:
    """What both have in common."""

    async def test_run_returns(self, transport: ScriptedTransport, end: Verb) -> None:
        """Ended from outside, `run` returns like any function."""
        subscriber, recorder = Subscriber(transport), Recorder()
        subscriber.on()(recorder)
        async with running(subscriber.run()) as task:
            transport.deliver(revoked())
            await recorder.has_seen(1)
            await soon(end(subscriber))
            await soon(task)
        assert transport.open == 0

    async def test_idempotent(self, transport: ScriptedTransport, end: Verb) -> None:
        """Ending what has ended does nothing."""
        subscriber = Subscriber(transport)
        subscriber.on()(Recorder())
        async with subscriber:
            for _ in range(3):
                await soon(end(subscriber))
        await soon(end(subscriber))

    async def test_concurrently(self, transport: ScriptedTransport, end: Verb) -> None:
        """Many may ask at the same time; all return when it is done."""
        subscriber, gate = Subscriber(transport), Gate()
        subscriber.on()(gate)
        async with subscriber:
            transport.deliver(revoked())
            await wait_until(lambda: gate.running == 1)
            async with running(asyncio.wait([asyncio.ensure_future(end(subscriber)) for _ in range(10)])) as ending:
                for _ in range(10):
                    await asyncio.sleep(0)
                assert not ending.done()
                gate.open()
                done, _ = await soon(ending)
            assert [task.exception() for task in done] == [None] * 10

    @pytest.mark.parametrize("way", ["async with", "run"])
    async def test_from_a_handler(self, transport: ScriptedTransport, end: Verb, way: str) -> None:
        """A handler may end the subscriber that runs it, goes on, and is waited for."""
        subscriber, gate, ended = Subscriber(transport, drain_timeout=3_600), Gate(), list[Event]()

        @subscriber.on()
        async def handle(event: Event) -> None:
            await end(subscriber)
            ended.append(event)
            await gate(event)

        async with running(subscriber.run() if way == "run" else _enter_and_wait(subscriber, ended)) as task:
            transport.deliver(revoked(1))
            await wait_until(lambda: gate.running == 1)
            assert not task.done()
            gate.open()
            await soon(task)
        assert len(gate.finished) == 1
        assert transport.open == 0

    async def test_from_all_handlers(self, transport: ScriptedTransport, end: Verb) -> None:
        """Handlers that end the subscriber at the same time do not wait for each other."""
        subscriber, recorder = Subscriber(transport, drain_timeout=3_600), Recorder()
        all_there = asyncio.Barrier(10)

        @subscriber.on()
        async def handle(event: Event) -> None:
            await all_there.wait()
            await end(subscriber)
            await recorder(event)

        async with asyncio.timeout(scaled(10)):
            async with subscriber:
                transport.deliver(*map(revoked, range(10)))
                await recorder.has_seen(10)
        assert subscriber.stats.handled == 10

    async def test_from_a_handler_while_leaving(self, transport: ScriptedTransport, end: Verb) -> None:
        """A handler that ends the subscriber which is ending already goes on."""
        subscriber, gate, recorder = Subscriber(transport, drain_timeout=3_600), Gate(), Recorder()

        @subscriber.on()
        async def handle(event: Event) -> None:
            await gate(event)
            await end(subscriber)
            await recorder(event)

        async with asyncio.timeout(scaled(10)):
            async with subscriber:
                transport.deliver(revoked(1), revoked(2))
                await wait_until(lambda: gate.running == 2)
                asyncio.get_running_loop().call_later(0.01, gate.open)
        assert len(recorder.seen) == 2

    async def test_cancelling_it(self, transport: ScriptedTransport, end: Verb) -> None:
        """Cancelled while it waits, it cancels the handlers, closes, and says so."""
        subscriber, gate = Subscriber(transport, drain_timeout=3_600), Gate()
        subscriber.on()(gate)
        async with subscriber:
            transport.deliver(revoked())
            await wait_until(lambda: gate.running == 1)
            async with running(end(subscriber)) as ending:
                await asyncio.sleep(0)
                ending.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await soon(ending)
            assert (len(gate.cancelled), transport.open) == (1, 0)

    async def test_leaving_is_cancelled_while_another_ends(self, transport: ScriptedTransport, end: Verb) -> None:
        """A second cancellation ends at once, whoever else is waiting for the end."""
        subscriber, gate = Subscriber(transport, drain_timeout=3_600), Gate()
        subscriber.on()(gate)
        async with running(subscriber.run()) as task:
            transport.deliver(revoked())
            await wait_until(lambda: gate.running == 1)
            async with running(end(subscriber)) as ending:
                for _ in range(2):
                    task.cancel()
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
                with pytest.raises(asyncio.CancelledError):
                    await soon(task)
                assert (len(gate.cancelled), transport.open) == (1, 0)
                await soon(ending)

    async def test_before_anything_was_read(self, end: Verb) -> None:
        """Ended right after entering, before the reader ever ran, it simply ends."""
        subscriber = Subscriber(MemoryTransport())
        async with subscriber:
            await soon(end(subscriber))
            assert subscriber.stats.received == 0


async def _enter_and_wait(subscriber: Subscriber, ended: list[Event]) -> None:
    async with subscriber:
        await wait_until(lambda: ended)
