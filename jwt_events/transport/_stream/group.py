"""Shares a stream between receivers: each event goes to one of them and comes back until it is settled.

Source: https://redis.io/docs/latest/develop/data-types/streams/#consumer-groups
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from loguru import logger

from jwt_events.errors import ServerRefused, TransportError
from jwt_events.transport._redis.connection import Connection, Connector
from jwt_events.transport._redis.multiplexer import PAGE, Multiplexer
from jwt_events.transport._redis.reconnecting import ATTEMPT_WITHIN, ReconnectingConnection
from jwt_events.transport._redis.replies import array
from jwt_events.transport._stream.consumer_group import ConsumerGroup
from jwt_events.transport._stream.cursor import GRACE, payload, stream_info
from jwt_events.transport._stream.epoch import Epoch, epoch_of
from jwt_events.transport._stream.position import OLDEST, StreamCursor, StreamInfo, previous, sort_key
from jwt_events.transport._stream.settler import Settler
from jwt_events.transport.base import Batch, Delivery, Failure, Gap

# A consumer that holds nothing and has not asked for anything for so long is not coming back, in milliseconds.
_ABANDONED_AFTER = 3_600_000


class GroupReceiver:
    """Takes its share of a stream. A `Receiver`; open it with `joined`.

    Args:
        connector: makes its connections.
        settler: acknowledges and buries.
        group: whom to share with.
        start: where a group that does not exist begins; ``None`` for the end of the stream.
        claim_after: seconds without a sign of life after which an entry of another consumer is taken over.
        batch_size: how many entries one read may return.
        block: how long one read waits, in seconds.
    """

    def __init__(
        self,
        connector: Connector,
        settler: Settler,
        group: ConsumerGroup,
        *,
        start: str | None,
        claim_after: float,
        batch_size: int,
        block: float,
    ) -> None:
        self.link: ReconnectingConnection = ReconnectingConnection(connector, transport="stream", greet=self._greet)
        self._settler = settler
        self._settler.on_settled = self._let_go
        self._group = group
        self._start = start
        self._claim_after = claim_after
        self._batch_size = batch_size
        self._block = block
        self._in_hand: set[str] = set()
        self._gaps: list[Gap] = []
        self._last_read: str | None = None  # once the group is known to exist, how far it had come at least
        self._finished = OLDEST  # up to here nobody held anything any more; where to make the group again
        self._own: str | None = OLDEST  # what this consumer holds is read again first, after here
        self._claim_cursor = OLDEST
        self._next_claim = 0.0
        self._epoch: Epoch | None = None
        self._reported: Gap | None = None

    async def receive(self) -> Batch:
        """Take what comes next; see `Receiver.receive`."""
        if (connection := self.link.connection) is None:
            reconnected = await self.link.reconnect()
            return Batch(gaps=self._take_gaps(), reconnected=reconnected)
        asked_at = asyncio.get_running_loop().time()
        try:
            if self._own is not None:
                deliveries = await self._read_own(connection)
            elif asked_at >= self._next_claim:
                deliveries = await self._take_over(connection)
                await self._audit(connection)
            else:
                deliveries = await self._read_new(connection)
        except TransportError as error:
            # Without its group, greeting again makes a new one.
            if not error.retryable and not (isinstance(error, ServerRefused) and error.code == "NOGROUP"):
                raise
            await self.link.lose(error)
            return Batch()
        self._in_hand.update(delivery.position or "" for delivery in deliveries)
        return Batch(deliveries, self._take_gaps())

    def settle(self, delivery: Delivery, failure: Failure | None = None) -> None:
        """Acknowledge, or bury and acknowledge; see `Receiver.settle`."""
        self._settler.settle(delivery, failure)

    async def renew(self, pipeline: Multiplexer) -> None:
        """Keep the lease on what is in hand for as long as handlers need; runs until cancelled."""
        while True:
            await asyncio.sleep(self._claim_after / 3)
            positions = sorted(self._in_hand)
            commands = [self._group.renew(positions[i : i + PAGE]) for i in range(0, len(positions), PAGE)]
            for answer in await pipeline.run(commands, within=self._claim_after / 3, reading=array):
                if isinstance(answer, TransportError):
                    logger.warning("a lease was not renewed", error=str(answer), count=len(positions))

    async def _read_new(self, connection: Connection) -> list[Delivery]:
        block = min(self._block, self._next_claim - asyncio.get_running_loop().time())
        command = self._group.read(count=self._batch_size, block=max(0.001, block))
        answer = await connection.call(*command, within=self._block + GRACE)
        deliveries = [Delivery(payload(fields), position.decode()) for position, fields in _entries(answer)]
        if deliveries:
            self._last_read = deliveries[-1].position
        return deliveries

    async def _read_own(self, connection: Connection) -> list[Delivery]:
        """Read again what this consumer holds from before a disconnection or an earlier end, and does not work on."""
        after = "-" if self._own in {None, OLDEST} else f"({self._own}"
        held = await self._held(connection, after, "+", count=self._batch_size)
        self._own = list(held)[-1] if len(held) == self._batch_size else None
        lost = [position for position in held if position not in self._in_hand]
        if not lost:
            return []
        entries = await connection.call(*self._group.deliver_again(lost), within=ATTEMPT_WITHIN)
        deliveries = self._again(entries, {position: held[position] + 1 for position in lost})
        missing = set(lost) - {delivery.position for delivery in deliveries}
        self._report_removed(await self._not_there(connection, missing))
        return deliveries

    async def _take_over(self, connection: Connection) -> list[Delivery]:
        """Claim one page of what dead consumers hold. Receivers do so at different times, and share by pages."""
        command = self._group.claim(self._claim_cursor, idle=self._claim_after, count=self._batch_size)
        cursor, entries, *removed = await connection.call(*command, within=ATTEMPT_WITHIN)
        self._claim_cursor = cursor.decode()
        if self._claim_cursor == OLDEST:
            pause = min(1.0, self._claim_after / 2) * random.uniform(0.5, 1.0)  # noqa: S311 - only spreads load
            self._next_claim = asyncio.get_running_loop().time() + pause
        if removed:  # since Redis 7
            self._report_removed({position.decode() for position in removed[0]})
        positions = [entry[0].decode() for entry in entries if entry]
        if not positions:
            return []
        # What is in hand may lie between them.
        counts = await self._held(connection, positions[0], positions[-1], count=len(positions) + len(self._in_hand))
        return self._again(entries, counts)

    async def _held(self, connection: Connection, first: str, last: str, *, count: int) -> dict[str, int]:
        rows = await connection.call(*self._group.held(first, last, count=count), within=ATTEMPT_WITHIN)
        return {row[0].decode(): row[3] for row in rows}

    async def _not_there(self, connection: Connection, positions: Collection[str]) -> set[str]:
        """Tell those that the stream no longer has from those that were finished just now, and so are held no more."""
        if not positions:
            return set()
        questions = [("XRANGE", self._group.key, position, position) for position in positions]
        answers = await connection.pipeline(questions, within=ATTEMPT_WITHIN)
        return {position for position, answer in zip(positions, answers, strict=True) if answer == []}

    def _again(self, entries: Sequence[Any], attempts: Mapping[str, int]) -> list[Delivery]:
        """Turn entries that were delivered before into deliveries, but for those in hand and those removed."""
        known = [(entry[0].decode(), entry[1]) for entry in entries if entry]
        return [
            Delivery(payload(fields), position, attempts.get(position, 1))
            for position, fields in known
            if fields is not None and position not in self._in_hand
        ]

    def _report_removed(self, positions: Collection[str]) -> None:
        """Report entries that were removed from the stream before they were handled, and let go of them."""
        if positions:
            self._gaps.append(Gap(previous(min(positions, key=sort_key)), "trimmed", len(positions)))
            for position in positions:
                self._settler.settle(Delivery(b"", position), None)

    async def _greet(self, connection: Connection) -> None:
        """Make sure that there is a group, find out what it can no longer get, and begin with what is in hand."""
        epoch = await epoch_of(connection, within=ATTEMPT_WITHIN)
        if self._epoch is not None and epoch.may_lack(self._epoch):
            self._gaps.append(Gap(self._finished, "restarted"))
        is_first, self._epoch = self._epoch is None, epoch
        await self._audit(connection, unknown=epoch if is_first else None)
        await self._remove_abandoned(connection)
        self._own, self._claim_cursor = OLDEST, OLDEST

    async def _audit(self, connection: Connection, *, unknown: Epoch | None = None) -> None:
        """Find out whether something was removed before the group got it; make the group if there is none.

        Args:
            connection: where to ask.
            unknown: the server's epoch, if this receiver does not know whether the group has lived in another one.
        """
        # The stream is asked last, or what was added and read in between would look like a stream that went back; how
        # far the group has come is asked first, or what was given out in between would look finished.
        groups, unfinished, stream = await connection.pipeline(
            [("XINFO", "GROUPS", self._group.key), self._group.unfinished(), ("XINFO", "STREAM", self._group.key)],
            within=ATTEMPT_WITHIN,
        )
        history = stream_info(stream)
        place = None if history is None else _place_of(self._group.name, groups)
        if place is None:
            await self._make_group(connection, history)
            return
        if self._last_read is not None and sort_key(place.cursor) < sort_key(self._last_read):
            self._gaps.append(Gap(self._finished, "rewound"))  # replaced, together with its groups, by an older state
            self._last_read = place.cursor
        self._last_read = self._last_read or place.cursor
        self._finished = _finished_of(place, unfinished)
        if unknown is not None and unknown.may_lack_what_followed(place.cursor, is_there=True):
            self._gaps.append(Gap(self._finished, "restarted"))
        self._report_lost(place.reconcile(history))

    def _report_lost(self, gap: Gap | None) -> None:
        """Report what was not reported before: what a group lost is seen until it reads on; on Redis 7.0, for ever."""
        previous, self._reported = self._reported, gap
        if gap is None or gap == previous:
            return
        if gap.lost is not None and previous is not None and previous.lost is not None:
            if gap.lost <= previous.lost:
                return
            gap = replace(gap, lost=gap.lost - previous.lost)
        self._gaps.append(gap)

    async def _make_group(self, connection: Connection, history: StreamInfo | None) -> None:
        end = OLDEST if history is None else history.last
        position = self._start or end
        if self._last_read is not None:
            # It was there before. Who held what is known to nobody now, so all that was not finished comes again.
            position = OLDEST if sort_key(end) < sort_key(self._last_read) else self._finished
            self._gaps.append(Gap(self._finished, "deleted"))
        try:
            await connection.call(*self._group.create(position), within=ATTEMPT_WITHIN)
        except ServerRefused as error:
            if error.code != "BUSYGROUP":
                raise
            self._last_read = None  # another consumer was faster, and may have been elsewhere
            await self._audit(connection)
        else:
            self._last_read = self._finished = position

    async def _remove_abandoned(self, connection: Connection) -> None:
        """Remove consumers that are gone and hold nothing, so that restarts do not pile them up."""
        consumers = await connection.call(
            "XINFO", "CONSUMERS", self._group.key, self._group.name, within=ATTEMPT_WITHIN
        )
        for consumer in (dict(zip(row[::2], row[1::2], strict=True)) for row in consumers):
            if consumer[b"pending"] == 0 and consumer[b"idle"] >= _ABANDONED_AFTER:
                command = self._group.remove(consumer[b"name"].decode(), idle=_ABANDONED_AFTER)
                await connection.pipeline([command], within=ATTEMPT_WITHIN)  # without the right to do so, they stay

    def _let_go(self, positions: Sequence[str]) -> None:
        self._in_hand.difference_update(positions)

    def _take_gaps(self) -> list[Gap]:
        gaps, self._gaps = self._gaps, []
        return gaps


def _entries(answer: Any) -> list[Any]:
    return answer[0][1] if answer else []


def _finished_of(place: StreamCursor, unfinished: Any) -> str:
    """Return the position up to which everything was given out and nothing is held, from the answer of XPENDING."""
    if isinstance(unfinished, TransportError):
        raise unfinished
    number, oldest, *_ = unfinished
    return min(place.cursor, previous(oldest.decode()), key=sort_key) if number else place.cursor


def _place_of(name: str, groups: Any) -> StreamCursor | None:
    """Return how far a group has come; ``None`` if there is no such group."""
    if isinstance(groups, TransportError):
        raise groups
    for row in groups:
        fields = dict(zip(row[::2], row[1::2], strict=True))
        if fields[b"name"] == name.encode():
            return StreamCursor.after(fields[b"last-delivered-id"].decode(), fields.get(b"entries-read"))
    return None
