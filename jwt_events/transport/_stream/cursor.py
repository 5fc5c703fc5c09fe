"""A receiver with a cursor of its own, which sees every event of a stream."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from jwt_events._internal.clock import boottime
from jwt_events.errors import ServerRefused, TransportError
from jwt_events.transport._redis.commands import Command
from jwt_events.transport._redis.connection import Connection
from jwt_events.transport._redis.owner import Owner
from jwt_events.transport._redis.protocol import Request
from jwt_events.transport._redis.reconnecting import ATTEMPT_WITHIN, Connecting, ReconnectingConnection
from jwt_events.transport._redis.role import replication_of
from jwt_events.transport._stream.batch_size import ENTRY_BOUNDS, BatchSize
from jwt_events.transport._stream.entry import cut, parse_deliveries
from jwt_events.transport._stream.pacing import MAX_SPACING, Pacing, ServerLoad, processor_time_of
from jwt_events.transport._stream.position import StreamCursor, StreamInfo
from jwt_events.transport._stream.read_proof import ReadProof
from jwt_events.transport._stream.settler import Settler
from jwt_events.transport.base import Batch, Delivery, Failure, Gap

# Seconds by which a blocking read may take longer than asked for before the connection counts as dead.
GRACE = 2.0

# Seconds between the checks of an idle server whether a blocking read has waited long enough (its ``hz``).
_SERVER_TICK = 0.1

# Entries that are asked for at once, until replies come later than those before are passed on.
_FIRST_BATCH = 256

# Seconds after which at the latest a reader checks that no entry was removed before it was read.
_AUDIT_INTERVAL = 1.0

# What the readers of this process know of each server, by what the system calls it.
_loads: WeakValueDictionary[Any, ServerLoad] = WeakValueDictionary()


class _Read(NamedTuple):
    """A read that was sent.

    Attributes:
        request: the read, preceded by the audit and by the question for what the server has spent, where those are due.
        sent_at: when it was sent, by `boottime`.
        connection: the connection that it was sent on.
        asked: how many entries it asks for.
        received: how many bytes had arrived on the connection before.
        audit: how many commands the audit has; 0 without one.
        is_sample: whether the server is asked, before the read, what it has spent.
    """

    request: Request
    sent_at: float
    connection: Connection
    asked: int
    received: int
    audit: int
    is_sample: bool


class CursorReceiver:
    """Reads a stream from a cursor, across reconnections, and proves that no entry is missing. A `Receiver`.

    Args:
        connector: opens the connections that it reads from.
        settler: keeps dead letters.
        cursor: where to begin.
        batch_size: how many entries one read may return.
        block: how long one read waits at most, in seconds.
        proof: makes what proves that nothing is missing, given what says who the owner of the stream is.
        grace: seconds by which a blocking read may take longer before the connection counts as dead.
    """

    def __init__(
        self,
        connector: Connecting,
        settler: Settler,
        cursor: StreamCursor,
        *,
        batch_size: int,
        block: float,
        proof: Callable[[Owner], ReadProof],
        grace: float = GRACE,
    ) -> None:
        self.reconnecting: ReconnectingConnection = ReconnectingConnection(
            connector, transport="stream", on_connect=self._on_connect, overdue_after=block
        )
        self._connector = connector
        self._proof = proof(self.reconnecting.owner)
        self._grace = grace
        self._key = connector.destination
        self.settler: Settler = settler
        self._cursor = cursor
        self._batch_size = BatchSize(batch_size, begin=_FIRST_BATCH)
        self._block = block
        # A read that may wait for less than a tick of the server does not block there: it is delayed here instead.
        self._blocks_for = block - _SERVER_TICK if block > _SERVER_TICK else None
        self._gaps: list[Gap] = []
        self._audit_interval = min(_AUDIT_INTERVAL, self._blocks_for or block)
        self._audited_at = 0.0
        self.pacing: Pacing = Pacing(min(MAX_SPACING, self._audit_interval / 4))
        self._ahead: _Read | None = None
        self._doubt: TransportError | None = None  # why the server is left at the next read
        self._missing = 0  # how many bytes of the entry were left at the server
        self._is_at_end = False
        self._has_missed = False  # whether a gap was ever reported
        self._history = ""  # the history that the cursor's position belongs to

    async def receive(self) -> Batch:
        """Read the next batch; see `Receiver.receive`."""
        if self._proof.take_move():
            await self.reconnecting.leave()
        if (connection := self.reconnecting.connection) is None:
            reconnected = await self.reconnecting.reconnect()
            return replace(self._begun(), reconnected=reconnected, refusal=self.reconnecting.take_refusal())
        if self._gaps:  # found when it was opened
            return self._begun()
        try:
            if self._doubt is not None:
                doubt, self._doubt = self._doubt, None
                raise doubt
            await self.settler.wait_for_room()
            entries = await self._read(connection)
        except TransportError as error:
            if not error.retryable:
                raise
            if connection.is_closed:
                self._batch_size.fail(is_too_large=connection.was_cut_off)
            await self.reconnecting.drop(error)
            return Batch(refusal=self._proof.take_refusal())
        try:
            self._proof.conclude()
            self._history = self._proof.history
        except TransportError as error:  # what was read is delivered first, as the cursor has moved on
            self._doubt, self._history = error, ""
        gaps = self._take_gaps()
        if entries is None:
            return Batch(gaps=gaps)
        is_proof = self._is_at_end and not gaps  # a read that misses some proves nothing
        return Batch(
            cut(parse_deliveries(entries), self._missing),
            gaps,
            self._proof.current_as_of if is_proof else None,  # of an audit, as the stream may have been replaced since
            reached=self._cursor.accounted if is_proof and not self._has_missed else None,
            refusal=self._proof.take_refusal(),
            history=self._history,
        )

    def _begun(self) -> Batch:
        """Return what was found when it connected: what is missing, and where it reads on."""
        gaps = self._take_gaps()
        return Batch(gaps=gaps, reached=self._cursor.position if gaps else None, history=self._history)

    @property
    def is_live(self) -> bool:
        """Whether it is connected; see `Receiver`."""
        return self.reconnecting.connection is not None

    @property
    def is_at_end(self) -> bool:
        """Whether the last read reached the end of the stream."""
        return self._is_at_end

    def settle(self, delivery: Delivery, failure: Failure | None = None) -> None:
        """Keep a dead letter if the delivery was given up; see `Receiver.settle`."""
        if failure is not None:
            self.settler.settle(delivery, failure)

    async def _read(self, connection: Connection) -> list[Any] | None:
        """Return the next entries; ``None`` if they have to be read again from an earlier position."""
        position = self._cursor.position
        read, self._ahead = self._ahead, None
        if read is None or read.connection is not connection:
            read, is_late = await self._send_read(connection, position), False
        else:
            is_late = not read.request.settled.done()
        *before, reply = await connection.replies(read.request, within=self._block + self._grace)
        if isinstance(reply, TransportError):
            raise reply
        self._missing = read.request.dropped if read.asked == 1 else 0
        if read.audit:
            stream, replication, *beside = before[: read.audit]
            self._proof.hear(replication_of(replication), read.sent_at, beside)
            self._reconcile(stream_info(stream), read.sent_at)
        if read.is_sample:
            self.pacing.hear(read.sent_at, processor_time_of(before[-1]), _chance())
        if self._cursor.position != position:  # rewound: these entries are read again, in their order
            self._is_at_end = False
            return None
        entries: list[Any] = reply[0][1] if reply else []
        self._is_at_end = len(entries) < read.asked
        size = connection.protocol.received - read.received
        self._batch_size.read(len(entries), size, is_late=is_late and not self._is_at_end)
        if not self._is_at_end and self._batch_size.count > 1:  # one at a time, so that one is in memory
            # There are more: let the server read them while these are delivered. If sending fails or is cancelled, the
            # connection is closed, and as the cursor has not moved these are read again.
            self._ahead = await self._send_read(connection, entries[-1][0].decode())
        elif entries:
            self.pacing.wake(boottime(), len(entries))
        if gap := self._cursor.advance(entries, is_end=self._is_at_end):
            self._gaps.append(gap)
            if gap.cause == "deleted":  # rewound: these are not the entries of the stream that was read so far
                self._ahead, self._is_at_end = None, False
        return entries

    async def _send_read(self, connection: Connection, position: str) -> _Read:
        wait: Command = ()
        if self._is_at_end:  # until the end is known to be reached, a read must reply at once
            if self._blocks_for is None:
                await asyncio.sleep(self._block)
            else:
                longest = min(self._blocks_for, self._connector.topology.max_block)
                wait = ("BLOCK", max(1, int(longest * 1000)))
                if pause := self.pacing.pause(boottime()):
                    await asyncio.sleep(pause)
        count, bounds = self._batch_size.count, self._batch_size.bounds()
        sent_at = boottime()  # not the loop's own clock, which uvloop cuts to milliseconds
        commands = self._audit(sent_at)
        audit = len(commands)
        if is_sample := self.pacing.must_ask(sent_at, _chance(), is_audit=audit > 0):
            commands.append(("INFO", "cpu"))
        if commands:
            bounds = self._batch_size.bounds(before=len(commands))
        commands.append(("XREAD", "COUNT", count, *wait, "STREAMS", self._key, position))
        request = connection.send(commands, bounds=bounds)
        return _Read(request, sent_at, connection, count, connection.protocol.received, audit, is_sample)

    def _audit(self, now: float) -> list[Command]:
        """Begin an audit if it is due, and return its commands."""
        # No later because of a pause: the next read may be the first one after it.
        if now < self._audited_at + self._audit_interval - self.pacing.spacing and self._cursor.is_counted:
            return []
        self._proof.request(now)
        return [("XINFO", "STREAM", self._key), ("INFO", "replication"), *self._proof.commands]

    async def _on_connect(self, connection: Connection) -> None:
        """Report entries lost since the last connection: removed, or gone with a server that was replaced."""
        sent_at = boottime()
        self.pacing.restart(sent_at, _load_of(connection.protocol.peer_name))
        await self._proof.begin(connection)
        (stream,) = await connection.execute_many(
            [("XINFO", "STREAM", self._key)], within=ATTEMPT_WITHIN, bounds=ENTRY_BOUNDS
        )
        found = stream_info(stream)
        # Before any change of state, as all of this is repeated if it fails; and always, so that a missing right is
        # known at once.
        holds = await self._still_holds(connection, self._cursor.position)
        cause = await self._proof.judge(connection, self._cursor, holds=holds)
        if cause == "restarted":
            self._report_restart(found, holds=holds)
        elif cause is not None:
            self._gaps.append(Gap(self._cursor.position, cause))
        self._is_at_end = False
        self._reconcile(found, sent_at, holds=holds)
        self._history = self._proof.history

    def _report_restart(self, found: StreamInfo | None, *, holds: bool) -> None:
        """Report that this server may lack entries after the cursor, and rewind if it lacks the one at the cursor."""
        self._gaps.append(Gap(self._cursor.position, "restarted"))
        self._cursor.forget_server()
        if not holds and found is not None:
            self._cursor.rewind(found)

    async def _still_holds(self, connection: Connection, position: str) -> bool:
        command = "XRANGE", self._key, position, position
        return bool(await connection.call(*command, within=ATTEMPT_WITHIN, bounds=ENTRY_BOUNDS))

    def _reconcile(self, found: StreamInfo | None, sent_at: float, *, holds: bool | None = None) -> None:
        self._audited_at = sent_at
        if gap := self._cursor.reconcile(found, holds=holds):
            self._gaps.append(gap)

    def _take_gaps(self) -> list[Gap]:
        gaps, self._gaps = self._gaps, []
        self._has_missed = self._has_missed or bool(gaps)
        return gaps


def _load_of(server: Any) -> ServerLoad:
    """Return what the readers of this process know of a server, by what the system calls it."""
    return ServerLoad() if server in {None, ""} else _loads.setdefault(server, ServerLoad())


def _chance() -> float:
    return random.random()  # noqa: S311 - only spreads load


def stream_info(reply: Any) -> StreamInfo | None:
    """Parse the reply to XINFO STREAM; ``None`` if there is no such stream.

    Raises:
        TransportError: the server refused or did not reply.
    """
    if isinstance(reply, ServerRefused) and "no such key" in str(reply):
        return None
    if isinstance(reply, TransportError):
        raise reply
    return StreamInfo.parse(reply)
