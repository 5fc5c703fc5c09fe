"""A server that replies what a test tells it to: for replies that a real server gives only by chance."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Self

HANG_UP = None
SILENCE = b""
OK = b"+OK\r\n"

Reply = Callable[[list[bytes]], bytes | None]
"""Returns the bytes of the reply to the words of a command; `HANG_UP` closes the connection instead."""

PRIMARY = b"*2\r\n$4\r\nrole\r\n$6\r\nmaster\r\n"
"""The reply of a primary to HELLO, as far as it is read."""

_INTRODUCTIONS = frozenset({b"AUTH", b"CLIENT", b"SELECT"})


class FakeServer:
    """Speaks the Redis protocol on a free port; an asynchronous context manager.

    Args:
        reply: called for every command, except those that a client sends when it connects.
        hello: called for HELLO, which asks for the role.

    Attributes:
        commands: what was received, in order.
        connections: how many connections were accepted.
        address: host and port.
        url: the same as a URL.
    """

    def __init__(self, reply: Reply, *, hello: Reply = lambda _: PRIMARY) -> None:
        self._reply = reply
        self._hello = hello
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.commands: list[list[bytes]] = []
        self.connections = 0
        self.address = ""

    @property
    def url(self) -> str:
        """The URL of the server."""
        return f"redis://{self.address}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.address = ":".join(map(str, self._server.sockets[0].getsockname()))
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def received(self, name: bytes) -> list[list[bytes]]:
        """Return the commands of this name that were received."""
        return [words for words in self.commands if words[0] == name]

    def say(self, content: bytes) -> None:
        """Send bytes on every connection, without a command or long after one."""
        for writer in self._writers:
            writer.write(content)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        self.connections += 1
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                await self._converse(reader, writer)
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.transport.abort()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while words := await _command(reader):
            if words[0] in _INTRODUCTIONS:
                writer.write(OK)
                continue
            if words[0] == b"HELLO":
                reply = self._hello(words)
            else:
                self.commands.append(words)
                reply = self._reply(words)
            if reply is HANG_UP:
                return
            writer.write(reply)


def text(content: bytes) -> bytes:
    """Encode a bulk string."""
    return b"$%d\r\n%s\r\n" % (len(content), content)


def array(*items: bytes) -> bytes:
    """Encode an array of encoded items."""
    return b"*%d\r\n" % len(items) + b"".join(items)


def push(*items: bytes) -> bytes:
    """Encode a message that the server sends by itself, of encoded items."""
    return b">%d\r\n" % len(items) + b"".join(items)


async def _command(reader: asyncio.StreamReader) -> list[bytes]:
    header = await reader.readuntil(b"\r\n")
    words = []
    for _ in range(int(header[1:])):
        size = int((await reader.readuntil(b"\r\n"))[1:])
        words.append((await reader.readexactly(size + 2))[:-2])
    return words
