"""Waits until a condition is true, or fails after a deadline."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

from jwt_events._internal.cancellation import noticing_cancellation
from jwt_events._internal.functions import awaited, plain, plain_function

_T = TypeVar("_T")

FACTOR = float(os.environ.get("JWT_EVENTS_TEST_TIMEOUT_FACTOR", "1"))
"""Factor of every deadline; raise it for a slow machine."""

# The first interval between two looks, the part of the time so far that later ones take, and the longest: a long wait
# takes the processor from what it waits for.
_FIRST_INTERVAL, _GROWTH, _MAX_INTERVAL = 0.005, 0.02, 0.03


def scaled(seconds: float) -> float:
    """Return a duration multiplied by JWT_EVENTS_TEST_TIMEOUT_FACTOR, for deadlines on slow machines."""
    return seconds * FACTOR


@overload
async def eventually(
    predicate: Callable[[], Awaitable[_T]], *, within: float = 10.0, what: str | Callable[[], str] = ""
) -> _T: ...
@overload
async def eventually(
    predicate: Callable[[], _T], *, within: float = 10.0, what: str | Callable[[], str] = ""
) -> _T: ...
async def eventually(predicate: Callable[[], Any], *, within: float = 10.0, what: str | Callable[[], str] = "") -> Any:
    """Return as soon as the predicate is true.

    Args:
        predicate: called repeatedly; a plain or a coroutine function.
        within: deadline in seconds, before scaling.
        what: description of the condition for the failure message, or a function that returns it. If empty, the name
            of the predicate.

    Returns:
        The first true result of the predicate.

    Raises:
        AssertionError: it did not become true before the deadline.
        InvalidOption: a function is of the wrong kind, for example a generator function.

    Cancelling is safe, and ends the wait also where the predicate swallows it, as commands of redis-py do before
    Python 3.12.
    """
    if not isinstance(what, str):
        plain_function("what", what)
    began = time.monotonic()
    while True:
        with noticing_cancellation():
            result = await awaited("predicate", predicate())
        if result:
            return result
        elapsed = time.monotonic() - began
        if elapsed > scaled(within):
            raise AssertionError(failure(predicate, within, what))
        await asyncio.sleep(interval(elapsed))


def interval(elapsed: float) -> float:
    """Return the seconds until the next look, after a wait of some seconds."""
    return min(_FIRST_INTERVAL + elapsed * _GROWTH, _MAX_INTERVAL)


def failure(predicate: Callable[[], object], within: float, what: str | Callable[[], str]) -> str:
    """Return the message of a condition that did not become true."""
    said = plain("what", what()) if callable(what) else what
    description = said or getattr(predicate, "__qualname__", repr(predicate))
    return f"not within {scaled(within):g} s: {description}"
