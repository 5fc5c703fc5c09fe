"""What fan-out costs the server, and how late events arrive: measured, and as a model.

``python -m bench.fanout`` measures some points, each with readers that pace themselves and with readers that do not, in
turns, and compares them with the model. ``python -m bench.fanout 100x1000 10x10`` measures these, and
``simulated:1000x100`` does so with readers that look at nothing.
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
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.fleet import processor_time
from jwt_events.embedded import EmbeddedServer
from jwt_events.transport._stream.pacing import AIM, MAX_SPACING, MIN_RATE

PER_PUBLISH = 30e-6
"""Seconds of processor of the server for each event that is published alone."""

PER_WAKEUP = 20e-6
"""The same for each time that a reader is woken and asks again."""

PER_DELIVERY = 0.6e-6
"""The same for each event that is sent to a reader."""

PER_AUDIT = 30e-6
"""The same for each proof that a reader asks for, once a second."""

SATURATED = 0.8
"""The part of a core above which readers wait for the server."""

ROUNDS = int(os.environ.get("R", 3))
SECONDS = 6.0
SETTLED = 8.0  # seconds after which readers have found their spacing
POINTS = ("10x10", "100x10", "10x1000", "100x100", "100x1000", "300x1000", "simulated:100x1000", "simulated:1000x100")


@dataclass(frozen=True)
class Cost:
    """What readers of a stream cost.

    Attributes:
        core: the part of a core that the server spends.
        wakeups: how often a second each reader is woken.
        p50: milliseconds from a publish until half of the readers have the event.
        p99: the same for 99 of a hundred.
    """

    core: float
    wakeups: float
    p50: float
    p99: float


def model(readers: int, rate: float, *, paced: bool) -> Cost:
    """Return what readers of so many events a second cost one server, by the formula in ``docs/operations.md``."""
    fixed = rate * PER_PUBLISH + readers * (rate * PER_DELIVERY + PER_AUDIT)
    least = readers * PER_WAKEUP / max(SATURATED - fixed, 1e-9)  # seconds in which a busy server wakes each once
    spacing = 0.0
    if paced and rate > MIN_RATE and fixed + readers * rate * PER_WAKEUP > AIM:
        spacing = min(MAX_SPACING, readers * PER_WAKEUP / max(AIM - fixed, 1e-9))
    between = max(1 / rate, spacing, least)
    waits = max(spacing, least) if between > 1 / rate else 0.0
    once = readers * PER_WAKEUP  # an event that comes alone reaches the last reader after so long
    return Cost(fixed + readers * PER_WAKEUP / between, 1 / between, 1e3 * (waits + once) / 2, 1e3 * (waits + once))


@dataclass(frozen=True)
class Point:
    """Readers and a rate to measure.

    Attributes:
        readers: how many readers.
        rate: events a second.
        simulated: whether the readers are simulated.
    """

    readers: int
    rate: float
    simulated: bool = False

    @classmethod
    def parse(cls, text: str) -> Point:
        """Parse what the command line says."""
        kind, _, numbers = text.rpartition(":")
        readers, rate = numbers.split("x")
        return cls(int(readers), float(rate), kind == "simulated")

    @property
    def processes(self) -> int:
        """How many processes hold the readers."""
        return 1 if self.simulated else min(4, -(-self.readers // 10))


async def _start(stack: AsyncExitStack, *arguments: str) -> Process:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.fanout_readers", *arguments),
        stdin=PIPE, stdout=PIPE, cwd=Path(__file__).parents[1], limit=2**22,
    )  # fmt: skip
    stack.push_async_callback(process.wait)
    stack.callback(process.kill)
    return process


async def measure(point: Point, *, paced: bool) -> Cost:
    """Measure one point once, on a server of its own."""
    async with EmbeddedServer(port=0) as server, AsyncExitStack() as stack:
        kind, how = "simulate" if point.simulated else "read", "paced" if paced else "unpaced"
        count, rest = divmod(point.readers, point.processes)
        counts = [count + (number < rest) for number in range(point.processes)]
        processes = [await _start(stack, kind, server.url, str(count), how) for count in counts]
        for process in processes:
            await _ask(process, "")
        await _start(stack, "publish", server.url, str(point.rate), how)
        await asyncio.sleep(SETTLED)
        for process in processes:
            process.stdin.write(b"begin\n")  # type: ignore[union-attr]  # it is a pipe
        began, spent = time.monotonic(), processor_time(server.pid)
        await asyncio.sleep(SECONDS)
        took, spent = time.monotonic() - began, processor_time(server.pid) - spent
        found = [json.loads(await _ask(process, "end\n")) for process in processes]
    latencies = sorted(latency for one in found for latency in one["latencies"])
    wakeups = sum(one["wakeups"] for one in found) / took / point.readers
    p50, p99 = (latencies[int(len(latencies) * part)] for part in (0.5, 0.99))
    return Cost(spent / took, wakeups, p50, p99)


async def _ask(process: Process, line: str) -> bytes:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(line.encode())
    return await process.stdout.readline()


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
        told[f"{name}, by the model"] = _rounded(list(vars(model(point.readers, point.rate, paced=paced)).values()))
    ratios = [paced.core / unpaced.core for unpaced, paced in zip(found[False], found[True], strict=True)]
    return told | {"ratio": {"median": round(median(ratios), 3), "worst": round(max(ratios), 3)}}


def _rounded(values: Sequence[float]) -> dict[str, float]:
    return {name: float(f"{value:.3g}") for name, value in zip(Cost.__annotations__, values, strict=True)}


async def main(points: Sequence[str]) -> None:
    """Measure, and print what was found."""
    for text in points or POINTS:
        found = await compare(Point.parse(text))
        sys.stdout.write(f"{text}, load {os.getloadavg()[0]:.1f}\n")
        for name, values in found.items():
            sys.stdout.write(f"    {name:24}{json.dumps(values)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
