"""The open senders of a transport, and when none of them waits for a reply: a good moment for other work."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from jwt_events.transport._redis.multiplexer import Multiplexer

# How often to wait, and for how many seconds, until no reply is outstanding.
_ATTEMPTS = 2
_WITHIN = 0.005


class Senders:
    """The multiplexers of the open senders."""

    def __init__(self) -> None:
        self._open: list[Multiplexer] = []

    @contextmanager
    def noting(self, multiplexer: Multiplexer) -> Iterator[None]:
        """Note that a sender is open while the block runs."""
        self._open.append(multiplexer)
        try:
            yield
        finally:
            self._open.remove(multiplexer)

    async def quiet(self) -> None:
        """Return when no reply is outstanding; or when that takes too long, as commands are sent all the time.

        Senders of other event loops are not waited for.
        """
        for multiplexer in tuple(self._open):
            for _ in range(_ATTEMPTS):
                await asyncio.sleep(0)  # what is about to send goes first
                newest = multiplexer.newest
                if newest is None or newest.settled.get_loop() is not asyncio.get_running_loop():
                    break
                await asyncio.wait([newest.settled], timeout=_WITHIN)
