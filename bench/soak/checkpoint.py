"""The position at which a reader without a group resumes when its process is restarted.

The transport keeps its cursor for as long as it runs. To resume after a crash, an application must know up to which
position every event was handled, and store that outside of the process. A `CheckpointedTransport` does so where
deliveries are settled.
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


class Checkpoint:
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


class CheckpointedTransport:
    """A `Transport` that moves a checkpoint to the last position before which everything is settled."""

    def __init__(self, transport: Transport, checkpoint: Checkpoint) -> None:
        self._transport = transport
        self._checkpoint = checkpoint

    @property
    def name(self) -> str:
        """The name of the transport."""
        return self._transport.name

    @property
    def destination(self) -> str:
        """The destination of the transport."""
        return self._transport.destination

    @property
    def guarantees(self) -> Guarantees:
        """The guarantees of the transport."""
        return self._transport.guarantees

    @property
    def retention(self) -> timedelta | None:
        """The retention of the transport."""
        return self._transport.retention

    @property
    def claim_after(self) -> float | None:
        """The `claim_after` of the transport."""
        return self._transport.claim_after

    def sender(self) -> AbstractAsyncContextManager[Sender]:
        """Open the sender of the transport."""
        return self._transport.sender()

    @asynccontextmanager
    async def receiver(
        self, *, from_oldest: bool = False, poll_timeout: float | None = None
    ) -> AsyncIterator[Receiver]:
        """Open the receiver of the transport, and record what it settles."""
        async with self._transport.receiver(from_oldest=from_oldest, poll_timeout=poll_timeout) as receiver:
            yield _CheckpointedReceiver(receiver, self._checkpoint)


class _CheckpointedReceiver:
    """A receiver that keeps every delivery until it is settled."""

    def __init__(self, receiver: Receiver, checkpoint: Checkpoint) -> None:
        self._receiver = receiver
        self._checkpoint = checkpoint
        self._unsettled: deque[Delivery] = deque()
        self._settled: set[int] = set()

    async def receive(self) -> Batch:
        """Receive a batch; see `Receiver.receive`."""
        batch = await self._receiver.receive()
        self._unsettled.extend(batch.deliveries)
        return batch

    def settle(self, delivery: Delivery, failure: Failure | None = None) -> None:
        """Settle a delivery, and move the checkpoint if it was the oldest unsettled one."""
        self._receiver.settle(delivery, failure)
        # By identity: after a rewind a position may be queued twice. The queue holds the object, so no id is reused.
        self._settled.add(id(delivery))
        last: str | None = None
        while self._unsettled and id(self._unsettled[0]) in self._settled:
            oldest = self._unsettled.popleft()
            self._settled.discard(id(oldest))
            last = oldest.position
        if last is not None:
            self._checkpoint.move(last)
