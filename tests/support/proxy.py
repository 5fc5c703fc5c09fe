"""A network that fails on demand: a proxy before a server, with a switch for each way in which networks fail.

::

    async with Proxy(server.url) as proxy:
        transport = RedisPubSub(proxy.url)
        proxy.to_client.lose()   # half open: the client's bytes arrive, the server's do not
        proxy.heal()             # connections that lost bytes stay dead, as in life; new ones work

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
    """One direction of all connections, and what is wrong with it.

    Attributes:
        latency: seconds by which everything is late.
        byte_by_byte: let bytes through one at a time.
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
        """Lose everything from now on: nothing arrives, nobody is told."""
        self.is_lost = True

    def hold(self) -> None:
        """Stop everything until `heal`; nothing is lost."""
        self._open.clear()

    def cut_after(self, number: int) -> None:
        """Let so many more bytes through, in the middle of whatever that is, then cut the connection."""
        self.left_to_cut = number

    def swallow_next(self, like: Callable[[bytes], bool] = bool) -> None:
        """Lose what is said next, or what is next of a kind, and let through what comes after it."""
        self._damage_next(lambda _: b"", like)

    def corrupt_next(self) -> None:
        """Change the first byte of what is said next."""
        self._damage_next(lambda data: bytes([data[0] ^ 0x40]) + data[1:], bool)

    @property
    def is_armed(self) -> bool:
        """Whether a fault that happens once is still to come."""
        return self.damage is not None or self.left_to_cut is not None

    def heal(self) -> None:
        """Let everything through from now on."""
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
        """Wait until nothing is held."""
        await self._open.wait()

    def take(self, data: bytes) -> tuple[bytes, bool]:
        """Return what arrives of some bytes, and whether the connection is cut behind them."""
        if self.damage is not None:
            data = self.damage(data)
        is_cut = self.left_to_cut is not None and len(data) >= self.left_to_cut
        if self.left_to_cut is not None:
            data, self.left_to_cut = data[: self.left_to_cut], None if is_cut else self.left_to_cut - len(data)
        self.passed += len(data)
        return data, is_cut


class Proxy:
    """Stands before a server; an async context manager.

    Args:
        upstream: the server's URL: ``redis://host:port`` or ``unix:///path``. It may be changed at any time, for
            connections to come.
        path: listen on a unix socket here; ``None`` for a TCP port of its own.
        tls: speak TLS to clients on that port; ``None`` for plain TCP.

    Attributes:
        to_server: what is wrong with the way to the server.
        to_client: what is wrong with the way back.
        accepted: how many connections there were so far.
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
        """Where it listens."""
        return self._address

    @property
    def connected(self) -> int:
        """How many connections there are now."""
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
        """End all faults. Connections that have lost bytes stay dead, new ones are well."""
        self.to_server.heal()
        self.to_client.heal()

    def reset(self) -> None:
        """Break all connections at once, both sides being told so by a reset."""
        for pair in self._pairs.values():
            pair.abort()

    def half_close(self) -> None:
        """End what the server says on all connections, as if it had closed its side; the other side stays open."""
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
            pass  # no server there, or the proxy ends: the callback of a listening socket has nobody to tell
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
            # When one side has ended, so has the other: no Redis client speaks on after it has heard the end.
            there.add_done_callback(lambda _: back.cancel())
            back.add_done_callback(lambda _: there.cancel())
        for writer in self._writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)

    def abort(self) -> None:
        for writer in self._writers:
            connection: Any = writer.get_extra_info("socket")
            if connection is not None and connection.family != socket.AF_UNIX and not writer.transport.is_closing():
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
            await asyncio.Event().wait()  # the news of the end is lost as well


def _single_bytes(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


async def _connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return await asyncio.open_unix_connection(unquote(parts.path))
    return await asyncio.open_connection(parts.hostname, parts.port)
