"""What fan-out costs the server, and how late events arrive: measured, and as a model.

``python -m bench.fanout`` measures some points, each with readers that pace themselves and with readers that do not, in
turns, and compares them with the model. ``python -m bench.fanout 100x1000 10x10`` measures these,
``simulated:1000x100`` does so with readers that look at nothing, ``300x1000/2`` with two replicas; ``frozen:300x5``
freezes one of two replicas that lists read. With ``--table`` it prints what the model says, and measures nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from statistics import median

from bench import fanout_frozen
from bench.fanout_model import Cost, fan_out, table
from bench.fleet import processor_time
from bench.programs import ask, start_program, start_replica
from jwt_events.embedded import EmbeddedServer

_READERS = "bench.fanout_readers"

ROUNDS = 3
SECONDS = 5.0
ALONE = 2.0  # seconds in which the server only takes what is published
SETTLED = 5.0  # seconds after which readers have found their spacing
POINTS = (
    "10x10",
    "100x10",
    "10x1000",
    "100x100",
    "100x1000",
    "300x1000",
    "simulated:100x1000",
    "simulated:1000x100",
    "300x1000/2",
)


@dataclass(frozen=True)
class Point:
    """Readers and a rate to measure.

    Attributes:
        readers: how many readers.
        rate: events a second.
        simulated: whether the readers are simulated.
        replicas: how many replicas they read from; 0 for the primary.
    """

    readers: int
    rate: float
    simulated: bool = False
    replicas: int = 0

    @classmethod
    def parse(cls, text: str) -> Point:
        """Parse what the command line says."""
        kind, _, numbers = text.rpartition(":")
        numbers, _, replicas = numbers.partition("/")
        readers, rate = numbers.split("x")
        return cls(int(readers), float(rate), kind == "simulated", int(replicas or 0))

    @property
    def processes(self) -> int:
        """How many processes hold the readers."""
        return 1 if self.simulated else min(4, -(-self.readers // 10))


async def measure(point: Point, *, paced: bool) -> Cost:
    """Measure one point once, on a server of its own."""
    async with EmbeddedServer(port=0) as server, AsyncExitStack() as stack:
        replicas = [await start_replica(stack, server) for _ in range(point.replicas)]
        kind, how = "simulate" if point.simulated else "read", "paced" if paced else "unpaced"
        source = "replica" if replicas else "primary"
        count, rest = divmod(point.readers, point.processes)
        counts = [count + (number < rest) for number in range(point.processes)]
        await ask(await start_program(stack, _READERS, "publish", server.url, str(point.rate), how, source))
        await asyncio.sleep(1.0)
        (writes,), _ = await _spent(ALONE, server)
        processes = [
            await start_program(stack, _READERS, kind, server.url, str(count), how, source) for count in counts
        ]
        for process in processes:
            await ask(process)
        await asyncio.sleep(SETTLED)
        for process in processes:
            process.stdin.write(b"begin\n")  # type: ignore[union-attr]  # it is a pipe
        (primary, *others), took = await _spent(SECONDS, server, *replicas)
        found = [json.loads(await ask(process, "end\n")) for process in processes]
    latencies = sorted(latency for one in found for latency in one["latencies"])
    wakeups, events = (sum(one[name] for one in found) / took / point.readers for name in ("wakeups", "events"))
    p50, p99 = (latencies[int(len(latencies) * part)] for part in (0.5, 0.99))
    return Cost(max(others, default=primary), wakeups, p50, p99, events, primary, writes)


async def _spent(seconds: float, *servers: EmbeddedServer) -> tuple[list[float], float]:
    """Return which part of a core each server spends, and how long it was looked at."""
    began, before = time.monotonic(), [processor_time(server.pid) for server in servers]
    await asyncio.sleep(seconds)
    took = time.monotonic() - began
    return [(processor_time(one.pid) - then) / took for one, then in zip(servers, before, strict=True)], took


async def compare(point: Point) -> dict[str, dict[str, float]]:
    """Measure one point with and without pauses, in turns; return the medians, and what the model says."""
    found: dict[bool, list[Cost]] = {False: [], True: []}
    for _ in range(ROUNDS):
        for paced, costs in found.items():
            costs.append(await measure(point, paced=paced))
    told = {}
    for paced, costs in found.items():
        name = "paced" if paced else "unpaced"
        told[name] = _rounded([median(getattr(cost, field) for cost in costs) for field in Cost.__annotations__])
        told[f"{name}, by the model"] = _rounded(
            list(vars(fan_out(point.readers, point.rate, paced=paced, replicas=point.replicas)).values())
        )
    pairs = list(zip(found[False], found[True], strict=True))
    if point.replicas:
        return told | {"primary apart from writes": _spread([cost.primary - cost.writes for cost in found[True]])}
    return told | {
        "ratio": _spread([paced.core / unpaced.core for unpaced, paced in pairs]),
        "ratio if none lagged": _spread(
            [
                paced.at(paced.wakeups, point.rate, point.readers) / unpaced.at(point.rate, point.rate, point.readers)
                for unpaced, paced in pairs
            ]
        ),
        "ratio apart from writes": _spread([paced.reading / unpaced.reading for unpaced, paced in pairs]),
    }


def _spread(found: Sequence[float]) -> dict[str, float]:
    return {"median": round(median(found), 3), "worst": round(max(found), 3)}


def _rounded(values: Sequence[float]) -> dict[str, float]:
    return {name: float(f"{value:.3g}") for name, value in zip(Cost.__annotations__, values, strict=True)}


async def main(points: Sequence[str]) -> None:
    """Measure, and print what was found."""
    for text in points:
        point = Point.parse(text)
        if text.startswith("frozen:"):
            frozen = await fanout_frozen.measure(point.readers, point.rate)
            sys.stdout.write(f"{text}, load {os.getloadavg()[0]:.1f}\n    {json.dumps(frozen)}\n")
            continue
        found = await compare(point)
        sys.stdout.write(f"{text}, load {os.getloadavg()[0]:.1f}\n")
        for name, values in found.items():
            sys.stdout.write(f"    {name:24}{json.dumps(values)}\n")
        sys.stdout.flush()


def _checked(text: str) -> str:
    Point.parse(text)
    return text


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        "python -m bench.fanout", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("points", nargs="*", type=_checked, default=POINTS, metavar="POINT", help="such as 100x1000")
    parser.add_argument("--table", action="store_true", help="print what the model says")
    if (arguments := parser.parse_args()).table:
        sys.stdout.write("\n".join(table()) + "\n")
    else:
        asyncio.run(main(arguments.points))
