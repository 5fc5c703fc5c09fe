"""Leaving: what is running finishes or is cancelled, everything is closed, and all of it within a deadline."""

from __future__ import annotations

import asyncio
import gc
from contextlib import suppress

import pytest

from jwt_events import Event, MemoryTransport, RedisPubSub, RedisStream, Retry, Subscriber, Transport
from tests.support.examples import revoked
from tests.support.handling import Gate, Recorder, publish, running, soon
from tests.support.records import recorded
from tests.support.scripted import ScriptedTransport
from tests.support.servers import Server
from tests.support.waiting import scaled, wait_until

_redis = pytest.mark.parametrize("kind", [RedisStream, RedisPubSub])


async def _leave_with_two_hundred(transport: Transport) -> None:
    """Leave while two hundred handlers run, of which forty do not end by themselves."""
    tasks = asyncio.all_tasks()
    loop = asyncio.get_running_loop()
    drain_timeout = scaled(1.0)
    subscriber = Subscriber(transport, concurrency=200, drain_timeout=drain_timeout)
    ends, hangs = Gate(), Gate()

    @subscriber.on()
    async def handle(event: Event) -> None:
        await (hangs if str(event.subject).endswith(("0", "5")) else ends)(event)

    with recorded() as records:
        async with subscriber:
            await publish(transport, *map(revoked, range(200)))
            await wait_until(lambda: subscriber.stats.in_flight == 200)
            loop.call_later(0.01, ends.open)
            began = loop.time()
        took = loop.time() - began
    assert (len(ends.finished), len(ends.cancelled)) == (160, 0)
    assert len(hangs.cancelled) == len(hangs.seen) == 40
    cancelled = records.of("handler cancelled", "WARNING")
    assert {fields["event_id"] for fields in cancelled} == {event.id for event in hangs.cancelled}
    assert all("handle" in fields["handler"] for fields in cancelled)
    assert drain_timeout <= took < drain_timeout + scaled(1.0)
    assert asyncio.all_tasks() == tasks
    assert (subscriber.stats.handled, subscriber.stats.failed, subscriber.stats.in_flight) == (160, 40, 0)


class TestLeaving:
    """Leaving `async with`."""

    async def test_two_hundred_in_flight(self) -> None:
        """Handlers that end in time finish, the others are cancelled and named, and nothing is left."""
        await _leave_with_two_hundred(MemoryTransport())

    @_redis
    async def test_two_hundred_in_flight_on_redis(
        self, server: Server, key: str, kind: type[RedisStream | RedisPubSub]
    ) -> None:
        """The same on a server, which sees no connection more than before."""
        before = server.connections().keys()
        await _leave_with_two_hundred(kind(server.url, key))
        await wait_until(lambda: server.connections().keys() <= before)
        gc.collect()  # whatever was not closed would warn now

    async def test_at_once_when_idle(self) -> None:
        """With nothing running, leaving does not wait for the deadline, nor for a read to end."""
        transport = ScriptedTransport()
        subscriber = Subscriber(transport, drain_timeout=3_600)
        subscriber.on()(Recorder())
        async with asyncio.timeout(scaled(5)):
            async with subscriber:
                pass
        assert (transport.open, transport.opened) == (0, 1)

    async def test_what_was_read_is_finished(self) -> None:
        """What was read before leaving is handled, however many slots there are."""
        transport, recorder = MemoryTransport(), Recorder()
        subscriber = Subscriber(transport, concurrency=2)
        subscriber.on()(recorder)
        async with subscriber:
            await publish(transport, *map(revoked, range(100)))
            await wait_until(lambda: recorder.seen)
        assert subscriber.stats.received == subscriber.stats.handled == len(recorder.seen) == 100

    async def test_handler_that_ignores_cancellation(self) -> None:
        """A handler that will not be cancelled is named in an error and left behind; leaving ends all the same."""
        transport, stay = MemoryTransport(), asyncio.Event()
        subscriber, tasks = Subscriber(transport, drain_timeout=0.01), asyncio.all_tasks()

        @subscriber.on()
        async def stubborn(event: Event) -> None:
            while not stay.is_set():
                with suppress(asyncio.CancelledError):
                    await stay.wait()

        loop, event = asyncio.get_running_loop(), revoked()
        with recorded() as records:
            async with subscriber:
                await publish(transport, event)
                await wait_until(lambda: subscriber.stats.in_flight == 1)
                began = loop.time()
            took = loop.time() - began
        (fields,) = records.of("handler does not end", "ERROR")
        assert fields["handler"].endswith("stubborn")
        assert fields["event_id"] == event.id
        assert took < 1.01 + scaled(1.0)
        stay.set()
        await wait_until(lambda: asyncio.all_tasks() <= tasks)

    async def test_handler_that_turns_cancellation_into_an_error(self) -> None:
        """A handler that was cancelled is not called again, whatever it makes of the cancellation."""
        transport, calls = MemoryTransport(), list[Event]()
        subscriber = Subscriber(transport, drain_timeout=0.01, retry=Retry(attempts=9, initial=0.001))

        @subscriber.on()
        async def translate(event: Event) -> None:
            calls.append(event)
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise ConnectionError from None

        async with subscriber:
            await publish(transport, revoked())
            await wait_until(lambda: calls)
        assert len(calls) == 1
        assert (subscriber.stats.failed, subscriber.stats.in_flight) == (1, 0)

    async def test_handler_that_cleans_up(self) -> None:
        """A handler that is cancelled may clean up before the subscriber closes."""
        transport, cleaned_up = MemoryTransport(), list[Event]()
        subscriber = Subscriber(transport, drain_timeout=0.01)

        @subscriber.on()
        async def clean(event: Event) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                for _ in range(10):
                    await asyncio.sleep(0)
                cleaned_up.append(event)

        async with subscriber:
            await publish(transport, revoked())
            await wait_until(lambda: subscriber.stats.in_flight == 1)
        assert len(cleaned_up) == 1

    async def test_during_a_retry(self) -> None:
        """A handler that waits for its next attempt is cancelled when the time is over."""
        transport = MemoryTransport()
        subscriber = Subscriber(transport, drain_timeout=0.01, retry=Retry(initial=3_600, maximum=3_600, jitter=False))

        @subscriber.on()
        async def fail(event: Event) -> None:
            raise ValueError

        with recorded() as records:
            async with subscriber:
                await publish(transport, revoked())
                await wait_until(lambda: records.of("handler failed and will be called again", "WARNING"))
        assert len(records.of("handler cancelled")) == 1


