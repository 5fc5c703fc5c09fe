"""A receiver of a consumer group: each event goes to one receiver and is delivered again until it is settled.

Source: https://redis.io/docs/latest/develop/data-types/streams/#consumer-groups
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from loguru import logger

from jwt_events._internal.positions import OLDEST, sort_key
from jwt_events.errors import ConnectionFailed, ServerRefused, TransportError
from jwt_events.transport._redis.connection import Connection, Connector
from jwt_events.transport._redis.multiplexer import Multiplexer
from jwt_events.transport._redis.prover import Prover
from jwt_events.transport._redis.reconnecting import ATTEMPT_WITHIN, ReconnectingConnection
from jwt_events.transport._redis.replies import array
from jwt_events.transport._redis.role import replication_of
from jwt_events.transport._stream.abandoned import AbandonedConsumers
from jwt_events.transport._stream.backlog import GroupBacklog
from jwt_events.transport._stream.batch_size import ENTRY_BOUNDS
from jwt_events.transport._stream.consumer_group import ConsumerGroup
from jwt_events.transport._stream.cursor import GRACE, stream_info
from jwt_events.transport._stream.entry import parse_deliveries, parse_delivery
from jwt_events.transport._stream.epoch import Epoch
from jwt_events.transport._stream.fetching import EntryFetcher
from jwt_events.transport._stream.group_losses import GroupLosses, parse_cursor
from jwt_events.transport._stream.position import StreamCursor, StreamInfo, previous
from jwt_events.transport._stream.settler import Settler
from jwt_events.transport._stream.succession import Succession
from jwt_events.transport.base import Batch, Delivery, Failure, Gap


class GroupReceiver:
    """Reads a stream as one consumer of a group. A `Receiver`.

    Args:
        connector: opens its connections.
        settler: acknowledges, and keeps dead letters.
        group: the group and the name of this consumer.
        start: where a group that does not exist begins; ``None`` for the end of the stream.
        claim_after: seconds without a renewed lease after which an entry of another consumer is claimed.
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
        self.reconnecting: ReconnectingConnection = ReconnectingConnection(
            connector, transport="stream", on_connect=self._on_connect
        )
        self._prover = Prover(connector.address, sentinels=self.reconnecting.sentinels)
        self._settler = settler
        self._settler.on_settled = self._release
        self._group = group
        self._start = start
        self._claim_after = claim_after
        self._entries = EntryFetcher(batch_size)
        self._block = block
        self._in_hand: set[str] = set()
        self._gaps: list[Gap] = []
        self._last_read: str | None = None  # the group read at least up to here; ``None`` until it is known to exist
        self._finished = OLDEST  # up to here every entry is settled; where to create the group again
        self._own: str | None = OLDEST  # entries that this consumer holds are read again first, those after here
        self._claim_cursor = OLDEST
        self._next_claim = 0.0
        self._abandoned = AbandonedConsumers(group, claim_after=claim_after)
        self._succession = Succession(connector)
        self._losses = GroupLosses(group)
        self.backlog: GroupBacklog = GroupBacklog(group)

    async def receive(self) -> Batch:
        """Read the next batch; see `Receiver.receive`."""
        if (connection := self.reconnecting.connection) is None:
            reconnected = await self.reconnecting.reconnect()
            return Batch(gaps=self._take_gaps(), reconnected=reconnected, refusal=self.reconnecting.take_refusal())
        now = asyncio.get_running_loop().time()
        self._entries.begin(connection)
        try:
            await self._settler.wait_for_room()
            if self._own is not None:
                deliveries = await self._read_own(connection)
            elif now >= self._next_claim:
                deliveries = await self._claim(connection)
                await self._audit(connection)
                await self._abandoned.remove_if_due(connection)
            else:
                deliveries = await self._read_new(connection)
            self._prover.conclude()
        except TransportError as error:
            # If the group is gone, connecting again creates it.
            if not error.retryable and not (isinstance(error, ServerRefused) and error.code == "NOGROUP"):
                raise
            self._entries.fail(connection)  # what was read already is pending, and so comes again when connected
            await self.reconnecting.drop(error)
            return Batch(refusal=self._prover.take_refusal())
        deliveries = self._entries.finish(connection, deliveries)
        self._in_hand.update(delivery.position or "" for delivery in deliveries)
        return Batch(deliveries, self._take_gaps(), refusal=self._prover.take_refusal())

    @property
    def is_live(self) -> bool:
        """Whether it is connected; see `Receiver`."""
        return self.reconnecting.connection is not None

    def settle(self, delivery: Delivery, failure: Failure | None = None) -> None:
        """Acknowledge a delivery, after keeping a dead letter if it was given up; see `Receiver.settle`."""
        self._settler.settle(delivery, failure)

    async def renew(self, multiplexer: Multiplexer) -> None:
        """Renew the leases on the deliveries in hand, for as long as handlers need; runs until cancelled."""
        while True:
            await asyncio.sleep(self._claim_after / 3)
            positions = sorted(self._in_hand)
            commands, within = self._group.renew(positions), self._claim_after / 3
            for reply in await multiplexer.run(commands, within=within, parse=array):
                if isinstance(reply, TransportError):
                    logger.warning("a lease was not renewed", error=str(reply), count=len(positions))
            await self.backlog.refresh(multiplexer, within=within)

    async def _read_new(self, connection: Connection) -> list[Delivery]:
        if not self._losses.is_counted:
            await self._audit(connection)
        block = max(0.001, min(self._block, self._next_claim - asyncio.get_running_loop().time()))
        command = self._group.read(count=self._entries.count, block=block)
        reply = await self._entries.fetch(connection, command, within=self._block + GRACE)
        deliveries = parse_deliveries(_entries(reply))
        if deliveries:
            self._last_read = deliveries[-1].position
            self._losses.received += len(deliveries)
        return deliveries

    async def _read_own(self, connection: Connection) -> list[Delivery]:
        """Read again entries that this consumer held before it was disconnected or restarted, except those in hand."""
        after = "-" if self._own in {None, OLDEST} else f"({self._own}"
        count = self._entries.count
        held = await _list_pending(connection, self._group, after, "+", count=count)
        self._own = list(held)[-1] if len(held) == count else None
        lost = [position for position in held if position not in self._in_hand]
        if not lost:
            return []
        fresh = [position for position in lost if sort_key(position) > sort_key(self._last_read or OLDEST)]
        if fresh:  # in a reply that was lost with the connection
            self._last_read = fresh[-1]
            self._losses.received += len(fresh)
        entries = await self._entries.fetch(connection, self._group.deliver_again(lost), within=ATTEMPT_WITHIN)
        deliveries = self._redeliver(entries, {position: held[position] + 1 for position in lost})
        missing = set(lost) - {delivery.position for delivery in deliveries}
        self._report_removed(await _find_removed(connection, self._group.key, missing))
        return deliveries

    async def _claim(self, connection: Connection) -> list[Delivery]:
        """Claim one batch of what dead consumers hold. Receivers do so at different times, and so share it."""
        command = self._group.claim(self._claim_cursor, idle=self._claim_after, count=self._entries.count)
        reply = await self._entries.fetch(connection, command, within=ATTEMPT_WITHIN)
        cursor, entries, *removed = reply
        self._claim_cursor = cursor.decode()
        if self._claim_cursor == OLDEST:
            pause = min(1.0, self._claim_after / 2) * random.uniform(0.5, 1.0)  # noqa: S311 - only spreads load
            self._next_claim = asyncio.get_running_loop().time() + pause
        if removed:  # since Redis 7
            self._report_removed({position.decode() for position in removed[0]})
        elif not all(entries):  # before, it claims what was removed and does not name it: find it in what is held
            self._own = OLDEST
        positions = [entry[0].decode() for entry in entries if entry]
        if not positions:
            return []
        # Deliveries in hand may lie between them.
        count = len(positions) + len(self._in_hand)
        counts = await _list_pending(connection, self._group, positions[0], positions[-1], count=count)
        return self._redeliver(entries, counts)

    def _redeliver(self, entries: Sequence[Any], attempts: Mapping[str, int]) -> list[Delivery]:
        """Make deliveries of entries that were delivered before, except those in hand and those removed."""
        return [
            parse_delivery(name, fields, attempts.get(position, 1))
            for position, name, fields in ((entry[0].decode(), *entry) for entry in entries if entry)
            if fields is not None and position not in self._in_hand
        ]

    def _report_removed(self, positions: Collection[str]) -> None:
        """Report entries that were removed from the stream before they were handled, and settle them."""
        if positions:
            self._gaps.append(Gap(previous(min(positions, key=sort_key)), "trimmed", len(positions)))
            for position in positions:
                self._settler.settle(Delivery(b"", position), None)

    async def _on_connect(self, connection: Connection) -> None:
        """Create the group if there is none, report what it lost, and begin with what this consumer holds."""
        self._prover.connect(connection.place)
        epoch = await self._succession.fetch_epoch(connection, within=ATTEMPT_WITHIN)
        since, is_first = self._finished, self._succession.epoch is None
        await self._audit(connection, first_epoch=epoch if is_first else None)
        if await self._succession.follow(epoch, connection):  # only now, as all of this is repeated if it fails
            self._gaps.insert(0, Gap(since, "restarted"))
        await self._abandoned.remove(connection)
        self._own, self._claim_cursor = OLDEST, OLDEST

    async def _audit(
        self, connection: Connection, *, first_epoch: Epoch | None = None, is_created: bool = False
    ) -> None:
        """Report entries that were removed before the group read them; create the group if there is none.

        Args:
            connection: the connection to use.
            first_epoch: the server's epoch, if it is the first that this receiver knows: the group may have existed in
                an earlier one.
            is_created: whether the server has just said that there is such a group.
        """
        # XINFO STREAM comes last: otherwise entries added and read in between would look like a stream that went back.
        # XINFO GROUPS comes first: otherwise entries delivered in between would look settled.
        key, sent_at = self._group.key, asyncio.get_running_loop().time()
        self._prover.request(sent_at)
        groups, pending, stream, replication = await connection.execute_many(
            [
                ("XINFO", "GROUPS", key),
                self._group.summarize_pending(),
                ("XINFO", "STREAM", key),
                ("INFO", "replication"),
            ],
            within=ATTEMPT_WITHIN,
            bounds=ENTRY_BOUNDS,
        )
        self._prover.hear(replication_of(replication), sent_at)
        found = stream_info(stream)
        cursor = None if found is None else parse_cursor(self._group.name, groups)
        if found is None or cursor is None:
            if is_created:  # deleted again, or not listed
                raise ConnectionFailed(f"the group {self._group.name!r} exists, and XINFO GROUPS does not list it")
            await self._create_group(connection, found, first_epoch)
            return
        if self._last_read is not None and sort_key(cursor.position) < sort_key(self._last_read):
            self._gaps.append(Gap(self._finished, "rewound"))  # replaced, together with its groups, by an older state
            self._last_read = cursor.position
            self._losses = GroupLosses(self._group)
        self._last_read = self._last_read or cursor.position
        self.backlog.note(groups, found)
        self._finished = _last_settled(cursor, pending)
        losses = await self._losses.find(connection, cursor, found, is_reconnected=self.reconnecting.connection is None)
        position = _last_known(cursor, found)
        if first_epoch is not None and position and first_epoch.may_lack_what_followed(position, is_there=True):
            self._gaps.append(Gap(self._finished, "restarted"))
        self._gaps += losses

    async def _create_group(self, connection: Connection, found: StreamInfo | None, first_epoch: Epoch | None) -> None:
        end = OLDEST if found is None else found.last
        position = self._start or end
        gaps: list[Gap] = []
        if self._last_read is not None:
            # It existed before. Which consumer held what is lost with it, so all that was not settled comes again.
            position = OLDEST if sort_key(end) < sort_key(self._last_read) else self._finished
            gaps.append(Gap(self._finished, "deleted"))
        refusal = None
        try:
            await connection.call(*self._group.create(position), within=ATTEMPT_WITHIN)
        except ServerRefused as error:
            if error.code != "BUSYGROUP":
                raise
            refusal = error
        self._gaps += gaps
        self._losses = GroupLosses(self._group)
        if refusal is not None:
            self._last_read = None  # another consumer was faster, and may have begun at another position
            await self._audit(connection, first_epoch=first_epoch, is_created=True)
        else:
            self._last_read = self._finished = position
            self._losses.begin(position, found or StreamInfo(), is_told=bool(gaps))

    def _release(self, positions: Sequence[str]) -> None:
        self._in_hand.difference_update(positions)

    def _take_gaps(self) -> list[Gap]:
        gaps, self._gaps = self._gaps, []
        return gaps


