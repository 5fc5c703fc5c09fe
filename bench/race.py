"""Lets the contenders of a row work in turns, each in a process of its own, on one server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass

from redis.asyncio import Redis

from bench.contenders import Contender
from bench.process import Child, child
from bench.rows import Row
from bench.run import Failed, Place, Run
from jwt_events.embedded import EmbeddedServer

_GRACE = 8.0  # seconds for a run to prepare itself and to tidy up, which its own limit does not cover

Runs = dict[str, list[Run]]
"""The runs of a row, by contender: one that only warmed up, and one for each round."""


@dataclass(frozen=True)
class Terms:
    """How all rows are run.

    Attributes:
        rounds: how often, where the row does not say.
        scale: how much of the work: 1, or less for a quick look.
        loop: ``asyncio`` or ``uvloop``.
        verbose: whether the processes may speak.
    """

    rounds: int = 5
    scale: float = 1.0
    loop: str = "asyncio"
    verbose: bool = False


@asynccontextmanager
async def server() -> AsyncIterator[EmbeddedServer]:
    """Run the server, over TCP as in production, and patient with subscribers who are behind."""
    async with EmbeddedServer(port=0, config={"client-output-buffer-limit": "pubsub 0 0 0"}) as running:
        yield running


async def race(row: Row, url: str, terms: Terms) -> Runs:
    """Have all rounds of a row. The order is turned round from round to round; who failed does not run again."""
    runs: Runs = {contender.name: [] for contender in row.contenders}
    rounds = min(terms.rounds, row.rounds or terms.rounds)
    async with AsyncExitStack() as stack:
        seats = [_Seat(row, contender, terms, stack) for contender in row.contenders]
        if not row.fresh:
            await asyncio.gather(*(seat.prepare() for seat in seats))
        for turn in range(1 if row.fresh else 0, rounds + 1):
            for seat in seats if turn % 2 else seats[::-1]:
                if not any(run.problem for run in runs[seat.name]):
                    runs[seat.name].append(await seat.run(url, turn))
    async with Redis.from_url(url) as client:
        await client.flushall()
        await client.config_resetstat()
    return runs


class _Seat:
    """A contender's place at the table, with its process.

    Args:
        row: what is to be done.
        contender: who does it.
        terms: how.
        stack: ends the process.
    """

    def __init__(self, row: Row, contender: Contender, terms: Terms, stack: AsyncExitStack) -> None:
        self.name = contender.name
        self._row = row
        self._terms = terms
        self._stack = stack
        self._child: Child | None = None
        self._problem: str | None = None

    async def prepare(self) -> None:
        """Start the process."""
        starting = child(self._row.id, self.name, "work", verbose=self._terms.verbose)
        try:
            self._child = await self._stack.enter_async_context(starting)
        except Failed as failed:
            self._problem = f"did not start: {failed}"

    async def run(self, url: str, turn: int) -> Run:
        """Do the work once."""
        if self._row.fresh:
            await self.prepare()
        if self._child is None:
            return Run(problem=self._problem)
        place = Place(
            url,
            name=f"bench:{self._row.id}:{self.name}:{turn}".replace(" ", "-"),
            shared=f"bench:{self._row.id}",
            limit=self._row.limit,
            scale=self._terms.scale,
            loop=self._row.loop or self._terms.loop,
        )
        try:
            return Run(**await self._child.ask(asdict(place), self._row.limit + _GRACE))
        except Failed as failed:
            return Run(problem=str(failed))


def order(rows: Sequence[Row], only: Sequence[str]) -> list[Row]:
    """Return the rows that were asked for: each name chooses the rows whose names begin with it."""
    return [row for row in rows if not only or any(row.id.startswith(name) for name in only)]
