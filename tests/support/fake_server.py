"""A server that answers what a test tells it to: for what a real one does only by bad luck."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Self

HANG_UP = None
SILENCE = b""
OK = b"+OK\r\n"

Answer = Callable[[list[bytes]], bytes | None]
"""From the words of a command to the bytes that answer it; `HANG_UP` closes the connection instead."""

_INTRODUCTIONS = frozenset({b"AUTH", b"CLIENT", b"HELLO", b"SELECT"})


class FakeServer:
    """Speaks the Redis protocol on a free port; an asynchronous context manager.

    Args:
        answer: asked for every command, except for those with which a client introduces itself.

    Attributes:
        commands: what was received, in order.
        connections: how many were accepted.
        address: host and port.
        url: the same as a URL.
    """

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.commands: list[list[bytes]] = []
        self.connections = 0
        self.address = ""

    @property
    def url(self) -> str:
        """How to reach it."""
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
        """Send bytes that nobody asked for, or an answer that is late, on every connection."""
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
            self.commands.append(words)
            answer = self._answer(words)
            if answer is HANG_UP:
                return
            writer.write(answer)


def text(content: bytes) -> bytes:
    """Encode a bulk string."""
    return b"$%d\r\n%s\r\n" % (len(content), content)


def array(*items: bytes) -> bytes:
    """Encode an array of what is encoded already."""
    return b"*%d\r\n" % len(items) + b"".join(items)


async def _command(reader: asyncio.StreamReader) -> list[bytes]:
    header = await reader.readuntil(b"\r\n")
    words = []
    for _ in range(int(header[1:])):
        size = int((await reader.readuntil(b"\r\n"))[1:])
        words.append((await reader.readexactly(size + 2))[:-2])
    return words
