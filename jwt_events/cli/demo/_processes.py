"""The processes of the demo, and how they talk through pipes: each end of a pipe, seen from the other."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar, cast

from jwt_events.cli.demo._board import Board, Row
from jwt_events.cli.demo._messages import Message, Order, Report, from_line, to_line

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


BEAT = 0.1
"""Seconds between two reports, and so between two frames of what can be seen."""


async def report_until(end: asyncio.Future[Any], parent: Parent, report: Callable[[], Report]) -> None:
    """Report until a task ends, and fail if it failed."""
    while not end.done():
        parent.send(report())
        await asyncio.wait([end], timeout=BEAT)
    await end


# Seconds for a process to leave by itself.
_LEAVING = 3.0

# The last line of a long run holds many latencies; asyncio allows 64 KiB by default.
_MAX_LINE_LENGTH = 2**22


class Child:
    """Speaks with a process, and ends it by the end of its input, which is its leash.

    Attributes:
        row: what the board says of it.
    """

    def __init__(self, process: asyncio.subprocess.Process, row: Row) -> None:
        self._input = cast("asyncio.StreamWriter", process.stdin)  # both are pipes, which mypy cannot know
        self._output = cast("asyncio.StreamReader", process.stdout)
        self.row = row
        row.pid = process.pid

    @classmethod
    @asynccontextmanager
    async def started(cls, role: str, row: Row, order: Order, board: Board) -> AsyncIterator[Child]:
        """Start it; leaving makes it end, by force if need be."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "jwt_events.cli.demo", role, row.name),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_MAX_LINE_LENGTH,
            start_new_session=True,  # Ctrl-C in the terminal is for the parent, which ends the others in order
            cwd=Path(__file__).parents[3],  # so that "-m" finds this package, and nothing of the user's before it
        )
        child = cls(process, row)
        listening = asyncio.create_task(child._listen(board))
        try:
            child.tell(order)
            yield child
        finally:
            child.hang_up()
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _LEAVING)
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            await listening

    def tell(self, message: Message) -> None:
        """Send it a message."""
        self._input.write(to_line(message))

    def hang_up(self) -> None:
        """End its input, which makes it leave."""
        self._input.close()

    async def _listen(self, board: Board) -> None:
        async for line in self._output:
            board.take(self.row, from_line(line), time.monotonic())
        self.row.gone = True
