"""A process of the demo, seen from the one that started it."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import cast

from jwt_events.cli.demo._board import Board, Row
from jwt_events.cli.demo._messages import Message, Order, from_line, to_line

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
            *(sys.executable, "-m", "jwt_events.cli.demo._process", role, row.name),
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
