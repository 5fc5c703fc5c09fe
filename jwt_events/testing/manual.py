"""A clock that a test sets."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable

from jwt_events._internal import options


class ManualClock:
    """A clock that begins now and stands still until it is advanced; for ``RevocationList(…, clock=clock)``.

    ::

        clock.advance(6.0)
        assert revocations.check(claims) is Verdict.STALE

    What is due is called while the clock is being advanced. What a task does then, such as forgetting rules, happens
    when the task next runs: ``await eventually(…)``.

    A transport goes on to prove that the list is current, so the list is fresh again soon after. For as long as it is
    to be stale, hold the reads: `Faults.hold`.
    """

    def __init__(self) -> None:
        self._now = time.monotonic()
        self._offset = time.time() - self._now
        self._timers: list[tuple[float, int, _ManualTimer]] = []
        self._number = itertools.count()  # what is due at the same time is called in the order of its making

    def __repr__(self) -> str:
        return f"<ManualClock with {len(self._timers)} timers>"

    def monotonic(self) -> float:
        """Seconds; see `Clock.monotonic`."""
        return self._now

    def wall(self) -> float:
        """Seconds since 1970; see `Clock.wall`."""
        return self._now + self._offset

    def call_later(self, delay: float, callback: Callable[[], object], /) -> _ManualTimer:
        """Call a function while the clock is advanced; see `Clock.call_later`."""
        timer = _ManualTimer(callback)
        heapq.heappush(self._timers, (self._now + delay, next(self._number), timer))
        return timer

    def advance(self, seconds: float) -> None:
        """Let time pass, and call what is due, in order.

        Args:
            seconds: how much.

        Raises:
            InvalidOption: that is no positive number.
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
