"""Reads a stream from a cursor: every reader sees every event."""

from __future__ import annotations

import asyncio
import time
from typing import Any, NamedTuple

from jwt_events.errors import ServerRefused, TransportError
from jwt_events.transport._redis.connection import Connection, Connector
from jwt_events.transport._redis.protocol import Command, Request
from jwt_events.transport._redis.reconnecting import ATTEMPT_WITHIN, ReconnectingConnection
from jwt_events.transport._stream.epoch import Epoch, epoch_of, is_replica
from jwt_events.transport._stream.position import StreamCursor, StreamInfo
from jwt_events.transport._stream.settler import Settler
from jwt_events.transport.base import Batch, Delivery, Failure, Gap

# How much longer than asked for a blocking read may take before the connection counts as dead.
GRACE = 2.0

# A server that is idle looks only so often, in seconds, whether a blocking read has waited long enough (its ``hz``).
_SERVER_TICK = 0.1

# How often at least a reader makes sure that nothing was removed before it could be read, in seconds.
_AUDIT_INTERVAL = 1.0


class _Read(NamedTuple):
    """A read that was sent.

    Attributes:
        question: the read, after the audit that goes with it now and then.
        asked_at: when, by `time.monotonic`.
        connection: where the answer will come.
    """

    question: Request
    asked_at: float
    connection: Connection


class CursorReceiver:
    """Reads on from a place, across reconnections, and proves that nothing is missing. A `Receiver`.

    Args:
        connector: makes its connections.
        settler: keeps what was given up.
        place: where to begin.
        batch_size: how many entries one read may return.
        block: how long one read waits at most, in seconds.
    """

    def __init__(
        self, connector: Connector, settler: Settler, place: StreamCursor, *, batch_size: int, block: float
    ) -> None:
        self.link: ReconnectingConnection = ReconnectingConnection(connector, transport="stream", greet=self._greet)
        self._key = connector.destination
        self._settler = settler
        self._place = place
        self._batch_size = batch_size
        self._block = block
        # A read that may not wait for a tick of the server does not block there: the wait comes before it, here.
        self._blocks_for = block - _SERVER_TICK if block > _SERVER_TICK else None
        self._epoch: Epoch | None = None
        self._gaps: list[Gap] = []
        self._audit_interval = min(_AUDIT_INTERVAL, self._blocks_for or block)
        self._audited_at = 0.0
        self._ahead: _Read | None = None
        self._is_at_end = False
        self._is_replica = False

    async def receive(self) -> Batch:
        """Read on; see `Receiver.receive`."""
        if (connection := self.link.connection) is None:
            reconnected = await self.link.reconnect()
            return Batch(gaps=self._take_gaps(), reconnected=reconnected)
        try:
            entries = await self._read(connection)
        except TransportError as error:
            if not error.retryable:
                raise
            await self.link.lose(error)
            return Batch()
        if entries is None:
            return Batch(gaps=self._take_gaps())
        return Batch(
            [Delivery(payload(fields), position.decode()) for position, fields in entries],
            self._take_gaps(),
            # The end of a stream that was replaced since the last audit would prove nothing, nor that of a replica,
            # which may be cut off from where events are added.
            self._audited_at if self._is_at_end and not self._is_replica else None,
        )

    def settle(self, delivery: Delivery, failure: Failure | None = None) -> None:
        """Keep what was given up; see `Receiver.settle`."""
        if failure is not None:
            self._settler.settle(delivery, failure)

    async def _read(self, connection: Connection) -> list[Any] | None:
        """Return the entries that come next; ``None`` if they have to be read again from further back."""
        cursor = self._place.cursor
        read, self._ahead = self._ahead, None
        if read is None or read.connection is not connection:
            read = await self._ask(connection, cursor)
        *audit, answer = await connection.answers(read.question, within=self._block + GRACE)
        if isinstance(answer, TransportError):
            raise answer
        if audit:
            history, replication = audit
            self._is_replica = is_replica(replication)
            self._reconcile(stream_info(history), read.asked_at)
        if self._place.cursor != cursor:  # rewound: what was read comes again, in its order
            return None
        entries: list[Any] = answer[0][1] if answer else []
        self._is_at_end = len(entries) < self._batch_size
        if not entries:
            return []
        last = entries[-1][0].decode()
        if not self._is_at_end:
            # There is more: let the server look for it while these are taken. If that fails, or is cancelled, the
            # connection is closed, and with the place unchanged these are read again.
            self._ahead = await self._ask(connection, last)
        self._place.advance(last, len(entries))
        return entries

    async def _ask(self, connection: Connection, cursor: str) -> _Read:
        wait: Command = ()
        if self._is_at_end:  # whoever does not know to be there wants to hear it at once
            if self._blocks_for is None:
                await asyncio.sleep(self._block)
            else:
                wait = ("BLOCK", max(1, int(self._blocks_for * 1000)))
        commands: list[Command] = [("XREAD", "COUNT", self._batch_size, *wait, "STREAMS", self._key, cursor)]
        asked_at = time.monotonic()  # not the loop's own clock, which uvloop cuts to milliseconds
        if asked_at >= self._audited_at + self._audit_interval:
            commands[:0] = [("XINFO", "STREAM", self._key), ("INFO", "replication")]
        return _Read(connection.ask(commands), asked_at, connection)

    async def _greet(self, connection: Connection) -> None:
        """Find out where to read on, whether something in between is gone, and whether this is the same server."""
        asked_at = time.monotonic()
        epoch = await epoch_of(connection, within=ATTEMPT_WITHIN)
        (history,) = await connection.pipeline([("XINFO", "STREAM", self._key)], within=ATTEMPT_WITHIN)
        found = stream_info(history)
        since, before = self._place.cursor, self._epoch
        if epoch.may_lack(before) if before is not None else self._place.resumes:
            holds = await self._still_holds(connection, since)  # if this fails, nothing was decided yet
            if before is not None or epoch.may_lack_what_followed(since, is_there=holds):
                self._doubt(found, holds=holds)
        self._epoch, self._is_replica = epoch, epoch.is_replica
        self._is_at_end = False
        self._reconcile(found, asked_at)

    def _doubt(self, found: StreamInfo | None, *, holds: bool) -> None:
        """Report that this server may lack what followed the cursor, and begin again if it lacks what was there."""
        self._gaps.append(Gap(self._place.cursor, "restarted"))
        if holds or found is None:
            self._place.doubt()
        else:
            self._place.rewind(found)

    async def _still_holds(self, connection: Connection, position: str) -> bool:
        return bool(await connection.call("XRANGE", self._key, position, position, within=ATTEMPT_WITHIN))

    def _reconcile(self, found: StreamInfo | None, asked_at: float) -> None:
        self._audited_at = asked_at
        if gap := self._place.reconcile(found):
            self._gaps.append(gap)

    def _take_gaps(self) -> list[Gap]:
        gaps, self._gaps = self._gaps, []
        return gaps


def stream_info(answer: Any) -> StreamInfo | None:
    """Read the answer of XINFO STREAM; ``None`` if there is no such stream.

    Raises:
        TransportError: the server refused or did not answer.
    """
    if isinstance(answer, ServerRefused) and "no such key" in str(answer):
        return None
    if isinstance(answer, TransportError):
        raise answer
    return StreamInfo.parse(answer)


def payload(fields: list[bytes] | None) -> bytes:
    """Return the envelope in an entry. One that is not ours decodes to an error that is counted, like any other."""
    return fields[1] if fields is not None and len(fields) == 2 else b""
