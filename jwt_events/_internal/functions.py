"""Functions that an application passes as options: which are accepted, and what comes back from a call.

A coroutine is true, and so is a generator: whoever forgets to await one has asked nothing. So the result of every such
function passes through this module: `awaited` where the caller can wait, `plain` where it cannot.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import threading
from collections.abc import Callable
from typing import Any

from jwt_events.errors import InvalidOption, Unavailable

# What most functions return, and what is certainly neither awaited nor iterated over: quicker than to ask `inspect`.
_DATA = frozenset[type]((dict, str, bool, type(None)))

_NUMBERS = ("no arguments", "one argument")


def function(option: str, value: Any, *, arguments: int | None = None) -> Any:
    """Return a function to whose result `awaited` will be applied: plain, or a coroutine function.

    Args:
        option: its name in messages.
        value: the function.
        arguments: how many it is called with, none or one; ``None`` if that is not checked.

    Raises:
        InvalidOption: it is not callable, or not with so many arguments, or a generator function, whose body no call
            runs.
    """
    if not callable(value):
        raise InvalidOption(option, f"must be callable, not {type(value).__name__}")
    if is_generator_function(value):
        raise InvalidOption(option, "must return its result, not yield it: it is a generator function")
    if arguments is not None and not _accepts(value, arguments):
        raise InvalidOption(option, f"must be callable with {_NUMBERS[arguments]}")
    return value


def _accepts(function: Callable[..., object], arguments: int) -> bool:
    """Whether it can be called with so many arguments, as far as can be known; the outermost callable decides."""
    try:
        signature = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):  # a builtin does not tell, nor do some mocks
        return True
    try:
        signature.bind(*[None] * arguments)
    except TypeError:
        return hasattr(function, "__signature__")  # what somebody else says of it
    return True


def plain_function(option: str, value: Any) -> Any:
    """Return a function whose result is not awaited: `plain` must be applied to it.

    Raises:
        InvalidOption: it is not callable; or it is, or wraps, a generator function or a coroutine function.
    """
    layer: Any = function(option, value)
    while layer is not None:
        if is_coroutine_function(layer) or is_generator_function(layer):
            raise InvalidOption(option, "must be a plain function: it is not awaited, and a coroutine is always true")
        layer = layer.func if isinstance(layer, functools.partial) else getattr(layer, "__wrapped__", None)
    return value


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


def called(option: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function returns; `awaited` is applied to it.

    Raises:
        Unavailable: it looked at something that was cancelled, as `awaited` says of what is waited for.
    """
    try:
        return function(*arguments)
    except asyncio.CancelledError as error:
        raise cancelled_elsewhere(option, error) from error


def cancelled_elsewhere(option: str, error: asyncio.CancelledError) -> Unavailable:
    """Return the error for what a function looked at and found cancelled; raise it if it is this task that was."""
    task = asyncio.current_task()
    if task is None or task.cancelling():
        raise error
    return Unavailable(f"what {option} waited for was cancelled")


async def awaited(option: str, result: Any) -> Any:
    """Return the result of a function, of a coroutine function once it is done.

    Raises:
        InvalidOption: the result is again a coroutine, or a generator.
        Unavailable: something that it waited for was cancelled, which nobody asked of this task.
    """
    if type(result) in _DATA:
        return result
    if not inspect.isawaitable(result):
        return plain(option, result)
    task = asyncio.current_task()
    before = 0 if task is None else task.cancelling()
    try:
        found = await result
    except asyncio.CancelledError as error:
        if task is None or task.cancelling() > before:
            raise
        raise Unavailable(f"what {option} waited for was cancelled") from error
    return plain(option, found)


def plain(option: str, result: Any) -> Any:
    """Return the result of a plain function.

    Raises:
        InvalidOption: the result is a coroutine or another awaitable, or a generator.
    """
    if type(result) in _DATA:
        return result
    is_generator = inspect.isgenerator(result) or inspect.isasyncgen(result)
    if is_generator or inspect.isawaitable(result):
        if inspect.iscoroutine(result) or inspect.isgenerator(result):
            result.close()  # or Python warns that it was never awaited
        raise InvalidOption(option, f"must return its result, not a {type(result).__name__}")
    return result


def truth(option: str, result: object) -> bool:
    """Return whether the result of a predicate is true.

    Raises:
        InvalidOption: it is a function, which is always true: somebody forgot to call it.
    """
    if callable(result):
        raise InvalidOption(
            option, f"must return whether it is so, not a {type(result).__name__}, which is always true"
        )
    return bool(plain(option, result))


def in_thread(function: Callable[[], Any], *, name: str) -> asyncio.Future[Any]:
    """Call a plain function, which may block, in a thread of its own; return the future of its result.

    It is a daemon thread, not one of a pool: one that never ends can neither use up a pool that others need nor keep
    the process from ending. Cancelling the future leaves it running, and discards what it returns.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if outcome.done():
            discard(result)
        elif error is None:
            outcome.set_result(result)
        elif isinstance(error, Exception) and not isinstance(error, StopIteration):
            outcome.set_exception(error)
        else:  # SystemExit and the like would end the event loop, StopIteration cannot pass through a future
            raised = RuntimeError(f"the function raised {type(error).__name__}")
            raised.__cause__ = error
            outcome.set_exception(raised)

    def work() -> None:
        result, failure = None, None
        try:
            result = context.run(function)
        except BaseException as error:  # noqa: BLE001 - it belongs to the task that awaits the outcome
            failure = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, failure)

    context = contextvars.copy_context()
    threading.Thread(target=work, name=name, daemon=True).start()
    return outcome


def discard(result: object) -> None:
    """Close a coroutine that will not be awaited."""
    if inspect.iscoroutine(result):
        result.close()
