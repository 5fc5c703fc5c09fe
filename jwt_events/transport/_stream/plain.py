"""What lies under plain names in a cluster, because it was copied there from one server: read, and taken over.

Tools that move a server to a cluster keep the names of keys. There the ledger, the longest retention and the dead
letters of a stream without a hash tag have other names, which are in its slot, and what was copied lies in slots of its
own. So whoever reads the ledger reads the plain one first, and then its own: what is no longer in the first was in the
second before. The publisher that folds takes over what it finds: it merges, and only then removes; rules and
retentions merge by maximum, so this may be interrupted, repeated, and done by several at once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from loguru import logger

from jwt_events.errors import TransportError
from jwt_events.transport._redis.commands import Command
from jwt_events.transport._redis.connection import Connection, Connector
from jwt_events.transport._stream.cursor import stream_info
from jwt_events.transport._stream.keys import StreamKeys
from jwt_events.transport._stream.ledger import Ledger, parse_head
from jwt_events.transport._stream.ledger_audit import LedgerState
from jwt_events.transport._stream.ledger_head import LedgerHead, united
from jwt_events.transport._stream.position import StreamInfo
from jwt_events.transport.optional import LedgerBatch

# Seconds within which the server of a marker must be reached: a publish may wait for it.
_CONNECT_WITHIN = 1.0

# Seconds that a reply may take.
_REPLY_WITHIN = 5.0

# Entries that are merged into the ledger at once.
_MERGE_BATCH = 1_000

# How often the head of a ledger is merged that others change meanwhile.
_ATTEMPTS = 20


class PlainKeys:
    """What lies under the plain names of one stream.

    Args:
        connector: opens connections to the server of the stream.
        keys: the names of the stream's keys.

    Attributes:
        ledger: the ledger under its plain name.
        dead_letter: the plain name of the dead letters.
    """

    def __init__(self, connector: Connector, keys: StreamKeys) -> None:
        plain = StreamKeys(keys.stream)
        self._connector = connector
        self._keys = keys
        self._retention = plain.retention
        self.dead_letter: str = plain.dead_letter
        self.ledger: Ledger = Ledger(plain)

    @property
    def are_apart(self) -> bool:
        """Whether the keys of the stream have other names; elsewhere nothing is done here."""
        return self._keys.plain is not None

    async def take_over_retention(self, own: Connection) -> None:
        """Announce what publishers announced under the plain name, and only then forget it there.

        Args:
            own: a connection to the server of the stream.

        Raises:
            TransportError: without the right, or without an answer: then nothing may be removed from the stream.
        """
        if not self.are_apart:
            return
        async with self.connected(self._retention, within=_CONNECT_WITHIN) as plain:
            found = await plain.call("ZRANGE", self._retention, 0, -1, "WITHSCORES", within=_REPLY_WITHIN)
            if not found:
                return
            members = [part for name, number in _pairs(found) for part in (number, name)]
            await own.call("ZADD", self._keys.retention, "GT", *members, within=_REPLY_WITHIN)
            reached = max((number for _, number in _pairs(found)), key=float)
            await plain.call("ZREMRANGEBYSCORE", self._retention, "-inf", reached, within=_REPLY_WITHIN)

    async def read_state(self, connection: Connection) -> LedgerState | None:
        """Return the ledger under its plain name at one moment; ``None`` if there is none.

        Raises:
            TransportError: it cannot be read, is of a later version, or was not written by this library.
        """
        head = await self.ledger.read_head(connection)
        while head is not None:
            kept, heads = await connection.execute_many(
                [("ZCOUNT", self.ledger.key, head.beyond, "+inf"), self.ledger.head_command], within=_REPLY_WITHIN
            )
            _require(kept, heads)
            if parse_head(heads) == head:
                return LedgerState(head, StreamInfo(), kept)
            head = parse_head(heads)
        return None

    async def take_over_ledger(self, own: Connection, ledger: Ledger) -> bool:
        """Merge the ledger under its plain name into the one beside the stream, and only then remove it.

        Args:
            own: a connection to the server of the stream, used by nobody else until this returns.
            ledger: the ledger beside the stream.

        Returns:
            Whether there was one.

        Raises:
            TransportError: it cannot be read or removed, or the other one cannot be written. Nothing is lost.
        """
        if not self.are_apart:
            return False
        async with self.connected(self.ledger.key) as plain:
            replies = await plain.execute_many(
                [("WATCH", self.ledger.key), self.ledger.head_command], within=_REPLY_WITHIN
            )
            _require(*replies)
            if (head := parse_head(replies[1])) is None:
                return False
            async for batch in self.ledger.batches(plain):
                await _merge(own, ledger.key, batch)
            await _merge_head(own, ledger, head)
            await plain.call("MULTI", within=_REPLY_WITHIN)
            replies = await plain.execute_many([("unlink", self.ledger.key), ("EXEC",)], within=_REPLY_WITHIN)
            _require(*replies)
        if replies[1] is None:  # it was changed meanwhile: perhaps another one has removed it
            logger.info("the ledger of one server was changed while it was taken over", destination=self._keys.stream)
        else:
            logger.info("the ledger of one server was taken over", destination=self._keys.stream)
        return True

    @asynccontextmanager
    async def connected(self, key: str, *, within: float = _REPLY_WITHIN) -> AsyncIterator[Connection]:
        """Open a connection to the server that has one of these keys, for the block.

        Raises:
            TransportError: it cannot be opened.
        """
        connection = await self._connector.beside(key).connect(within=within)
        try:
            yield connection
        finally:
            await connection.aclose()


async def _merge(own: Connection, key: str, entries: LedgerBatch) -> None:
    """Add entries to a ledger, each with the later of its times."""
    for start in range(0, len(entries), _MERGE_BATCH):
        batch = entries[start : start + _MERGE_BATCH]
        members: list[Any] = [part for content, until in batch for part in (repr(until), content)]
        await own.call("ZADD", key, "GT", *members, within=_REPLY_WITHIN)


async def _merge_head(own: Connection, ledger: Ledger, plain: LedgerHead) -> None:
    """Move the head of a ledger into which all entries of another one were merged."""
    for _ in range(_ATTEMPTS):
        watch: list[Command] = [("WATCH", ledger.key), ledger.head_command, ("XINFO", "STREAM", ledger.keys.stream)]
        watching, heads, stream = await own.execute_many(watch, within=_REPLY_WITHIN)
        _require(watching, heads)
        head = united(parse_head(heads), plain, stream_info(stream) or StreamInfo()) or plain
        await own.call("MULTI", within=_REPLY_WITHIN)
        commands: list[Command] = [
            ("zremrangebyscore", ledger.key, "-inf", "-inf"),
            ("zadd", ledger.key, "-inf", head.encode()),
            ("EXEC",),
        ]
        replies = await own.execute_many(commands, within=_REPLY_WITHIN)
        _require(*replies)
        if replies[-1] is not None:
            return
    raise TransportError("the ledger was changed again and again while another was merged into it", retryable=True)


def _pairs(members: list[bytes]) -> list[tuple[bytes, bytes]]:
    return list(zip(members[::2], members[1::2], strict=True))


def _require(*replies: object) -> None:
    for reply in replies:
        if isinstance(reply, TransportError):
            raise reply
