"""Drawing the board while something is awaited."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from jwt_events.cli.demo._board import Board
from jwt_events.cli.demo._failure import DemoFailed
from jwt_events.cli.demo._reporting import BEAT

# Seconds until what has not happened will not happen.
_PATIENCE = 5.0


class Watching:
    """Draws the board while something is awaited.

    Args:
        board: what to draw.
        draw: how.
        dwell: seconds to stay where there is something to see.
    """

    def __init__(self, board: Board, draw: Callable[[Board], None], *, dwell: float) -> None:
        self._board = board
        self._draw = draw
        self._dwell = dwell

    async def until(
        self,
        reached: Callable[[], bool],
        *,
        within: float = _PATIENCE,
        moving: Callable[[], int] = lambda: 0,
    ) -> bool:
        """Draw until something is reached, or nothing has moved for so many seconds; return whether it was reached."""
        seen, moved = moving(), time.monotonic()
        while not (done := reached()) and time.monotonic() - moved < within:
            _check(self._board)
            if (now := moving()) != seen:
                seen, moved = now, time.monotonic()
            self._draw(self._board)
            await asyncio.sleep(BEAT)
        _check(self._board)
        self._draw(self._board)
        return done

    async def require(self, reached: Callable[[], bool], failure: str, *, within: float = _PATIENCE) -> None:
        """Draw until something is reached.

        Raises:
            DemoFailed: not within so many seconds.
        """
        if not await self.until(reached, within=within):
            raise DemoFailed(f"{failure} within {within:.0f} s")

    def show(self) -> None:
        """Draw once, before something during which nothing is drawn."""
        self._draw(self._board)

    async def dwell(self) -> None:
        """Let people see."""
        await self.until(lambda: False, within=self._dwell)


def _check(board: Board) -> None:
    """Give up if a process cannot go on that the demo cannot do without."""
    for row in board.rows:
        if row.report and row.report.error:
            raise DemoFailed(f"{row.name}: {row.report.error}")
        if row.gone and board.needs(row):
            raise DemoFailed(f"{row.name}: the process ended too early")
