"""The server of the demo: the user's, or one that can be killed and brought back."""

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


class DemoFailed(JWTEventsError):
    """The demo could not be carried out; the message says why."""


# Seconds for the server to answer.
_ANSWERING = 5.0

# Seconds for it to write down all that it has.
_WRITING = 30.0

# If it writes to the disk at all, then before it acknowledges.
_CAREFUL = {"appendfsync": "always"}


class MortalServer:
    """A server of this run that keeps its data and its address when it is killed and brought back.

    An asynchronous context manager. Only the first server has a directory for its data: a temporary one, which lives as
    long as that server's keeper, also if this process is killed. Those that come after it work on the same data, and a
    symbolic link takes the place of the first one's socket.

    Attributes:
        url: how to reach whichever server runs.
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

    async def keep(self) -> None:
        """From now on, keep on the disk whatever is acknowledged.

        Raises:
            DemoFailed: what there is so far could not be written.
        """
        async with aclosing(await Connector(self.url).connect(within=_ANSWERING)) as connection:
            _, directory = await connection.call("CONFIG", "GET", "dir", within=_ANSWERING)
            self._data = os.fsdecode(directory)
            await connection.call("CONFIG", "SET", "appendonly", "yes", within=_ANSWERING)
            with suppress(TimeoutError):
                async with asyncio.timeout(_WRITING):
                    while not _is_written(await connection.call("INFO", "persistence", within=_ANSWERING)):  # noqa: ASYNC110 - a server does not call back
                        await asyncio.sleep(0.01)
                    return
        raise DemoFailed(f"the server did not write its data to the disk within {_WRITING:.0f} s")

    def kill(self) -> None:
        """Kill the server, as the kernel would."""
        with suppress(ProcessLookupError):
            os.kill(self._server.pid, signal.SIGKILL)

    async def bring_back(self) -> None:
        """Start a server on the same data, at the same place."""
        self._server = EmbeddedServer(config={**_CAREFUL, "appendonly": "yes"}, data_dir=self._data)
        await self._stack.enter_async_context(self._server)
        place = _socket(self.url)
        link = place.with_name("next.sock")
        link.symlink_to(_socket(self._server.url))
        link.replace(place)


def _is_written(persistence: bytes) -> bool:
    return all(f"aof_rewrite_{state}:0".encode() in persistence for state in ("scheduled", "in_progress"))


def _socket(url: str) -> Path:
    return Path(unquote(urlsplit(url).path))


async def name_of(url: str) -> str:
    """Ask a server for its name and version.

    Raises:
        InvalidOption: the URL cannot work.
        DemoFailed: nobody answers there.
        ServerRefused: the server does not let us in, or not now.
    """
    try:
        async with aclosing(await Connector(url).connect(within=_ANSWERING)) as connection:
            answer = await connection.call("INFO", "server", within=_ANSWERING)
    except ConnectionFailed as error:
        raise DemoFailed(f"{error}. Is a server running there? Without --url, the demo starts its own.") from None
    except ServerRefused as error:
        if error.code == "NOPERM":  # logged in, but not allowed to ask
            return "unnamed server"
        raise
    info = dict(line.split(":", 1) for line in answer.decode().splitlines() if ":" in line)
    return f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {info.get('redis_version', '')}"


async def forget(url: str, *keys: str) -> None:
    """Leave no stream behind, if the server can still be reached."""
    with suppress(TransportError):
        async with aclosing(await Connector(url).connect(within=_ANSWERING)) as connection:
            await connection.call("DEL", *keys, within=_ANSWERING)
