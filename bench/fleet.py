"""How long a publisher waits until a fleet obeys, and what being registered costs the server.

``python -m bench.fleet`` opens a hundred lists in twenty processes, and publishes events with ``in_force=Fleet()``, one
after the other. Then a thousand simulated instances announce themselves as often as lists with ``max_staleness=5`` do,
and the processor time of the server is measured.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from asyncio.subprocess import PIPE, Process
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

from jwt_events import Fleet, Publisher, RedisStream, RevocationList, TokenRevoked
from jwt_events.embedded import EmbeddedServer
from jwt_events.fleet import Announcement

PROCESSES = 20
LISTS = 5
EVENTS = 200
SIMULATED = 1_000
BEATS_PER_SECOND = 4 / 5.0
SECONDS = 10.0

_KEY = "bench:fleet"
_SAID = Announcement("bench", "i", "0" * 12, "1700000000000-0", 5.0, False, "fresh", 0.1, 1.7e9, "0.1.0")


async def hold(url: str, number: int) -> None:
    """Keep lists open until the standard input ends."""
    async with AsyncExitStack() as stack:
        for index in range(LISTS):
            revocations = RevocationList(RedisStream(url, _KEY), service="bench", instance=f"{number}-{index}")
            await stack.enter_async_context(revocations)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


async def _start(stack: AsyncExitStack, url: str, number: int) -> Process:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.fleet", url, str(number)), stdin=PIPE, stdout=PIPE, cwd=Path(__file__).parents[1]
    )
    stack.push_async_callback(process.communicate, b"")
    assert process.stdout is not None
    await process.stdout.readline()
    return process


async def measure_barrier(url: str) -> dict[str, float]:
    """Return the milliseconds of a publish alone, and of one that waits for the fleet."""
    async with AsyncExitStack() as stack:
        for number in range(PROCESSES):
            await _start(stack, url, number)
        publisher = await stack.enter_async_context(Publisher(RedisStream(url, _KEY)))
        alone, waited = [], []
        for number in range(EVENTS):
            for in_force, times in ((None, alone), (Fleet(), waited)):
                began = time.perf_counter()
                receipt = await publisher.publish(TokenRevoked(token_id=f"t{number}"), in_force=in_force)
                times.append((time.perf_counter() - began) * 1e3)
            assert receipt.propagation is not None
            assert len(receipt.propagation.acknowledged) == PROCESSES * LISTS
            await asyncio.sleep(0.05)
    found = {}
    for name, times in (("alone", sorted(alone)), ("waited", sorted(waited))):
        found |= {f"{name}_p50": times[len(times) // 2], f"{name}_p99": times[int(len(times) * 0.99)]}
    return found


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
    async with EmbeddedServer() as server:
        found = await measure_barrier(server.url)
        found["server_part_of_1000"] = await measure_beats(server)
    sys.stdout.write(json.dumps({name: round(value, 4) for name, value in found.items()}) + "\n")


if __name__ == "__main__":
    asyncio.run(hold(sys.argv[1], int(sys.argv[2])) if len(sys.argv) > 1 else main())
