"""The memory that connections receive in: one buffer for all of an event loop.

asyncio and uvloop ask a connection for a buffer, fill it, and say so, all in one step; what has arrived is decoded in
that step, too. So the connections of a loop can share a buffer, which stays in the processor's cache however many of
them receive in turn. A loop that fills a buffer later would let one connection overwrite what another one has received:
a connection that asks for the buffer while another one has it gets one of its own. So does one that asks after another
one has, for nothing: over TLS a record may hold no data.
"""

from __future__ import annotations

import asyncio
from typing import Final
from weakref import WeakKeyDictionary

READ_SIZE: Final = 65_536
"""Bytes to take from a socket in one read. asyncio's own default allocates four times as much for every read."""


class _Memory:
    """A buffer, and who has it."""

    __slots__ = ("user", "view")

    def __init__(self) -> None:
        self.view = memoryview(bytearray(READ_SIZE))  # a view, as TLS fills it slice by slice
        self.user: ReceiveBuffer | None = None


_of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _Memory] = WeakKeyDictionary()


class ReceiveBuffer:
    """The buffer of one connection, which it shares with the others of its loop if that may be.

    Args:
        loop: the event loop that fills it. Not the thread counts, as a loop may be run in another one later.
    """

    __slots__ = ("_memory",)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        if (memory := _of_loops.get(loop)) is None:
            memory = _of_loops[loop] = _Memory()
        self._memory = memory

    def acquire(self) -> memoryview:
        """Return the buffer, to be filled. Idempotent."""
        if (user := self._memory.user) is not self:
            if user is not None:
                self._memory = _Memory()
            self._memory.user = self
        return self._memory.view

    def release(self) -> None:
        """Let others have the buffer, as what is in it was read or is of no use. Idempotent."""
        if self._memory.user is self:
            self._memory.user = None