async def _list_pending(
    connection: Connection, group: ConsumerGroup, first: str, last: str, *, count: int
) -> dict[str, int]:
    """Return which entries this consumer holds, and how often each was delivered."""
    rows = await connection.call(*group.list_pending(first, last, count=count), within=ATTEMPT_WITHIN)
    return {row[0].decode(): row[3] for row in rows}


async def _find_removed(connection: Connection, key: str, positions: Collection[str]) -> set[str]:
    """Return the positions that the stream no longer has; the others were settled a moment ago.

    The server does not list them again, so those that cannot be looked up count as removed.
    """
    if not positions:
        return set()
    commands = [("XRANGE", key, position, position) for position in positions]
    replies = await connection.execute_many(commands, within=ATTEMPT_WITHIN, bounds=ENTRY_BOUNDS)
    errors = [reply for reply in replies if isinstance(reply, TransportError)]
    if errors:
        logger.warning("entries count as removed", error=str(errors[0]), count=len(errors))
    return {position for position, reply in zip(positions, replies, strict=True) if reply == [] or reply in errors}


def _entries(reply: Any) -> list[Any]:
    return reply[0][1] if reply else []


def _last_known(cursor: StreamCursor, found: StreamInfo) -> str | None:
    """Return a position that was certainly assigned, after which an earlier run of the server may have had entries.

    A group that has read nothing does not tell: its stream does. ``None`` if that never had an entry.
    """
    if cursor.position != OLDEST or found.last == OLDEST:
        return None if found.last == OLDEST else cursor.position
    return found.last if found.first is None or found.removed != 0 else found.first


def _last_settled(cursor: StreamCursor, pending: Any) -> str:
    """Return the position up to which every entry was delivered and settled, from the reply to XPENDING."""
    if isinstance(pending, TransportError):
        raise pending
    count, oldest, *_ = pending
    return min(cursor.position, previous(oldest.decode()), key=sort_key) if count else cursor.position
