"""Counters and histograms with almost no cost per observation.

An event that occurs thousands of times a second must not cost microseconds each time, so these omit what
prometheus_client does on every observation: checking arguments, taking locks, and searching the buckets.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Iterable
from itertools import count
from threading import Lock

import prometheus_client
from prometheus_client.samples import Sample


def is_multiprocess() -> bool:
    """Return whether prometheus_client runs in multiprocess mode, in which each process writes its values to files."""
    return "PROMETHEUS_MULTIPROC_DIR" in os.environ


class Counter(prometheus_client.Counter):
    """Counter that increments by one without a lock, and adds the increments up when it is scraped.

    Attributes:
        increment: adds one. It is a C function, because calling a Python function costs more than the increment.
    """

    def _metric_init(self) -> None:
        super()._metric_init()
        self._ones = count()  # taking the next number is atomic, in any thread
        self._scrapes = 0
        self._counted = 0
        self._scrape_lock = Lock()
        # In multiprocess mode every increment goes to the file.
        self.increment: Callable[[], object] = self.inc if is_multiprocess() else self._ones.__next__

    def _child_samples(self) -> Iterable[Sample]:
        with self._scrape_lock:
            ones = next(self._ones) - self._scrapes  # a scrape takes a number, too
            self._scrapes += 1
            self._value.inc(ones - self._counted)
            self._counted = ones
        return super()._child_samples()


class Histogram(prometheus_client.Histogram):
    """Histogram that keeps observed values, and sorts many at once into its buckets, at the latest when scraped.

    Attributes:
        MAX_PENDING: approximate number of values that it may keep before the caller should `flush` it.
        add: observes a value; a negative one counts as zero. It is a C function, too, and does not flush.
    """

    MAX_PENDING = 512

    def _metric_init(self) -> None:
        super()._metric_init()
        self._pending: list[float] = []
        self._take_lock = Lock()
        # In multiprocess mode every value goes to the file.
        self._max_pending = 1 if is_multiprocess() else self.MAX_PENDING
        self.add: Callable[[float], object] = self.observe if is_multiprocess() else self._pending.append

    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
        """Observe a value, and flush if there are many."""
        self._pending.append(amount)
        if len(self._pending) >= self._max_pending:
            self.flush()

    def flush(self) -> None:
        """Put the pending values into their buckets."""
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
        with self._take_lock:  # other threads may append meanwhile, but none removes
            taken = self._pending[:]
            del self._pending[: len(taken)]
            return taken

    def _child_samples(self) -> Iterable[Sample]:
        self.flush()
        return super()._child_samples()
