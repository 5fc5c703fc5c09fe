"""What a revocation list costs: to ask it, to keep it, to fill it, and how soon it knows.

``python -m bench.view`` measures all of it against the bare thing in the same run, on the embedded server, and prints a
table, or with ``--json`` one line for machines. The exit code is 1 if a limit is exceeded.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import time
import timeit
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from redis.asyncio import Redis
from rich.console import Console
from rich.table import Table

from jwt_events import KeyRotated, MemoryTransport, Publisher, RedisStream, RevocationList, TokenRevoked, Verdict
from jwt_events.embedded import EmbeddedServer
from jwt_events.envelope import Envelope, encode

ROOT = Path(__file__).parent.parent

CLAIMS = {
    "iss": "https://issuer.example",
    "aud": "shop",
    "jti": "0193b5d0-6f0c-7cc2-9c52-5a3f5c0f5d10",
    "sub": "user-4711",
    "sid": "session-0815",
    "client_id": "web",
    "kid": "2026-11",
    "iat": 1_795_000_000,
    "exp": 1_795_000_900,
}


class Data(BaseModel):
    """What the bare loop reads of an event."""

    token_id: str
    expires_at: datetime


class Message(BaseModel):
    """An envelope, as somebody would read it who reads nothing else."""

    id: str
    source: str
    type: str
    time: datetime
    data: Data


def revocations(number: int) -> Iterator[TokenRevoked]:
    """Make so many of them, as logging out makes them."""
    now = datetime.now(UTC)
    for index in range(number):
        yield TokenRevoked(token_id=f"{index:032x}", expires_at=now + timedelta(seconds=60 + index % 80_000))


async def check(repetitions: int = 21) -> dict[str, float]:
    """Compare one check with one EXISTS over TCP, each the median of many short runs, taken in turn."""
    checks, round_trips = [], []
    async with (
        EmbeddedServer(port=0) as server,
        Redis.from_url(server.url) as client,
        RevocationList(MemoryTransport()) as live,
    ):
        for index in range(1_000):
            for field in ("token_id", "user_id", "session_id", "client_id"):
                live.apply(TokenRevoked.model_validate({field: f"{field}-{index}"}))
            live.apply(KeyRotated(key_id=f"key-{index}", compromised=True))
        assert live.check(CLAIMS) is Verdict.ALLOW
        for _ in range(repetitions):
            checks.append(timeit.timeit("check(claims)", globals={"check": live.check, "claims": CLAIMS}, number=5_000))
            started = time.perf_counter()
            for _ in range(200):
                await client.exists("jti:0193b5d0-6f0c-7cc2-9c52-5a3f5c0f5d10")
            round_trips.append(time.perf_counter() - started)
    one, other = statistics.median(checks) / 5_000, statistics.median(round_trips) / 200
    return {"check_us": one * 1e6, "exists_us": other * 1e6, "times_faster": other / one}


def resident() -> int:
    """Bytes of memory that this process occupies."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def memory(number: int) -> dict[str, float]:
    """Measure what a rule adds to the resident memory."""
    live = RevocationList(MemoryTransport(retention=timedelta(days=1)))
    gc.collect()
    before = resident()
    for event in revocations(number):
        live.apply(event)
    gc.collect()
    return {"bytes_per_rule": (resident() - before) / number}


async def catch_up(number: int) -> dict[str, float]:
    """Compare catching up with reading and validating the same stream and doing nothing with it."""
    async with EmbeddedServer() as server, Redis.from_url(server.url) as client:
        pipeline = client.pipeline(transaction=False)
        for index, event in enumerate(revocations(number), start=1):
            pipeline.xadd("jwt:events", {b"event": encode(Envelope(event), source="bench")})
            if index % 5_000 == 0 or index == number:
                await pipeline.execute()
        bare, ours = [], []
        for _ in range(3):
            started, cursor, count = time.perf_counter(), b"0", 0
            while answer := await client.xread({"jwt:events": cursor}, count=1_000):
                entries = answer[0][1] if isinstance(answer, list) else next(iter(answer.values()))[0]
                for position, fields in entries:
                    Message.model_validate_json(fields[b"event"])
                    cursor = position
                    count += 1
            bare.append(time.perf_counter() - started)
            assert count == number
            started = time.perf_counter()
            async with RevocationList(RedisStream(server.url)) as live:
                ours.append(time.perf_counter() - started)
                assert live.stats.rules["token"] == number
    one, other = statistics.median(ours), statistics.median(bare)
    return {"catch_up_s": one, "bare_loop_s": other, "ratio": one / other}


