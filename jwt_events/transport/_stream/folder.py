"""Folds a stream into its ledger and trims it, in the background.

On connections of its own and in small steps. Each begins when no publish of this program is under way, so that a
publish waits for the rest of one step at most. Of all publishers of a stream one folds at a time. If it ends in
between, nothing is lost, and another one goes on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial

from jwt_events._internal.clock import boottime
from jwt_events._internal.describing import describe
from jwt_events._internal.notices import Notices
from jwt_events.errors import TransportError
from jwt_events.transport._redis.connection import Connection, Connector
from jwt_events.transport._stream.fold_lock import FoldLock
from jwt_events.transport._stream.horizon import Horizon, LongestRetention
from jwt_events.transport._stream.ledger import Ledger, Rest
from jwt_events.transport._stream.plain import PlainKeys
from jwt_events.transport.optional import Fold, LedgerReport

_CONNECT_WITHIN = 5.0

# Seconds after which a program that publishes folds for the first time, if it is due.
_FIRST_AFTER = 10.0

# How often another one may change the ledger in a row while a batch is folded.
_MAX_REFUSED = 100

# A reply that is too large is cut off with its connection; after that many attempts batches hold one entry.
_ATTEMPTS = 3


class Folder:
    """Folds the entries that no publisher keeps any more.

    Args:
        connector: opens its connections, each for one round.
        ledger: where to.
        fold: says what is still in force of events.
        retention: for how long this publisher keeps entries.
        report: called after each round of `run`; ``None`` for nobody.
        lock: the lock, if it is released or taken elsewhere; ``None`` for one of its own.
        quiet: returns when this program waits for no reply to a publish; ``None`` if it does not publish.
    """

    def __init__(
        self,
        connector: Connector,
        ledger: Ledger,
        fold: Fold,
        retention: timedelta,
        report: Callable[[LedgerReport], None] | None = None,
        *,
        lock: FoldLock | None = None,
        quiet: Rest | None = None,
    ) -> None:
        self._connector = connector
        self._ledger = ledger
        self._lock = FoldLock(ledger.keys) if lock is None else lock
        self._plain = PlainKeys(connector, ledger.keys)
        self._fold = fold
        self._quiet = quiet
        self._retention = LongestRetention(ledger.keys, retention, self._plain)
        self._notices = Notices()
        self._failure: str | None = None
        self._report = report
        self._worked_at = boottime()

    async def run(self) -> None:
        """Fold from time to time until cancelled. Nothing that goes wrong ends it, and then nothing is removed.

        Not at once: a program that publishes a few events and ends leaves it to others.
        """
        await asyncio.sleep(min(self._retention.interval, _FIRST_AFTER))
        while True:
            try:
                await self.fold_once()
                self._failure, self._worked_at = None, boottime()
            except TransportError as error:
                self._warn_once(str(error))
            except Exception as error:  # noqa: BLE001 - the server, or what stands for it, may answer anything
                self._warn_once(describe(error))
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
        folded = await self._fold_due(connection, horizon) if await self._may_fold(connection, horizon) else 0
        if self._report is not None:
            self._report(await self._ledger.report(connection, before=horizon.before))
        return folded

    async def _may_fold(self, connection: Connection, horizon: Horizon) -> bool:
        if await self._lock.acquire(connection):
            return True
        stream = await self._ledger.read_stream(connection)
        if not self._lock.is_stuck(stream.first, before=horizon.before, now=boottime()):
            return False
        self._tell("WARNING", "another program held the lock and folded nothing, so this one folds")
        await self._lock.take(connection)
        return True

    async def _fold_due(self, connection: Connection, horizon: Horizon) -> int:
        folded, refused, rest = 0, 0, partial(self._rest, boottime() + self._retention.interval / 2)
        now = min(horizon.now, time.time())  # by the clock that is behind: a rule that stays too long does no harm
        if await self._plain.take_over_ledger(connection, self._ledger):
            await self._retention.note_ledger(connection)
        had_ledger = await self._retention.has_ledger(connection)
        while self._lock.is_held or await self._lock.acquire(connection):
            batch = await self._ledger.fold_batch(
                connection, self._fold, before=horizon.before, now=now, vanished=had_ledger, rest=rest
            )
            folded += batch.events
            if batch.lost:
                self._tell("ERROR", "events were removed from the stream that were not folded", lost=batch.lost)
            if folded and not had_ledger:
                await self._retention.note_ledger(connection)
                had_ledger = True
            if batch.is_done:
                await self._ledger.expire(connection, now=now, rest=rest)
                break
            refused = 0 if batch.events else refused + 1
            if refused > _MAX_REFUSED:
                raise TransportError("the ledger was changed again and again by others", retryable=True)
        return folded

    async def _rest(self, late_at: float) -> None:
        """Let other tasks run, and what this program publishes be answered, unless folding cannot keep up then."""
        await asyncio.sleep(0)
        if self._quiet is not None and boottime() < late_at:
            await self._quiet()

    def _warn_once(self, failure: str) -> None:
        """Report a failure, and log it unless it is the same as that of the last round."""
        if self._report is not None:
            self._report(LedgerReport(boottime() - self._worked_at))
        if failure != self._failure:
            self._failure = failure
            self._tell("WARNING", "folding failed, so nothing is removed from the stream", error=failure)

    def _tell(self, level: str, message: str, **fields: object) -> None:
        self._notices.tell(level, message, once=message, destination=self._connector.destination, **fields)
