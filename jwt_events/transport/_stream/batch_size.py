"""How many entries to ask for at once, so that a batch is bounded by its bytes, too. Pure: no I/O, no clock.

A server counts entries, not bytes: a hundred entries can be a few kilobytes or gigabytes. So a reply that grows too
large is cut off, and the entries are asked for again in smaller batches. Of one entry alone the beginning is kept if it
is far too large for an event.

A reader that asks for the next batch while it passes on the last one needs no more at once than keep it busy until the
reply is there: a smaller batch is quicker to pass on, as it stays in the processor's cache. So it begins with few, and
asks for more when it had to wait.
"""

from __future__ import annotations

from jwt_events.transport._redis.protocol import Bounds
from jwt_events.transport._stream.entry import MAX_VALUE_BYTES

MAX_BATCH_BYTES = 16 * 1_048_576
"""Bytes after which the reply with a batch is cut off: as many as 16 of the largest events have."""

ENTRY_BOUNDS = Bounds(value=MAX_VALUE_BYTES, values=4 * MAX_BATCH_BYTES)
"""How much to take of replies with one entry each, which may be far too large."""

_BATCH_BOUNDS = Bounds(reply=MAX_BATCH_BYTES)

# By how much the next batch is smaller than one that was cut off: by a lot, as a server makes all of a reply before it
# sends any, and again after each attempt.
_SHRINK = 32


class BatchSize:
    """The number of entries to ask for.

    Args:
        maximum: how many are asked for at most.
        begin: how many are asked for until replies are late; ``None`` for the maximum.

    Attributes:
        count: how many to ask for.
    """

    def __init__(self, maximum: int, *, begin: int | None = None) -> None:
        self._maximum = maximum
        self._enough = maximum if begin is None else min(begin, maximum)
        self._hold = 0  # among so many entries is one, or are some, for which the batch was too large
        self._has_read = True  # since the last failure
        self.count: int = self._enough

    def bounds(self, before: int = 0) -> Bounds:
        """Return how much of a reply to take: a batch, or of one entry alone, not much more than an event may have.

        Args:
            before: how many commands about other entries come before that which reads.
        """
        if self.count == 1:
            return ENTRY_BOUNDS
        return ENTRY_BOUNDS._replace(reply=MAX_BATCH_BYTES, cut=before) if before else _BATCH_BOUNDS

    def fail(self, *, is_too_large: bool) -> None:
        """Ask for fewer if the connection failed because a batch of this size was too large.

        A server that limits what it buffers for a client hangs up and does not say why. So if one connection after
        another is lost before anything was read, the batch counts as too large.

        Args:
            is_too_large: whether that is known.
        """
        has_read, self._has_read = self._has_read, False
        if is_too_large or not has_read:
            self.cut_off()

    def cut_off(self) -> None:
        """Ask for fewer: a batch of this size was cut off."""
        self._hold = self.count
        self.count = max(1, self.count // _SHRINK)

    def read(self, entries: int, size: int, *, is_late: bool = False) -> None:
        """Ask for as many as may come in half of what is allowed, once the large ones were read.

        Args:
            entries: how many were read.
            size: how many bytes they had.
            is_late: whether the reader had nothing to do until they came: then more are enough.
        """
        if is_late:
            self._enough = min(self._maximum, 2 * self._enough)
        self._has_read = self._has_read or entries > 0
        if not entries or (self.count == self._enough and size <= MAX_BATCH_BYTES // 2):
            return
        fitting = max(1, MAX_BATCH_BYTES // 2 * entries // max(1, size))
        self._hold = max(0, self._hold - entries)
        self.count = min(self._enough, fitting, self.count if self._hold else self.count * 2)