async def latency(rate: int, seconds: float) -> dict[str, float]:
    """Measure from before the publish until another process answers "revoked", at so many publishes a second."""
    async with EmbeddedServer() as server:
        follower = subprocess.Popen(  # noqa: ASYNC220 - started once, before anything is measured
            [sys.executable, "-m", "bench.view", "--follow", server.url], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert follower.stdout is not None
        await asyncio.to_thread(follower.stdout.readline)
        sent: dict[str, float] = {}
        async with Publisher(RedisStream(server.url)) as publisher, asyncio.TaskGroup() as group:
            begun = time.monotonic()
            for index in range(int(rate * seconds)):
                await asyncio.sleep(max(0.0, begun + index / rate - time.monotonic()))
                event = TokenRevoked(token_id=f"{index:08x}")
                sent[event.token_id or ""] = time.monotonic()
                group.create_task(publisher.publish(event))
        async with Publisher(RedisStream(server.url)) as publisher:
            await publisher.publish(TokenRevoked(token_id="end"))
        output, _ = await asyncio.to_thread(follower.communicate)
    known: dict[str, float] = json.loads(output)
    delays = sorted((known[token] - at) * 1000 for token, at in sent.items())
    return {
        "p50_ms": delays[len(delays) // 2],
        "p99_ms": delays[int(len(delays) * 0.99)],
        "max_ms": delays[-1],
        "late": float(len(sent) - len(delays)),
    }


async def follow(url: str) -> None:
    """Note when each token is refused first, on the clock that all processes of a machine share."""
    known: dict[str, float] = {}
    ended = asyncio.Event()
    live = RevocationList(RedisStream(url))

    @live.on(TokenRevoked)
    def note(event: TokenRevoked) -> None:
        token = event.token_id or ""
        assert live.check({"jti": token}) is Verdict.REVOKED
        known[token] = time.monotonic()
        if token == "end":
            ended.set()

    async with live:
        print("ready", flush=True)
        await ended.wait()
    print(json.dumps(known))


LIMITS = {
    "check_us": (1.0, "at most"),
    "times_faster": (200.0, "at least"),
    "bytes_per_rule": (110.0, "at most"),
    "ratio": (2.5, "at most"),
    "p99_ms": (50.0, "at most"),
}


def kept(name: str, value: float) -> bool | None:
    """Whether a figure keeps its limit; ``None`` if it has none."""
    if name not in LIMITS:
        return None
    limit, sense = LIMITS[name]
    return value <= limit if sense == "at most" else value >= limit


async def measure(number: int) -> dict[str, float]:
    """Take all figures, one after the other."""
    figures = await check()
    figures |= await memory(number)
    figures |= await catch_up(number)
    return figures | await latency(1_000, 10.0)


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m bench.view", description=__doc__)
    parser.add_argument("--number", type=int, default=1_000_000, help="how many revocations")
    parser.add_argument("--json", action="store_true", help="print one line for machines")
    parser.add_argument("--follow", metavar="URL", help=argparse.SUPPRESS)
    given: Any = parser.parse_args()
    if given.follow:
        asyncio.run(follow(given.follow))
        return 0
    figures = asyncio.run(measure(given.number))
    if given.json:
        print(json.dumps(figures))
    else:
        table = Table("figure", "measured", "limit", "")
        for name, value in figures.items():
            limit = f"{LIMITS[name][1]} {LIMITS[name][0]:g}" if name in LIMITS else ""
            table.add_row(name, f"{value:,.2f}", limit, {None: "", True: "✓", False: "✗"}[kept(name, value)])
        Console().print(table)
    return 0 if all(kept(name, value) is not False for name, value in figures.items()) else 1


if __name__ == "__main__":
    sys.exit(main())
