"""Access to the ledger of a stream, for operators: what it holds, folding now, and taking back a mistake."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from loguru import logger

from jwt_events._internal.positions import OLDEST
from jwt_events.errors import InvalidOption
from jwt_events.transport._redis.connection import Connection
from jwt_events.transport._stream.entry import parse_deliveries
from jwt_events.transport._stream.fold_lock import FoldLock
from jwt_events.transport._stream.folder import Folder
from jwt_events.transport._stream.horizon import longest_retention
from jwt_events.transport._stream.ledger import Ledger
from jwt_events.transport._stream.plain import PlainKeys
from jwt_events.transport.optional import Fold, LedgerBatch
from jwt_events.transport.stream import RedisStream

__all__ = ["LedgerAccess", "LedgerSummary"]

_WITHIN = 5.0
_CONNECT_WITHIN = 5.0

# Events of the stream that are looked at in one read.
_BATCH = 500


@dataclass(frozen=True, slots=True)
class LedgerSummary:
    """The state of a ledger.

    Attributes:
        key: its key.
        exists: whether there is one.
        entries: how many entries it has.
        endless: how many of these are rules without an end.
        keys: how many of these are rotations of signing keys.
        bytes: its size in the memory of the server; ``None`` if this user may not ask.
        folded_up_to: the position up to which the stream was folded; ``None`` without a ledger.
        events: how many events the stream holds.
        oldest: the position of the oldest of these; ``None`` if there is none.
        lost: how many events were removed before they were folded; ``None`` if that cannot be known.
        lost_at: when that was found last, in seconds since 1970; ``None`` for never.
        clock: the server's clock, in seconds since 1970.
        is_folding: whether a publisher holds the lock.
        to_be_taken_over: the key of the ledger that was copied to a cluster under the name it had on one server: lists
            read it, too, the numbers include it, and the next publisher that folds takes it over. ``None`` if there is
            none.
        lock_is_foreign: whether the lock is held with a TTL that no publisher gives it, or without one, as after a tool
            restored it: publishers take it when nothing was folded for some time, and `LedgerAccess.fold` at once.
    """

    key: str
    exists: bool
    entries: int
    endless: int
    keys: int
    bytes: int | None
    folded_up_to: str | None
    events: int
    oldest: str | None
    lost: int | None
    lost_at: float | None
    clock: float
    is_folding: bool
    to_be_taken_over: str | None = None
    lock_is_foreign: bool = False


class LedgerAccess:
    """Access to the ledger of a stream. Each call opens a connection of its own.

    Args:
        transport: the stream.

    Raises:
        InvalidOption: the stream has no ledger.
    """

    def __init__(self, transport: RedisStream) -> None:
        if transport.ledger is None:
            raise InvalidOption("transport", "has no ledger")
        self._transport = transport
        self._ledger = Ledger(transport.keys)
        self._plain = PlainKeys(transport.connector, transport.keys)

    @property
    def key(self) -> str:
        """The key of the ledger."""
        return self._ledger.key

    async def summary(self) -> LedgerSummary:
        """Return the state of the ledger.

        Raises:
            TransportError: it cannot be read.
        """
        async with self._ledgers() as ledgers:
            connection = ledgers[self._ledger]
            counts, sizes = Counter[str](), []
            for ledger, its in ledgers.items():
                counts.update(await ledger.counts(its))
                sizes.append(await ledger.bytes(its))
            state = await self._ledger.read_state(connection)
            if (plain := ledgers.get(self._plain.ledger)) is not None:
                state = state.joined(await self._plain.read_state(plain))
            head, stream = state.head, state.stream
            seconds, microseconds = await connection.call("TIME", within=_WITHIN)
            missing = None if head is None else head.missing(stream)
            holder = await FoldLock(self._transport.keys).holder(connection)
            return LedgerSummary(
                key=self.key,
                exists=head is not None,
                entries=counts.total(),
                endless=counts["endless"],
                keys=counts["key"],
                bytes=None if None in sizes else sum(size or 0 for size in sizes),
                folded_up_to=None if head is None else head.position,
                events=stream.length,
                oldest=stream.first,
                lost=None if head is None or missing is None else head.lost + missing,
                lost_at=None if head is None or not head.lost_at else head.lost_at / 1000,
                clock=int(seconds) + int(microseconds) / 1_000_000,
                is_folding=holder == "publisher",
                to_be_taken_over=None if plain is None else self._plain.ledger.key,
                lock_is_foreign=holder == "other",
            )

    async def entries(self) -> AsyncIterator[LedgerBatch]:
        """Yield the entries of the ledger in batches, each the content and the time; some perhaps twice.

        Raises:
            TransportError: they cannot be read.
        """
        async with self._ledgers() as ledgers:
            for ledger, connection in ledgers.items():
                async for batch in ledger.batches(connection):
                    yield batch

    async def fold(self, fold: Fold) -> int | None:
        """Fold what no publisher keeps any more, and return how many events that were; ``None`` if another one folds.

        Raises:
            InvalidOption: no publisher has told how long it keeps events.
            TransportError: nothing more was folded.
        """
        lock = FoldLock(self._transport.keys)
        async with self._connected() as connection:
            if (holder := await lock.holder(connection)) == "publisher":
                return None
            await self._plain.take_over_retention(connection)
            retention = await longest_retention(connection, self._transport.keys)
            if retention is not None and holder == "other":
                await lock.take(connection)
        if retention is None:
            raise InvalidOption("retention", "is not known: no publisher has told how long it keeps events")
        try:
            return await Folder(self._transport.connector, self._ledger, fold, retention, lock=lock).fold_once()
        finally:
            async with self._connected() as connection:
                await lock.release(connection)

    async def remove(self, is_wrong: Callable[[bytes, float], bool], *, reason: str) -> int:
        """Remove entries, and return how many.

        Args:
            is_wrong: says of the content and the time of an entry whether to remove it.
            reason: why, for the log; text for people.

        Raises:
            TransportError: nothing is known to be removed.
        """
        removed = 0
        async with self._ledgers() as ledgers:
            for ledger, connection in ledgers.items():
                await ledger.read_head(connection)  # of a later version, it may hold what is not understood here
                wrong = {
                    content: until
                    async for batch in ledger.batches(connection)
                    for content, until in batch
                    if is_wrong(content, until)
                }
                removed += await ledger.remove(connection, wrong) if wrong else 0
        logger.warning("rules removed from the ledger", destination=self.key, removed=removed, reason=reason)
        return removed

    async def in_stream(self, fold: Fold, is_wrong: Callable[[bytes, float], bool]) -> int:
        """Return how many events of the stream would put such an entry into the ledger again.

        Raises:
            TransportError: they cannot be read.
        """
        count, after = 0, OLDEST
        async with self._connected() as connection:
            while True:
                command = ("XRANGE", self._transport.destination, f"({after}", "+", "COUNT", _BATCH)
                rows: list[Any] = await connection.call(*command, within=_WITHIN)
                entries = parse_deliveries(rows)
                for entry in entries:
                    count += any(is_wrong(content, until) for content, until in fold([entry.payload], 0.0))
                if len(rows) < _BATCH:
                    return count
                after = entries[-1].position or OLDEST

    @asynccontextmanager
    async def _ledgers(self) -> AsyncIterator[dict[Ledger, Connection]]:
        """Open connections to what there is, in the order in which it has to be read: what is taken over moves on."""
        async with AsyncExitStack() as stack:
            found: dict[Ledger, Connection] = {}
            if self._plain.are_apart:
                plain = await stack.enter_async_context(self._plain.connected(self._plain.ledger.key))
                if await self._plain.ledger.read_head(plain) is not None:
                    found[self._plain.ledger] = plain
            found[self._ledger] = await stack.enter_async_context(self._connected())
            yield found

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Connection]:
        connection = await self._transport.connector.connect(within=_CONNECT_WITHIN)
        try:
            yield connection
        finally:
            await connection.aclose()
