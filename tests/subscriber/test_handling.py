"""What happens to handlers that fail, hang or are many: nothing to the others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from jwt_events import Event, Gap, MemoryTransport, Retry, SessionDestroyed, Subscriber, TokenRevoked
from tests.support.examples import revoked
from tests.support.handling import Gate, Recorder, publish
from tests.support.records import recorded
from tests.support.scripted import ScriptedTransport
from tests.support.waiting import wait_until

ONCE = Retry(attempts=1)
QUICK = Retry(attempts=3, initial=0.001, maximum=0.002)


@pytest.fixture
def transport() -> MemoryTransport:
    """Where the events of a test travel."""
    return MemoryTransport()


class _OwnError(Exception):
    """An exception of an application."""


class _Failing:
    """A handler that fails some times and then succeeds."""

    def __init__(self, *errors: BaseException) -> None:
        self._errors = list(errors)
        self.calls = 0

    async def __call__(self, event: Any) -> None:
        """Handle an event."""
        self.calls += 1
        if self._errors:
            raise self._errors.pop(0)


def _raises(error: BaseException | type[BaseException]) -> Callable[[Any], None]:
    def handler(event: Any) -> None:
        raise error

    return handler


class TestFailures:
    """One handler's failure is its own."""

    @pytest.mark.parametrize(
        "error",
        [
            *(ValueError, _OwnError, asyncio.CancelledError, StopAsyncIteration, StopIteration, TimeoutError),
            *(SystemExit, KeyboardInterrupt, GeneratorExit, BaseException),
        ],
    )
    async def test_sync(self, transport: MemoryTransport, error: type[BaseException]) -> None:
        """Whatever a plain function raises, other handlers get this event, and all get the next."""
        subscriber, recorder = Subscriber(transport, retry=ONCE), Recorder()
        subscriber.on()(_raises(error))
        subscriber.on()(recorder)
        async with subscriber:
            await publish(transport, revoked(1), revoked(2))
            await recorder.has_seen(2)
            await wait_until(lambda: subscriber.stats.failed == 2)
        assert subscriber.stats.handled == 0

    @pytest.mark.parametrize(
        "error", [ValueError, _OwnError, asyncio.CancelledError, StopAsyncIteration, StopIteration, TimeoutError]
    )
    async def test_async(self, transport: MemoryTransport, error: type[BaseException]) -> None:
        """The same of a coroutine function, also if it raises CancelledError without being cancelled."""
        subscriber, recorder = Subscriber(transport, retry=ONCE), Recorder()

        @subscriber.on()
        async def fail(event: Event) -> None:
            raise error

        subscriber.on()(recorder)
        with recorded() as records:
            async with subscriber:
                await publish(transport, revoked(1), revoked(2))
                await recorder.has_seen(2)
                await wait_until(lambda: subscriber.stats.failed == 2)
        assert subscriber.stats.handled == 0
        assert len(records.of("handler failed", "ERROR")) == 2

    async def test_hanging(self, transport: MemoryTransport) -> None:
        """Handlers that hang leave the reader and the other handlers alone."""
        subscriber, gate, recorder = Subscriber(transport), Gate(), Recorder()
        subscriber.on(SessionDestroyed)(gate)
        subscriber.on(TokenRevoked)(recorder)
        async with subscriber:
            await publish(transport, *(SessionDestroyed(session_id=f"s-{n}") for n in range(10)))
            await publish(transport, *map(revoked, range(100)))
            await recorder.has_seen(100)
            assert gate.running == 10
            gate.open()

    async def test_failing_callback_of_gaps(self) -> None:
        """A gap callback that fails is called again like any handler, and stops nothing."""
        transport, recorder = ScriptedTransport(), Recorder()
        subscriber, failing = Subscriber(transport, retry=QUICK), _Failing(_OwnError())
        subscriber.on_gap(failing)
        subscriber.on_gap(_raises(SystemExit))
        subscriber.on()(recorder)
        async with subscriber:
            transport.deliver(revoked(), gaps=(Gap(None, "reconnected"),))
            await recorder.has_seen(1)
            await wait_until(lambda: failing.calls == 2)

    async def test_poison(self) -> None:
        """Deliveries that are no events are counted and skipped."""
        transport, recorder = ScriptedTransport(), Recorder()
        subscriber = Subscriber(transport)
        subscriber.on()(recorder)
        async with subscriber:
            transport.deliver(payloads=(b"", b"\xff", b"[" * 100_000, b'{"a":1,"a":1}'))
            transport.deliver(revoked())
            await recorder.has_seen(1)
        assert (subscriber.stats.decode_errors, subscriber.stats.received) == (4, 5)


