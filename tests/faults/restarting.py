"""A server that a test kills and starts again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from bench.ports import free_port
from jwt_events.embedded import EmbeddedServer

MakeServer = Callable[..., EmbeddedServer]

# Options that decide how much of what it confirmed a server still has after kill -9.
ALL = {"appendonly": "yes", "appendfsync": "always"}
MOST = {"appendonly": "yes", "appendfsync": "everysec"}
NONE: dict[str, str] = {}


class Restartable:
    """A server that can be killed and started again at the same address, with its data on disk.

    Attributes:
        data_dir: the directory of its data.
        url: its address.
        running: the running server process; ``None`` while it is down.
    """

    running: EmbeddedServer

    def __init__(self, make: MakeServer, data_dir: Path) -> None:
        self._make = make
        self.data_dir = data_dir
        self._port = free_port()
        self._stack = AsyncExitStack()
        self.url = f"redis://127.0.0.1:{self._port}"

    async def start(self, config: dict[str, str], **options: Any) -> EmbeddedServer:
        """Start the server."""
        server = self._make(port=self._port, data_dir=self.data_dir, config=config, **options)
        self.running = await self._stack.enter_async_context(server)
        return self.running

    async def kill(self) -> None:
        """Kill the server, as by ``kill -9``."""
        await self._stack.aclose()
