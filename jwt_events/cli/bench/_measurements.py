"""The trials of ``jwt-events bench``: rounds of both sides, in turns, within a time; and nothing is left behind."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from time import perf_counter

from jwt_events.cli.bench._library import Whole
from jwt_events.cli.bench._load import BATCH, TASKS, Load, Side, made
from jwt_events.cli.bench._redis_py import Bare
from jwt_events.cli.running import say
from jwt_events.cli.wording import complaint
from jwt_events.errors import JWTEventsError, TransportError
from jwt_events.transport.connection import Connection, Connector
from jwt_events.transport.stream import FIELD

MAX_EVENTS = 5_000
"""How many events there are at a time, at most."""

KEPT_FOR = 600
"""Seconds after which the server deletes by itself what a process that was killed has left."""

_ROUNDS = 4  # of each side, in the time of a trial
_MAX_SECONDS = 15.0  # seconds that a round may take
_WITHIN = 5.0


class Unfinished(JWTEventsError):
    """A round took far too long."""


@dataclass(frozen=True, slots=True)
class Trial:
    """Something that both sides do.

    Attributes:
        what: what it is.
        work: has a side do it with a load.
        first: events of the first round, which is not counted and tells how many the others may have.
        filled: whether the stream must hold the load before.
        each: whether the seconds are those of each event, and not of all together.
    """

    what: str
    work: Callable[[Side, Load], Awaitable[Sequence[float]]]
    first: int = 16
    filled: bool = False
    each: bool = False


TRIALS = (
    Trial("publish one by one", lambda side, load: side.one_by_one(load)),
    Trial(f"publish from {TASKS} tasks", lambda side, load: side.from_tasks(load), first=2 * TASKS),
    Trial("publish many at a time", lambda side, load: side.many(load), first=BATCH),
    Trial("drain a stream into handlers", lambda side, load: side.drain(load), first=BATCH, filled=True),
    Trial("Pub/Sub end to end", lambda side, load: side.over_pubsub(load), first=BATCH),
    Trial("publish to handled", lambda side, load: side.there(load), each=True),
)


@dataclass(frozen=True, slots=True)
class Result:
    """What a trial said.

    Attributes:
        what: what was done.
        unit: ``events/s``, of which more is better; or ``ms``, of which less is.
        jwt_events: with this library.
        redis_py: with redis-py alone.
        ratio: the first, divided by the second.
    """

    what: str
    unit: str
    jwt_events: float
    redis_py: float
    ratio: float


class Bench:
    """A server, and a stream and a channel on it that nobody else uses.

    Args:
        url: the server.
        name: of stream and channel. The stream is deleted in the end, whatever happens.
    """

    def __init__(self, url: str, name: str) -> None:
        self._connector = Connector(url, destination=name)
        self._url = url
        self._name = name

    async def run(self, *, seconds: float, show: Callable[[str], None]) -> list[Result]:
        """Run all trials.

        Args:
            seconds: how long they may take, about.
            show: told what is being done.

        Raises:
            TransportError: the server cannot be reached, or refuses.
            PublishError: the same.
            Unfinished: a round took far too long.
        """
        load = made(MAX_EVENTS)
        results: list[Result] = []
        async with (
            self._throw_away_stream() as connection,
            Whole(self._url, self._name) as whole,
            Bare(self._url, self._name) as bare,
        ):
            say(f"keeping {self._connector.address} busy for about {seconds:g} s, with events in {self._name!r}")
            for trial in TRIALS:
                show(trial.what)
                rounds = Rounds(trial, connection, self._name)
                results += await rounds.run((whole, bare), load, seconds=seconds / len(TRIALS))
        return results

    @asynccontextmanager
    async def _throw_away_stream(self) -> AsyncIterator[Connection]:
        async with aclosing(await self._connector.connect(within=_WITHIN)) as connection:
            await self._delete(connection)  # who may not delete it must not make it
            try:
                await connection.call("XADD", self._name, "*", FIELD, b"", within=_WITHIN)
                await connection.call("EXPIRE", self._name, KEPT_FOR, within=_WITHIN)
                yield connection
            finally:
                await self._clean_up()

    async def _clean_up(self) -> None:
        try:
            async with aclosing(await self._connector.connect(within=_WITHIN)) as connection:
                await self._delete(connection)
        except TransportError as error:
            say(f"the stream {self._name!r} could not be deleted and expires in {KEPT_FOR} s: {complaint(error)}")

    async def _delete(self, connection: Connection) -> None:
        # Until there is nothing: what was sent before a Ctrl-C, the server may be working on still.
        while await connection.call("UNLINK", self._name, within=_WITHIN):
            pass


class Rounds:
    """The rounds of one trial: each side in turn, as often as the time allows.

    Args:
        trial: what is done.
        connection: for what is not measured.
        name: of the stream.
    """

    def __init__(self, trial: Trial, connection: Connection, name: str) -> None:
        self._trial = trial
        self._connection = connection
        self._name = name

    async def run(self, sides: Sequence[Side], load: Load, *, seconds: float) -> list[Result]:
        """Return what the trial says, after at least one round of each side."""
        number, samples = self._trial.first, [list[float]() for _ in sides]
        slowest = max([sum(await self._round(side, load.first(number))) for side in sides])  # and all is warm
        ends = perf_counter() + seconds
        while not samples[0] or perf_counter() < ends:
            number = max(1, min(MAX_EVENTS, int(number * seconds / (len(sides) * _ROUNDS * slowest))))
            slowest = 0.0
            for side, found in zip(sides, samples, strict=True):
                taken = await self._round(side, load.first(number))
                found.extend(taken if self._trial.each else [number / sum(taken)])
                slowest = max(slowest, sum(taken))
        return self._results(*samples)

    async def _round(self, side: Side, load: Load) -> Sequence[float]:
        await self._connection.call("XTRIM", self._name, "MAXLEN", 0, within=_WITHIN)
        try:
            async with asyncio.timeout(_MAX_SECONDS):
                if self._trial.filled:
                    await self._fill(load)
                return await self._trial.work(side, load)
        except TimeoutError:
            raise Unfinished(
                f"{self._trial.what}: {len(load.events)} events took longer than {_MAX_SECONDS:.0f} s."
                " Is the server, or this machine, busy with something else?"
            ) from None

    async def _fill(self, load: Load) -> None:
        for first in range(0, len(load.payloads), BATCH):
            commands = [("XADD", self._name, "*", FIELD, payload) for payload in load.payloads[first : first + BATCH]]
            for answer in await self._connection.pipeline(commands, within=_WITHIN):
                if isinstance(answer, TransportError):
                    raise answer

    def _results(self, whole: Sequence[float], bare: Sequence[float]) -> list[Result]:
        what = self._trial.what
        if not self._trial.each:
            return [_result(what, "events/s", statistics.median(whole), statistics.median(bare))]
        return [
            _result(f"{what}, p{share}", "ms", *(_percentile(side, share) * 1000 for side in (whole, bare)))
            for share in (50, 99)
        ]


def _result(what: str, unit: str, whole: float, bare: float) -> Result:
    return Result(what, unit, round(whole, 3), round(bare, 3), round(whole / bare, 3))


def _percentile(samples: Sequence[float], share: int) -> float:
    return sorted(samples)[min(len(samples) - 1, len(samples) * share // 100)]
