"""The clock that the library reads, so that a test can replace it."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol, runtime_checkable

from jwt_events.errors import InvalidOption


def _choose() -> Callable[[], float]:
    """Return a clock that goes on while the machine sleeps, if there is one: a C function, as checks read it."""
    name = "CLOCK_MONOTONIC" if sys.platform == "darwin" else "CLOCK_BOOTTIME"  # that of macOS goes on, too
    clock = getattr(time, name, None)
    if clock is not None:
        found = partial(time.clock_gettime, clock)
        try:
            found()
        except OSError:  # the system does not know it
            return time.monotonic
        return found
    return time.monotonic


boottime: Final = _choose()
"""Return seconds on a clock that is never set, and goes on while the machine is suspended.

It is for all that is compared with what happens elsewhere meanwhile: proofs, leases, ages. Timeouts are by
`time.monotonic`, as those of event loops are."""


class Timer(Protocol):
    """Handle of a scheduled call."""

    def cancel(self) -> None:
        """Cancel the call. Idempotent."""
        ...


@runtime_checkable
class Clock(Protocol):
    """Tells the time and schedules calls. `SYSTEM` is the real one, `jwt_events.testing.ManualClock` one for tests."""

    def monotonic(self) -> float:
        """Return seconds on a clock that is never set, and goes on while the machine is suspended; from any thread."""
        ...

    def wall(self) -> float:
        """Return seconds since 1970, on a clock that an operator or NTP can set."""
        ...

    def call_later(self, delay: float, callback: Callable[[], object], /) -> Timer:
        """Call a function on the event loop after ``delay`` seconds."""
        ...


class SystemClock:
    """The clock of this machine."""

    def __init__(self) -> None:
        # Not wrapped in methods: every check of a token reads the time.
        self.monotonic: Callable[[], float] = boottime
        self.wall: Callable[[], float] = time.time

    def call_later(self, delay: float, callback: Callable[[], object], /) -> Timer:
        """Call a function on the event loop; see `Clock.call_later`."""
        return asyncio.get_running_loop().call_later(delay, callback)


SYSTEM = SystemClock()


def valid(clock: Clock) -> Clock:
    """Return the clock if it has the methods of a `Clock`.

    Raises:
        InvalidOption: it does not.
    """
    if isinstance(clock, type) or not isinstance(clock, Clock):
        raise InvalidOption("clock", "must be a jwt_events._internal.clock.Clock")
    return clock


async def sleep(clock: Clock, seconds: float) -> None:
    """Wait until ``seconds`` have passed on a clock. Cancelling is safe."""
    woken = asyncio.Event()
    timer = clock.call_later(seconds, woken.set)
    try:
        await woken.wait()
    finally:
        timer.cancel()
