"""Counters and histograms that cost next to nothing where they count.

What happens thousands of times a second must not cost microseconds each time, so these leave out what prometheus_client
does for others: checking arguments, taking locks, and looking through all buckets each time.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Iterable
from itertools import count
from threading import Lock

import prometheus_client
from prometheus_client.samples import Sample


def has_other_processes() -> bool:
    """Whether others scrape what this process writes down."""
    return "PROMETHEUS_MULTIPROC_DIR" in os.environ


class Counter(prometheus_client.Counter):
    """Counts by ones without a lock, and adds them up when it is scraped.

    Attributes:
        one: counts one. A function of C, as calling one of Python costs more than counting.
    """

    def _metric_init(self) -> None:
        super()._metric_init()
        self._ones = count()  # taking the next number is one step, whichever thread takes it
        self._looks = 0
        self._added = 0
        self._adding = Lock()
        # Others scrape what is written down, so for them each is.
        self.one: Callable[[], object] = self.inc if has_other_processes() else self._ones.__next__

    def _child_samples(self) -> Iterable[Sample]:
        with self._adding:
            ones = next(self._ones) - self._looks  # looking takes a number, too
            self._looks += 1
            self._value.inc(ones - self._added)
            self._added = ones
        return super()._child_samples()


class Histogram(prometheus_client.Histogram):
    """Keeps what it observes and sorts many at once, when it is scraped at the latest.

    Attributes:
        MANY: how many values it may keep, roughly, before it is to sort them.
        add: observes a value; a negative one counts as zero. A function of C, too. `sort` is due now and then.
    """

    MANY = 512

    def _metric_init(self) -> None:
        super()._metric_init()
        self._pending: list[float] = []
        self._taking = Lock()
        # Others scrape what is written down, so for them each is.
        self._most = 1 if has_other_processes() else self.MANY
        self.add: Callable[[float], object] = self.observe if has_other_processes() else self._pending.append

    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
        """Observe a value, and sort if there are many."""
        self._pending.append(amount)
        if len(self._pending) >= self._most:
            self.sort()

    def sort(self) -> None:
        """Put what was observed into its buckets."""
        values = self._take()
        values.sort()
        if values and values[0] < 0:
            values = [max(0.0, value) for value in values]
        self._sum.inc(sum(values))
        below = 0
        for bucket, bound in zip(self._buckets, self._upper_bounds, strict=True):
            up_to = bisect_right(values, bound, below)
            if up_to > below:
                bucket.inc(up_to - below)
            below = up_to

    def _take(self) -> list[float]:
        with self._taking:  # others may add meanwhile, at the end, but nobody else takes
            taken = self._pending[:]
            del self._pending[: len(taken)]
            return taken

    def _child_samples(self) -> Iterable[Sample]:
        self.sort()
        return super()._child_samples()
