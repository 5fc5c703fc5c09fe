"""The event loop that an object belongs to while it is open.

What asyncio makes, a future, a task, a connection, belongs to the loop in which it was made. Used from another one it
fails with a bare `RuntimeError`, hangs, or works with a delay. So what holds such things asks here first.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from functools import cache
from threading import get_ident
from weakref import WeakSet

from jwt_events.errors import WrongLoop

_binding = threading.Lock()
_bound: WeakSet[OwnLoop] = WeakSet()

_FORKED = -1  # no thread: that of the parent process, of which this one has a copy


class OwnLoop:
    """The event loop, and its thread, in which an object was opened.

    Looking up the running loop costs more than the rest of a check, on Python 3.11 a system call. A thread runs one
    loop at a time, so it is enough that this is the thread of the loop, and that the loop runs.

    Args:
        owner: how messages call the object: ``the publisher``.
    """

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: int | None = None

    @property
    def has_ended(self) -> bool:
        """Whether the loop was closed while the object was open."""
        return self._loop is not None and self._loop.is_closed()

    def bind(self) -> None:
        """Belong to the running loop from now on; idempotent.

        Raises:
            WrongLoop: it belongs to another one.
        """
        call_in_children(_leave_to_parent)
        with _binding:
            if self._loop is None:
                self._loop, self._thread = asyncio.get_running_loop(), get_ident()
                _bound.add(self)
        self.check()

    def release(self) -> None:
        """Belong to no loop."""
        self._loop = self._thread = None
        _bound.discard(self)

    def is_current(self) -> bool:
        """Whether it belongs to the running loop; ``False`` if it belongs to none."""
        return self._thread == get_ident() and self._loop is not None and self._loop.is_running()

    def check(self) -> None:
        """Raise if it belongs to another loop than the running one.

        Raises:
            WrongLoop: it does.
        """
        if self._loop is not None and not self.is_current():
            raise WrongLoop(self._problem(self._loop))

    def check_thread(self) -> None:
        """Raise if it belongs to the loop of another thread: for what is called without ``await``.

        Raises:
            WrongLoop: it does.
        """
        if self._thread not in (None, get_ident()) and self._loop is not None:
            raise WrongLoop(self._problem(self._loop))

    def leave_to_parent(self) -> None:
        """Belong to a loop of the parent process, of which a forked one has a copy."""
        self._thread = _FORKED

    def _problem(self, loop: asyncio.AbstractEventLoop) -> str:
        opened = f"{self._owner} was opened in another event loop"
        if loop.is_closed():
            return f"{opened}, which has ended: open and close it inside of one asyncio.run(), or make one for each"
        if self._thread == _FORKED:
            return f"{opened}, before this process was forked: use it in the parent process, and make one here"
        if self._thread == get_ident():
            return f"{opened}: use it there, or make one for each event loop"
        return (
            f"{opened}, in another thread: use it there, by asyncio.run_coroutine_threadsafe() or"
            " loop.call_soon_threadsafe(), or make one for each event loop"
        )


def _leave_to_parent() -> None:
    global _binding  # noqa: PLW0603 - a lock that another thread held stays locked in a child
    _binding = threading.Lock()
    for own in [*_bound]:
        own.leave_to_parent()
    _bound.clear()


@cache
def call_in_children(act: Callable[[], object]) -> None:
    """Have processes that are forked from now on call this. Not for an import, which changes nothing."""
    if hasattr(os, "register_at_fork"):  # there are systems without
        os.register_at_fork(after_in_child=act)
