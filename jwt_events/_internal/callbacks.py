"""What the application passes to be called: which kind of function it is, and calls that nobody waits for."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from jwt_events._internal.cancellation import end
from jwt_events._internal.notices import Notices
from jwt_events.errors import InvalidOption, describe

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
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - it is the application's code
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
        except Exception as error:  # noqa: BLE001 - it is the application's code
            self._report(callback, error)

    def _report(self, callback: Callback, error: BaseException) -> None:
        name = getattr(callback, "__qualname__", type(callback).__qualname__)
        kind = (name, type(error).__qualname__)
        self._notices.tell("ERROR", "callback failed", once=kind, callback=name, error=describe(error))


def callback(option: str, function: Any) -> Any:
    """Return the function if it is callable.

    Raises:
        InvalidOption: it is not callable.
    """
    if not callable(function):
        raise InvalidOption(option, f"must be callable, not {type(function).__name__}")
    return function


def plain_function(option: str, function: Any) -> Any:
    """Return the function if its value is there when it returns.

    Raises:
        InvalidOption: it is not callable; or it is, or wraps, a coroutine function, whose result would have to be
            awaited and is always true, or a generator function.
    """
    layer: Any = callback(option, function)
    while layer is not None:
        if is_coroutine_function(layer) or is_generator_function(layer):
            raise InvalidOption(option, "must be a plain function that returns a value: no `async def`, no `yield`")
        layer = layer.func if isinstance(layer, functools.partial) else getattr(layer, "__wrapped__", None)
    return function


def is_coroutine_function(function: Callable[..., object]) -> bool:
    """Whether calling it returns a coroutine: an ``async def``, a partial of one, an object with such a ``__call__``.

    The outermost callable decides: a plain function around a coroutine function is a plain function.
    """
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(_entry_of(function))


def is_generator_function(function: Callable[..., object]) -> bool:
    """Whether calling it returns a generator, asynchronous or not, and runs nothing of its body."""
    entry = _entry_of(function)
    return inspect.isgeneratorfunction(entry) or inspect.isasyncgenfunction(entry)


def _entry_of(function: Callable[..., object]) -> Any:
    """Return what a call runs first: of a partial its function, of an object its ``__call__``."""
    while isinstance(function, functools.partial):
        function = function.func
    return function if inspect.isroutine(function) or isinstance(function, type) else type(function).__call__
