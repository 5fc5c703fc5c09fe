"""Clock that a test advances."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable

from jwt_events._internal import options
from jwt_events._internal.clock import boottime
from jwt_events._internal.functions import plain_function


class ManualClock:
    """Clock that starts at the current time and stands still until it is advanced: ``RevocationList(…, clock=clock)``.

    ::

        clock.advance(6.0)
        assert revocations.check(claims) is Verdict.STALE

    Scheduled calls that are due run inside ``advance``. Tasks that they wake, such as the one that drops expired rules,
    run later: ``await eventually(…)``.

    The transport keeps proving that the list is current, so the list is fresh again soon after. To keep it stale, hold
    the reads with `Faults.hold`.
    """

    def __init__(self) -> None:
        self._now = boottime()
        self._offset = time.time() - self._now
        self._timers: list[tuple[float, int, _ManualTimer]] = []
        self._number = itertools.count()  # calls due at the same time run in the order in which they were scheduled

    def __repr__(self) -> str:
        return f"<ManualClock with {len(self._timers)} timers>"

    def monotonic(self) -> float:
        """Return seconds; see `Clock.monotonic`."""
        return self._now

    def wall(self) -> float:
        """Return seconds since 1970; see `Clock.wall`."""
        return self._now + self._offset

    def call_later(self, delay: float, callback: Callable[[], object], /) -> _ManualTimer:
        """Call a function when the clock is advanced by ``delay`` seconds; see `Clock.call_later`.

        Raises:
            InvalidOption: it is a coroutine function, which is not awaited, or no function.
        """
        timer = _ManualTimer(plain_function("callback", callback))
        heapq.heappush(self._timers, (self._now + delay, next(self._number), timer))
        return timer

    def advance(self, seconds: float) -> None:
        """Advance the clock, and run the scheduled calls that are due, in order.

        Args:
            seconds: the duration.

        Raises:
            InvalidOption: it is not a positive number.
        """
        until = self._now + options.seconds("seconds", seconds)
        while self._timers and self._timers[0][0] <= until:
            due, _, timer = heapq.heappop(self._timers)
            self._now = max(self._now, due)
            timer.run()
        self._now = until


class _ManualTimer:
    def __init__(self, callback: Callable[[], object]) -> None:
        self._callback: Callable[[], object] | None = callback

    def run(self) -> None:
        if self._callback is not None:
            self._callback()

    def cancel(self) -> None:
        self._callback = None
