"""Waiting for something to become true, and no longer than that."""

from __future__ import annotations

import asyncio
import inspect
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

_T = TypeVar("_T")

FACTOR = float(os.environ.get("JWT_EVENTS_TEST_TIMEOUT_FACTOR", "1"))
"""Every deadline is multiplied by this; raise it for a slow machine."""

_INTERVAL = 0.005


def scaled(seconds: float) -> float:
    """Return a deadline as it applies on this machine: multiplied by JWT_EVENTS_TEST_TIMEOUT_FACTOR."""
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
        predicate: asked again and again; sync or async.
        within: seconds, before scaling, after which the test fails.
        what: what is awaited, for the failure; a function is asked when it comes to that. If empty, the name of the
            predicate.

    Returns:
        What the predicate returned in the end.

    Raises:
        AssertionError: it did not become true in time.

    Cancelling is safe.
    """
    deadline = time.monotonic() + scaled(within)
    while True:
        answer = predicate()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(failure(predicate, within, what))
        await asyncio.sleep(_INTERVAL)


def failure(predicate: Callable[[], object], within: float, what: str | Callable[[], str]) -> str:
    """Say what did not become true."""
    awaited = (what() if callable(what) else what) or getattr(predicate, "__qualname__", repr(predicate))
    return f"not within {scaled(within):g} s: {awaited}"
