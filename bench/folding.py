"""What folding costs a publisher and the server, and by how much it delays what is published meanwhile.

``python -m bench.folding`` folds the same events several times, as a publisher does, and measures the processor time of
this process and of the server for each. Then it publishes at a steady rate, in windows with and without folding in
turn, and prints the 99th percentile of both. What is folded falls due as steadily as it was published. It takes
two minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import statistics
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from redis.asyncio import Redis

from bench.programs import server_time
from bench.workloads import percentiles
from jwt_events import Event, Publisher, RedisStream, TokenRevoked
from jwt_events.embedded import EmbeddedServer
from jwt_events.envelope import encode_event
from jwt_events.revocation import Folding
from jwt_events.transport._redis.connection import Connector
from jwt_events.transport._stream.folder import Folder
from jwt_events.transport._stream.keys import StreamKeys
from jwt_events.transport._stream.ledger import Ledger

EVENTS = 20_000
ROUNDS = 3

RATE = 1_000
FOLDED_PER_MINUTE = 100_000
SECONDS = 5.0
WINDOWS = 8

_KEYS = StreamKeys("bench:folding")
_SOURCE = "bench:folding:source"
_HOUR = timedelta(hours=1)
_KEPT = timedelta(seconds=100)  # then there is a round each second
_AHEAD = timedelta(seconds=0.5)
_IN_ONE_PIPELINE = 1_000


def about_a_token() -> Event:
    """Return what most events are like."""
    return TokenRevoked(token_id=uuid4().hex, expires_at=datetime.now(UTC) + timedelta(days=1))


def about_a_user() -> Event:
    """Return an event without a token, whose rule has a cutoff."""
    return TokenRevoked(user_id=uuid4().hex, expires_at=datetime.now(UTC) + timedelta(days=1))


async def add(client: Redis, key: str, events: Iterable[Event], *, at: datetime, rate: float = math.inf) -> None:
    """Add events to a stream as if they had been published from some time on, so many a second."""
    pipeline = client.pipeline(transaction=False)
    for number, event in enumerate(events, 1):
        milliseconds = int((at.timestamp() + number / rate) * 1_000)
        pipeline.xadd(key, {"event": encode_event(event, source=_SOURCE)}, id=f"{milliseconds}-{number}")
        if len(pipeline) >= _IN_ONE_PIPELINE:
            await pipeline.execute()
    await pipeline.execute()


def folder(url: str, retention: timedelta) -> Folder:
    """Return a folder of the stream, as a publisher has one."""
    return Folder(Connector(url, destination=_KEYS.stream), Ledger(_KEYS), Folding(), retention)


async def measure_cost(url: str, events: Iterable[Event]) -> tuple[float, float]:
    """Return the microseconds of processor time that an entry costs this process and the server: medians."""
    spent: list[tuple[float, float]] = []
    async with Redis.from_url(url) as client:
        await add(client, _SOURCE, events, at=datetime.now(UTC) - 2 * _HOUR)
        for _ in range(ROUNDS):
            await client.delete(_KEYS.stream, _KEYS.ledger, _KEYS.ledger_lock, _KEYS.retention)
            await client.copy(_SOURCE, _KEYS.stream)
            one = folder(url, _HOUR)
            began, server = time.process_time(), await server_time(client)
            folded = await one.fold_once()
            ended, after = time.process_time(), await server_time(client)
            spent.append(((ended - began) / folded * 1e6, (after - server) / folded * 1e6))
        await client.flushall()
    own, servers = (statistics.median(one) for one in zip(*spent, strict=True))
    return own, servers


async def _window(publisher: Publisher, rate: int, seconds: float) -> list[float]:
    """Publish at a steady rate, and return the seconds that each publish took from when it was due."""
    delays: list[float] = []
    count = int(rate * seconds)
    events = [about_a_token() for _ in range(count)]

    async def one(event: Event, due: float) -> None:
        await publisher.publish(event)
        delays.append(time.perf_counter() - due)

    async with asyncio.TaskGroup() as group:
        began = time.perf_counter()
        for number, event in enumerate(events):
            due = began + number / rate
            if (early := due - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            group.create_task(one(event, time.perf_counter()))
    return delays


async def measure_delay(
    url: str, *, windows: int = WINDOWS, seconds: float = SECONDS, rate: int = RATE, folded: int = FOLDED_PER_MINUTE
) -> dict[str, float]:
    """Return percentiles of the milliseconds that a publish takes, without and with folding beside it."""
    delays: dict[bool, list[float]] = {False: [], True: []}
    count = 0
    async with Redis.from_url(url) as client:
        for number in range(2 * windows):
            await client.delete(_KEYS.stream, _KEYS.ledger, _KEYS.ledger_lock, _KEYS.retention)
            transport = RedisStream(url, _KEYS.stream, retention=_KEPT)
            transport.trims = is_folding = number % 2 == 1
            # Each round folds what fell due since the last. The last is about a second before the end.
            old = [about_a_token() for _ in range(int(folded / 60 * (seconds + 2)))]
            await add(client, _KEYS.stream, old, at=datetime.now(UTC) - _KEPT - _AHEAD, rate=folded / 60)
            async with Publisher(transport) as publisher:
                delays[is_folding] += await _window(publisher, rate, seconds)
            count += await client.zcard(_KEYS.ledger)
        await client.flushall()
    found = {"folded_per_minute": count / windows / seconds * 60}
    for name, which in (("alone", delays[False]), ("folding", delays[True])):
        run = percentiles(which)
        found |= {f"{name}_p99_ms": run.value} | {f"{name}_{part}_ms": value for part, value in run.also.items()}
    return found | {"p99_ratio": found["folding_p99_ms"] / found["alone_p99_ms"]}


async def main(*, cost: bool = True, delay: bool = True) -> None:
    """Measure both, or one, and print what was found."""
    found: dict[str, float] = {}
    async with EmbeddedServer() as server:
        if cost:
            for name, make in (("token", about_a_token), ("user", about_a_user)):
                own, servers = await measure_cost(server.url, [make() for _ in range(EVENTS)])
                found |= {f"{name}_publisher_µs": own, f"{name}_server_µs": servers}
        if delay:
            found |= await measure_delay(server.url)
    sys.stdout.write(json.dumps({name: round(value, 3) for name, value in found.items()}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser("python -m bench.folding", description=__doc__)
    alone = parser.add_mutually_exclusive_group()
    alone.add_argument("--cost", action="store_true", help="only what folding costs")
    alone.add_argument("--delay", action="store_true", help="only by how much it delays what is published")
    arguments = parser.parse_args()
    asyncio.run(main(cost=not arguments.delay, delay=not arguments.cost))
