"""Run it: handlers as tasks, so many at a time, tried again when they fail, finished or cancelled on request."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Callable, Coroutine, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from loguru import logger

from jwt_events.errors import describe
from jwt_events.events import Event
from jwt_events.handlers import Handler
from jwt_events.retry import Retry
from jwt_events.transport.base import Failure, Gap

# How long handlers that were cancelled may take to clean up.
_CLEANUP_WITHIN = 1.0


# An event that was delivered so often and never came to an end probably ends the process that handles it. Below that,
# each delivery gets its one try: others that were delivered with such an event are not to blame.
_HOPELESS = 10

# How many handlers may wait for one with the same key to end, before reading pauses.
_MOST_WAITING = 1_024

_Task = asyncio.Task[Failure | None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an event.

    Attributes:
        failure: why it was given up; ``None`` if no handler failed for good.
        finished: whether all handlers came to an end by themselves; otherwise some were cancelled.
    """

    failure: Failure | None = None
    finished: bool = True


class Dispatcher:
    """Runs handlers as tasks under one semaphore. A handler that fails, hangs or blocks a thread harms no other.

    Args:
        concurrency: how many handlers may run at once.
        handler_timeout: seconds that one call of a handler may take; ``None`` for as long as it likes.
        retry: when a handler that failed is called again.
        ordered_by: returns a key; handlers of events with equal keys run one after another, in order.
    """

    def __init__(
        self,
        *,
        concurrency: int,
        handler_timeout: float | None,
        retry: Retry,
        ordered_by: Callable[[Event], Hashable] | None,
    ) -> None:
        self._slots = asyncio.Semaphore(concurrency)
        self._waiting_room = asyncio.Semaphore(_MOST_WAITING)
        self._handler_timeout = handler_timeout
        self._retry = retry
        self._ordered_by = ordered_by
        self._tails: dict[Hashable, _Task] = {}
        self._running: dict[_Task, tuple[Handler, Event | Gap]] = {}

    @property
    def in_flight(self) -> int:
        """How many handlers were started and have not ended."""
        return len(self._running)

    async def submit(
        self, event: Event, handlers: Sequence[Handler], done: Callable[[Outcome], None], *, attempt: int = 1
    ) -> None:
        """Start the handlers of an event, each as soon as there is room for it.

        Returns when all are started. Cancelling it leaves those running that were started.

        Args:
            event: what they are called with.
            handlers: whom to call.
            done: called once, when all of them have ended.
            attempt: how often it was tried before, in other lives and places, and now.
        """
        key = self._key(event)
        work = _Work(len(handlers), done)
        for handler in handlers:
            try:
                task = await self._start_in_turn(handler, event, key, attempt)
            except asyncio.CancelledError:
                work.give_up()
                raise
            task.add_done_callback(work.one_ended)
            if key is not None:
                self._tails[key] = task
                task.add_done_callback(lambda task: self._forget_tail(key, task))

    async def _start_in_turn(self, handler: Handler, event: Event, key: Hashable, attempt: int) -> _Task:
        """Start a handler when there is room for it: to run, or to wait for another with the same key."""
        if key in self._tails:
            await self._waiting_room.acquire()
            if (previous := self._tails.get(key)) is not None:
                return self._start(handler, event, self._run_after(previous, handler, event, attempt))
            self._waiting_room.release()
        await self._slots.acquire()
        task = self._start(handler, event, self._run(handler, event, attempt))
        task.add_done_callback(self._free_slot)
        return task

    def submit_gap(self, gap: Gap, handlers: Sequence[Handler]) -> None:
        """Call handlers with a gap, at once, however many others are running: it is an alarm."""
        for handler in handlers:
            self._start(handler, gap, self._run(handler, gap, 1))

    async def finish(self, within: float) -> None:
        """Wait for the handlers that are running, then cancel and name the rest.

        Takes at most one second longer than ``within``. Cancelling it cancels the handlers at once.
        """
        try:
            if self._running:
                await asyncio.wait(self._running, timeout=within)
        finally:
            rest = set(self._running)
            for task in rest:
                handler, subject = self._running[task]
                logger.warning("handler cancelled", handler=handler.name, **_fields(subject))
                task.cancel("the subscriber is shutting down")
            if rest:
                _, stubborn = await asyncio.wait(rest, timeout=_CLEANUP_WITHIN)
                for task in stubborn:
                    handler, subject = self._running[task]
                    logger.error("handler does not end", handler=handler.name, **_fields(subject))

    def is_running(self, task: asyncio.Task[Any] | None) -> bool:
        """Whether this task is a handler that was started here and has not ended."""
        return task in self._running

    def _key(self, event: Event) -> Hashable:
        if self._ordered_by is None:
            return None
        try:
            key = self._ordered_by(event)
            hash(key)
        except Exception as error:  # noqa: BLE001 - the application's function; losing the event would be worse
            logger.error(
                "ordered_by failed, the event is handled out of order", error=describe(error), **_fields(event)
            )
            return None
        return key

    def _start(self, handler: Handler, subject: Event | Gap, work: Coroutine[Any, Any, Failure | None]) -> _Task:
        task = asyncio.create_task(work, name=f"jwt_events handler {handler.name}")
        self._running[task] = handler, subject
        task.add_done_callback(self._running.pop)
        return task

    async def _run_after(self, previous: _Task, handler: Handler, event: Event, attempt: int) -> Failure | None:
        """Run a handler when its predecessor has ended. It takes up room to run only then."""
        try:
            await asyncio.wait([previous])
            await self._slots.acquire()
        finally:
            self._waiting_room.release()
        try:
            return await self._run(handler, event, attempt)
        finally:
            self._slots.release()

    async def _run(self, handler: Handler, subject: Event | Gap, attempt: int) -> Failure | None:
        """Call a handler until it succeeds, which returns ``None``, or until the retry policy gives up."""
        if attempt > max(_HOPELESS, self._retry.attempts):
            logger.error("given up, it was delivered too often", handler=handler.name, **_fields(subject))
            return Failure("delivered too often", handler.name, attempt - 1)
        while True:
            try:
                async with asyncio.timeout(self._handler_timeout):
                    await _call(handler, subject)
            except (Exception, asyncio.CancelledError) as error:
                cancelled = _is_being_cancelled()
                if cancelled and isinstance(error, asyncio.CancelledError):
                    raise
                delay = None if cancelled else self._retry.delay(attempt, error)
                fields = {"handler": handler.name, "attempt": attempt, "error": describe(error), **_fields(subject)}
                if delay is None:
                    logger.error("handler failed", **fields)
                    return Failure(describe(error), handler.name, attempt)
                logger.warning("handler failed and will be called again", **fields)
                await asyncio.sleep(delay)
                attempt += 1
            else:
                logger.debug("handled", handler=handler.name, attempt=attempt, **_fields(subject))
                return None

    def _free_slot(self, _: _Task) -> None:
        self._slots.release()

    def _forget_tail(self, key: Hashable, task: _Task) -> None:
        if self._tails.get(key) is task:
            del self._tails[key]


