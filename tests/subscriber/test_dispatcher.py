"""How handlers share tasks: those that do not wait run in one, one after another; one that waits keeps the task."""

from __future__ import annotations

import asyncio
import gc
import sys
import weakref
from collections.abc import Callable
from contextvars import ContextVar, Token
from typing import Any

import pytest

from jwt_events import Event, MemoryTransport, Retry, Subscriber
from jwt_events.events._routing import EventHandler, Handler
from jwt_events.instrumentation import Observer
from jwt_events.subscriber._dispatcher import Dispatcher
from jwt_events.subscriber._invoker import HandlerInvoker
from jwt_events.subscriber._job import Job, Outcome
from jwt_events.transport.base import Gap
from tests.support.examples import revoked
from tests.support.handling import Gate, Recorder, publish, running, soon
from tests.support.records import recorded
from tests.support.waiting import scaled, wait_until

IN_A_ROW = 64


class _Watch(Observer):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    def in_flight(self, number: int) -> None:
        """Take note."""
        self.numbers.append(number)


class _Bench:
    """A dispatcher, and what becomes of what it is given.

    Attributes:
        dispatcher: what is under test.
        watch: what it told.
        outcomes: of the events that ended, by their subject.
    """

    def __init__(self, *, concurrency: int = 64, attempts: int = 1) -> None:
        self.watch = _Watch()
        retry = Retry(attempts=attempts, initial=0.001, maximum=0.002)
        self.dispatcher = Dispatcher(
            concurrency=concurrency,
            invoker=HandlerInvoker(timeout=None, retry=retry),
            ordered_by=None,
            observer=self.watch,
        )
        self.dispatcher.on_ended = self._ended
        self.outcomes: dict[str | None, Outcome] = {}

    def submit(self, number: int, *handlers: EventHandler) -> None:
        """Submit an event, for which there is room."""
        work = Job(revoked(number), len(handlers))
        assert self.dispatcher.submit(work, [Handler.of(handler) for handler in handlers]) is None

    async def is_idle(self) -> None:
        """Wait until all handlers have ended; then nothing may be left of them."""
        await wait_until(lambda: self.dispatcher.in_flight == 0)
        assert self.watch.numbers[-1] == 0
        assert not self.dispatcher._runner._running
        assert not self.dispatcher._runner._ready

    def _ended(self, job: Job, outcome: Outcome) -> None:
        """Take note."""
        if isinstance(job.subject, Event):
            self.outcomes[job.subject.subject] = outcome


def _task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


class TestSharing:
    """Who has a task for itself."""

    async def test_those_that_do_not_wait(self) -> None:
        """Handlers that do not wait run in one task, in the order of their submission."""
        bench, tasks, order = _Bench(), set[asyncio.Task[Any]](), list[str | None]()

        async def handle(event: Event) -> None:
            tasks.add(_task())
            order.append(event.subject)

        for number in range(20):
            bench.submit(number, handle)
        assert order == []  # whoever submits runs none of them
        await bench.is_idle()
        assert order == [f"token-{number}" for number in range(20)]
        assert len(tasks) == 1

    async def test_one_that_waits(self) -> None:
        """A handler that waits keeps the task, which is then called after it; those behind it get one each."""
        bench, gate, tasks = _Bench(), Gate(), dict[str | None, asyncio.Task[Any]]()

        async def handle(event: Event) -> None:
            tasks[event.subject] = _task()
            if event.subject in {"token-1", "token-3"}:
                await gate(event)
                assert tasks[event.subject] is _task()

        for number in range(5):
            bench.submit(number, handle)
        await wait_until(lambda: gate.running == 2)
        shared, *others = list(tasks.values())[1:]
        assert tasks["token-0"] is shared
        assert len({shared, *others}) == 4
        for subject in ("token-1", "token-3"):
            assert tasks[subject].get_name() == f"jwt_events handler {handle.__qualname__}"
        assert bench.dispatcher.in_flight == 2
        gate.open()
        await bench.is_idle()
        assert len(bench.outcomes) == 5

    @pytest.mark.parametrize("concurrency", [1, 3, 10_000])
    async def test_others_have_their_turn(self, concurrency: int) -> None:
        """However many handlers there are that never wait, others in the program run between them."""
        transport, turns, seen, most = MemoryTransport(), 0, 0, 0
        subscriber = Subscriber(transport, concurrency=concurrency)

        @subscriber.on()
        async def handle(event: Event) -> None:
            nonlocal seen, most
            seen += 1
            most = max(most, seen)

        async def take_turns() -> None:
            nonlocal turns, seen
            while True:
                turns, seen = turns + 1, 0
                await asyncio.sleep(0)

        async with subscriber:
            await publish(transport, *map(revoked, range(3_000)))
            async with running(take_turns()):
                await wait_until(lambda: subscriber.stats.handled == 3_000)
        assert turns > 3_000 // IN_A_ROW
        assert most <= 2 * IN_A_ROW  # one that ends and one that begins, in the same turn

    @pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
    async def test_eager_tasks(self) -> None:
        """Where tasks begin at once, as a program may ask for, the reader still runs no handler, and all are run."""
        loop = asyncio.get_running_loop()
        loop.set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009 - unknown to older type checkers
        bench, seen = _Bench(), list[Event]()

        async def handle(event: Event) -> None:
            seen.append(event)
            if len(seen) % 3 == 0:
                await asyncio.sleep(0)

        for number in range(50):
            bench.submit(number, handle)
            assert seen == []
        await bench.is_idle()
        assert len(seen) == 50
        loop.set_task_factory(None)


