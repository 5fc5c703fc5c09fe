"""A receiver for replicas: a stream from its oldest entry, then its ledger, then the stream again.

In this order nothing is missed: an entry that left the stream before it was read had been folded into the ledger
before. If the reader falls behind what is trimmed, it reads the ledger again when it has reached the end.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from dataclasses import replace

from jwt_events.errors import ServerRefused, TransportError
from jwt_events.transport._redis.connection import Connection
from jwt_events.transport._stream.cursor import CursorReceiver
from jwt_events.transport._stream.ledger import Ledger
from jwt_events.transport._stream.ledger_audit import LedgerAudit, LedgerState
from jwt_events.transport._stream.plain import PlainKeys
from jwt_events.transport.base import Batch, Delivery, Failure, Gap
from jwt_events.transport.optional import LedgerBatch


class ReplicaReceiver:
    """Reads a stream and its ledger. A `Receiver` whose batches have parts of the ledger, too.

    Args:
        stream: reads the stream from its oldest entry; entered.
        ledger: the ledger beside it.
        plain: what lies under plain names in a cluster: the ledger there is read before that one.
    """

    def __init__(self, stream: CursorReceiver, ledger: Ledger, plain: PlainKeys) -> None:
        self._stream = stream
        self._ledger = ledger
        self._plain = plain
        self._plain_state: LedgerState | None = None
        self._key = ledger.key  # of what was read last
        self._audit = LedgerAudit()
        self._is_due = True  # whether the ledger has to be read
        self._trimmed: list[Gap] = []  # what was removed before it was read, and must be in the ledger
        self._parts: AsyncGenerator[LedgerBatch] | None = None
        self._proof: float | None = None  # as of when the stream was read to its end before the ledger
        self._reached: str | None = None  # up to where it was read then
        self._history = ""  # to which that position belongs

    @property
    def is_live(self) -> bool:
        """Whether it is connected; see `Receiver`."""
        return self._stream.is_live

    def settle(self, delivery: Delivery, failure: Failure | None = None) -> None:
        """Keep a dead letter if the delivery was given up; see `Receiver.settle`."""
        self._stream.settle(delivery, failure)

    async def check(self) -> None:
        """Read the head of the ledger, so that what prevents reading it is known at once.

        Raises:
            TransportError: it cannot be read; the message names the right that is missing.
        """
        if (connection := self._stream.reconnecting.connection) is not None:
            try:
                if self._plain.are_apart:
                    self._key = self._plain.ledger.key
                    async with self._plain.connected(self._key) as beside:
                        await self._plain.read_state(beside)
                self._key = self._ledger.key
                await self._ledger.read_state(connection)
            except ServerRefused as error:
                if not error.retryable:
                    raise self._named(error) from error
                await self._stream.reconnecting.drop(error)  # another server may allow it

    async def aclose(self) -> None:
        """Close what it opened besides the stream; idempotent."""
        parts, self._parts = self._parts, None
        if parts is not None:
            await parts.aclose()

    async def receive(self) -> Batch:
        """Read the next batch; see `Receiver.receive`."""
        connection = self._stream.reconnecting.connection
        if self._parts is not None and connection is not None:
            return await self._receive_part(self._parts, connection)
        await self.aclose()
        batch = await self._stream.receive()
        if batch.gaps:
            self._is_due = True
            self._trimmed += [gap for gap in batch.gaps if gap.cause == "trimmed"]
        if not self._is_due:
            return batch
        connection = self._stream.reconnecting.connection
        if connection is not None and self._stream.is_at_end:
            self._parts = self._read(connection)
            self._proof, self._reached, self._history = batch.current_as_of, batch.reached, batch.history
        gaps = [gap for gap in batch.gaps if gap.cause != "trimmed"]
        reached = batch.reached if batch.gaps else None  # where it reads on; any other says what is in force
        return replace(batch, gaps=gaps, current_as_of=None, reached=reached)

    async def _read(self, connection: Connection) -> AsyncGenerator[LedgerBatch]:
        """Yield the entries of all there is: in this order, as what is taken over is in the later one before."""
        self._plain_state = None
        if self._plain.are_apart:
            self._key = self._plain.ledger.key
            async with self._plain.connected(self._key) as beside:
                self._plain_state = await self._plain.read_state(beside)
                if self._plain_state is not None:
                    async for batch in self._plain.ledger.batches(beside):
                        yield batch
        self._key = self._ledger.key
        async for batch in self._ledger.batches(connection):
            yield batch

    async def _receive_part(self, parts: AsyncGenerator[LedgerBatch], connection: Connection) -> Batch:
        self._parts = None  # if this fails or is cancelled, it is read again from its beginning
        try:
            part = await anext(parts, None)
            if part is None:
                gaps = await self._judge(connection)
                if gaps:
                    return Batch(gaps=gaps)
                return Batch(current_as_of=self._proof, reached=self._reached, history=self._history)
        except TransportError as error:
            if not error.retryable:
                raise self._named(error) from error
            await self._stream.reconnecting.drop(error)
            return Batch()
        self._parts = parts
        return Batch(ledger=part)

    async def _judge(self, connection: Connection) -> list[Gap]:
        found = await self._ledger.read_state(connection)
        gaps = self._audit.judge(found, self._trimmed, now=time.time(), plain=self._plain_state)
        self._is_due, self._trimmed = False, []
        return gaps

    def _named(self, error: TransportError) -> TransportError:
        if not isinstance(error, ServerRefused):
            return error
        problem = (
            f"the ledger {self._key!r} cannot be read: {error}; a list needs +zrange +zscan +zcount on it, or"
            " the option ledger=False where the stream has none"
        )
        return ServerRefused(problem, code=error.code, retryable=error.retryable)