class _Work:
    """Counts the handlers of one event that have not ended."""

    def __init__(self, handlers: int, done: Callable[[Outcome], None]) -> None:
        self._left = handlers
        self._outcome = Outcome()
        self._done = done

    def one_ended(self, task: _Task) -> None:
        """Take note of one."""
        self._left -= 1  # stays below zero after giving up
        if task.cancelled() or task.exception() is not None:
            self._outcome = Outcome(self._outcome.failure, finished=False)
        elif (failure := task.result()) is not None:
            self._outcome = Outcome(failure, finished=self._outcome.finished)
        if self._left == 0:
            self._done(self._outcome)

    def give_up(self) -> None:
        """Count the event as unfinished now: not all of its handlers will be started."""
        self._left = -1
        self._done(Outcome(finished=False))


async def _call(handler: Handler, subject: Event | Gap) -> None:
    result = handler.function(subject) if handler.is_async else await _in_thread(handler, subject)
    if inspect.isawaitable(result):
        await result


async def _in_thread(handler: Handler, subject: Event | Gap) -> Any:
    """Run a plain function in a thread of its own.

    A daemon thread, not one of a pool: a function that never returns can then neither use up a pool that others need
    nor keep the process from ending.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if outcome.done():
            return
        if error is None:
            outcome.set_result(result)
        elif isinstance(error, Exception) and not isinstance(error, StopIteration):
            outcome.set_exception(error)
        else:  # SystemExit and the like would end the event loop, StopIteration cannot pass through a future
            outcome.set_exception(RuntimeError(f"the handler raised {type(error).__name__}"))

    def work() -> None:
        result, failure = None, None
        try:
            result = context.run(handler.function, subject)
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits for the outcome
            failure = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, failure)

    context = contextvars.copy_context()
    threading.Thread(target=work, name=f"jwt_events handler {handler.name}", daemon=True).start()
    return await outcome


def _is_being_cancelled() -> bool:
    """Whether somebody wants this task to end; a `CancelledError` that a handler raised by itself is a failure."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _fields(subject: Event | Gap) -> dict[str, Any]:
    if isinstance(subject, Gap):
        return {"gap_cause": subject.cause, "gap_since": subject.since}
    return {"event_id": subject.id, "event_type": str(subject.type)[:100]}
