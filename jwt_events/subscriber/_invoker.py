"""Calls of handlers, each with one event, repeated until the handler succeeds or is given up."""

from __future__ import annotations

import asyncio
import inspect
import types
from collections.abc import Generator
from contextlib import suppress
from functools import partial
from typing import Any

from loguru import logger

from jwt_events._internal.cancellation import timeout
from jwt_events._internal.debugging import is_debugging
from jwt_events._internal.describing import describe
from jwt_events._internal.functions import discard, in_thread
from jwt_events._internal.notices import Notices
from jwt_events._internal.retry import Retry
from jwt_events.errors import Closed
from jwt_events.events import Handler
from jwt_events.instrumentation import UNOBSERVED, Handled
from jwt_events.subscriber._job import HANDLED, CutOff, Job, Outcome, current_job
from jwt_events.transport.base import Failure

# An event that was delivered more often than this, and never settled, probably ends the process that handles it. Below
# that, each delivery gets its one attempt: others that were delivered with such an event are not to blame.
_MAX_DELIVERIES = 10

# Seconds within which the end of a subscriber follows that of what its handlers use, if the program closes that first:
# a publisher waits for the calls under way, five seconds by default.
_END_FOLLOWS_WITHIN = 5.0

_FAILED = "handler failed"
_FAILED_ONCE = "handler failed and will be called again"
_CUT_OFF = "handler cut off, what it uses was closed before the subscriber: open that first"
_OVERDUE = "a plain handler exceeds its time, and keeps its place until its thread ends"

_HANDLED = Handled.HANDLED
_set_current_job = current_job.set