class _Odd:
    """What cannot be compared, as arrays and queries."""

    __hash__ = None  # type: ignore[assignment]  # as theirs

    def __eq__(self, other: object) -> bool:
        """Refuse."""
        raise ValueError("ambiguous")


class TestContext:
    """What a handler sets in its context is its own, whether it shares its task or not."""

    @pytest.mark.parametrize("make", [object, list, dict, _Odd])
    @pytest.mark.parametrize("waits", [False, True])
    async def test_not_for_others(self, make: Callable[[], object], *, waits: bool) -> None:
        """Each handler finds what was there in the beginning, whether what others set is equal to that or not."""
        variable: ContextVar[object] = ContextVar("variable")
        variable.set(before := make())
        bench, found = _Bench(), list[object]()

        async def handle(event: Event) -> None:
            found.append(variable.get())
            variable.set(make())
            if waits:
                await asyncio.sleep(0)

        for number in range(10):
            bench.submit(number, handle, handle)
        await bench.is_idle()
        assert len(found) == 20
        assert all(value is before for value in found)
        assert variable.get() is before

    async def test_it_lasts_as_long_as_the_handler(self) -> None:
        """What a handler sets before it waits is there afterwards, in what it starts too, and can be reset."""
        variable: ContextVar[str | None] = ContextVar("variable", default="unset")
        bench, gate, seen = _Bench(), Gate(), list[tuple[str | None, ...]]()

        async def handle(event: Event) -> None:
            token: Token[str | None] = variable.set(event.subject)

            async def child() -> str | None:
                return variable.get()

            started = asyncio.create_task(child())
            await gate(event)
            after = variable.get()
            await asyncio.sleep(0)
            variable.reset(token)
            seen.append((event.subject, await started, after, variable.get()))

        for number in range(5):
            bench.submit(number, handle)
        await wait_until(lambda: gate.running == 5)
        gate.open()
        await bench.is_idle()
        assert seen == [(f"token-{n}", f"token-{n}", f"token-{n}", "unset") for n in range(5)]