class TestRetry:
    """A handler that failed is called again."""

    async def test_until_it_succeeds(self, transport: MemoryTransport) -> None:
        """An event whose handler succeeds in the end is handled."""
        subscriber, failing = Subscriber(transport, retry=QUICK), _Failing(_OwnError(), ValueError())
        subscriber.on()(failing)
        async with subscriber:
            await publish(transport, revoked())
            await wait_until(lambda: subscriber.stats.handled == 1)
        assert failing.calls == 3
        assert subscriber.stats.failed == 0

    @pytest.mark.parametrize("attempts", [1, 2, 5])
    async def test_as_often_as_allowed(self, transport: MemoryTransport, attempts: int) -> None:
        """After so many calls the event has failed."""
        retry = Retry(attempts=attempts, initial=0.001, maximum=0.002)
        subscriber, failing = Subscriber(transport, retry=retry), _Failing(*[_OwnError()] * 9)
        subscriber.on()(failing)
        async with subscriber:
            await publish(transport, revoked())
            await wait_until(lambda: subscriber.stats.failed == 1)
        assert failing.calls == attempts
        assert subscriber.stats.handled == 0

    async def test_only_what_is_worth_it(self, transport: MemoryTransport) -> None:
        """An exception that is not named is not worth another call."""
        retry = Retry(attempts=9, initial=0.001, on=(_OwnError, ConnectionError))
        subscriber = Subscriber(transport, retry=retry)
        failing = _Failing(_OwnError(), ConnectionResetError(), ValueError())
        subscriber.on()(failing)
        async with subscriber:
            await publish(transport, revoked())
            await wait_until(lambda: subscriber.stats.failed == 1)
        assert failing.calls == 3

    async def test_only_the_handler_that_failed(self, transport: MemoryTransport) -> None:
        """Handlers that succeeded are not called again."""
        subscriber, failing, recorder = Subscriber(transport, retry=QUICK), _Failing(_OwnError()), Recorder()
        subscriber.on()(failing)
        subscriber.on()(recorder)
        async with subscriber:
            await publish(transport, revoked())
            await wait_until(lambda: subscriber.stats.handled == 1)
        assert (failing.calls, len(recorder.seen)) == (2, 1)


_OVERDUE = "a plain handler exceeds its time, and keeps its place until its thread ends"


class TestHandlerTimeout:
    """How long one call may take."""

    async def test_hanging_handler(self, transport: MemoryTransport) -> None:
        """A handler that takes too long is cancelled and called again."""
        subscriber, gate = Subscriber(transport, retry=QUICK, handler_timeout=0.02), Gate()
        subscriber.on()(gate)
        async with subscriber:
            await publish(transport, revoked())
            await wait_until(lambda: subscriber.stats.failed == 1)
        assert len(gate.cancelled) == 3
        assert subscriber.stats.handled == 0

    async def test_blocking_handler(self, transport: MemoryTransport) -> None:
        """A thread cannot be cancelled: it keeps its place until it ends, and has failed then, whatever it returns."""
        subscriber, stay = Subscriber(transport, retry=ONCE, handler_timeout=0.02), threading.Event()
        subscriber.on()(lambda _: stay.wait())
        with recorded() as records:
            async with subscriber:
                await publish(transport, revoked())
                await wait_until(lambda: records.of(_OVERDUE, "WARNING"))
                assert (subscriber.stats.in_flight, subscriber.stats.failed) == (1, 0)
                stay.set()
                await wait_until(lambda: subscriber.stats.failed == 1)
                assert subscriber.stats.in_flight == 0
        assert records.of("handler failed")[0]["error"].startswith("TimeoutError")

    @pytest.mark.parametrize(
        "options", [{"concurrency": 1}, {"ordered_by": lambda _: "same"}], ids=["concurrency", "ordered_by"]
    )
    async def test_blocking_handlers_keep_the_bounds(self, transport: MemoryTransport, options: dict[str, Any]) -> None:
        """Blocked threads count: no more run at once than allowed, and none beside another one with its key."""
        subscriber = Subscriber(transport, retry=QUICK, handler_timeout=0.01, **options)
        turn, running, most, calls = threading.Semaphore(0), 0, 0, 0

        @subscriber.on()
        def block(event: Event) -> None:
            nonlocal running, most, calls
            running += 1
            calls += 1
            most = max(most, running)
            turn.acquire()
            running -= 1

        with recorded() as records:
            async with subscriber:
                await publish(transport, revoked(1), revoked(2))
                for number in range(1, 7):  # two events, three attempts of each
                    await wait_until(lambda number=number: len(records.of(_OVERDUE)) == number)
                    turn.release()
                await wait_until(lambda: subscriber.stats.failed == 2)
        assert (most, calls) == (1, 6)

    async def test_blocking_handler_at_the_end(self, transport: MemoryTransport) -> None:
        """A blocked thread is waited for until the drain_timeout; a coroutine that it returns later is closed."""
        subscriber = Subscriber(transport, retry=ONCE, handler_timeout=0.01, drain_timeout=0.05)
        stay, left = threading.Event(), threading.Event()

        async def never() -> None: ...

        @subscriber.on()
        def block(event: Event) -> Any:
            stay.wait()
            left.set()
            return never()

        async with subscriber:
            await publish(transport, revoked())
            await wait_until(lambda: subscriber.stats.in_flight == 1)
        assert subscriber.stats.failed == 1
        stay.set()
        await wait_until(left.is_set)

    async def test_each_call_on_its_own(self, transport: MemoryTransport) -> None:
        """The time is for one call; a quick one after a slow one succeeds."""
        subscriber, gate, calls = Subscriber(transport, retry=QUICK, handler_timeout=0.02), Gate(), list[Event]()

        @subscriber.on()
        async def hang_once(event: Event) -> None:
            calls.append(event)
            if len(calls) == 1:
                await gate(event)

        async with subscriber:
            await publish(transport, revoked())
            await wait_until(lambda: subscriber.stats.handled == 1)
        assert (len(calls), len(gate.cancelled)) == (2, 1)


