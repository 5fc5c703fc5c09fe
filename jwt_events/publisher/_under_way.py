"""`CallsUnderWay`: how many calls of a publisher have begun and not ended, so that closing waits for them."""

from __future__ import annotations

import asyncio


class CallsUnderWay:
    """Counts calls. True while there are any."""

    __slots__ = ("_count", "_ended")

    def __init__(self) -> None:
        self._count = 0
        self._ended: asyncio.Event | None = None  # set when the last one ends, while anything waits for that

    def __bool__(self) -> bool:
        return self._count > 0

    def begin(self) -> None:
        """Count a call that begins."""
        self._count += 1

    def end(self) -> None:
        """Count a call that ended, however it did."""
        self._count -= 1
        if self._ended is not None and not self._count:
            self._ended.set()

    async def wait(self) -> None:
        """Wait until all have ended. Cancelling it changes nothing."""
        while self._count:
            ended = self._ended = self._ended or asyncio.Event()
            await ended.wait()
            self._ended = None
