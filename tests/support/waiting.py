"""Waiting for something to become true: the one place in the tests that sleeps."""

from __future__ import annotations

import asyncio
import inspect
import os
import time
from collections.abc import Awaitable, Callable

FACTOR = float(os.environ.get("JWT_EVENTS_TEST_TIMEOUT_FACTOR", "1"))
"""Every deadline in the tests is multiplied by this; raise it for a slow machine."""

_INTERVAL = 0.005


def scaled(seconds: float) -> float:
    """Return a deadline as it applies on this machine, in seconds."""
    return seconds * FACTOR


async def wait_until(
    predicate: Callable[[], object] | Callable[[], Awaitable[object]],
    *,
    within: float = 10.0,
    what: str | Callable[[], str] = "",
) -> None:
    """Return as soon as the predicate is true.

    Args:
        predicate: asked again and again; sync or async.
        within: seconds, before scaling, after which the test fails.
        what: what is awaited, for the failure; a function is asked when it comes to that.
    """
    deadline = time.monotonic() + scaled(within)
    while True:
        answer = predicate()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return
        if time.monotonic() > deadline:
            raise AssertionError(_failure(predicate, within, what))
        await asyncio.sleep(_INTERVAL)


def block_until(predicate: Callable[[], object], *, within: float = 10.0, what: str | Callable[[], str] = "") -> None:
    """Return as soon as the predicate is true; for tests and fixtures without an event loop."""
    deadline = time.monotonic() + scaled(within)
    while not predicate():
        if time.monotonic() > deadline:
            raise AssertionError(_failure(predicate, within, what))
        time.sleep(_INTERVAL)


def _failure(predicate: Callable[[], object], within: float, what: str | Callable[[], str]) -> str:
    awaited = (what() if callable(what) else what) or getattr(predicate, "__qualname__", repr(predicate))
    return f"not within {scaled(within):g} s: {awaited}"
