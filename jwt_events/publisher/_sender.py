"""Where events leave from: the way to the server that all calls of one publisher share."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from jwt_events.errors import Closed
from jwt_events.instrumentation import Observers
from jwt_events.transport.base import Sender, Transport

if TYPE_CHECKING:
    from loguru import Logger


class Dock:
    """Opens the way to the server when it is first needed, and closes it when nothing is under way any more.

    Args:
        transport: makes the sender.
        observers: whom to tell what becomes of events.
        log: knows the transport.

    Attributes:
        sender: the way to the server, while it is open.
        is_closed: whether nothing may leave any more.
        under_way: how many calls have not ended.
    """

    def __init__(self, transport: Transport, *, observers: Observers, log: Logger) -> None:
        self._transport = transport
        self.observers = observers
        self.log = log
        self.sender: Sender | None = None
        self.is_closed: bool = False
        self.under_way: int = 0
        self._opening = asyncio.Lock()
        self._idle = asyncio.Event()
        self._stack: AsyncExitStack | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is something to close."""
        return self._stack is not None

    def check_open(self) -> None:
        """Refuse what comes too late.

        Raises:
            Closed: it is.
        """
        if self.is_closed:
            raise Closed("the publisher is closed")

    async def open(self) -> Sender:
        """Return the way to the server, made by whoever comes first."""
        async with self._opening:
            if self.sender is None:
                self.check_open()
                stack = AsyncExitStack()
                self.sender = await stack.enter_async_context(self._transport.sender())
                self._stack = stack
            return self.sender

    def left(self) -> None:
        """A call has ended."""
        self.under_way -= 1
        if self.is_closed and not self.under_way:
            self._idle.set()

    async def aclose(self) -> None:
        """Let nothing more leave, wait for what is under way, and close. Idempotent."""
        self.is_closed = True
        if self.under_way:
            await self._idle.wait()
        stack, self._stack, self.sender = self._stack, None, None
        if stack is not None:
            await stack.aclose()
            self.log.info("publisher closed")