class HandlerInvoker:
    """Calls a handler, and decides after each failure whether to call it again.

    Args:
        timeout: seconds that one call may take; ``None`` for no limit.
        retry: when a handler that failed is called again.
        ending: is set when the subscriber begins to end.
        notices: where failures are told.
    """

    def __init__(
        self,
        *,
        timeout: float | None,
        retry: Retry,
        ending: asyncio.Event | None = None,
        notices: Notices | None = None,
    ) -> None:
        self._timeout = timeout
        self._retry = retry
        self._ending = ending or asyncio.Event()
        self._notices = notices or Notices()
        self._max_attempts = max(_MAX_DELIVERIES, retry.attempts)
        self._is_debugging = False

    @types.coroutine
    def calls(self) -> Generator[Any, Any, None]:
        """Call handlers, one after another: a coroutine that is sent each `HandlerCall` in turn.

        It yields what the handler waits for, and at last its `Outcome`. Sent ``None`` to begin, it yields ``None``. So
        one coroutine serves many calls, and no exception tells that one has ended, which is half of what a call costs.
        It ends with what a handler raises that is no failure, such as a cancellation.
        """
        self._is_debugging = is_debugging(__name__)
        outcome: Outcome | None = None
        while True:
            handler, job = yield outcome
            _set_current_job(job)
            if job.attempt > self._max_attempts:
                outcome = _give_up(handler, job)
            elif job.trace is None:
                outcome = yield from self._run(handler, job)
            else:
                with job.active():
                    outcome = yield from self._run(handler, job)

    async def _run(self, handler: Handler, job: Job) -> Outcome:
        """Call a handler until it succeeds or the retry policy gives up."""
        attempt, function, subject = job.attempt, handler.function, job.subject
        is_observed = job.observer is not UNOBSERVED or job.trace is not None
        while True:
            began = job.begin() if is_observed else 0.0
            try:
                if self._timeout is None and handler.is_async:
                    await function(subject)
                else:
                    await self._call_in_time(handler, job)
            except (SystemExit, KeyboardInterrupt, GeneratorExit):
                raise  # they end the program, or this coroutine
            except BaseException as error:
                cancelled = _is_being_cancelled()
                if cancelled and isinstance(error, asyncio.CancelledError):
                    job.called(handler.name, Handled.CANCELLED, began, error)
                    raise
                delay, failure = await self._judge(handler, error, attempt, cancelled=cancelled)
                job.called(handler.name, Handled.FAILED if delay is None else Handled.RETRIED, began, error)
                self._report(failure, job, error, is_final=delay is None)
                if delay is None:
                    return Outcome(failure)
                await asyncio.sleep(delay)
                attempt += 1
            else:
                if is_observed:
                    job.called(handler.name, _HANDLED, began)
                if self._is_debugging:
                    logger.debug("handled", handler=handler.name, attempt=attempt, **job.fields)
                return HANDLED

    async def _judge(
        self, handler: Handler, error: BaseException, attempt: int, *, cancelled: bool
    ) -> tuple[float | None, Failure]:
        """Return after how long a handler that failed is called again, ``None`` for never; and its failure."""
        delay = None if cancelled else self._retry.delay(attempt, error)
        failure = Failure(describe(error), handler.name, attempt)
        if await self._is_cut_off(error, may_wait=delay is None and not cancelled):
            return None, CutOff(failure.error, handler.name, attempt)
        return delay, failure

    def _report(self, failure: Failure, job: Job, error: BaseException, *, is_final: bool) -> None:
        level, message = ("ERROR", _FAILED) if is_final else ("WARNING", _FAILED_ONCE)
        if isinstance(failure, CutOff):
            message = _CUT_OFF
        self._notices.tell(
            level,
            message,
            once=(failure.handler, type(error).__qualname__, isinstance(failure, CutOff)),
            handler=failure.handler,
            attempt=failure.attempts,
            error=failure.error,
            **job.fields,
        )

    async def _is_cut_off(self, error: BaseException, *, may_wait: bool) -> bool:
        """Whether the handler failed because the program is ending, and closed what the handler uses first.

        Args:
            error: how it failed.
            may_wait: whether to wait for the end of the subscriber, which follows that of what it uses.
        """
        if not isinstance(error, Closed) and not isinstance(error.__cause__, Closed):
            return False
        if may_wait and not self._ending.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(_END_FOLLOWS_WITHIN):
                    await self._ending.wait()
        return self._ending.is_set()

    async def _call_in_time(self, handler: Handler, job: Job) -> None:
        if not handler.is_async:
            await self._call_plain(handler, job)
        else:
            async with timeout(self._timeout):
                await handler.function(job.subject)

    async def _call_plain(self, handler: Handler, job: Job) -> None:
        """Call a plain function in a thread; it has ended when this returns, unless this is cancelled.

        A thread cannot be interrupted. So a function that exceeds its time keeps its place and its ordering key until
        it ends, and counts as failed then, whatever it returns.
        """
        loop = asyncio.get_running_loop()
        deadline = None if self._timeout is None else loop.time() + self._timeout
        call = partial(handler.function, job.subject)
        outcome = in_thread(call, name=f"jwt_events handler {handler.name}")
        try:
            await asyncio.wait([outcome], timeout=self._timeout)
            if not outcome.done():
                limit, kind = self._timeout, (handler.name, _OVERDUE)
                self._notices.tell("WARNING", _OVERDUE, once=kind, handler=handler.name, limit=limit, **job.fields)
                await asyncio.wait([outcome])
                discard(None if outcome.exception() else outcome.result())
                raise TimeoutError from outcome.exception()
        except asyncio.CancelledError:
            outcome.cancel()
            raise
        result = outcome.result()
        if inspect.isawaitable(result):
            async with timeout(None if deadline is None else deadline - loop.time()):
                await result


def _give_up(handler: Handler, job: Job) -> Outcome:
    with job.active():
        logger.error("given up, it was delivered too often", handler=handler.name, **job.fields)
    return Outcome(Failure("delivered too often", handler.name, job.attempt - 1))


def _is_being_cancelled() -> bool:
    """Whether this task was asked to end; a `CancelledError` that a handler raised by itself is a failure."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
