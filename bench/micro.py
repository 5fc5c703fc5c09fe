"""Micro benchmarks of a revocation list and of imports, compared with a bare operation rather than a library."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
import timeit
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from redis.asyncio import Redis

from bench import load
from bench.clients.base import OnEvent
from bench.clients.ours import Ours
from bench.clients.raw import entries
from bench.run import Failed, Run, RunParams, Stopwatch, Workload, time_limit
from jwt_events import KeyRotated, MemoryTransport, RedisStream, RevocationList, TokenRevoked, Verdict
from jwt_events.envelope import Envelope, decode, encode

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

_CHECKED = ("jti", "sub", "sid", "client_id", "azp", "kid")  # what a rule can name

_ENVELOPE = Envelope(
    TokenRevoked(
        token_id="0193b5d0-6f0c-7cc2-9c52-5a3f5c0f5d10",
        user_id="user-4711",
        expires_at=1_795_000_900,
        reason="logout",
    )
)


class Revocations(Ours):
    """A revocation list as a client: an event counts as received when its token is rejected."""

    def __init__(self) -> None:
        super().__init__("stream")
        self.name = "jwt_events RevocationList"

    @asynccontextmanager
    async def listening(self, url: str, to: str, on_event: OnEvent, *, group: str | None = None) -> AsyncIterator[None]:
        """Run a revocation list whose handler checks each revoked token."""
        live = RevocationList(RedisStream(url, key=to, retention=load.RETENTION))

        @live.on(TokenRevoked)
        def handle(event: TokenRevoked) -> None:
            if live.check({"jti": event.token_id}) is not Verdict.REVOKED:
                raise Failed("a revoked token was not rejected")
            on_event(event.token_id or "")

        async with live:
            yield


async def check(params: RunParams) -> Run:
    """Time one check, with rules of every kind present."""
    async with RevocationList(MemoryTransport()) as live:
        for index in range(1_000):
            for field in ("token_id", "user_id", "session_id", "client_id"):
                live.apply(TokenRevoked.model_validate({field: f"{field}-{index}"}))
            live.apply(KeyRotated(key_id=f"key-{index}", compromised=True))
        return Run(_time_of_check(live, params))


async def check_claims(params: RunParams) -> Run:
    """Time one check, with a hundred rules about the values of three other claims."""
    async with RevocationList(MemoryTransport()) as live:
        for index in range(100):
            live.apply(TokenRevoked(claims={("iss", "aud", "org_id")[index % 3]: f"value-{index}"}))
        return Run(_time_of_check(live, params))


async def check_bare(params: RunParams) -> Run:
    """Time what a check cannot do without: some claims looked up in a set, and a look at the clock."""
    revoked = {f"{claim}-{index}" for claim in _CHECKED for index in range(1_000)}
    until = time.monotonic() + 3_600

    def is_revoked(claims: Mapping[str, object]) -> bool:
        for name in _CHECKED:
            value = claims.get(name)
            if isinstance(value, str) and value in revoked:
                return True
        return time.monotonic() > until

    return Run(_time_of("f(x)", is_revoked, CLAIMS, params))


def _time_of_check(live: RevocationList, params: RunParams) -> float:
    """Return the microseconds that a check takes."""
    if live.check(CLAIMS) is not Verdict.ALLOW:
        raise Failed("a token that is not revoked was rejected")
    return _time_of("f(x)", live.check, CLAIMS, params)


async def encode_one(params: RunParams) -> Run:
    """Time how long an event takes to become the bytes that travel."""
    return Run(_time_of("f(x, source='bench')", encode, _ENVELOPE, params))


async def decode_one(params: RunParams) -> Run:
    """Time how long the bytes that travelled take to become an event."""
    return Run(_time_of("f(x)", decode, encode(_ENVELOPE, source="bench"), params))


async def validate_one(params: RunParams) -> Run:
    """Time pydantic, with a model of the same fields."""
    payload = encode(_ENVELOPE, source="bench")
    return Run(_time_of("f(x)", load.Message.model_validate_json, payload, params))


def _time_of(statement: str, f: object, x: object, params: RunParams) -> float:
    """Return the microseconds that a statement about two names takes: the least of ten, as what disturbs only adds.

    All run on one processor: two may differ, for minutes, by what other machines do on their second threads.
    """
    count, allowed = params.scaled(10_000), os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        return min(timeit.repeat(statement, globals={"f": f, "x": x}, number=count, repeat=10)) / count * 1e6
    finally:
        os.sched_setaffinity(0, allowed)


async def exists(params: RunParams) -> Run:
    """Time one EXISTS command over the network."""
    count = params.scaled(1_000)
    async with Redis.from_url(params.url) as client:
        await client.ping()
        with Stopwatch() as watch:
            for _ in range(count):
                await client.exists("jti:0193b5d0-6f0c-7cc2-9c52-5a3f5c0f5d10")
    return watch.run(count)


def catch_up(count: int) -> Workload:
    """Enter a revocation list on a stream that retains `count` revocations."""

    async def workload(params: RunParams) -> Run:
        revoked = params.scaled(count)
        async with Redis.from_url(params.url) as client:
            await load.fill(client, params.shared, revoked)
        async with time_limit(params):
            with Stopwatch() as watch:
                async with RevocationList(RedisStream(params.url, key=params.shared, retention=load.RETENTION)) as live:
                    watch.stop()
                    if live.stats.rules["token"] != revoked:
                        raise Failed(f"{revoked - live.stats.rules['token']:,} of {revoked:,} rules are missing")
                    return watch.run(revoked)

    return workload


def read(count: int) -> Workload:
    """Read and validate the same stream without applying it."""

    async def workload(params: RunParams) -> Run:
        revoked, cursor, received = params.scaled(count), b"0", 0
        async with Redis.from_url(params.url) as client:
            await load.fill(client, params.shared, revoked)
            with Stopwatch() as watch:
                while batch := entries(await client.xread({params.shared: cursor}, count=1_000)):
                    for _, fields in batch:
                        load.Message.model_validate_json(fields[b"event"])
                    cursor, received = batch[-1][0], received + len(batch)
        if received != revoked:
            raise Failed(f"{revoked - received:,} of {revoked:,} events are missing")
        return watch.run(revoked)

    return workload


def listen(count: int) -> Workload:
    """Receive and validate `count` events from a channel.

    The server has sent them all before the clock starts, as it has the entries of a stream.
    """

    async def workload(params: RunParams) -> Run:
        events, received = params.scaled(count), 0
        async with Redis.from_url(params.url) as client, client.pubsub() as pubsub:
            await pubsub.subscribe(params.name)
            await pubsub.get_message(timeout=5.0)
            await load.make(client, params.name, events, "")
            async with time_limit(params):
                with Stopwatch() as watch:
                    async for message in pubsub.listen():
                        load.Message.model_validate_json(message["data"])
                        received += 1
                        if received == events:
                            break
        return watch.run(events)

    return workload


def keep(count: int) -> Workload:
    """Measure the bytes of memory that one rule occupies in a revocation list."""

    async def workload(params: RunParams) -> Run:
        live = RevocationList(MemoryTransport(retention=load.RETENTION))
        before = _resident()
        for index in range(params.scaled(count)):
            live.apply(load.event(index))
        return Run((_resident() - before) / params.scaled(count))

    return workload


def keep_bare(count: int) -> Workload:
    """Measure the bytes of memory that one entry of a `dict` from text to float occupies."""

    async def workload(params: RunParams) -> Run:
        rules: dict[str, float] = {}
        before = _resident()
        for index in range(params.scaled(count)):
            rules[f"{index:032x}"] = time.time() + index
        return Run((_resident() - before) / len(rules))

    return workload


def _resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def importing(modules: str) -> Workload:
    """Measure the milliseconds that an import takes in a new interpreter, without the interpreter's own start."""
    program = f"import time; began = time.perf_counter(); import {modules}; print(time.perf_counter() - began)"

    async def workload(params: RunParams) -> Run:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=PIPE)
        output, _ = await process.communicate()
        if process.returncode:
            raise Failed("could not be imported")
        return Run(float(output) * 1_000)

    return workload