class TestCancelled:
    """Handlers that are cancelled, by themselves or in the end."""

    async def test_by_itself_without_waiting(self) -> None:
        """A handler that cancels its own task and does not wait cancels no other."""
        bench, recorder = _Bench(), Recorder()

        async def cancel(event: Event) -> None:
            _task().cancel()

        async def wait(event: Event) -> None:
            await asyncio.sleep(0)
            await recorder(event)

        for number in range(10):
            bench.submit(number, cancel, wait)
        await bench.is_idle()
        assert len(recorder.seen) == 10
        assert set(bench.outcomes.values()) == {Outcome()}

    async def test_by_itself_and_waiting(self) -> None:
        """If it then waits, it is cancelled, and its event is not finished; others are."""
        bench, recorder = _Bench(attempts=3), Recorder()

        async def cancel(event: Event) -> None:
            _task().cancel()
            await asyncio.sleep(0)

        bench.submit(1, recorder)
        bench.submit(2, cancel)
        bench.submit(3, recorder)
        await bench.is_idle()
        assert bench.outcomes == {"token-1": Outcome(), "token-2": Outcome(finished=False), "token-3": Outcome()}

    async def test_at_once_in_a_task_of_its_own(self) -> None:
        """Whoever looks is told when a handler ends that way, also while others wait."""
        bench, gate, is_first = _Bench(), Gate(), True

        async def handle(event: Event) -> None:
            nonlocal is_first
            if is_first:
                is_first = False
                await asyncio.sleep(0)
                return
            _task().cancel()
            raise asyncio.CancelledError

        bench.submit(1, handle)
        await bench.is_idle()  # it waited, so from now on it has a task of its own
        bench.submit(2, gate, handle)
        await wait_until(lambda: bench.dispatcher.in_flight == gate.running == 1)
        assert bench.watch.numbers[-1] == 1
        gate.open()
        await bench.is_idle()
        assert bench.outcomes == {"token-1": Outcome(), "token-2": Outcome(finished=False)}

    async def test_it_goes_on(self) -> None:
        """A handler that is cancelled in the end, catches that, and waits again in order to finish, has finished."""
        bench, caught = _Bench(), list[str]()

        async def handle(event: Event) -> None:
            try:
                await asyncio.sleep(scaled(60))
            except asyncio.CancelledError as cancelled:
                caught.append(str(cancelled))
                await asyncio.sleep(0)  # while it handles that, it is not cancelled again

        bench.submit(1, handle)
        await asyncio.sleep(0)
        await soon(bench.dispatcher.finish(0))
        await bench.is_idle()
        assert caught == ["the subscriber is shutting down"]
        assert bench.outcomes == {"token-1": Outcome()}

    async def test_it_does_not_end(self) -> None:
        """A handler that goes on all the same is named, and counts until it does end."""
        bench, gate = _Bench(), Gate()

        async def handle(event: Event) -> None:
            try:
                await gate(event)
            except asyncio.CancelledError:
                await gate(event)

        bench.submit(1, handle)
        await asyncio.sleep(0)
        with recorded() as records:
            await soon(bench.dispatcher.finish(0))
        (fields,) = records.of("handler does not end", "ERROR")
        assert fields["handler"] == handle.__qualname__
        assert (bench.dispatcher.in_flight, bench.outcomes) == (1, {})
        gate.open()
        await bench.is_idle()
        assert bench.outcomes == {"token-1": Outcome()}

    async def test_those_that_have_not_begun(self) -> None:
        """Handlers whose turn had not come are named and not called; nobody is told of any that are left."""
        bench, recorder = _Bench(concurrency=10_000), Recorder()
        for number in range(20 * IN_A_ROW):
            bench.submit(number, recorder)
        await asyncio.sleep(0)  # the first ones have run
        assert bench.watch.numbers[-1] > 0
        with recorded() as records:
            await soon(asyncio.gather(bench.dispatcher.finish(0), bench.dispatcher.finish(scaled(60))))
        await bench.is_idle()
        left = [subject for subject, outcome in bench.outcomes.items() if not outcome.finished]
        assert len(records.of("handler cancelled", "WARNING")) == len(left) > 0
        assert sorted(map(str, [*left, *recorder.subjects])) == sorted(f"token-{n}" for n in range(20 * IN_A_ROW))

    async def test_by_a_stranger(self) -> None:
        """If somebody cancels all tasks there are, the next event is handled, and so are those that had not begun."""
        bench, recorder = _Bench(), Recorder()
        bench.submit(1, recorder)
        for task in asyncio.all_tasks() - {_task()}:
            task.cancel()
        await asyncio.sleep(0)
        bench.submit(2, recorder)
        await bench.is_idle()
        assert recorder.subjects == ["token-1", "token-2"]


class _Fatal(BaseException):
    """What no handler should raise."""


