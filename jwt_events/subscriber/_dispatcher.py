"""Admission of events to their handlers: how many at once, in which order, and until when."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Hashable, Sequence

from loguru import logger

from jwt_events._internal.describing import describe
from jwt_events._internal.notices import Notices
from jwt_events.events import Event, Handler
from jwt_events.instrumentation import UNOBSERVED, Observer
from jwt_events.subscriber._handler_runner import HandlerRunner
from jwt_events.subscriber._invoker import HandlerInvoker
from jwt_events.subscriber._job import CANCELLED, HandlerCall, Job, Outcome
from jwt_events.subscriber._ordering import OrderingQueues


class Dispatcher:
    """Starts the handlers of each event, at most ``concurrency`` at once, in order where an ordering key asks for it.

    A handler that fails, hangs or blocks a thread affects no other.

    Args:
        concurrency: how many handlers may run at once.
        invoker: calls a handler.
        ordered_by: returns the ordering key of an event; handlers of events with equal keys run one after another.
        observer: is told how many handlers are in flight.
        notices: where problems are told.
    """

    def __init__(
        self,
        *,
        concurrency: int,
        invoker: HandlerInvoker,
        ordered_by: Callable[[Event], Hashable] | None,
        observer: Observer = UNOBSERVED,
        notices: Notices | None = None,
    ) -> None:
        self.on_ended: Callable[[Job, Outcome], object] = _ignore
        """Called once with each event or gap whose handlers have ended, and with how."""
        self.in_flight: int = 0
        """How many handlers were started, or are queued for their ordering key, and have not ended."""
        self._limit = concurrency  # of those in flight; each that takes no room raises it
        self._ordered_by = ordered_by
        self._observer = observer
        self._notices = notices or Notices()
        self._queues: OrderingQueues[HandlerCall] = OrderingQueues()
        self._runner = HandlerRunner(invoker, self)
        self._waiting: list[asyncio.Future[None]] = []  # until a handler has ended, cancelled or not

    def submit(self, job: Job, handlers: Sequence[Handler]) -> Awaitable[None] | None:
        """Start the handlers of an event, each as soon as there is room for it.

        Args:
            job: the event, on its way through these handlers.
            handlers: the handlers.

        Returns:
            An awaitable that ends when all are started; cancelling it leaves those running that were. ``None`` if all
            are started already.
        """
        count = self.in_flight + len(handlers)
        if self._ordered_by is not None or count > self._limit:
            job.key = self._key(job)
            return self._submit_in_turn(job, handlers)
        self.in_flight = count
        self._runner.start(job, handlers)
        return None

    async def _submit_in_turn(self, job: Job, handlers: Sequence[Handler]) -> None:
        left, key = len(handlers), job.key
        try:
            for handler in handlers:
                while not (self._queues.has_room if self._queues.is_busy(key) else self.in_flight < self._limit):
                    await self._changed()
                if self._queues.is_busy(key):
                    self._queues.enqueue(key, (handler, job))
                    self.in_flight += 1
                    self._limit += 1
                else:
                    self._queues.acquire(key)
                    self._start((handler, job))
                left -= 1
        except asyncio.CancelledError:
            if left < len(handlers):
                self.on_ended(job, job.give_up())
            raise

    def submit_gap(self, gap: Job, handlers: Sequence[Handler]) -> None:
        """Call handlers with a gap at once, whatever the concurrency: a gap is an alarm."""
        gap.takes_room = False
        for handler in handlers:
            self.in_flight += 1
            self._limit += 1
            self._runner.start_alone((handler, gap))

    async def finish(self, within: float) -> None:
        """Wait for the handlers in flight, then cancel the rest and name them in the log.

        Takes at most one second longer than ``within``. Cancelling it cancels the handlers at once.

        Args:
            within: seconds to wait.
        """
        try:
            async with asyncio.timeout(within):
                while self.in_flight:
                    await self._changed()
        except TimeoutError:
            pass
        finally:
            queued = self._queues.clear()
            self._limit -= len(queued)
            self._drop((*self._runner.take_unstarted(), *queued))
            await self._runner.cancel()

    def is_calling(self) -> bool:
        """Whether the caller is a handler that was started here and has not ended, or was started by one."""
        return self._runner.is_calling()

    def ended(self, job: Job, outcome: Outcome) -> None:
        """Make room for the next handler; see `RunnerListener`."""
        self.in_flight -= 1
        if not job.takes_room:
            self._limit -= 1
        if job.key is not None and (follower := self._queues.release(job.key)) is not None:
            self.in_flight -= 1  # it counts again when it is started
            self._limit -= 1
            self._start(follower)
        if (final := job.one_ended(outcome)) is not None:
            self.on_ended(job, final)
        if self._waiting:
            self._wake()

    def changed(self) -> None:
        """Tell the observer; see `RunnerListener`."""
        self._observer.in_flight(self.in_flight)

    def _start(self, call: HandlerCall) -> None:
        handler, job = call
        self.in_flight += 1
        self._runner.start(job, (handler,))

    def _drop(self, calls: Sequence[HandlerCall]) -> None:
        for handler, job in calls:
            logger.warning("handler cancelled", handler=handler.name, **job.fields)
            self.in_flight -= 1
            if (final := job.one_ended(CANCELLED)) is not None:
                self.on_ended(job, final)
        if calls:
            self.changed()
            self._wake()

    def _key(self, job: Job) -> Hashable:
        if self._ordered_by is None:
            return None
        try:
            key = self._ordered_by(job.subject)
            hash(_there(key))
        except (SystemExit, KeyboardInterrupt):
            raise  # they end the program
        except BaseException as error:  # noqa: BLE001 - the application's function; losing the event would be worse
            problem, kind = describe(error), ("ordered_by", type(error).__qualname__)
            message = "ordered_by failed, the event is handled out of order"
            self._notices.tell("ERROR", message, once=kind, error=problem, **job.fields)
            return None
        return key

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.done():
                each.set_result(None)

    async def _changed(self) -> None:
        """Wait until a handler has ended."""
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        await waiting


def _ignore(job: Job, outcome: Outcome) -> None:
    """Tell nobody."""


def _there(key: Hashable) -> Hashable:
    """Return the key, unless it is an awaitable: no two of those are equal.

    Raises:
        TypeError: it is one.
    """
    if not inspect.isawaitable(key):
        return key
    if inspect.iscoroutine(key):
        key.close()
    raise TypeError("ordered_by returned an awaitable")
