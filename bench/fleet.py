"""How long a publisher waits until a fleet obeys, and what being registered costs the server.

The row ``fleet`` opens a hundred lists in twenty processes, and publishes events with ``in_force=Fleet()``, one after
the other. ``python -m bench.fleet`` does so, too; then a thousand simulated instances announce themselves as often as
lists with ``max_staleness=5`` do, and the processor time of the server is measured.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

from redis.asyncio import Redis

from bench.programs import server_time
from bench.run import Failed, Run, RunParams, Workload, time_limit
from jwt_events import Fleet, Publisher, Receipt, RedisStream, RevocationList, TokenRevoked
from jwt_events.embedded import EmbeddedServer
from jwt_events.fleet import Announcement

PROCESSES = 20
LISTS = 5
EVENTS = 100
SIMULATED = 1_000
BEATS_PER_SECOND = 4 / 5.0
SECONDS = 10.0

_BETWEEN = 0.05  # seconds between two events: then the lists are idle again

_KEY = "bench:fleet"
_SAID = Announcement("bench", "i", "0" * 12, "1700000000000-0", 5.0, False, "fresh", 0.1, 1.7e9, "0.1.0")


async def hold(url: str, key: str, number: int) -> None:
    """Keep lists open until the standard input ends."""
    async with AsyncExitStack() as stack:
        for index in range(LISTS):
            revocations = RevocationList(RedisStream(url, key), service="bench", instance=f"{number}-{index}")
            await stack.enter_async_context(revocations)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


async def _start(stack: AsyncExitStack, url: str, key: str, number: int) -> Process:
    program = sys.executable, "-m", "bench.fleet", url, key, str(number)
    process = await asyncio.create_subprocess_exec(*program, stdin=PIPE, stdout=PIPE, cwd=Path(__file__).parents[1])
    stack.push_async_callback(process.communicate, b"")
    return process


async def _spent(redis: Redis, pids: Sequence[int]) -> float:
    """Return the seconds of processor time that this process, the server and others have used."""
    return time.process_time() + await server_time(redis) + sum(map(processor_time, pids))


async def measure_barrier(url: str, key: str, events: int) -> dict[str, float]:
    """Return the milliseconds of a publish alone, and of one that waits for the fleet; and its processor time.

    The processor time is that of all processes together, beats included; on a busy machine it says more.
    """
    async with AsyncExitStack() as stack:
        processes = [await _start(stack, url, key, number) for number in range(PROCESSES)]
        for process in processes:
            assert process.stdout is not None
            await process.stdout.readline()
        pids = [process.pid for process in processes]
        redis = await stack.enter_async_context(Redis.from_url(url))
        publisher = await stack.enter_async_context(Publisher(RedisStream(url, key)))
        found = {}
        for name, in_force in (("alone", None), ("waited", Fleet())):
            times, spent = [], await _spent(redis, pids)
            for number in range(events):
                began = time.perf_counter()
                receipt = await publisher.publish(TokenRevoked(token_id=f"t{number}"), in_force=in_force)
                times.append((time.perf_counter() - began) * 1e3)
                if in_force is not None and len(_acknowledged(receipt)) < PROCESSES * LISTS:
                    raise Failed("lists did not acknowledge")
                await asyncio.sleep(_BETWEEN)
            times.sort()
            found |= {f"{name}_p50": times[len(times) // 2], f"{name}_p99": times[int(len(times) * 0.99)]}
            found[f"{name}_cpu"] = (await _spent(redis, pids) - spent) / events * 1e3
    return found


def _acknowledged(receipt: Receipt) -> Sequence[str]:
    return () if receipt.propagation is None else receipt.propagation.acknowledged


def barrier(figure: str) -> Workload:
    """Publish one event after the other, and wait for each until the fleet obeys; the value is in milliseconds."""

    async def workload(params: RunParams) -> Run:
        async with time_limit(params):
            found = await measure_barrier(params.url, params.name, params.scaled(EVENTS, minimum=20))
        also = {"publish alone": found["alone_p50"], "processor time": found["waited_cpu"]}
        return Run(found[f"waited_{figure}"], also=also)

    return workload


def processor_time(pid: int) -> float:
    """Return the seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure_beats(server: EmbeddedServer) -> float:
    """Return the part of a core that the server spends on the beats of many instances."""
    async with RedisStream(server.url, _KEY).registry() as registry:
        began, spent = time.monotonic(), processor_time(server.pid)
        count = 0
        while (passed := time.monotonic() - began) < SECONDS:
            while count < passed * SIMULATED * BEATS_PER_SECOND:
                said = replace(_SAID, instance=f"i{count % SIMULATED}")
                await registry.announce(said.field, said.encode(), within=5.0)
                count += 1
            await asyncio.sleep(0.001)
    return (processor_time(server.pid) - spent) / SECONDS


async def main() -> None:
    """Measure both, and print them."""
    async with EmbeddedServer(port=0) as server:  # over TCP, as in production
        found = await measure_barrier(server.url, _KEY, EVENTS)
        found["server_part_of_1000"] = await measure_beats(server)
    sys.stdout.write(json.dumps({name: round(value, 4) for name, value in found.items()}) + "\n")


if __name__ == "__main__":
    asyncio.run(hold(*sys.argv[1:3], int(sys.argv[3])) if len(sys.argv) > 1 else main())