class TestRaised:
    """Handlers that raise what is no Exception."""

    @pytest.mark.parametrize("waits", [False, True])
    @pytest.mark.parametrize("in_group", [False, True])
    async def test_failure(self, *, waits: bool, in_group: bool) -> None:
        """It is a failure like any other, so that its event is kept as a dead letter; it is not called again."""
        bench, recorder = _Bench(attempts=3), Recorder()

        async def fail(event: Event) -> None:
            if waits:
                await asyncio.sleep(0)
            raise BaseExceptionGroup("several", [_Fatal()]) if in_group else _Fatal

        for number in range(3):
            bench.submit(number, fail, recorder)
        await bench.is_idle()
        assert len(recorder.seen) == 3
        failures = [outcome.failure for outcome in bench.outcomes.values() if outcome.finished]
        assert [failure and failure.attempts for failure in failures] == [1] * 3

    @pytest.mark.parametrize("waits", [False, True])
    @pytest.mark.parametrize("error", [GeneratorExit])
    async def test_others_go_on(self, error: type[BaseException], *, waits: bool) -> None:
        """Its event is not finished, the program's handler of such errors is told, and others go on."""
        bench, recorder, told = _Bench(), Recorder(), list[dict[str, Any]]()
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))

        async def fail(event: Event) -> None:
            if waits:
                await asyncio.sleep(0)
            raise error

        for number in range(3):
            bench.submit(number, fail, recorder)
        await bench.is_idle()
        gc.collect()
        assert [type(context["exception"]) for context in told] == [error] * 3
        assert len(recorder.seen) == 3
        assert set(bench.outcomes.values()) == {Outcome(finished=False)}


class TestInFlight:
    """How many handlers were started and have not ended."""

    async def test_it_goes_back_to_zero(self) -> None:
        """Whatever becomes of handlers, the number is right all the way, and back to 0."""
        bench, gate = _Bench(attempts=2), Gate()

        async def quick(event: Event) -> None:
            assert bench.dispatcher.in_flight >= 1

        async def fail(event: Event) -> None:
            raise ValueError

        def plain(event: Event) -> None:
            pass

        for number in range(10):
            bench.submit(number, quick, fail, gate, plain)
        bench.dispatcher.submit_gap(Job(Gap(None, "reconnected"), 2), [Handler.of(gate), Handler.of(fail)])
        assert bench.dispatcher.in_flight == 42
        await wait_until(lambda: bench.dispatcher.in_flight == gate.running == 11)
        gate.open()
        await bench.is_idle()
        assert min(bench.watch.numbers) == 0
        assert max(bench.watch.numbers) <= 42
        assert [outcome.failure is not None for outcome in bench.outcomes.values()] == [True] * 10


class TestMemory:
    """What is kept of an event."""

    async def test_an_event_that_leads_back_to_itself(self) -> None:
        """An event is collected although a handler has left something in it that leads back to it."""
        bench, events = _Bench(), list[weakref.ref[Event]]()

        async def handle(event: Event) -> None:
            metadata: dict[str, Any] = event.metadata
            # Its context has the job, which has the event.
            metadata["task"] = asyncio.create_task(asyncio.sleep(0), name="in an event")
            events.append(weakref.ref(event))

        for number in range(5):
            bench.submit(number, handle)
        await bench.is_idle()
        await wait_until(lambda: not any(task.get_name() == "in an event" for task in asyncio.all_tasks()))
        gc.collect()
        assert [event() for event in events] == [None] * 5


class TestEndedFromWithin:
    """A handler ends its own subscriber."""

    @pytest.mark.parametrize("end", [Subscriber.stop, Subscriber.drain])
    @pytest.mark.parametrize("waits", [False, True])
    async def test_it_returns_at_once(self, end: Callable[[Subscriber], Any], *, waits: bool) -> None:
        """The end waits for the handler that asks for it, so the handler does not wait for the end."""
        transport, after = MemoryTransport(), list[bool]()
        subscriber = Subscriber(transport)

        @subscriber.on()
        async def handle(event: Event) -> None:
            if waits:
                await asyncio.sleep(0)
            await soon(end(subscriber))
            after.append(subscriber.stats.in_flight > 0)

        async with running(subscriber.run()) as listening:
            await wait_until(lambda: transport is not None and "running" in repr(subscriber))
            await publish(transport, revoked(1))
            await soon(listening)
        assert after == [True]
        assert subscriber.stats.handled == 1
