"""Cancels the task that is inside a block when what the block stands for has ended."""

from __future__ import annotations

import asyncio


class HostCancellation:
    """Cancels the task that made it, and takes that back where its block ends, as `asyncio.timeout` does."""

    def __init__(self) -> None:
        self._host = asyncio.current_task()
        self._before = 0 if self._host is None else self._host.cancelling()
        self._is_sent = False

    def send(self, reason: str) -> None:
        """Cancel the task, once, unless this was called off."""
        if self._host is not None and not self._is_sent:
            self._is_sent = True
            self._host.cancel(reason)

    def call_off(self) -> None:
        """Send nothing from now on."""
        if not self._is_sent:
            self._host = None

    async def take_back(self, exc: BaseException | None) -> bool:
        """Take back the cancellation, at the end of the block. Return whether it was sent and nothing else cancelled.

        Args:
            exc: what ended the block.

        Raises:
            asyncio.CancelledError: somebody else cancelled the task too, and that was to arrive after the block.
        """
        host, self._host = self._host, None
        if host is None or not self._is_sent:
            return False
        arrived: asyncio.CancelledError | None = None
        if exc is None or isinstance(exc, Exception):
            # It may have been requested but not delivered yet: let it arrive here instead of at the next await.
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError as cancelled:
                arrived = cancelled
        is_alone = host.uncancel() <= self._before
        if arrived is not None and not is_alone:
            raise arrived  # one delivery for two requests
        return is_alone and (exc is None or isinstance(exc, asyncio.CancelledError))
