"""Who may not run beside whom: those with equal keys go one after another. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

_T = TypeVar("_T")

# How many may wait for one with the same key to end, before no more are accepted.
_MAX_WAITING = 1_024


class OrderingQueues(Generic[_T]):
    """A lane for each key, with one that runs and others that follow. ``None`` is no key."""

    def __init__(self) -> None:
        self._followers: dict[Hashable, deque[_T]] = {}
        self._waiting = 0

    def is_taken(self, key: Hashable) -> bool:
        """Whether one with this key runs."""
        return key is not None and key in self._followers

    @property
    def have_room(self) -> bool:
        """Whether one more may line up, in whichever lane."""
        return self._waiting < _MAX_WAITING

    def take(self, key: Hashable) -> None:
        """Run with this key."""
        if key is not None:
            self._followers[key] = deque()

    def line_up(self, key: Hashable, one: _T) -> None:
        """Wait for those with the same key."""
        self._followers[key].append(one)
        self._waiting += 1

    def leave(self, key: Hashable) -> _T | None:
        """Do not run with this key any more; returns who runs next with it."""
        if key is None or key not in self._followers:
            return None
        if followers := self._followers[key]:
            self._waiting -= 1
            return followers.popleft()
        del self._followers[key]
        return None

    def clear(self) -> list[_T]:
        """Forget and return all that wait."""
        waiting = [one for followers in self._followers.values() for one in followers]
        self._followers.clear()
        self._waiting = 0
        return waiting
