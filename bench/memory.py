"""How much memory work needs: what Python allocates, and what the kernel gives."""

from __future__ import annotations

import asyncio
import gc
import statistics
import tracemalloc
from pathlib import Path

from bench.clients.base import Client
from bench.crowd import published
from bench.run import Place, Run, Work


def allocation(client: Client, *, number: int = 500) -> Work:
    """Bytes that Python allocates during one publish, at most at a time; and what of them stays."""

    async def work(place: Place) -> Run:
        items = [client.item(index) for index in range(number)]
        peaks: list[int] = []
        async with published(client, place, 2 * number), client.publishing(place.url, place.name) as send:
            for item in items:
                await send(item)  # whatever is made once is made now
            gc.collect()
            tracemalloc.start()
            try:
                first = tracemalloc.get_traced_memory()[0]
                for item in items:
                    tracemalloc.reset_peak()
                    before = tracemalloc.get_traced_memory()[0]
                    await send(item)
                    peaks.append(tracemalloc.get_traced_memory()[1] - before)
                gc.collect()
                stays = tracemalloc.get_traced_memory()[0] - first
            finally:
                tracemalloc.stop()
        return Run(statistics.median(peaks), also={"stays": stays / number})

    return work


def peak(of: Work) -> Work:
    """Megabytes that the process needs at most for some work, beyond what it needs before. Linux only."""

    async def work(place: Place) -> Run:
        gc.collect()
        await asyncio.to_thread(Path("/proc/self/clear_refs").write_text, "5")  # makes the present the peak
        before = _most_resident()
        await of(place)
        return Run(_most_resident() - before)

    return work


def _most_resident() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1_024
