"""Rounds: the competitors of a row run in turn, each in a process of its own, on one server.

The order of the competitors is reversed from round to round.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass

from redis.asyncio import Redis

from bench.competitors import Competitor
from bench.process import WorkerProcess, start_worker
from bench.rows import Row
from bench.run import Failed, Run, RunParams
from jwt_events.embedded import EmbeddedServer

_GRACE = 8.0  # seconds for preparation and clean-up of a run, which its own limit does not cover

Runs = dict[str, list[Run]]
"""The runs of a row, by competitor: one warm-up, and one for each round."""


@dataclass(frozen=True)
class Options:
    """Options of all rows.

    Attributes:
        rounds: measured rounds, where the row does not want more or fewer.
        scale: the part of each workload that is run: 1, or less for a smoke test.
        loop: ``asyncio`` or ``uvloop``.
        verbose: whether the output of the processes is shown.
    """

    rounds: int = 5
    scale: float = 1.0
    loop: str = "asyncio"
    verbose: bool = False


@asynccontextmanager
async def server() -> AsyncIterator[EmbeddedServer]:
    """Run the server, over TCP as in production, without a limit on the output buffers of Pub/Sub subscribers."""
    async with EmbeddedServer(port=0, config={"client-output-buffer-limit": "pubsub 0 0 0"}) as running:
        yield running


async def run_row(row: Row, url: str, options: Options) -> Runs:
    """Run all rounds of a row, and empty the server after it."""
    runs: Runs = {competitor.name: [] for competitor in row.competitors}
    rounds = min(options.rounds, row.rounds or options.rounds) * (row.weight if options.scale == 1 else 1)
    async with AsyncExitStack() as stack:
        workers = [_Worker(row, competitor, options, stack) for competitor in row.competitors]
        if not row.fresh:
            await asyncio.gather(*(worker.prepare() for worker in workers))
        for turn in range(1 if row.fresh else 0, rounds + 1):
            await run_round(workers if turn % 2 else workers[::-1], runs, url, turn)
    async with Redis.from_url(url) as client:
        await client.flushall()
        await client.config_resetstat()
    return runs


async def run_round(workers: Sequence[_Worker], runs: Runs, url: str, turn: int) -> None:
    """Run each competitor once, in the given order; a competitor that has failed does not run again."""
    for worker in workers:
        if not any(run.problem for run in runs[worker.name]):
            runs[worker.name].append(await worker.run(url, turn))


class _Worker:
    """A competitor of a row, with its process.

    Args:
        row: what is measured.
        competitor: who runs it.
        options: the options of all rows.
        stack: ends the process.
    """

    def __init__(self, row: Row, competitor: Competitor, options: Options, stack: AsyncExitStack) -> None:
        self.name = competitor.name
        self._row = row
        self._options = options
        self._stack = stack
        self._process: WorkerProcess | None = None
        self._problem: str | None = None

    async def prepare(self) -> None:
        """Start the process."""
        starting = start_worker(self._row.id, self.name, "first", verbose=self._options.verbose)
        try:
            self._process = await self._stack.enter_async_context(starting)
        except Failed as failed:
            self._problem = f"did not start: {failed}"

    async def run(self, url: str, turn: int) -> Run:
        """Run the workload once."""
        if self._row.fresh:
            await self.prepare()
        if self._process is None:
            return Run(problem=self._problem)
        params = RunParams(
            url,
            name=f"bench:{self._row.id}:{self.name}:{turn}".replace(" ", "-"),
            shared=f"bench:{self._row.id}",
            limit=self._row.limit,
            scale=self._options.scale,
            loop=self._row.loop or self._options.loop,
        )
        try:
            return Run(**await self._process.request(asdict(params), self._row.limit + _GRACE))
        except Failed as failed:
            return Run(problem=str(failed))


def select(rows: Sequence[Row], prefixes: Sequence[str]) -> list[Row]:
    """Return the rows whose names start with one of the prefixes; all rows without prefixes."""
    return [row for row in rows if not prefixes or any(row.id.startswith(name) for name in prefixes)]
