"""Redis Streams: fan-out that remembers.

Every receiver keeps a cursor of its own and sees every event, also those that were sent while it was away. A stream
remembers for ``retention``. That is a security setting: a revocation must stay as long as a token it covers can live,
or a service that starts later would let that token in.

Source: https://redis.io/docs/latest/develop/data-types/streams/
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from jwt_events import options
from jwt_events.errors import InvalidOption, ServerRefused, TransportError
from jwt_events.transport.base import Delivery, Gap, Guarantees, Page, Receiver, Sender, Sent
from jwt_events.transport.connection import Argument, Connection, Connector
from jwt_events.transport.history import OLDEST, History, is_position, missed, order
from jwt_events.transport.link import ATTEMPT_WITHIN, Link
from jwt_events.transport.sender import RedisSender

if TYPE_CHECKING:
    from redis.asyncio import Redis

FIELD = b"event"
"""The one field of a stream entry; its value is the envelope."""

# How much longer than asked for a blocking read may take before the connection counts as dead.
_GRACE = 2.0

# How often a reader whose connection is fine compares its cursor with the stream: one that is slow, or paused because
# its handlers are busy, can be overtaken by trimming without ever losing the connection.
_COMPARE_EVERY = 1.0

# Trimming is due when this part of the retention has passed since the last time, but at most every second.
_SWEEPS_PER_RETENTION = 100


class RedisStream:
    """Events over a Redis stream: durable, in one order, to every receiver, at least once.

    If in doubt, use this one. Every receiver has a cursor of its own and resumes there after a lost connection. When
    the stream no longer holds what the receiver still needs, it reports a `Gap`.

    Args:
        client_or_url: a ``redis.asyncio.Redis`` client, whose options are copied and which is left alone, or a
            ``redis://``, ``rediss://`` or ``unix://`` URL.
        key: the name of the stream.
        start: where a receiver begins: ``"new"`` with what is sent from now on, ``"all"`` with the oldest event that is
            remembered, a datetime with the first event from then on, a position (as in `Receipt.position`) with
            the first event after it.
        retention: how long the stream remembers, by the server's clock. At least the longest lifetime of a token.
            Publishing an event that expires later is refused.
        batch_size: how many events one read may return.
        block: how long one read waits for an event, in seconds. It does not delay events; it is how often a quiet
            receiver proves that it is current.

    Raises:
        InvalidOption: an argument cannot work.
    """

    name = "stream"
    guarantees = Guarantees(durable=True, redelivers=False, ordered=True, fan_out=True)

    def __init__(
        self,
        client_or_url: Redis | str,
        key: str = "jwt:events",
        *,
        start: str | datetime = "new",
        retention: timedelta = timedelta(days=1),
        batch_size: int = 500,
        block: float = 1.0,
    ) -> None:
        self.destination = options.name("key", key)
        self.retention = options.duration("retention", retention)
        self._start = _cursor_for(start)
        self._start_is_position = self._start == start
        self._batch_size = options.count("batch_size", batch_size, most=100_000)
        self._block = options.seconds("block", block)
        self._connector = Connector(client_or_url, destination=key)

    def __repr__(self) -> str:
        return f"<RedisStream {self.destination!r} at {self._connector.address}>"

    def sender(self) -> AbstractAsyncContextManager[Sender]:
        """Open a way to send; see `Transport.sender`."""
        return RedisSender(self._connector, _Append(self.destination, self.retention))

    @asynccontextmanager
    async def receiver(self, *, from_oldest: bool = False) -> AsyncIterator[Receiver]:
        """Subscribe; see `Transport.receiver`."""
        receiver = _StreamReceiver(
            self._connector,
            cursor=OLDEST if from_oldest else self._start,
            reached=self._start_is_position and not from_oldest,
            batch_size=self._batch_size,
            block=self._block,
        )
        try:
            await receiver.link.open()
            yield receiver
        finally:
            await receiver.link.aclose()


def _cursor_for(start: str | datetime) -> str | None:
    """Return the position after which to read; ``None`` for the end of the stream at the time of asking."""
    if isinstance(start, datetime):
        if start.tzinfo is None:
            raise InvalidOption("start", "a datetime needs a timezone")
        milliseconds = max(0, int(start.timestamp() * 1000))
        return f"{milliseconds - 1}-{2**64 - 1}" if milliseconds else OLDEST
    if start == "new":
        return None
    if start == "all":
        return OLDEST
    if isinstance(start, str) and is_position(start):
        return start
    raise InvalidOption("start", "must be 'new', 'all', an aware datetime, or a position such as '1700000000000-0'")


class _Append:
    """How one payload becomes an XADD, and how the stream is kept from growing."""

    def __init__(self, key: str, retention: timedelta) -> None:
        self._key = key.encode()
        self._retention = int(retention.total_seconds() * 1000)
        self._interval = max(1.0, retention.total_seconds() / _SWEEPS_PER_RETENTION)
        self._next_sweep = 0.0

    def command(self, payload: bytes) -> tuple[Argument, ...]:
        return (b"XADD", self._key, b"*", FIELD, payload)

    def sent(self, answer: Any) -> Sent:
        return Sent(position=answer.decode())

    async def upkeep(self, connection: Connection) -> None:
        """Forget what is older than the retention.

        By the server's clock, so that a publisher whose own clock runs ahead cannot wipe out what others still need;
        in a command of its own, so that appending stays as cheap as it can be.
        """
        if time.monotonic() < self._next_sweep:
            return
        self._next_sweep = time.monotonic() + self._interval
        seconds, microseconds = await connection.call("TIME", within=ATTEMPT_WITHIN)
        oldest = int(seconds) * 1000 + int(microseconds) // 1000 - self._retention
        await connection.call("XTRIM", self._key, "MINID", oldest, within=ATTEMPT_WITHIN)


class _StreamReceiver:
    def __init__(
        self, connector: Connector, *, cursor: str | None, reached: bool, batch_size: int, block: float
    ) -> None:
        self.link = Link(connector, transport=RedisStream.name, greet=self._find_place)
        self._key = connector.destination.encode()
        self._cursor = cursor
        # A position that the stream has had, and what it is compared with; behind a cursor that is a datetime to come.
        self._reached = cursor if reached else None
        self._read: int | None = None  # how many entries had been added up to there, where known
        self._compared_at = 0.0
        self._gaps: list[Gap] = []
        self._batch_size = batch_size
        self._block = block

    async def receive(self) -> Page:
        if (connection := self.link.connection) is None:
            await self.link.reconnect()
            return Page(gaps=self._take_gaps())
        now = asyncio.get_running_loop().time
        try:
            if now() - self._compared_at >= _COMPARE_EVERY:
                await self._find_place(connection)
            asked_at = now()
            entries = await self._next_entries(connection)
        except TransportError as error:
            if not error.retryable:
                raise
            await self.link.lose(error)
            return Page()
        return Page(
            [Delivery(_payload(fields), position.decode()) for position, fields in entries],
            self._take_gaps(),
            asked_at if len(entries) < self._batch_size else None,
        )

    async def _next_entries(self, connection: Connection) -> list[Any]:
        command = ("XREAD", "COUNT", self._batch_size, "BLOCK", max(1, int(self._block * 1000)))
        answer = await connection.call(
            *command, "STREAMS", self._key, self._cursor or OLDEST, within=self._block + _GRACE
        )
        if answer is None:
            return []
        entries: list[Any] = answer[0][1]
        self._cursor = self._reached = entries[-1][0].decode()
        if self._read is not None:
            self._read += len(entries)
        return entries

    async def _find_place(self, connection: Connection) -> None:
        """Find where to read on, and whether something in between is gone."""
        history = await self._history(connection)
        present = history or History()
        self._compared_at = asyncio.get_running_loop().time()
        if self._cursor is None or (self._reached is None and order(present.last) < order(self._cursor)):
            self._cursor = self._cursor or present.last
            self._reached, self._read = present.last, present.added
            return
        self._reached = self._reached or self._cursor
        if self._cursor == OLDEST and self._read is None:
            self._read = present.removed
        elif gap := missed(self._reached, self._read, history):
            self._gaps.append(gap)
            self._read = present.removed
            if gap.cause != "trimmed":
                self._cursor = self._reached = OLDEST

    async def _history(self, connection: Connection) -> History | None:
        try:
            return History.parse(await connection.call("XINFO", "STREAM", self._key, within=ATTEMPT_WITHIN))
        except ServerRefused as error:
            if "no such key" in str(error):
                return None
            raise

    def _take_gaps(self) -> list[Gap]:
        gaps, self._gaps = self._gaps, []
        return gaps


def _payload(fields: list[bytes] | None) -> bytes:
    """Return the envelope of an entry. One that is not ours decodes to an error that is counted, like any other."""
    return fields[1] if fields is not None and len(fields) == 2 else b""
