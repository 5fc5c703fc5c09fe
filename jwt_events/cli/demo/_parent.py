"""The process that started this one, seen from here."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress
from typing import TypeVar

from jwt_events.cli.demo._messages import Message, from_line, to_line

_M = TypeVar("_M", bound=Message)


class Parent:
    """Speaks through standard input and output. The end of the input is a leash: it means to leave at once."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[Message] = asyncio.Queue()

    async def listen(self) -> None:
        """Take in what it says until it says no more, or has died."""
        lines = asyncio.StreamReader(limit=2**22)
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        async for line in lines:
            self._messages.put_nowait(from_line(line))

    async def receive(self, kind: type[_M]) -> _M:
        """Wait for its next message, which is of this kind: the demo has a script. Cancelling loses none."""
        message = await self._messages.get()
        if not isinstance(message, kind):
            raise TypeError(f"{type(message).__name__} came, but it is time for {kind.__name__}")
        return message

    def send(self, message: Message) -> None:
        """Tell it something. If nobody hears it any more, the end of the input will say so too."""
        with suppress(BrokenPipeError):
            os.write(sys.stdout.fileno(), to_line(message))
