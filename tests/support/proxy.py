"""A proxy in front of a server that simulates network failures on demand.

::

    async with Proxy(server.url) as proxy:
        transport = RedisPubSub(proxy.url)
        proxy.to_client.lose()   # half open: the client's bytes arrive, the server's do not
        proxy.heal()             # connections that lost bytes stay dead, as in reality; new ones work

Each fault holds for one direction, `Proxy.to_server` or `Proxy.to_client`, of all connections.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

_CHUNK = 65_536

# Closing a socket with this setting sends a reset instead of an end.
_WITH_RESET = struct.pack("ii", 1, 0)


class Way:
    """One direction of all connections, with its faults.

    Attributes:
        latency: seconds by which bytes are delayed.
        byte_by_byte: forward bytes one at a time.
        passed: how many bytes arrived so far.
    """

    def __init__(self) -> None:
        self.latency = 0.0
        self.byte_by_byte = False
        self.passed = 0
        self.damage: Callable[[bytes], bytes] | None = None
        self.left_to_cut: int | None = None
        self.is_lost = False
        self._open = asyncio.Event()
        self._open.set()

    def lose(self) -> None:
        """Drop all bytes from now on, without an error on either side."""
        self.is_lost = True

    def hold(self) -> None:
        """Delay all bytes until `heal`; none is lost."""
        self._open.clear()

    def cut_after(self, number: int) -> None:
        """Forward ``number`` more bytes, wherever that ends, then cut the connection."""
        self.left_to_cut = number

    def swallow_next(self, like: Callable[[bytes], bool] = bool) -> None:
        """Drop the next chunk, or the next one that ``like`` accepts, and forward the chunks after it."""
        self._damage_next(lambda _: b"", like)

    def corrupt_next(self) -> None:
        """Change the first byte of the next chunk."""
        self._damage_next(lambda data: bytes([data[0] ^ 0x40]) + data[1:], bool)

    def heal(self) -> None:
        """Forward all bytes from now on."""
        self.latency, self.byte_by_byte, self.is_lost = 0.0, False, False
        self.damage = self.left_to_cut = None
        self._open.set()

    def _damage_next(self, damage: Callable[[bytes], bytes], like: Callable[[bytes], bool]) -> None:
        def once(data: bytes) -> bytes:
            if not like(data):
                return data
            self.damage = None
            return damage(data)

        self.damage = once

    async def opened(self) -> None:
        """Wait while bytes are held."""
        await self._open.wait()

    def take(self, data: bytes) -> tuple[bytes, bool]:
        """Return which of these bytes to forward, and whether to cut the connection after them."""
        if self.damage is not None:
            data = self.damage(data)
        is_cut = self.left_to_cut is not None and len(data) >= self.left_to_cut
        if self.left_to_cut is not None:
            data, self.left_to_cut = data[: self.left_to_cut], None if is_cut else self.left_to_cut - len(data)
        self.passed += len(data)
        return data, is_cut


class Proxy:
    """Forwards connections to a server; an async context manager.

    Args:
        upstream: the server's URL: ``redis://host:port`` or ``unix:///path``. A change applies to
            new connections.
        path: listen on a unix socket here; ``None`` for a TCP port of its own.
        tls: speak TLS to clients on that port; ``None`` for plain TCP.

    Attributes:
        to_server: the faults from clients to the server.
        to_client: the faults from the server to clients.
        accepted: how many connections were accepted so far.
    """

    def __init__(self, upstream: str, *, path: Path | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.upstream = upstream
        self.to_server = Way()
        self.to_client = Way()
        self.accepted = 0
        self._path = path
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._pairs: dict[asyncio.Task[None], _Pair] = {}
        self._address = "" if path is None else f"unix://{path}"

    @property
    def url(self) -> str:
        """The URL of the proxy."""
        return self._address

    @property
    def connected(self) -> int:
        """How many connections are open."""
        return len(self._pairs)

    async def __aenter__(self) -> Self:
        if self._path is not None:
            self._server = await asyncio.start_unix_server(self._serve, self._path)
        else:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
            self._address = (
                f"{'redis' if self._tls is None else 'rediss'}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
            )
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._server is not None
        self._server.close()
        tasks = list(self._pairs)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._server.wait_closed()

    def heal(self) -> None:
        """End all faults. Connections that have lost bytes stay dead; new ones work."""
        self.to_server.heal()
        self.to_client.heal()

    def reset(self) -> None:
        """Reset all connections, on both sides."""
        for pair in self._pairs.values():
            pair.abort()

    def half_close(self) -> None:
        """Send the end of the stream to all clients, as if the server had closed its side; theirs stays open."""
        for pair in self._pairs.values():
            pair.half_close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        pair = self._pairs[task] = _Pair(writer)
        try:
            await pair.run(reader, self)
        except (OSError, asyncio.CancelledError):
            pass  # no server there, or the proxy ends: no caller could handle an error of this callback
        finally:
            pair.abort()
            del self._pairs[task]


class _Pair:
    """The two sides of one connection."""

    def __init__(self, client: asyncio.StreamWriter) -> None:
        self._writers = [client]

    async def run(self, from_client: asyncio.StreamReader, proxy: Proxy) -> None:
        from_server, to_server = await _connect(proxy.upstream)
        self._writers.append(to_server)
        async with asyncio.TaskGroup() as group:
            there = group.create_task(self._pass_on(from_client, to_server, proxy.to_server))
            back = group.create_task(self._pass_on(from_server, self._writers[0], proxy.to_client))
            # When one side has ended, so has the other: no Redis client sends more after it has received the end.
            there.add_done_callback(lambda _: back.cancel())
            back.add_done_callback(lambda _: there.cancel())
        for writer in self._writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)

    def abort(self) -> None:
        for writer in self._writers:
            if not writer.transport.is_closing():  # or Python 3.11 knows no socket of one with TLS
                connection: Any = writer.get_extra_info("socket")
                if connection is not None and connection.family != socket.AF_UNIX:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _WITH_RESET)
            writer.transport.abort()

    def half_close(self) -> None:
        if self._writers[0].can_write_eof() and not self._writers[0].is_closing():
            self._writers[0].write_eof()

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, way: Way) -> None:
        has_lost = False
        with suppress(OSError):
            while data := await source.read(_CHUNK):
                if way.latency:
                    await asyncio.sleep(way.latency)
                await way.opened()
                has_lost = has_lost or way.is_lost
                arriving, is_cut = (b"", False) if has_lost else way.take(data)
                for part in _single_bytes(arriving) if way.byte_by_byte else [arriving]:
                    sink.write(part)
                    await sink.drain()
                    await asyncio.sleep(0)
                if is_cut:
                    return
        if has_lost or way.is_lost:
            await asyncio.Event().wait()  # the end of the stream is lost as well


def _single_bytes(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


async def _connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return await asyncio.open_unix_connection(unquote(parts.path))
    return await asyncio.open_connection(parts.hostname, parts.port)
