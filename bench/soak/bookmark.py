"""Where a reader without a group continues when its process is started again.

The transport keeps its place for as long as it runs. To continue after a crash, an application must know up to where
everything was handled, and keep that outside of the process. This does so at the seam where deliveries are settled.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from pathlib import Path

from jwt_events.transport.base import Batch, Delivery, Failure, Guarantees, Receiver, Sender, Transport

_WIDTH = 48


class Bookmark:
    """A position in a file."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)

    def read(self) -> str | None:
        """Return the position; ``None`` if there is none yet."""
        return os.pread(self._file, _WIDTH, 0).decode().strip() or None

    def move(self, position: str) -> None:
        """Replace the position, in one write of a constant size: a process that is killed leaves the old or the new."""
        os.pwrite(self._file, position.ljust(_WIDTH).encode(), 0)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


class Bookmarked:
    """A transport that moves a bookmark behind everything that was settled. A `Transport`."""

    def __init__(self, transport: Transport, bookmark: Bookmark) -> None:
        self._transport = transport
        self._bookmark = bookmark

    @property
    def name(self) -> str:
        """That of the transport."""
        return self._transport.name

    @property
    def destination(self) -> str:
        """That of the transport."""
        return self._transport.destination

    @property
    def guarantees(self) -> Guarantees:
        """Those of the transport."""
        return self._transport.guarantees

    @property
    def retention(self) -> timedelta | None:
        """That of the transport."""
        return self._transport.retention

    @property
    def claim_after(self) -> float | None:
        """That of the transport."""
        return self._transport.claim_after

    def sender(self) -> AbstractAsyncContextManager[Sender]:
        """Open that of the transport."""
        return self._transport.sender()

    @asynccontextmanager
    async def receiver(
        self, *, from_oldest: bool = False, poll_timeout: float | None = None
    ) -> AsyncIterator[Receiver]:
        """Open that of the transport, and watch it."""
        async with self._transport.receiver(from_oldest=from_oldest, poll_timeout=poll_timeout) as receiver:
            yield _BookmarkedReceiver(receiver, self._bookmark)


class _BookmarkedReceiver:
    """A receiver that remembers what it returned until it is settled."""

    def __init__(self, receiver: Receiver, bookmark: Bookmark) -> None:
        self._receiver = receiver
        self._bookmark = bookmark
        self._unsettled: deque[Delivery] = deque()
        self._settled: set[int] = set()

    async def receive(self) -> Batch:
        """Receive a page; see `Receiver.receive`."""
        page = await self._receiver.receive()
        self._unsettled.extend(page.deliveries)
        return page

    def settle(self, delivery: Delivery, failure: Failure | None = None) -> None:
        """Settle a delivery, and move the bookmark if it was the oldest that had not been."""
        self._receiver.settle(delivery, failure)
        # By identity: after a rewind the same position may be there twice. What is in the queue cannot be collected.
        self._settled.add(id(delivery))
        last: str | None = None
        while self._unsettled and id(self._unsettled[0]) in self._settled:
            oldest = self._unsettled.popleft()
            self._settled.discard(id(oldest))
            last = oldest.position
        if last is not None:
            self._bookmark.move(last)
