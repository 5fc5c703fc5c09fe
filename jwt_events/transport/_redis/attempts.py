"""Attempts to connect on behalf of many callers: those that fail are not repeated as often as there are callers."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from jwt_events._internal.retry import pace
from jwt_events.errors import TransportError

if TYPE_CHECKING:
    from jwt_events.transport._redis.connection import Connection
    from jwt_events.transport._redis.owner import Owner

# Seconds from an attempt that failed to the next one.
_MIN_PACE = 0.1
_MAX_PACE = 0.5

# Seconds that a reply may take before it is asked whether another server is the owner by now.
_OVERDUE_AFTER = 0.25


class Attempts:
    """Makes attempts to connect: the first at once, later ones no sooner than some time after the one that failed.

    Args:
        owner: says where to connect; if it names another server meanwhile, the next attempt is at once.

    Attributes:
        error: why the last attempt failed; ``None`` if it did not.
    """

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._out_since = 0.0  # when the first of those in a row began that failed
        self._next_at = 0.0
        self.error: TransportError | None = None

    async def make(self, connect: Callable[[], Awaitable[Connection]]) -> Connection:
        """Make an attempt when its time has come.

        Raises:
            TransportError: it failed.
        """
        now = time.monotonic()
        if self.error is None:
            self._out_since = now
        elif now < self._next_at:
            await self._owner.pause(self._next_at - now)
        try:
            connection = await connect()
        except TransportError as error:
            self.error, now = error, time.monotonic()
            self._next_at = now + pace(now - self._out_since, minimum=_MIN_PACE, maximum=_MAX_PACE)
            raise
        self.error = None
        self._owner.watch(connection, overdue_after=_OVERDUE_AFTER)
        return connection
