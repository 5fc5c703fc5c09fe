"""Deadlines of many things, the earliest of which is found at once. Pure: the time is passed in."""

from __future__ import annotations

import heapq
import math
from typing import Generic, TypeVar

T = TypeVar("T")

# So many times are kept beyond those that are needed before they are tidied up.
_SPARE = 1_000


class Deadlines(Generic[T]):
    """Things that have a deadline each. It keeps no reference to what was discarded."""

    def __init__(self) -> None:
        self._by_time: dict[float, set[T]] = {}
        self._times: list[float] = []  # a heap of them, and of some that are gone

    def add(self, thing: T, at: float) -> None:
        """Add a thing; one whose deadline is infinite has none."""
        if at == math.inf:
            return
        things = self._by_time.get(at)
        if things is not None:
            things.add(thing)
            return
        self._by_time[at] = {thing}
        heapq.heappush(self._times, at)
        if len(self._times) > 2 * len(self._by_time) + _SPARE:
            self._times = sorted(self._by_time)

    def discard(self, thing: T, at: float) -> None:
        """Remove a thing and its deadline; idempotent."""
        things = self._by_time.get(at)
        if things is not None:
            things.discard(thing)
            if not things:
                del self._by_time[at]

    def earliest(self) -> float:
        """Return the earliest deadline; infinity if there is none."""
        while self._times and self._times[0] not in self._by_time:
            heapq.heappop(self._times)
        return self._times[0] if self._times else math.inf

    def pop_due(self, now: float) -> list[T]:
        """Remove and return the things whose deadline has come."""
        due: list[T] = []
        while self.earliest() <= now:
            due.extend(self._by_time.pop(heapq.heappop(self._times)))
        return due
