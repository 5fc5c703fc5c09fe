"""What a forked process has of the connections of its parent: none.

A child has a copy of every socket, and of the event loop that reads it. What it does there, if only to close in good
order when it ends, would reach the server in the name of the parent: its consumer would be removed, its list would
leave the fleet, and one of the two would read what is for the other. So a child gives up all sockets before it does
anything, and a loop that had some opens no connection any more.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import Protocol
from weakref import WeakSet

from jwt_events._internal.loops import call_in_children
from jwt_events.errors import TransportError


class Inherited(Protocol):
    """What a child gives up."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that reads the socket."""

    @property
    def descriptor(self) -> int:
        """The file descriptor of the socket; negative if it is closed."""

    def abandon(self) -> None:
        """Note that the socket is gone."""


_open: WeakSet[Inherited] = WeakSet()
_loops: WeakSet[asyncio.AbstractEventLoop] = WeakSet()  # those of the parent


def give_up_if_forked(protocol: Inherited) -> None:
    """Let children of this process give up a socket."""
    call_in_children(_give_up)
    _open.add(protocol)


def check_loop() -> None:
    """Check that a connection may be opened by the running event loop.

    Raises:
        TransportError: the loop is a copy of one of the parent process.
    """
    if _loops and asyncio.get_running_loop() in _loops:
        raise TransportError(
            "this event loop is a copy of one in the parent process, made by a fork, whose connections belong to the"
            " parent: in the child, use an event loop of its own, as of asyncio.run(), and open there what you need"
        )


def _give_up() -> None:
    # Where the socket was is a device that takes everything and says nothing. Closed, the number of the descriptor
    # would be free for another file, which what is left of the loop would read and close.
    nothing = os.open(os.devnull, os.O_RDWR)
    try:
        for protocol in [*_open]:
            if (descriptor := protocol.descriptor) >= 0:
                os.dup2(nothing, descriptor, inheritable=False)
                _loops.add(protocol.loop)
                with suppress(RuntimeError):  # it is closed, or of another thread and in debug mode
                    protocol.abandon()
    finally:
        _open.clear()
        os.close(nothing)
