"""Calls the application's callbacks without waiting for them."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from jwt_events._internal.cancellation import end
from jwt_events._internal.describing import describe
from jwt_events._internal.notices import Notices

Callback = Callable[..., object]
"""A plain function, which is called on the event loop and must not block, or a coroutine function."""

# The task of the callback in whose context this runs: its own, or one that it started.
_running: contextvars.ContextVar[asyncio.Task[Any] | None] = contextvars.ContextVar("_running", default=None)


class Callbacks:
    """Calls plain functions at once and runs coroutine functions as tasks. A failure is logged and never raised."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing: set[asyncio.Task[Any]] = set()  # the callbacks that close what calls them
        self._notices = Notices()

    def call(self, callback: Callback, *arguments: object) -> None:
        """Call a callback; a coroutine function continues in a task of its own."""
        try:
            result = callback(*arguments)
        except (SystemExit, KeyboardInterrupt):
            raise  # they end the program
        except BaseException as error:  # noqa: BLE001 - it is the application's code
            self._report(callback, error)
            return
        if inspect.isawaitable(result):
            task = asyncio.ensure_future(self._finish(callback, result))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """Cancel the tasks that are still running and wait until they end. Idempotent.

        A callback that calls this, itself or in a task that it started, is left to end by itself.
        """
        callers = self._tasks & {asyncio.current_task(), _running.get()}
        self._closing |= callers
        try:
            await end(self._tasks - self._closing)
        finally:
            self._closing -= callers

    async def _finish(self, callback: Callback, result: Awaitable[object]) -> None:
        _running.set(asyncio.current_task())
        try:
            await result
        except (SystemExit, KeyboardInterrupt, GeneratorExit):
            raise  # they end the program, or this coroutine
        except BaseException as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise
            self._report(callback, error)  # also of one that was not cancelled, but awaited what was

    def _report(self, callback: Callback, error: BaseException) -> None:
        name = getattr(callback, "__qualname__", type(callback).__qualname__)
        kind = (name, type(error).__qualname__)
        self._notices.tell("ERROR", "callback failed", once=kind, callback=name, error=describe(error))
