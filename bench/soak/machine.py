"""One server on one machine, and what can happen to it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from bench.soak.plan import Fault
from bench.soak.processes import Server, freeze
from bench.soak.spec import GROUP, KEY
from bench.soak.topology import Inject


class Machine:
    """A `Topology` of one server."""

    def __init__(self, directory: Path, fsync: str) -> None:
        self._server = Server(directory, fsync)

    @property
    def url(self) -> str:
        """The URL of the server."""
        return self._server.url

    def url_of(self, worker: str) -> str:
        """Return the URL that a worker connects to."""
        del worker
        return self.url

    @property
    def faults(self) -> Mapping[str, Inject]:
        """What can happen to the server, by kind."""
        return {
            "kill server": self._kill_server,
            "freeze server": self._freeze,
            "pause clients": self._pause_clients,
            "kill connections": self._kill_connections,
            "destroy group": self._destroy_group,
        }

    async def start(self) -> None:
        """Start the server, or restart it."""
        await self._server.start()

    async def kill(self) -> None:
        """Kill the server."""
        await self._server.kill()

    async def aclose(self) -> None:
        """Stop the server for good; idempotent."""
        await self._server.aclose()

    def observe(self) -> None:
        """Note how much the server has written. To be called often."""
        self._server.observe()

    async def _kill_server(self, fault: Fault) -> None:
        await self._server.kill()
        await asyncio.sleep(fault.seconds / 2)
        await self._server.start()

    async def _freeze(self, fault: Fault) -> None:
        await freeze(self._server.pid, fault.seconds)

    async def _pause_clients(self, fault: Fault) -> None:
        await self._server.execute("CLIENT", "PAUSE", int(fault.seconds * 1000), "ALL")
        await asyncio.sleep(fault.seconds)

    async def _kill_connections(self, _: Fault) -> None:
        await self._server.execute("CLIENT", "KILL", "TYPE", "normal")

    async def _destroy_group(self, _: Fault) -> None:
        await self._server.execute("XGROUP", "DESTROY", KEY, GROUP)
