"""Dead letters that the server has not taken yet. Pure: no I/O, no clock."""

from __future__ import annotations

from collections import deque

from jwt_events.transport.base import Delivery, Failure

MAX_UNWRITTEN = 1_048_576
"""Bytes of dead letters that may wait to be written before the next batch is read."""

MAX_REFUSED = 16 * MAX_UNWRITTEN
"""Bytes that are kept of those that the server refuses."""

MAX_LETTERS = 10_000
"""How many are kept of those that the server refuses."""

_OVERHEAD = 512  # bytes of the objects of one


class UnwrittenLetters:
    """The deliveries that were given up and are no dead letters yet, the oldest first.

    A server may refuse dead letters for good: a right is missing, its memory is full, the key is something else.
    Reading goes on then, as later revocations must be handled; so these are bounded by number and bytes, and the oldest
    goes.

    Attributes:
        size: how many bytes they have.
        dropped: how many were dropped.
    """

    def __init__(self) -> None:
        self._letters: deque[tuple[Delivery, Failure]] = deque()
        self.size: int = 0
        self.dropped: int = 0

    def __len__(self) -> int:
        return len(self._letters)

    @property
    def is_large(self) -> bool:
        """Whether so many wait that no more should be read before they are written."""
        return self.size > MAX_UNWRITTEN

    @property
    def oldest(self) -> tuple[Delivery, Failure]:
        """The one to write next; there must be one."""
        return self._letters[0]

    def add(self, delivery: Delivery, failure: Failure) -> list[Delivery]:
        """Add one, and return those that had to be dropped to make room for it."""
        self._letters.append((delivery, failure))
        self.size += _size(delivery)
        dropped: list[Delivery] = []
        while len(self._letters) > 1 and (self.size > MAX_REFUSED or len(self._letters) > MAX_LETTERS):
            dropped.append(self._letters[0][0])
            self._remove_oldest()
        self.dropped += len(dropped)
        return dropped

    def remove(self, delivery: Delivery) -> None:
        """Remove the oldest one after it was written, unless it was dropped meanwhile."""
        if self._letters and self._letters[0][0] is delivery:
            self._remove_oldest()

    def drop_all(self) -> list[Delivery]:
        """Drop all that are left, and return their deliveries."""
        left = [delivery for delivery, _ in self._letters]
        self._letters.clear()
        self.size, self.dropped = 0, self.dropped + len(left)
        return left

    def _remove_oldest(self) -> None:
        delivery, _ = self._letters.popleft()
        self.size -= _size(delivery)


def _size(delivery: Delivery) -> int:
    return _OVERHEAD + len(delivery.payload) + sum(map(len, delivery.fields))
