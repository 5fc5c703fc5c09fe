"""Work that compares us with a bare thing, not with other libraries: lists of revocations, and importing."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
import timeit
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from redis.asyncio import Redis

from bench import load
from bench.clients.base import Arrived
from bench.clients.ours import Ours
from bench.clients.raw import entries
from bench.run import Failed, Place, Run, Stopwatch, Work, limited
from jwt_events import KeyRotated, MemoryTransport, RedisStream, RevocationList, TokenRevoked, Verdict

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


class Revocations(Ours):
    """A revocation list that follows: an event has arrived when its token is refused."""

    def __init__(self) -> None:
        super().__init__("stream")
        self.name = "jwt_events RevocationList"

    @asynccontextmanager
    async def listening(self, url: str, to: str, arrived: Arrived, *, group: str | None = None) -> AsyncIterator[None]:
        """A list, with a handler that asks it."""
        live = RevocationList(RedisStream(url, key=to, retention=load.RETENTION))

        @live.on(TokenRevoked)
        def note(event: TokenRevoked) -> None:
            if live.check({"jti": event.token_id}) is not Verdict.REVOKED:
                raise Failed("a revoked token was not refused")
            arrived(event.token_id or "")

        async with live:
            yield


async def check(place: Place) -> Run:
    """One check, with rules of every kind present."""
    async with RevocationList(MemoryTransport()) as live:
        for index in range(1_000):
            for field in ("token_id", "user_id", "session_id", "client_id"):
                live.apply(TokenRevoked.model_validate({field: f"{field}-{index}"}))
            live.apply(KeyRotated(key_id=f"key-{index}", compromised=True))
        if live.check(CLAIMS) is not Verdict.ALLOW:
            raise Failed("a token that nobody revoked was refused")
        number = place.many(50_000)
        seconds = timeit.timeit("check(claims)", globals={"check": live.check, "claims": CLAIMS}, number=number)
    return Run(seconds / number * 1e6)


async def exists(place: Place) -> Run:
    """One EXISTS over the network."""
    number = place.many(1_000)
    async with Redis.from_url(place.url) as client:
        await client.ping()
        with Stopwatch() as watch:
            for _ in range(number):
                await client.exists("jti:0193b5d0-6f0c-7cc2-9c52-5a3f5c0f5d10")
    return watch.run(number)


def catch_up(number: int) -> Work:
    """Enter a revocation list whose stream remembers so many."""

    async def work(place: Place) -> Run:
        revoked = place.many(number)
        async with Redis.from_url(place.url) as client:
            await load.fill(client, place.shared, revoked)
        async with limited(place):
            with Stopwatch() as watch:
                async with RevocationList(RedisStream(place.url, key=place.shared, retention=load.RETENTION)) as live:
                    watch.stop()
                    if live.stats.rules["token"] != revoked:
                        raise Failed(f"{revoked - live.stats.rules['token']:,} of {revoked:,} rules are missing")
                    return watch.run(revoked)

    return work


def read(number: int) -> Work:
    """Read and validate the same stream, and do nothing with it."""

    async def work(place: Place) -> Run:
        revoked, cursor, count = place.many(number), b"0", 0
        async with Redis.from_url(place.url) as client:
            await load.fill(client, place.shared, revoked)
            with Stopwatch() as watch:
                while page := entries(await client.xread({place.shared: cursor}, count=1_000)):
                    for _, fields in page:
                        load.Message.model_validate_json(fields[b"event"])
                    cursor, count = page[-1][0], count + len(page)
        if count != revoked:
            raise Failed(f"{revoked - count:,} of {revoked:,} events are missing")
        return watch.run(revoked)

    return work


def listen(number: int) -> Work:
    """Read and validate as many from a channel; the server has them ready, as it has the entries of a stream."""

    async def work(place: Place) -> Run:
        events, count = place.many(number), 0
        async with Redis.from_url(place.url) as client, client.pubsub() as pubsub:
            await pubsub.subscribe(place.name)
            await pubsub.get_message(timeout=5.0)
            await load.make(client, place.name, events, "")
            async with limited(place):
                with Stopwatch() as watch:
                    async for message in pubsub.listen():
                        load.Message.model_validate_json(message["data"])
                        count += 1
                        if count == events:
                            break
        return watch.run(events)

    return work


def keep(number: int) -> Work:
    """Bytes of memory that one rule occupies in a revocation list."""

    async def work(place: Place) -> Run:
        live = RevocationList(MemoryTransport(retention=load.RETENTION))
        before = _resident()
        for index in range(place.many(number)):
            live.apply(load.event(index))
        return Run((_resident() - before) / place.many(number))

    return work


def keep_bare(number: int) -> Work:
    """Bytes of memory that it takes to map a text to a float."""

    async def work(place: Place) -> Run:
        rules: dict[str, float] = {}
        before = _resident()
        for index in range(place.many(number)):
            rules[f"{index:032x}"] = time.time() + index
        return Run((_resident() - before) / len(rules))

    return work


def _resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def importing(modules: str) -> Work:
    """Milliseconds that an import takes in a new interpreter, which itself does not count."""
    program = f"import time; began = time.perf_counter(); import {modules}; print(time.perf_counter() - began)"

    async def work(place: Place) -> Run:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=PIPE)
        output, _ = await process.communicate()
        if process.returncode:
            raise Failed("could not be imported")
        return Run(float(output) * 1_000)

    return work
