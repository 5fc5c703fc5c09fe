"""Calls of one handler with one event, repeated until the handler succeeds or is given up."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Awaitable, Coroutine
from typing import Any, cast

from loguru import logger

from jwt_events._internal.cancellation import timeout
from jwt_events._internal.debugging import is_debugging
from jwt_events._internal.retry import Retry
from jwt_events.errors import describe
from jwt_events.events import Handler
from jwt_events.instrumentation import Handled
from jwt_events.subscriber._job import Job
from jwt_events.transport.base import Failure

# An event that was delivered more often than this, and never settled, probably ends the process that handles it. Below
# that, each delivery gets its one attempt: others that were delivered with such an event are not to blame.
_MAX_DELIVERIES = 10

_HANDLED = Handled.HANDLED


class HandlerInvoker:
    """Calls a handler, and decides after each failure whether to call it again.

    Args:
        timeout: seconds that one call may take; ``None`` for no limit.
        retry: when a handler that failed is called again.
    """

    def __init__(self, *, timeout: float | None, retry: Retry) -> None:
        self._timeout = timeout
        self._retry = retry
        self._max_attempts = max(_MAX_DELIVERIES, retry.attempts)

    def run(self, handler: Handler, job: Job) -> Coroutine[Any, Any, Failure | None]:
        """Call a handler until it succeeds (``None``) or the retry policy gives up (a `Failure`)."""
        if job.attempt > self._max_attempts:
            return _give_up(handler, job)
        if job.trace is not None:
            return self._run_in_span(handler, job)
        return self._run(handler, job)

    async def _run_in_span(self, handler: Handler, job: Job) -> Failure | None:
        with job.active():
            return await self._run(handler, job)

    async def _run(self, handler: Handler, job: Job) -> Failure | None:
        attempt = job.attempt
        while True:
            began = job.begin()
            try:
                if self._timeout is None:
                    await _call(handler, job.subject)
                else:
                    async with timeout(self._timeout):
                        await _call(handler, job.subject)
            except (Exception, asyncio.CancelledError) as error:
                cancelled = _is_being_cancelled()
                if cancelled and isinstance(error, asyncio.CancelledError):
                    job.called(handler.name, Handled.CANCELLED, began, error)
                    raise
                delay = None if cancelled else self._retry.delay(attempt, error)
                fields = {"handler": handler.name, "attempt": attempt, "error": describe(error), **job.fields}
                if delay is None:
                    job.called(handler.name, Handled.FAILED, began, error)
                    logger.error("handler failed", **fields)
                    return Failure(describe(error), handler.name, attempt)
                job.called(handler.name, Handled.RETRIED, began, error)
                logger.warning("handler failed and will be called again", **fields)
                await asyncio.sleep(delay)
                attempt += 1
            else:
                job.called(handler.name, _HANDLED, began)
                if is_debugging(__name__):
                    logger.debug("handled", handler=handler.name, attempt=attempt, **job.fields)
                return None


async def _give_up(handler: Handler, job: Job) -> Failure:
    with job.active():
        logger.error("given up, it was delivered too often", handler=handler.name, **job.fields)
    return Failure("delivered too often", handler.name, job.attempt - 1)


def _call(handler: Handler, subject: object) -> Awaitable[object]:
    return cast("Awaitable[object]", handler.function(subject)) if handler.is_async else _call_plain(handler, subject)


async def _call_plain(handler: Handler, subject: object) -> None:
    result = await _in_thread(handler, subject)
    if inspect.isawaitable(result):
        await result


async def _in_thread(handler: Handler, subject: object) -> Any:
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
        except BaseException as error:  # noqa: BLE001 - it belongs to the task that awaits the outcome
            failure = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, failure)

    context = contextvars.copy_context()
    threading.Thread(target=work, name=f"jwt_events handler {handler.name}", daemon=True).start()
    return await outcome


def _is_being_cancelled() -> bool:
    """Whether this task was asked to end; a `CancelledError` that a handler raised by itself is a failure."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