class TestRun:
    """Cancelling `run()`."""

    async def test_drains_and_raises(self) -> None:
        """Cancelled, it lets handlers finish and then raises CancelledError."""
        transport, gate = ScriptedTransport(), Gate()
        subscriber = Subscriber(transport)
        subscriber.on()(gate)
        async with running(subscriber.run()) as task:
            transport.deliver(*map(revoked, range(10)))
            await wait_until(lambda: gate.running == 10)
            task.cancel()
            await wait_until(lambda: "jwt_events reader" not in {task.get_name() for task in asyncio.all_tasks()})
            assert not task.done()
            gate.open()
            with pytest.raises(asyncio.CancelledError):
                await soon(task)
        assert (len(gate.finished), transport.open) == (10, 0)

    async def test_second_cancellation(self) -> None:
        """Cancelled again, it cancels the handlers and ends at once."""
        transport, gate = ScriptedTransport(), Gate()
        subscriber = Subscriber(transport, drain_timeout=3_600)
        subscriber.on()(gate)
        async with running(subscriber.run()) as task:
            transport.deliver(*map(revoked, range(10)))
            await wait_until(lambda: gate.running == 10)
            task.cancel()
            await wait_until(lambda: "jwt_events reader" not in {task.get_name() for task in asyncio.all_tasks()})
            assert (gate.running, task.done()) == (10, False)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await soon(task)
        assert (len(gate.cancelled), transport.open) == (10, 0)

    async def test_two_cancellations_at_once(self) -> None:
        """Cancelled twice before it could react, it still closes everything."""
        transport, gate = ScriptedTransport(), Gate()
        subscriber = Subscriber(transport, drain_timeout=0.05)
        subscriber.on()(gate)
        async with running(subscriber.run()) as task:
            transport.deliver(revoked())
            await wait_until(lambda: gate.running == 1)
            task.cancel()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await soon(task)
        assert (len(gate.cancelled), transport.open) == (1, 0)

    @_redis
    async def test_on_redis(self, server: Server, key: str, kind: type[RedisStream | RedisPubSub]) -> None:
        """The same on a server."""
        before, gate = server.connections().keys(), Gate()
        transport = kind(server.url, key)
        subscriber = Subscriber(transport)
        subscriber.on()(gate)
        async with running(subscriber.run()) as task:
            await wait_until(lambda: "running" in repr(subscriber))
            await publish(transport, revoked(1), revoked(2))
            await wait_until(lambda: gate.running == 2)
            task.cancel()
            gate.open()
            with pytest.raises(asyncio.CancelledError):
                await soon(task)
        assert len(gate.finished) == 2
        await wait_until(lambda: server.connections().keys() <= before)
