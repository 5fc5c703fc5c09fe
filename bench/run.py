"""One run: its parameters, its measurement, and its failure."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Self

from bench.load import Arrivals, missing


class Failed(Exception):
    """A competitor failed: it lost events, or exceeded its time limit."""


@dataclass(frozen=True)
class Run:
    """The measurement of one run of a competitor.

    Attributes:
        value: in the unit of the row; less is better.
        cpu: microseconds of processor time per event, of the competitor's own process with all its threads; ``None``
            where there are no events.
        also: other figures for the table, by name.
        problem: why there is no value; ``None`` for a run that succeeded.
    """

    value: float = 0.0
    cpu: float | None = None
    also: Mapping[str, float] = field(default_factory=dict)
    problem: str | None = None


@dataclass(frozen=True)
class RunParams:
    """The parameters of a run.

    Attributes:
        url: the server.
        name: a key or channel of this run alone.
        shared: a key that all runs of this row may read.
        limit: seconds after which the run has failed.
        scale: the part of the workload to run: 1, or less for a smoke test.
        loop: ``asyncio`` or ``uvloop``.
    """

    url: str
    name: str
    shared: str
    limit: float
    scale: float = 1.0
    loop: str = "asyncio"

    def scaled(self, count: int, minimum: int = 200) -> int:
        """Return how many of `count` events to take at this scale: at least `minimum`, if there are as many."""
        return max(min(count, minimum), int(count * self.scale))


Workload = Callable[[RunParams], Awaitable[Run]]


class Stopwatch:
    """Measures the time of a block, or of its part until `stop`.

    Objects made before are frozen out of garbage collection: a service does not hold its events of a whole day.
    """

    def __enter__(self) -> Self:
        gc.collect()
        gc.freeze()
        self._running = True
        self._cpu, self._wall = time.process_time(), time.perf_counter()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop the measurement; idempotent."""
        if self._running:
            self._running = False
            self._wall, self._cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
            gc.unfreeze()

    def run(self, events: int) -> Run:
        """Return the measurement in microseconds per event."""
        return Run(self._wall / events * 1e6, self._cpu / events * 1e6)


@asynccontextmanager
async def time_limit(params: RunParams, *arrivals: Arrivals) -> AsyncIterator[None]:
    """Limit the time of a block.

    Raises:
        Failed: the limit was exceeded; the message counts the events that are missing.
    """
    try:
        async with asyncio.timeout(params.limit):
            yield
    except TimeoutError:
        lost = f", {missing(arrivals)}" if arrivals else ""
        raise Failed(f"no end after {params.limit:g} s{lost}") from None


async def run_concurrently(call: Callable[[object], Awaitable[object]], items: Sequence[object], tasks: int) -> None:
    """Call a function with every item, from `tasks` tasks that take the next item in turn."""
    remaining = iter(items)

    async def one() -> None:
        for item in remaining:
            await call(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(tasks, len(items))):
            group.create_task(one())
