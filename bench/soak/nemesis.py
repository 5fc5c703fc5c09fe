"""The nemesis: injects faults."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack

from bench.soak.history import HistoryWriter
from bench.soak.plan import ROLES, Fault
from bench.soak.processes import Worker, freeze
from bench.soak.topology import Inject, Topology

STOP_WITHIN = 15.0
"""Seconds within which a subscriber must shut down after SIGTERM; it may drain for three."""


class Nemesis:
    """Injects faults, one at a time for each target.

    Args:
        topology: the servers.
        workers: the processes, by name.
        writer: records the beginning and the end of every fault.
        wait_ready: returns when a restarted worker is ready.
    """

    def __init__(
        self,
        topology: Topology,
        workers: Mapping[str, Worker],
        writer: HistoryWriter,
        wait_ready: Callable[[Worker], Awaitable[None]],
    ) -> None:
        self._topology = topology
        self._workers = workers
        self._writer = writer
        self._wait_ready = wait_ready
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._actions: dict[str, Inject] = {
            **topology.faults,
            "kill all": self._kill_all,
            **{f"kill {role}": self._kill_worker for role in ROLES},
            **{f"stop {role}": self._stop_worker for role in ROLES},
            **{f"freeze {role}": self._freeze_worker for role in ROLES},
        }

    async def inject(self, fault: Fault) -> None:
        """Inject a fault; return when its cause has ended, which may be before its effects have."""
        names = ("server", *self._workers) if fault.target == "all" else (fault.target,)
        async with AsyncExitStack() as stack:
            for name in names:  # always in this order, so that two faults cannot deadlock
                await stack.enter_async_context(self._locks[name])
            self._record(fault, "begin")
            await self._actions[fault.kind](fault)
            self._record(fault, "end")

    def _record(self, fault: Fault, phase: str) -> None:
        self._writer.append("fault", number=fault.number, kind=fault.kind, target=fault.target, phase=phase)

    async def _kill_all(self, fault: Fault) -> None:
        """Kill the servers and all workers, as a crash of the machine does: no process remembers the old server."""
        await asyncio.gather(self._topology.kill(), *(worker.kill() for worker in self._workers.values()))
        await asyncio.sleep(fault.seconds / 2)
        await self._topology.start()
        for worker in self._workers.values():
            await worker.start()
        for worker in self._workers.values():
            await self._wait_ready(worker)

    async def _kill_worker(self, fault: Fault) -> None:
        worker = self._workers[fault.target]
        await worker.kill()
        await worker.start()
        await self._wait_ready(worker)

    async def _stop_worker(self, fault: Fault) -> None:
        worker = self._workers[fault.target]
        if not await worker.stop(STOP_WITHIN):
            self._writer.append("broken", problem=f"{worker.name} did not shut down gracefully when asked to")
        await worker.start()
        await self._wait_ready(worker)

    async def _freeze_worker(self, fault: Fault) -> None:
        await freeze(self._workers[fault.target].pid, fault.seconds)
