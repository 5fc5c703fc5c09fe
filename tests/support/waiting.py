"""Waits for conditions: the only place in the tests that sleeps, besides `jwt_events.testing`."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from jwt_events.testing._waiting import FACTOR, eventually, failure, interval, scaled

__all__ = ["FACTOR", "block_until", "scaled", "wait_until"]


async def wait_until(
    predicate: Callable[[], object] | Callable[[], Awaitable[object]],
    *,
    within: float = 10.0,
    what: str | Callable[[], str] = "",
) -> None:
    """Return as soon as the predicate is true; see `eventually`."""
    await eventually(predicate, within=within, what=what)


def block_until(predicate: Callable[[], object], *, within: float = 10.0, what: str | Callable[[], str] = "") -> None:
    """Return as soon as the predicate is true; for tests and fixtures without an event loop."""
    began = time.monotonic()
    while not predicate():
        elapsed = time.monotonic() - began
        if elapsed > scaled(within):
            raise AssertionError(failure(predicate, within, what))
        time.sleep(interval(elapsed))
