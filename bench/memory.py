"""Memory workloads: what Python allocates, and what the process holds."""

from __future__ import annotations

import asyncio
import gc
import statistics
import tracemalloc
from pathlib import Path

from bench.clients.base import Client
from bench.run import Run, RunParams, Workload
from bench.subscribers import all_published


def allocation(client: Client, *, count: int = 500) -> Workload:
    """Measure the peak of bytes that Python allocates during one publish, and how many of them it retains."""

    async def workload(params: RunParams) -> Run:
        items = [client.item(index) for index in range(count)]
        peaks: list[int] = []
        async with all_published(client, params, 2 * count), client.publishing(params.url, params.name) as send:
            for item in items:
                await send(item)  # warm-up: what is allocated once is allocated now
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
                retained = tracemalloc.get_traced_memory()[0] - first
            finally:
                tracemalloc.stop()
        return Run(statistics.median(peaks), also={"retained": retained / count})

    return workload


def peak(measured: Workload) -> Workload:
    """Measure the peak of resident memory during a workload, in megabytes above that before it. Linux only."""

    async def workload(params: RunParams) -> Run:
        gc.collect()
        await asyncio.to_thread(Path("/proc/self/clear_refs").write_text, "5")  # resets the peak to the present size
        before = _max_resident()
        await measured(params)
        return Run(_max_resident() - before)

    return workload


def _max_resident() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1_024
