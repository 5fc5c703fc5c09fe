"""One subscriber, many lives: entering, leaving, entering again, and nothing that is left in between."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from jwt_events import Closed, Event, MemoryTransport, RedisPubSub, RedisStream, Subscriber, Transport
from tests.support.examples import revoked
from tests.support.handling import Gate, Recorder, publish, running, soon
from tests.support.scripted import ScriptedTransport
from tests.support.servers import Server
from tests.support.waiting import wait_until

_redis = pytest.mark.parametrize("kind", [RedisStream, RedisPubSub])


def _weigh() -> dict[str, int]:
    """Count tasks, objects of the library, and open files."""
    gc.collect()
    return {
        "tasks": len(asyncio.all_tasks()),
        "objects": sum(str(type(thing).__module__).startswith("jwt_events") for thing in gc.get_objects()),
        "files": len(list(Path("/dev/fd").iterdir())),
    }


async def _stays_small(transport: Transport, *, cycles: int) -> None:
    """Start and stop a subscriber again and again, and look whether anything grew."""

    async def live() -> None:
        subscriber, recorder = Subscriber(transport), Recorder()
        subscriber.on()(recorder)
        async with subscriber:
            pass

    async def live_often(cycles: int) -> None:
        for _ in range(cycles):
            await live()

    await live_often(5)
    await asyncio.sleep(0)  # sockets are closed in the next turn of the loop
    before = _weigh()
    await live_often(cycles)
    # What closes a socket holds the last life for a few turns of the loop, more or fewer by its kind.
    await wait_until(
        lambda: all(_weigh()[name] <= before[name] for name in before), what=lambda: f"{before}, now {_weigh()}"
    )


class TestManyLives:
    """Two hundred lives in one process."""

    async def test_nothing_grows(self) -> None:
        """Neither tasks nor objects nor open files."""
        await _stays_small(MemoryTransport(), cycles=100)

    @_redis
    async def test_nothing_grows_on_redis(
        self, server: Server, key: str, kind: type[RedisStream | RedisPubSub]
    ) -> None:
        """Nor connections."""
        before = server.connections().keys()
        await _stays_small(kind(server.url, key), cycles=100)
        await wait_until(lambda: server.connections().keys() <= before)

    async def test_one_subscriber(self) -> None:
        """One subscriber can be entered as often as one likes."""
        transport, recorder = MemoryTransport(), Recorder()
        subscriber = Subscriber(transport)
        subscriber.on()(recorder)
        for number in range(100):
            async with subscriber:
                await publish(transport, revoked(number))
                await recorder.has_seen(number + 1)
        assert recorder.subjects == [f"token-{number}" for number in range(100)]
        assert subscriber.stats.handled == 100


class TestEnteringAgain:
    """What a subscriber keeps from one life to the next."""

    async def test_handlers_and_stats(self) -> None:
        """Handlers stay registered and the numbers go on."""
        transport, recorder = ScriptedTransport(), Recorder()
        subscriber = Subscriber(transport)
        subscriber.on()(recorder)
        for number in (1, 2):
            async with subscriber:
                transport.deliver(revoked(number))
                await recorder.has_seen(number)
        assert (subscriber.stats.handled, transport.opened) == (2, 2)

    async def test_handled_events_are_duplicates(self) -> None:
        """A transport that begins with the oldest event again delivers what was handled before; it is skipped."""
        transport, recorder = MemoryTransport(start="all"), Recorder()
        subscriber = Subscriber(transport)
        subscriber.on()(recorder)
        await publish(transport, revoked(1), revoked(2))
        for life in (1, 2, 3):
            async with subscriber:
                await publish(transport, revoked(2 + life))
                await recorder.has_seen(2 + life)
        assert recorder.subjects == ["token-1", "token-2", "token-3", "token-4", "token-5"]
        assert subscriber.stats.duplicates == 3 + 4

    async def test_dropped_events_are_not(self) -> None:
        """What was dropped when the subscriber was stopped is handled when it is delivered again."""
        transport, gate = MemoryTransport(start="all"), Gate()
        subscriber = Subscriber(transport, concurrency=2)
        subscriber.on()(gate)
        await publish(transport, *map(revoked, range(10)))
        async with subscriber:
            await wait_until(lambda: subscriber.stats.received == 3)
            gate.open()
            await subscriber.stop()
        assert (len(gate.seen), subscriber.stats.dropped) == (2, 8)
        async with subscriber:
            await gate.has_seen(10)
        assert gate.subjects == [f"token-{n}" for n in range(10)]

    async def test_while_running(self) -> None:
        """A subscriber that is running cannot be started again, in any way, and is not disturbed by the attempt."""
        transport, recorder = ScriptedTransport(), Recorder()
        subscriber = Subscriber(transport)
        subscriber.on()(recorder)
        async with subscriber:
            with pytest.raises(Closed, match="running already"):
                await subscriber.run()
            with pytest.raises(Closed, match="running already"):
                async with subscriber:
                    pytest.fail("was entered")
            transport.deliver(revoked())
            await recorder.has_seen(1)

    async def test_while_entering(self) -> None:
        """Two tasks cannot enter at the same time."""
        transport = ScriptedTransport()
        transport.opening.clear()
        subscriber = Subscriber(transport)
        async with running(subscriber.run()):
            await wait_until(lambda: transport.open == 1)
            with pytest.raises(Closed, match="running already"):
                await subscriber.run()
            transport.opening.set()

    async def test_left_without_being_entered(self) -> None:
        """A framework that leaves all that it has does no harm: nothing happens, unless another task is entering."""
        transport = ScriptedTransport()
        subscriber = Subscriber(transport)
        await subscriber.__aexit__(None, None, None)
        transport.opening.clear()
        async with running(subscriber.run()):
            await wait_until(lambda: transport.open == 1)
            with pytest.raises(Closed, match="being entered"):
                await subscriber.__aexit__(None, None, None)
            transport.opening.set()
            await wait_until(lambda: subscriber.is_live)
        await subscriber.__aexit__(None, None, None)
        assert transport.open == 0

    async def test_run_after_async_with(self) -> None:
        """The ways to start can be mixed, one after the other."""
        transport, recorder = ScriptedTransport(), Recorder()
        subscriber = Subscriber(transport)
        subscriber.on()(recorder)
        async with subscriber:
            pass
        async with running(subscriber.run()):
            transport.deliver(revoked())
            await recorder.has_seen(1)


class TestCancelledWhileEntering:
    """Cancellation before the subscription is confirmed."""

    async def test_leaves_nothing(self) -> None:
        """What was opened is closed, and the subscriber can be entered again."""
        transport = ScriptedTransport()
        transport.opening.clear()
        subscriber = Subscriber(transport)
        async with running(subscriber.run()) as task:
            await wait_until(lambda: transport.open == 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await soon(task)
        assert transport.open == 0
        transport.opening.set()
        async with subscriber:
            assert transport.open == 1

    @_redis
    async def test_at_every_step(self, server: Server, key: str, kind: type[RedisStream | RedisPubSub]) -> None:
        """Wherever the cancellation hits, no connection is left."""
        before = server.connections().keys()
        entered = False
        steps = 0
        while not entered or steps % 5:
            steps += 1
            subscriber = Subscriber(kind(server.url, key))
            async with running(subscriber.run()) as task:
                for _ in range(steps):
                    await asyncio.sleep(0)
                entered = "running" in repr(subscriber)
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await soon(task)
            assert "idle" in repr(subscriber)
        await wait_until(lambda: server.connections().keys() <= before)


class TestTasks:
    """Which task enters and which leaves."""

    async def test_two_tasks(self) -> None:
        """A subscriber that one task entered can be left by another, as fixtures and lifespans do."""
        transport, gate = ScriptedTransport(), Gate()
        subscriber = Subscriber(transport)
        subscriber.on()(gate)
        await asyncio.create_task(subscriber.__aenter__())
        transport.deliver(revoked())
        await wait_until(lambda: gate.running == 1)
        gate.open()
        await asyncio.create_task(subscriber.__aexit__(None, None, None))
        assert (len(gate.finished), transport.open) == (1, 0)

    async def test_exceptions_of_the_body(self) -> None:
        """An exception that leaves the body comes out, after everything was drained and closed."""
        transport, gate = ScriptedTransport(), Gate()
        subscriber = Subscriber(transport)
        subscriber.on()(gate)
        error = ValueError("of the body")

        async def body() -> None:
            async with subscriber:
                transport.deliver(revoked())
                await wait_until(lambda: gate.running == 1)
                gate.open()
                raise error

        with pytest.raises(ValueError, match="of the body") as caught:
            await body()
        assert caught.value is error
        assert (len(gate.finished), transport.open) == (1, 0)

    @pytest.mark.parametrize("end", [Subscriber.stop, Subscriber.drain])
    async def test_ending_what_never_began(self, end: Callable[[Subscriber], Awaitable[None]]) -> None:
        """Stopping or draining a subscriber that is not running does nothing, before or after its life."""
        subscriber, recorder = Subscriber(MemoryTransport()), Recorder()

        @subscriber.on()
        async def handle(event: Event) -> None:
            await recorder(event)

        await end(subscriber)
        async with subscriber:
            pass
        await end(subscriber)
        assert recorder.seen == []
