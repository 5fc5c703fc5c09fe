"""Folds a stream into its ledger and trims it, in the background.

On connections of its own and in small steps, so that no publish waits for it. Of all publishers of a stream one folds
at a time. If it ends in between, nothing is lost, and another one goes on.
"""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

from jwt_events._internal.notices import Notices
from jwt_events.errors import TransportError
from jwt_events.transport._redis.connection import Connection, Connector
from jwt_events.transport._stream.horizon import LongestRetention
from jwt_events.transport._stream.ledger import Fold, Ledger

_CONNECT_WITHIN = 5.0

# A reply that is too large is cut off with its connection; after that many attempts batches hold one entry.
_ATTEMPTS = 3


class Folder:
    """Folds the entries that no publisher keeps any more.

    Args:
        connector: opens its connections, each for one round.
        ledger: where to.
        fold: says what is still in force of events.
        retention: for how long this publisher keeps entries.
    """

    def __init__(self, connector: Connector, ledger: Ledger, fold: Fold, retention: timedelta) -> None:
        self._connector = connector
        self._ledger = ledger
        self._fold = fold
        self._retention = LongestRetention(connector.destination, retention)
        self._notices = Notices()

    async def run(self) -> None:
        """Fold from time to time until cancelled. Nothing that goes wrong ends it, and then nothing is removed."""
        while True:
            try:
                await self.fold_once()
            except TransportError as error:
                self._tell("WARNING", "folding failed, so nothing is removed from the stream", error=str(error))
            await asyncio.sleep(self._retention.interval)

    async def fold_once(self) -> int:
        """Fold what is due, as long as no other program does, and return how many entries of the stream that were.

        Cancelling it is safe.

        Raises:
            TransportError: a right is lacking, the ledger is something else or of a later version, or the server is not
                there. What was not folded is still in the stream.
        """
        for attempt in range(_ATTEMPTS):
            connection = await self._connector.connect(within=_CONNECT_WITHIN)
            try:
                return await self._fold_on(connection)
            except TransportError:
                if not connection.was_cut_off or attempt == _ATTEMPTS - 1:
                    raise
            finally:
                connection.abort()
                await connection.aclose()
        raise AssertionError("the last attempt returns or raises")

    async def _fold_on(self, connection: Connection) -> int:
        horizon = await self._retention.announce(connection)
        folded = 0
        if not await self._ledger.acquire(connection):
            return folded
        while self._ledger.is_leased:
            batch = await self._ledger.fold_batch(connection, self._fold, before=horizon.before, now=horizon.now)
            folded += batch.events
            if batch.lost:
                self._tell("ERROR", "events were removed from the stream that were not folded", lost=batch.lost)
            if batch.is_done:
                # By the clock that is behind: an entry that stays too long does no harm.
                await self._ledger.expire(connection, now=min(horizon.now, time.time()))
                break
        return folded

    def _tell(self, level: str, message: str, **fields: object) -> None:
        self._notices.tell(level, message, once=message, destination=self._connector.destination, **fields)
