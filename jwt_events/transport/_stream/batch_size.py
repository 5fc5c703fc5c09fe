"""How many entries to ask for at once, so that a batch is bounded by its bytes, too. Pure: no I/O, no clock.

A server counts entries, not bytes: a hundred entries can be a few kilobytes or gigabytes. So a reply that grows too
large is cut off, and the entries are asked for again in smaller batches. One entry alone is read whatever its size.
"""

from __future__ import annotations

MAX_BATCH_BYTES = 16 * 1_048_576
"""Bytes after which the reply with a batch is cut off: as many as 16 of the largest events have."""

# By how much the next batch is smaller than one that was cut off: by a lot, as a server makes all of a reply before it
# sends any, and again after each attempt.
_SHRINK = 32


class BatchSize:
    """The number of entries to ask for.

    Args:
        maximum: how many are asked for at most.

    Attributes:
        count: how many to ask for.
    """

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._hold = 0  # among so many entries is one, or are some, for which the batch was too large
        self.count: int = maximum

    @property
    def max_bytes(self) -> int | None:
        """Bytes after which to cut off the reply; ``None`` for no limit."""
        return MAX_BATCH_BYTES if self.count > 1 else None

    def cut_off(self) -> None:
        """Ask for fewer: a batch of this size was cut off."""
        self._hold = self.count
        self.count = max(1, self.count // _SHRINK)

    def read(self, entries: int, size: int) -> None:
        """Ask for as many as may come in half of what is allowed, once the large ones were read.

        Args:
            entries: how many were read.
            size: how many bytes they had.
        """
        if not entries or (self.count == self._maximum and size <= MAX_BATCH_BYTES // 2):
            return
        fitting = max(1, MAX_BATCH_BYTES // 2 * entries // max(1, size))
        self._hold = max(0, self._hold - entries)
        self.count = min(self._maximum, fitting, self.count if self._hold else self.count * 2)
