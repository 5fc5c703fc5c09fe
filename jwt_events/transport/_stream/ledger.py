"""The ledger beside a stream: what is still in force of the events that were removed from it.

A ledger stores entries whose meaning it does not know: bytes, and until when they are needed. It is one sorted set, the
bytes its members and the time their score; so the server merges by maximum, and removes by time what is over. The head
is a member, too, before all others. In one transaction a batch of the stream is folded into it: entries are added, the
head is moved, and what was folded is removed from the stream. So nothing that is interrupted, in this program, at the
server, on a replica or in a file, loses anything, and programs that fold at the same time do each other no harm.

Sources: https://redis.io/docs/latest/commands/zadd/ (``GT``), https://redis.io/docs/latest/commands/scan/ (guarantees),
https://redis.io/docs/latest/develop/using-commands/transactions/ (``WATCH``)
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Final, NamedTuple, TypeAlias

import msgspec

from jwt_events._internal.positions import OLDEST, sort_key
from jwt_events.errors import ServerRefused, TransportError
from jwt_events.transport._redis.commands import Argument, Command
from jwt_events.transport._redis.connection import Connection
from jwt_events.transport._redis.protocol import Bounds
from jwt_events.transport._stream.batch_size import ENTRY_BOUNDS, MAX_BATCH_BYTES, BatchSize
from jwt_events.transport._stream.cursor import stream_info
from jwt_events.transport._stream.entry import payloads_of
from jwt_events.transport._stream.keys import StreamKeys
from jwt_events.transport._stream.ledger_audit import LedgerState
from jwt_events.transport._stream.ledger_head import LedgerHead, advance, successor
from jwt_events.transport._stream.position import StreamInfo
from jwt_events.transport.optional import ENDLESS, Fold, LedgerBatch, LedgerReport

# Seconds from now after which entries are needed whose count is kept in the head.
_BEYOND = 86_400

# Entries of a stream that are read at once, of these those that one transaction folds, and those that are folded before
# other tasks may run: a step keeps the server, or this program, for a tenth of a millisecond.
_FOLD_BATCH = 256
_FOLD_PART = 64
_FOLD_SLICE = 32

# Entries of a ledger that a reader asks for at once: they keep the server for a millisecond, and many lists may start
# at the same time.
_READ_BATCH = 1_000

# Entries that are removed at once when their time is over.
_EXPIRY_BATCH = 500

# Seconds for which an entry is kept after its time: clocks differ, and tokens are accepted for a while after ``exp``.
GRACE = 600.0

# How often the state of a ledger is asked for that is changed meanwhile.
_STATE_ATTEMPTS = 20

# Seconds that a reply may take.
_REPLY_WITHIN = 5.0

NEVER: Final = math.inf
"""The time of an entry that is needed for ever."""

Rest: TypeAlias = Callable[[], Awaitable[None]]
"""Lets other tasks of this program run, for as long as they should go first."""


async def _give_way() -> None:
    await asyncio.sleep(0)


# Takes a quarter of the time that ``float`` takes.
_times = msgspec.json.Decoder(list[float])


class Folded(NamedTuple):
    """What became of a batch of a stream.

    Attributes:
        events: how many entries of the stream were folded and removed; 0 if another one was quicker.
        is_done: whether there are none left to fold.
        lost: how many entries were found to be removed that nobody had folded.
    """

    events: int
    is_done: bool
    lost: int = 0


class Ledger:
    """The ledger of one stream. It holds no connection.

    Args:
        keys: the keys of the stream.

    Attributes:
        keys: the keys of the stream.
    """

    def __init__(self, keys: StreamKeys) -> None:
        self.keys: StreamKeys = keys
        self._stream = keys.stream
        self._size = BatchSize(_FOLD_BATCH)
        self._read_size = BatchSize(_READ_BATCH)

    @property
    def key(self) -> str:
        """The key of the ledger."""
        return self.keys.ledger

    @property
    def head_command(self) -> Command:
        """The command that reads the head."""
        return ("ZRANGE", self.key, "-inf", "-inf", "BYSCORE")

    async def fold_batch(
        self,
        connection: Connection,
        fold: Fold,
        *,
        before: int,
        now: float,
        vanished: bool = False,
        rest: Rest = _give_way,
    ) -> Folded:
        """Fold the oldest entries of the stream and remove them from it, all or none.

        Args:
            connection: used by nobody else until this returns; closed if this fails or is cancelled.
            fold: says what is still in force.
            before: fold only what was added before this, in milliseconds since 1970.
            now: seconds since 1970; if in doubt, the earliest that it may be.
            vanished: whether there must have been a ledger before, if there is none.
            rest: called before each piece of work; see `Rest`.

        Raises:
            TransportError: nothing was folded, unless ``maybe_done``. The key of the ledger is something else, or of a
                later version, or a right is lacking, which the message names.
        """
        with _aborting(connection):
            return await self._fold_batch(connection, fold, before=before, now=now, vanished=vanished, rest=rest)

    async def _fold_batch(
        self, connection: Connection, fold: Fold, *, before: int, now: float, vanished: bool, rest: Rest
    ) -> Folded:
        await rest()
        end, count, beyond = f"({max(1, before)}-0", self._size.count, int(now + _BEYOND)
        replies = await connection.execute_many(
            [
                ("WATCH", self.key),
                self.head_command,
                ("ZCOUNT", self.key, beyond, "+inf"),
                ("XINFO", "STREAM", self._stream),
                ("XRANGE", self._stream, "-", end, "COUNT", count),
                ("MULTI",),  # now, as nothing may follow if it is refused
            ],
            within=_REPLY_WITHIN,
            bounds=self._size.bounds(before=4),
        )
        if connection.was_cut_off:
            self._size.cut_off()
        stream = stream_info(replies[3])
        _require(*replies[:3], *replies[4:])
        _, heads, kept_before, _, found, _ = replies
        head = parse_head(heads)
        if not found or stream is None:
            await connection.call("EXEC", within=_REPLY_WITHIN)
            return Folded(0, is_done=True)
        payloads = payloads_of(found)
        self._size.read(len(payloads), sum(map(len, payloads)))
        moved = advance(head, stream, 0, OLDEST, now=int(now * 1000), vanished=vanished)
        moved = replace(moved, kept=kept_before, beyond=beyond)
        lost = moved.lost - (head.lost if head is not None else 0)
        folded, goes_on = 0, True
        while goes_on:
            part = payloads[folded : folded + _FOLD_PART]
            members = await _folded(part, fold, now, rest)
            end_of_part = folded + len(part)
            moved = moved.after(len(part), found[end_of_part - 1][0].decode())
            is_committed, goes_on = await self._commit(connection, members, moved, is_last=end_of_part == len(payloads))
            folded = end_of_part if is_committed else folded
        return Folded(folded, is_done=folded == len(payloads) < count, lost=lost if folded else 0)

    async def _commit(
        self, connection: Connection, members: Sequence[Argument], head: LedgerHead, *, is_last: bool
    ) -> tuple[bool, bool]:
        """Store members with scores, move the head and trim the stream.

        Returns:
            Whether that was done, as nobody else was quicker; and whether the next part of the batch may follow, the
            transaction of which has begun then.
        """
        commands: list[Command] = [
            ("zremrangebyscore", self.key, "-inf", "-inf"),
            ("zadd", self.key, "GT", "-inf", head.encode(), *members),
            ("xtrim", self._stream, "MINID", successor(head.position)),
            ("EXEC",),
        ]
        following: list[Command] = [] if is_last else [("WATCH", self.key), self.head_command, ("MULTI",)]
        replies = await connection.execute_many([*commands, *following], within=_REPLY_WITHIN)
        _require(*replies)
        result = replies[len(commands) - 1]
        if result is not None and (len(result) != 3 or any(type(reply) is not int for reply in result)):
            connection.abort()
            raise TransportError("the ledger was not written as it should be; nothing is known to be lost")
        goes_on = result is not None and not is_last and replies[-2] == [head.encode()]
        if not (is_last or goes_on):
            await connection.call("EXEC", within=_REPLY_WITHIN)
        return result is not None, goes_on

    async def expire(self, connection: Connection, *, now: float, rest: Rest = _give_way) -> int:
        """Remove entries whose time was over for `GRACE`, and return how many.

        Args:
            connection: used by nobody else until this returns.
            now: seconds since 1970; if in doubt, the earliest that it may be.
            rest: called before each batch; see `Rest`.
        """
        removed, last = 0, f"({max(0.0, now - GRACE):.0f}"
        while True:
            await rest()
            batch = ("ZRANGE", self.key, 0, last, "BYSCORE", "LIMIT", _EXPIRY_BATCH, 1, "WITHSCORES")
            following = await connection.call(*batch, within=_REPLY_WITHIN)
            # All of the second in which the next batch begins, so that each round removes some.
            until = following[1].decode() if following else last
            removed += int(await connection.call("ZREMRANGEBYSCORE", self.key, 0, until, within=_REPLY_WITHIN))
            if not following:
                return removed

    async def remove(self, connection: Connection, wrong: Mapping[bytes, float]) -> int:
        """Remove entries that should not be there, and return how many.

        Args:
            connection: used by nobody else until this returns.
            wrong: the content of each, and its time.

        Raises:
            TransportError: none was removed, unless ``maybe_done``.
        """
        watch: list[Command] = [("WATCH", self.key), self.head_command]
        watching, heads = await connection.execute_many(watch, within=_REPLY_WITHIN)
        _require(watching, heads)
        head = parse_head(heads) or LedgerHead()
        kept = head.kept - sum(until >= head.beyond for until in wrong.values())
        await connection.call("MULTI", within=_REPLY_WITHIN)
        commands: list[Command] = [
            ("zrem", self.key, *wrong),
            ("zremrangebyscore", self.key, "-inf", "-inf"),
            ("zadd", self.key, "-inf", replace(head, kept=max(0, kept)).encode()),
            ("EXEC",),
        ]
        replies = await connection.execute_many(commands, within=_REPLY_WITHIN)
        _require(*replies)
        if replies[-1] is None:
            raise TransportError("the ledger was changed meanwhile, and nothing was removed", retryable=True)
        return int(replies[-1][0])

    async def read_head(self, connection: Connection) -> LedgerHead | None:
        """Return the head; ``None`` if there is no ledger.

        Raises:
            TransportError: it cannot be read, is of a later version, or was not written by this library.
        """
        return parse_head(await connection.call(*self.head_command, within=_REPLY_WITHIN))

    async def read_state(self, connection: Connection) -> LedgerState:
        """Return the ledger and its stream at one moment.

        Raises:
            TransportError: see `read_head`; or the ledger was changed again and again meanwhile.
        """
        head = await self.read_head(connection)
        for _ in range(_STATE_ATTEMPTS):
            beyond = 0 if head is None else head.beyond
            before, kept, stream, after = await connection.execute_many(
                [
                    self.head_command,
                    ("ZCOUNT", self.key, beyond, "+inf"),
                    ("XINFO", "STREAM", self._stream),
                    self.head_command,
                ],
                within=_REPLY_WITHIN,
                bounds=ENTRY_BOUNDS,
            )
            found = stream_info(stream) or StreamInfo()
            _require(before, kept, after)
            if before == after and parse_head(before) == head:
                return LedgerState(head, found, kept)
            head = parse_head(after)
        raise TransportError("the ledger was changed again and again while it was read", retryable=True)

    async def read_stream(self, connection: Connection) -> StreamInfo:
        """Return the state of the stream."""
        asked: list[Command] = [("XINFO", "STREAM", self._stream)]
        (reply,) = await connection.execute_many(asked, within=_REPLY_WITHIN, bounds=ENTRY_BOUNDS)
        return stream_info(reply) or StreamInfo()

    def batches(self, connection: Connection) -> AsyncIterator[LedgerBatch]:
        """Yield all entries that are there from the first batch to the last, some of them twice.

        Raises:
            TransportError: they cannot be read. If a batch was too large, the next reading has smaller ones.
        """
        return _scan(connection, self.key, self._read_size)

    async def counts(self, connection: Connection) -> dict[str, int]:
        """Return how many entries end, have no end, and are needed for ever as they are."""
        scores = (("(-inf", f"({ENDLESS}"), (ENDLESS, "(+inf"), ("+inf", "+inf"))
        asked: list[Command] = [("ZCOUNT", self.key, *bounds) for bounds in scores]
        replies = await connection.execute_many(asked, within=_REPLY_WITHIN)
        _require(*replies)
        return dict(zip(("ending", "endless", "key"), replies, strict=True))

    async def bytes(self, connection: Connection) -> int | None:
        """Return how much memory it takes; ``None`` without the right to ask."""
        try:
            return int(await connection.call("MEMORY", "USAGE", self.key, within=_REPLY_WITHIN) or 0)
        except ServerRefused:
            return None

    async def report(self, connection: Connection, *, before: int) -> LedgerReport:
        """Return the state of the ledger.

        Args:
            connection: used by nobody else until this returns.
            before: what was added before this should have been folded, in milliseconds since 1970.
        """
        stream = await self.read_stream(connection)
        oldest = before if stream.first is None else sort_key(stream.first)[0]
        return LedgerReport(max(0, before - oldest) / 1000, await self.counts(connection), await self.bytes(connection))


def parse_head(members: Sequence[bytes]) -> LedgerHead | None:
    """Return the head among the members before all others; ``None`` if there are none.

    Raises:
        TransportError: see `LedgerHead.parse`; or there are several.
    """
    if not members:
        return None
    if len(members) > 1:
        raise TransportError("the head of the ledger was not written by this library")
    return LedgerHead.parse(members[0])


async def _scan(connection: Connection, key: str, size: BatchSize) -> AsyncIterator[LedgerBatch]:
    cursor = "0"
    while True:
        bounds = Bounds(reply=MAX_BATCH_BYTES if size.count > 1 else None)
        asked = "ZSCAN", key, cursor, "COUNT", size.count
        try:
            found, flat = await connection.call(*asked, within=_REPLY_WITHIN, bounds=bounds)
        except TransportError:
            if connection.was_cut_off:
                size.cut_off()
            raise
        yield _batch(flat)
        if (cursor := found.decode()) == "0":
            return


def _batch(flat: list[bytes]) -> LedgerBatch:
    """Return the entries among members and scores in turn."""
    contents, scores = flat[::2], flat[1::2]
    try:
        return LedgerBatch(contents, _times.decode(b"[%b]" % b",".join(scores)))
    except msgspec.DecodeError:  # one of them is infinite
        entries = zip(contents, map(float, scores), strict=True)
        return LedgerBatch.of(entry for entry in entries if entry[1] != -NEVER)


@contextmanager
def _aborting(connection: Connection) -> Iterator[None]:
    """Close the socket if the block fails or is cancelled: it may be within a transaction."""
    try:
        yield
    except BaseException:
        connection.abort()
        raise


async def _folded(payloads: Sequence[bytes], fold: Fold, now: float, rest: Rest) -> list[Argument]:
    """Fold events to scores and members in turn."""
    members: list[Argument] = []
    for start in range(0, len(payloads), _FOLD_SLICE):
        await rest()
        for content, until in fold(payloads[start : start + _FOLD_SLICE], now):
            members += "+inf" if until == NEVER else max(0, math.ceil(until)), content
    await rest()
    return members


def _require(*replies: object) -> None:
    """Raise the first error among replies: if the connection failed in between, what was sent may have been done."""
    for reply in replies:
        if isinstance(reply, TransportError):
            raise reply