class TestConcurrency:
    """How many handlers run at once."""

    async def test_no_more_than_allowed(self, transport: MemoryTransport) -> None:
        """With all slots taken nothing more is started, and reading pauses."""
        subscriber, gate = Subscriber(transport, concurrency=4), Gate()
        subscriber.on()(gate)
        async with subscriber:
            await publish(transport, *map(revoked, range(50)))
            await wait_until(lambda: gate.running == 4)
            assert (subscriber.stats.received, subscriber.stats.in_flight) == (5, 4)
            gate.open()
            await wait_until(lambda: subscriber.stats.handled == 50)
        assert gate.max_running == 4
        assert sorted(event.subject for event in gate.finished) == sorted(f"token-{n}" for n in range(50))

    async def test_handlers_of_one_event_count_each(self, transport: MemoryTransport) -> None:
        """Ten handlers of one event need ten slots."""
        subscriber, gate = Subscriber(transport, concurrency=4), Gate()
        for _ in range(10):
            subscriber.on()(gate)
        async with subscriber:
            await publish(transport, revoked())
            await wait_until(lambda: gate.running == 4)
            gate.open()
            await wait_until(lambda: subscriber.stats.handled == 1)
        assert (gate.max_running, len(gate.finished)) == (4, 10)

    async def test_failures_free_their_slot(self, transport: MemoryTransport) -> None:
        """Handlers that fail, time out or are cancelled take no slot with them."""
        subscriber = Subscriber(transport, concurrency=2, retry=ONCE, handler_timeout=0.01)
        subscriber.on()(Gate())
        subscriber.on()(_raises(SystemExit))
        subscriber.on()(_raises(asyncio.CancelledError))
        async with subscriber:
            await publish(transport, *map(revoked, range(20)))
            await wait_until(lambda: subscriber.stats.failed == 20)
            assert subscriber.stats.in_flight == 0


class TestDuplicates:
    """An event is handled once, however often it arrives."""

    async def test_same_id(self, transport: MemoryTransport) -> None:
        """A publish that was repeated after a lost answer makes one event again."""
        subscriber, recorder, event = Subscriber(transport), Recorder(), revoked()
        subscriber.on()(recorder)
        async with subscriber:
            await publish(transport, event, event, revoked(2), event)
            await publish(transport, event)
            await wait_until(lambda: subscriber.stats.received == 5)
        assert recorder.subjects == ["token-1", "token-2"]
        assert (subscriber.stats.duplicates, subscriber.stats.handled) == (3, 2)

    async def test_same_content(self, transport: MemoryTransport) -> None:
        """Two events that say the same are two events."""
        subscriber, recorder = Subscriber(transport), Recorder()
        subscriber.on()(recorder)
        async with subscriber:
            await publish(transport, revoked(), revoked())
            await recorder.has_seen(2)
