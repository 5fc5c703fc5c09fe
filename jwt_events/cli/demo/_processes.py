"""Child processes of the demo and their parent, which exchange messages through pipes."""

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
from jwt_events.cli.demo._messages import Message, Report, Setup, from_line, to_line

_M = TypeVar("_M", bound=Message)

REPORT_INTERVAL = 0.1
"""Seconds between two reports, and so between two frames of the display."""

# Seconds for a process to exit by itself.
_EXIT_WITHIN = 3.0

# The last line of a long run holds many latencies; asyncio allows 64 KiB by default.
_MAX_LINE_LENGTH = 2**22


class ChildProcess:
    """A process that this one has started; closing its standard input makes it exit.

    Attributes:
        row: its row of the board.
    """

    def __init__(self, process: asyncio.subprocess.Process, row: Row) -> None:
        self._input = cast("asyncio.StreamWriter", process.stdin)  # both are pipes, which mypy cannot know
        self._output = cast("asyncio.StreamReader", process.stdout)
        self.row = row
        row.pid = process.pid

    @classmethod
    @asynccontextmanager
    async def start(cls, role: str, row: Row, setup: Setup, board: Board) -> AsyncIterator[ChildProcess]:
        """Start a process; leaving the block makes it exit, and kills it if it does not."""
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
            child.send(setup)
            yield child
        finally:
            child.close_input()
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _EXIT_WITHIN)
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            await listening

    def send(self, message: Message) -> None:
        """Send a message to the process."""
        self._input.write(to_line(message))

    def close_input(self) -> None:
        """Close the standard input of the process, which makes it exit."""
        self._input.close()

    async def _listen(self, board: Board) -> None:
        async for line in self._output:
            board.apply(self.row, from_line(line), time.monotonic())
        self.row.exited = True


class ParentProcess:
    """The process that has started this one, reached through standard input and output.

    The end of the input means that this process must exit at once: the parent wants it, or has died.
    """

    def __init__(self) -> None:
        self._messages: asyncio.Queue[Message] = asyncio.Queue()

    async def listen(self) -> None:
        """Queue the messages of the parent until the end of the input."""
        lines = asyncio.StreamReader(limit=_MAX_LINE_LENGTH)
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        async for line in lines:
            self._messages.put_nowait(from_line(line))

    async def receive(self, kind: type[_M]) -> _M:
        """Wait for the next message, which must be of this kind. Cancelling loses none.

        Raises:
            TypeError: it is of another kind.
        """
        message = await self._messages.get()
        if not isinstance(message, kind):
            raise TypeError(f"{type(message).__name__} came, but it is time for {kind.__name__}")
        return message

    def send(self, message: Message) -> None:
        """Send a message. If the parent has closed the pipe, do nothing: the end of the input follows."""
        with suppress(BrokenPipeError):
            os.write(sys.stdout.fileno(), to_line(message))

    async def report_until(self, end: asyncio.Future[Any], report: Callable[[], Report]) -> None:
        """Send a report again and again until a task ends; raise what the task raised."""
        while not end.done():
            self.send(report())
            await asyncio.wait([end], timeout=REPORT_INTERVAL)
        await end
