"""The nemesis: injects faults."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack

from bench.soak.history import HistoryWriter
from bench.soak.plan import Fault
from bench.soak.processes import Server, Worker, freeze
from bench.soak.worker import GROUP, KEY

STOP_WITHIN = 15.0
"""Seconds within which a subscriber must shut down after SIGTERM; it may drain for three."""


class Nemesis:
    """Injects faults, one at a time for each target.

    Args:
        server: the server.
        workers: the processes, by name.
        writer: records the beginning and the end of every fault.
        wait_ready: returns when a restarted worker is ready.
    """

    def __init__(
        self,
        server: Server,
        workers: Mapping[str, Worker],
        writer: HistoryWriter,
        wait_ready: Callable[[Worker], Awaitable[None]],
    ) -> None:
        self._server = server
        self._workers = workers
        self._writer = writer
        self._wait_ready = wait_ready
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._actions: dict[str, Callable[[Fault], Awaitable[None]]] = {
            "kill all": self._kill_all,
            "kill server": self._kill_server,
            "freeze server": self._freeze_server,
            "pause clients": self._pause_clients,
            "kill connections": self._kill_connections,
            "destroy group": self._destroy_group,
            "kill subscriber": self._kill_worker,
            "kill publisher": self._kill_worker,
            "stop subscriber": self._stop_worker,
            "freeze subscriber": self._freeze_worker,
            "freeze publisher": self._freeze_worker,
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

    async def _kill_server(self, fault: Fault) -> None:
        await self._server.kill()
        await asyncio.sleep(fault.seconds / 2)
        await self._server.start()

    async def _kill_all(self, fault: Fault) -> None:
        """Kill the server and all workers, as a crash of the machine does: no process remembers the old server."""
        await asyncio.gather(self._server.kill(), *(worker.kill() for worker in self._workers.values()))
        await asyncio.sleep(fault.seconds / 2)
        await self._server.start()
        for worker in self._workers.values():
            await worker.start()
        for worker in self._workers.values():
            await self._wait_ready(worker)

    async def _freeze_server(self, fault: Fault) -> None:
        await freeze(self._server.pid, fault.seconds)

    async def _pause_clients(self, fault: Fault) -> None:
        await self._server.execute("CLIENT", "PAUSE", int(fault.seconds * 1000), "ALL")
        await asyncio.sleep(fault.seconds)

    async def _kill_connections(self, _: Fault) -> None:
        await self._server.execute("CLIENT", "KILL", "TYPE", "normal")

    async def _destroy_group(self, _: Fault) -> None:
        await self._server.execute("XGROUP", "DESTROY", KEY, GROUP)

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
