"""Calls the application's callbacks without waiting for them."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from loguru import logger

from jwt_events._internal.cancellation import end
from jwt_events._internal.functions import function as checked_function
from jwt_events.errors import describe

Callback = Callable[..., object]
"""A plain function, which is called on the event loop and must not block, or a coroutine function."""


class Callbacks:
    """Calls plain functions at once and runs coroutine functions as tasks. A failure is logged and never raised."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def call(self, callback: Callback, *arguments: object) -> None:
        """Call a callback; a coroutine function continues in a task of its own."""
        try:
            result = callback(*arguments)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - it is the application's code
            _log(callback, error)
            return
        if inspect.isawaitable(result):
            task = asyncio.ensure_future(_finish(callback, result))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """Cancel the tasks that are still running and wait until they end. Idempotent."""
        await end(self._tasks)


def callback(option: str, function: Any) -> Any:
    """Return the function if it can be called back.

    Raises:
        InvalidOption: it is not callable, or a generator function, whose body no call runs.
    """
    return checked_function(option, function)


async def _finish(callback: Callback, result: Awaitable[object]) -> None:
    try:
        await result
    except Exception as error:  # noqa: BLE001 - it is the application's code
        _log(callback, error)


def _log(callback: Callback, error: BaseException) -> None:
    name = getattr(callback, "__qualname__", type(callback).__qualname__)
    logger.error("callback failed", callback=name, error=describe(error))
