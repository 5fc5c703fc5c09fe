"""One run: what a contender was measured at, or why it could not be."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Self

from bench.load import Counters, missing


class Failed(Exception):
    """A contender did not do its work: it lost events, or came to no end."""


@dataclass(frozen=True)
class Run:
    """What one repetition of a contender's work came to.

    Attributes:
        value: in the unit of the row; less is better.
        cpu: microseconds of processor time per event, of the contender's own process with all its threads; ``None``
            where there are no events.
        also: other figures worth telling, by name.
        problem: why there is no value.
    """

    value: float = 0.0
    cpu: float | None = None
    also: Mapping[str, float] = field(default_factory=dict)
    problem: str | None = None


@dataclass(frozen=True)
class Place:
    """Where and how a run takes place.

    Attributes:
        url: the server.
        name: a key or channel of this run alone.
        shared: a key for what all runs of this row may read.
        limit: seconds after which the work has failed.
        scale: how much of the work to do: 1, or less for a quick look.
        loop: ``asyncio`` or ``uvloop``.
    """

    url: str
    name: str
    shared: str
    limit: float
    scale: float = 1.0
    loop: str = "asyncio"

    def many(self, number: int, least: int = 200) -> int:
        """Return how many events to take, where all of the work would be so many."""
        return max(min(number, least), int(number * self.scale))


Work = Callable[[Place], Awaitable[Run]]


class Stopwatch:
    """Takes the time of a block, or of its part until `stop`.

    What was made before does not burden the garbage collector: a service does not hold its events of a whole day.
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
        """Stop it, if it was not stopped before."""
        if self._running:
            self._running = False
            self._wall, self._cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
            gc.unfreeze()

    def run(self, events: int) -> Run:
        """Return microseconds per event."""
        return Run(self._wall / events * 1e6, self._cpu / events * 1e6)


@asynccontextmanager
async def limited(place: Place, *tallies: Counters) -> AsyncIterator[None]:
    """Give up on a block that takes too long, and say what is missing."""
    try:
        async with asyncio.timeout(place.limit):
            yield
    except TimeoutError:
        lost = f", {missing(tallies)}" if tallies else ""
        raise Failed(f"no end after {place.limit:g} s{lost}") from None


async def shared_out(work: Callable[[object], Awaitable[object]], items: Sequence[object], tasks: int) -> None:
    """Let so many tasks take one item after the other until none is left."""
    waiting = iter(items)

    async def one() -> None:
        for item in waiting:
            await work(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(tasks, len(items))):
            group.create_task(one())
