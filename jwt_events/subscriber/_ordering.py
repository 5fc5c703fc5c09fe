"""Serialises handlers whose events share an ordering key. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

_T = TypeVar("_T")

# How many may wait for others with the same key, over all keys, before no more are accepted.
_MAX_WAITING = 1_024


class OrderingQueues(Generic[_T]):
    """A queue for each ordering key in use: one item runs, the others wait behind it. ``None`` is not a key."""

    def __init__(self) -> None:
        self._queues: dict[Hashable, deque[_T]] = {}
        self._waiting = 0

    @property
    def has_room(self) -> bool:
        """Whether one more item may wait, for whichever key."""
        return self._waiting < _MAX_WAITING

    def is_busy(self, key: Hashable) -> bool:
        """Whether an item with this key runs."""
        return key is not None and key in self._queues

    def acquire(self, key: Hashable) -> None:
        """Run an item with this key, which is not busy."""
        if key is not None:
            self._queues[key] = deque()

    def enqueue(self, key: Hashable, item: _T) -> None:
        """Let an item wait for those with the same key."""
        self._queues[key].append(item)
        self._waiting += 1

    def release(self, key: Hashable) -> _T | None:
        """End the item that runs with this key; return the next, which runs now."""
        if key is None or key not in self._queues:
            return None
        if queue := self._queues[key]:
            self._waiting -= 1
            return queue.popleft()
        del self._queues[key]
        return None

    def clear(self) -> list[_T]:
        """Remove and return all items that wait."""
        waiting = [item for queue in self._queues.values() for item in queue]
        self._queues.clear()
        self._waiting = 0
        return waiting
