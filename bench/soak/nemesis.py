"""Carries out faults."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack

from bench.soak.history import Diary
from bench.soak.plan import Fault
from bench.soak.processes import Server, Worker, freeze
from bench.soak.worker import GROUP, KEY

LEAVE_WITHIN = 15.0
"""How long a subscriber that was asked to leave may take, in seconds; it may drain for three."""


class Nemesis:
    """Breaks things, one at a time for each target.

    Args:
        server: the server.
        workers: the processes, by name.
        diary: where every fault is noted, its begin and its end.
        revived: returns when a worker that was started again is ready.
    """

    def __init__(
        self,
        server: Server,
        workers: Mapping[str, Worker],
        diary: Diary,
        revived: Callable[[Worker], Awaitable[None]],
    ) -> None:
        self._server = server
        self._workers = workers
        self._diary = diary
        self._revived = revived
        self._turns: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._deeds: dict[str, Callable[[Fault], Awaitable[None]]] = {
            "kill everybody": self._kill_everybody,
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

    async def inflict(self, fault: Fault) -> None:
        """Carry out a fault, from its beginning to the end of its cause; not of its consequences."""
        names = ("server", *self._workers) if fault.target == "everybody" else (fault.target,)
        async with AsyncExitStack() as stack:
            for name in names:  # always in this order, so that two faults cannot wait for each other
                await stack.enter_async_context(self._turns[name])
            self._note(fault, "begin")
            await self._deeds[fault.kind](fault)
            self._note(fault, "end")

    def _note(self, fault: Fault, phase: str) -> None:
        self._diary.note("fault", number=fault.number, kind=fault.kind, target=fault.target, phase=phase)

    async def _kill_server(self, fault: Fault) -> None:
        await self._server.kill()
        await asyncio.sleep(fault.seconds / 2)
        await self._server.start()

    async def _kill_everybody(self, fault: Fault) -> None:
        """What happens when the machine does: nobody is left who knew the server before."""
        await asyncio.gather(self._server.kill(), *(worker.kill() for worker in self._workers.values()))
        await asyncio.sleep(fault.seconds / 2)
        await self._server.start()
        for worker in self._workers.values():
            await worker.start()
        for worker in self._workers.values():
            await self._revived(worker)

    async def _freeze_server(self, fault: Fault) -> None:
        await freeze(self._server.pid, fault.seconds)

    async def _pause_clients(self, fault: Fault) -> None:
        await self._server.tell("CLIENT", "PAUSE", int(fault.seconds * 1000), "ALL")
        await asyncio.sleep(fault.seconds)

    async def _kill_connections(self, _: Fault) -> None:
        await self._server.tell("CLIENT", "KILL", "TYPE", "normal")

    async def _destroy_group(self, _: Fault) -> None:
        await self._server.tell("XGROUP", "DESTROY", KEY, GROUP)

    async def _kill_worker(self, fault: Fault) -> None:
        worker = self._workers[fault.target]
        await worker.kill()
        await worker.start()
        await self._revived(worker)

    async def _stop_worker(self, fault: Fault) -> None:
        worker = self._workers[fault.target]
        if not await worker.leave(LEAVE_WITHIN):
            self._diary.note("broken", problem=f"{worker.name} did not leave in good order when asked to")
        await worker.start()
        await self._revived(worker)

    async def _freeze_worker(self, fault: Fault) -> None:
        await freeze(self._workers[fault.target].pid, fault.seconds)
