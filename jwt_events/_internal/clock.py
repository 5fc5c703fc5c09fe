"""What time it is: the seam that lets a test decide it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from jwt_events.errors import InvalidOption


class Timer(Protocol):
    """Something that will be called later, unless it is cancelled."""

    def cancel(self) -> None:
        """Do not call it. Idempotent."""
        ...


@runtime_checkable
class Clock(Protocol):
    """Tells the time and waits. `SYSTEM` is the real one, `jwt_events.testing.ManualClock` one for tests."""

    def monotonic(self) -> float:
        """Seconds on a clock that nobody sets. May be called from any thread."""
        ...

    def wall(self) -> float:
        """Seconds since 1970, on a clock that people set."""
        ...

    def call_later(self, delay: float, callback: Callable[[], object], /) -> Timer:
        """Call a function on the event loop after so many seconds."""
        ...


class SystemClock:
    """The clock of this machine."""

    def __init__(self) -> None:
        # Not wrapped: a check of a token asks for the time.
        self.monotonic: Callable[[], float] = time.monotonic
        self.wall: Callable[[], float] = time.time

    def call_later(self, delay: float, callback: Callable[[], object], /) -> Timer:
        """Call a function on the event loop; see `Clock.call_later`."""
        return asyncio.get_running_loop().call_later(delay, callback)


SYSTEM = SystemClock()


def valid(clock: Clock) -> Clock:
    """Accept a clock.

    Raises:
        InvalidOption: it is none.
    """
    if isinstance(clock, type) or not isinstance(clock, Clock):
        raise InvalidOption("clock", "must be a jwt_events._internal.clock.Clock")
    return clock


async def sleep(clock: Clock, seconds: float) -> None:
    """Wait until so many seconds have passed on a clock. Cancelling is safe."""
    woken = asyncio.Event()
    timer = clock.call_later(seconds, woken.set)
    try:
        await woken.wait()
    finally:
        timer.cancel()
