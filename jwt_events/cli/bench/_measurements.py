"""The measurements of the benchmark: rounds of both sides in turn, within a time; the stream is deleted in the end."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from time import perf_counter

from jwt_events.cli._running import describe, say
from jwt_events.cli.bench._library import LibrarySide
from jwt_events.cli.bench._load import BATCH_SIZE, TASKS, Load, Side, make_load
from jwt_events.cli.bench._redis_py import RedisPySide
from jwt_events.errors import JWTEventsError, TransportError
from jwt_events.transport.connection import Connection, Connector
from jwt_events.transport.stream import FIELD

MAX_EVENTS = 5_000
"""Maximum number of events in a round."""

KEPT_FOR = 600
"""Seconds until the stream expires, in case this process is killed before it deletes it."""

_ROUNDS = 4  # of each side, in the time of a measurement
_MAX_SECONDS = 15.0  # for a round
_WITHIN = 5.0


class RoundTimedOut(JWTEventsError):
    """A round took longer than a round may take."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """An operation to measure on both sides.

    Attributes:
        what: its name.
        operation: performs it on a side with a load.
        first: events of the first round, which is not counted and decides how many the others have.
        filled: whether the stream must contain the load before.
        each: whether the seconds are those of each event, and not of all together.
    """

    what: str
    operation: Callable[[Side, Load], Awaitable[Sequence[float]]]
    first: int = 16
    filled: bool = False
    each: bool = False


MEASUREMENTS = (
    Measurement("publish one by one", lambda side, load: side.one_by_one(load)),
    Measurement(f"publish from {TASKS} tasks", lambda side, load: side.from_tasks(load), first=2 * TASKS),
    Measurement("publish many at a time", lambda side, load: side.many(load), first=BATCH_SIZE),
    Measurement("drain a stream into handlers", lambda side, load: side.drain(load), first=BATCH_SIZE, filled=True),
    Measurement("Pub/Sub end to end", lambda side, load: side.over_pubsub(load), first=BATCH_SIZE),
    Measurement("publish to handled", lambda side, load: side.to_handler(load), each=True),
)


@dataclass(frozen=True, slots=True)
class Result:
    """A result of a measurement.

    Attributes:
        what: what was measured.
        unit: ``events/s``, of which more is better; or ``ms``, of which less is.
        jwt_events: the figure of this library.
        redis_py: the figure of redis-py alone.
        ratio: the first, divided by the second.
    """

    what: str
    unit: str
    jwt_events: float
    redis_py: float
    ratio: float


class Bench:
    """A benchmark on a server, with a stream and a channel of its own.

    Args:
        url: the server.
        name: the name of the stream and of the channel. The stream is deleted in the end, whatever happens.
    """

    def __init__(self, url: str, name: str) -> None:
        self._connector = Connector(url, destination=name)
        self._url = url
        self._name = name

    async def run(self, *, seconds: float, show: Callable[[str], None]) -> list[Result]:
        """Run all measurements.

        Args:
            seconds: how long they take together, about.
            show: called with the name of each.

        Raises:
            TransportError: the server cannot be reached, or refuses.
            PublishError: the same.
            RoundTimedOut: a round took longer than a round may take.
        """
        load = make_load(MAX_EVENTS)
        results: list[Result] = []
        async with (
            self._temporary_stream() as connection,
            LibrarySide(self._url, self._name) as library,
            RedisPySide(self._url, self._name) as redis_py,
        ):
            say(f"keeping {self._connector.address} busy for about {seconds:g} s, with events in {self._name!r}")
            for measurement in MEASUREMENTS:
                show(measurement.what)
                rounds = Rounds(measurement, connection, self._name)
                results += await rounds.run((library, redis_py), load, seconds=seconds / len(MEASUREMENTS))
        return results

    @asynccontextmanager
    async def _temporary_stream(self) -> AsyncIterator[Connection]:
        async with aclosing(await self._connector.connect(within=_WITHIN)) as connection:
            await self._delete(connection)  # a user who may not delete it must not create it
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
            say(f"the stream {self._name!r} could not be deleted and expires in {KEPT_FOR} s: {describe(error)}")

    async def _delete(self, connection: Connection) -> None:
        # Repeated, as the server may still be executing commands that were sent before a Ctrl-C.
        while await connection.call("UNLINK", self._name, within=_WITHIN):
            pass


class Rounds:
    """The rounds of one measurement: each side in turn, as often as the time allows.

    Args:
        measurement: what to measure.
        connection: for commands that are not measured.
        name: the name of the stream.
    """

    def __init__(self, measurement: Measurement, connection: Connection, name: str) -> None:
        self._measurement = measurement
        self._connection = connection
        self._name = name

    async def run(self, sides: Sequence[Side], load: Load, *, seconds: float) -> list[Result]:
        """Run at least one round of each side that counts, and return the results."""
        count, samples = self._measurement.first, [list[float]() for _ in sides]
        slowest = max(
            [sum(await self._round(side, load.first(count))) for side in sides]
        )  # this also warms both sides up
        ends = perf_counter() + seconds
        while not samples[0] or perf_counter() < ends:
            count = max(1, min(MAX_EVENTS, int(count * seconds / (len(sides) * _ROUNDS * slowest))))
            slowest = 0.0
            for side, found in zip(sides, samples, strict=True):
                taken = await self._round(side, load.first(count))
                found.extend(taken if self._measurement.each else [count / sum(taken)])
                slowest = max(slowest, sum(taken))
        return self._results(*samples)

    async def _round(self, side: Side, load: Load) -> Sequence[float]:
        await self._connection.call("XTRIM", self._name, "MAXLEN", 0, within=_WITHIN)
        try:
            async with asyncio.timeout(_MAX_SECONDS):
                if self._measurement.filled:
                    await self._fill(load)
                return await self._measurement.operation(side, load)
        except TimeoutError:
            raise RoundTimedOut(
                f"{self._measurement.what}: {len(load.events)} events took longer than {_MAX_SECONDS:.0f} s."
                " Is the server, or this machine, busy with something else?"
            ) from None

    async def _fill(self, load: Load) -> None:
        for first in range(0, len(load.payloads), BATCH_SIZE):
            commands = [
                ("XADD", self._name, "*", FIELD, payload) for payload in load.payloads[first : first + BATCH_SIZE]
            ]
            for reply in await self._connection.execute_many(commands, within=_WITHIN):
                if isinstance(reply, TransportError):
                    raise reply

    def _results(self, library: Sequence[float], redis_py: Sequence[float]) -> list[Result]:
        what = self._measurement.what
        if not self._measurement.each:
            return [_result(what, "events/s", statistics.median(library), statistics.median(redis_py))]
        return [
            _result(f"{what}, p{share}", "ms", *(_percentile(side, share) * 1000 for side in (library, redis_py)))
            for share in (50, 99)
        ]


def _result(what: str, unit: str, library: float, redis_py: float) -> Result:
    return Result(what, unit, *map(_significant, (library, redis_py, library / redis_py)))


def _significant(figure: float) -> float:
    """Round to six digits, wherever the point is: a ratio may be far below one."""
    return float(f"{figure:.6g}")


def _percentile(samples: Sequence[float], share: int) -> float:
    return sorted(samples)[min(len(samples) - 1, len(samples) * share // 100)]
