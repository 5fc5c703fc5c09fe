"""The server of the demo: a given one, or an embedded one that can be killed and restarted with its data."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack, aclosing, suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urlsplit

from jwt_events.embedded import EmbeddedServer
from jwt_events.errors import ConnectionFailed, JWTEventsError, ServerRefused, TransportError
from jwt_events.transport.connection import Connector
from jwt_events.transport.stream import StreamKeys

# Seconds for the server to reply.
_REPLY_WITHIN = 5.0

# Seconds for it to write its data to the disk.
_WRITTEN_WITHIN = 30.0

# If it writes to the disk at all, then before it acknowledges.
_CAREFUL = {"appendfsync": "always"}


class DemoFailed(JWTEventsError):
    """The demo could not be carried out; the message says why."""


class RestartableServer:
    """An embedded server that keeps its data and its address when it is killed and restarted.

    An asynchronous context manager. Only the first server has a directory for its data: a temporary one, which lives as
    long as that server's keeper, also if this process is killed. Those that come after it work on the same data, and a
    symbolic link takes the place of the first one's socket.

    Attributes:
        url: the URL of whichever server runs.
        name: its name and version.
    """

    def __init__(self) -> None:
        self._server = EmbeddedServer(config=_CAREFUL)
        self._stack = AsyncExitStack()
        self._data = ""

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._server)
        self.url: str = self._server.url
        self.name: str = self._server.version
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def enable_persistence(self) -> None:
        """Write the data to the disk, and from now on everything before it is acknowledged.

        Raises:
            DemoFailed: the data so far could not be written.
        """
        async with aclosing(await Connector(self.url).connect(within=_REPLY_WITHIN)) as connection:
            _, directory = await connection.call("CONFIG", "GET", "dir", within=_REPLY_WITHIN)
            self._data = os.fsdecode(directory)
            await connection.call("CONFIG", "SET", "appendonly", "yes", within=_REPLY_WITHIN)
            with suppress(TimeoutError):
                async with asyncio.timeout(_WRITTEN_WITHIN):
                    while not _is_written(await connection.call("INFO", "persistence", within=_REPLY_WITHIN)):  # noqa: ASYNC110 - a server does not call back
                        await asyncio.sleep(0.01)
                    return
        raise DemoFailed(f"the server did not write its data to the disk within {_WRITTEN_WITHIN:.0f} s")

    def kill(self) -> None:
        """Kill the server with SIGKILL."""
        with suppress(ProcessLookupError):
            os.kill(self._server.pid, signal.SIGKILL)

    async def restart(self) -> None:
        """Start a server with the same data at the same address."""
        self._server = EmbeddedServer(config={**_CAREFUL, "appendonly": "yes"}, data_dir=self._data)
        await self._stack.enter_async_context(self._server)
        path = _socket(self.url)
        link = path.with_name("next.sock")
        link.symlink_to(_socket(self._server.url))
        link.replace(path)


def _is_written(persistence: bytes) -> bool:
    return all(f"aof_rewrite_{state}:0".encode() in persistence for state in ("scheduled", "in_progress"))


def _socket(url: str) -> Path:
    return Path(unquote(urlsplit(url).path))


async def server_name(url: str) -> str:
    """Ask a server for its name and version.

    Raises:
        InvalidOption: the URL cannot work.
        DemoFailed: no server replies there.
        ServerRefused: the server does not let this user in, or not now.
    """
    try:
        async with aclosing(await Connector(url).connect(within=_REPLY_WITHIN)) as connection:
            reply = await connection.call("INFO", "server", within=_REPLY_WITHIN)
    except ConnectionFailed as error:
        raise DemoFailed(f"{error}. Is a server running there? Without --url, the demo starts its own.") from None
    except ServerRefused as error:
        if error.code == "NOPERM":  # logged in, but not allowed to ask
            return "unnamed server"
        raise
    info = dict(line.split(":", 1) for line in reply.decode().splitlines() if ":" in line)
    return f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {info.get('redis_version', '')}"


async def delete_streams(url: str, *keys: str) -> None:
    """Delete the streams of this run, and what is kept beside them, if the server can still be reached."""
    with suppress(TransportError):
        for key in keys:
            connector = Connector(url, destination=key)
            stream = StreamKeys(key, in_cluster=connector.is_cluster)
            async with aclosing(await connector.connect(within=_REPLY_WITHIN)) as connection:
                names = (stream.stream, stream.retention, stream.ledger, stream.ledger_lock)
                await connection.call("DEL", *names, within=_REPLY_WITHIN)
