"""A name that leads to a server, and that is late: for a while after a failover it leads to the old one."""

from __future__ import annotations

import asyncio
from contextlib import suppress

_CHUNK = 65_536


class Name:
    """A proxy that stands for a name: connections that are open stay where they are when it leads elsewhere.

    Args:
        port: where it listens.

    Attributes:
        leads_to: the port that new connections are led to; ``None`` to refuse them.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.leads_to: int | None = None
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begin to listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def aclose(self) -> None:
        """Close all connections; idempotent."""
        if self._server is not None:
            self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._forward(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            try:
                if self.leads_to is None:
                    return
                upstream, to_upstream = await asyncio.open_connection("127.0.0.1", self.leads_to)
                ways = [asyncio.create_task(_pipe(reader, to_upstream)), asyncio.create_task(_pipe(upstream, writer))]
                try:
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in ways:
                        way.cancel()
                    to_upstream.close()
            finally:
                writer.close()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
