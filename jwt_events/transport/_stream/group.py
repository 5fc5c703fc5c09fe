"""A receiver of a consumer group: each event goes to one receiver and is delivered again until it is settled.

Source: https://redis.io/docs/latest/develop/data-types/streams/#consumer-groups
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from loguru import logger

from jwt_events._internal.notices import Notices
from jwt_events._internal.positions import OLDEST, sort_key
from jwt_events.errors import ServerRefused, TransportError
from jwt_events.transport._redis.connection import Connection, Connector
from jwt_events.transport._redis.multiplexer import Multiplexer
from jwt_events.transport._redis.prover import Prover
from jwt_events.transport._redis.reconnecting import ATTEMPT_WITHIN, ReconnectingConnection
from jwt_events.transport._redis.replies import array
from jwt_events.transport._stream.abandoned import AbandonedConsumers
from jwt_events.transport._stream.backlog import GroupBacklog
from jwt_events.transport._stream.batch_size import ENTRY_BOUNDS
from jwt_events.transport._stream.consumer_group import ConsumerGroup
from jwt_events.transport._stream.cursor import GRACE
from jwt_events.transport._stream.entry import parse_deliveries, parse_delivery
from jwt_events.transport._stream.fetching import EntryFetcher
from jwt_events.transport._stream.group_audit import GroupAudit
from jwt_events.transport._stream.position import previous
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
            connector, transport="stream", on_connect=self._on_connect, overdue_after=block
        )
        self._connector = connector
        self._prover = Prover(connector.address, self.reconnecting.owner)
        self.settler: Settler = settler
        self._group = group
        self._audit = GroupAudit(group, self._prover, start=start)
        self._claim_after = claim_after
        self._entries = EntryFetcher(batch_size)
        self._block = block
        self._notices = Notices()
        self._in_hand: set[str] = set()
        self.settler.on_settled = self._in_hand.difference_update
        self._own: str | None = OLDEST  # entries that this consumer holds are read again first, those after here
        self._claim_cursor = OLDEST
        self._next_claim = 0.0
        self._abandoned = AbandonedConsumers(group, claim_after=claim_after)
        self._succession = Succession(connector)
        self.backlog: GroupBacklog = self._audit.backlog

    async def receive(self) -> Batch:
        """Read the next batch; see `Receiver.receive`."""
        if (connection := self.reconnecting.connection) is None:
            reconnected = await self.reconnecting.reconnect()
            return Batch(
                gaps=self._audit.take_gaps(), reconnected=reconnected, refusal=self.reconnecting.take_refusal()
            )
        now = asyncio.get_running_loop().time()
        self._entries.begin(connection)
        try:
            await self.settler.wait_for_room()
            if self._own is not None:
                deliveries = await self._read_own(connection)
            elif now >= self._next_claim:
                deliveries = await self._claim(connection)
                await self._audit.run(connection)
                await self._abandoned.remove_if_due(connection)
            else:
                deliveries = await self._read_new(connection)
            self._prover.conclude()
        except TransportError as error:
            if not error.retryable and not _is_gone(error):
                raise
            self._entries.fail(connection)  # what was read already is pending, and so comes again when connected
            await self.reconnecting.drop(error)
            return Batch(refusal=self._prover.take_refusal())
        deliveries = self._entries.finish(connection, deliveries)
        self._in_hand.update(delivery.position or "" for delivery in deliveries)
        return Batch(deliveries, self._audit.take_gaps(), refusal=self._prover.take_refusal())

    @property
    def is_live(self) -> bool:
        """Whether it is connected; see `Receiver`."""
        return self.reconnecting.connection is not None

    def settle(self, delivery: Delivery, failure: Failure | None = None) -> None:
        """Acknowledge a delivery, after keeping a dead letter if it was given up; see `Receiver.settle`."""
        self.settler.settle(delivery, failure)

    async def remove_consumer(self, multiplexer: Multiplexer) -> None:
        """Remove this consumer, if it has joined the group and holds nothing."""
        if self._audit.has_joined:
            await multiplexer.run([self._group.remove(self._group.consumer, idle=0)], within=ATTEMPT_WITHIN)

    async def renew(self, multiplexer: Multiplexer) -> None:
        """Renew the leases on the deliveries in hand, for as long as handlers need; runs until cancelled."""
        while True:
            await asyncio.sleep(self._claim_after / 3)
            positions = sorted(self._in_hand)
            commands, within = self._group.renew(positions), self._claim_after / 3
            for reply in await multiplexer.run(commands, within=within, parse=array):
                if isinstance(reply, TransportError):
                    self._tell_not_renewed(reply, len(positions))
            await self.backlog.refresh(multiplexer, within=within)

    def _tell_not_renewed(self, error: TransportError, count: int) -> None:
        message, kind = "a lease was not renewed", error.code if isinstance(error, ServerRefused) else None
        if kind is None:  # the connection, which others tell of
            logger.warning(message, error=str(error), count=count)
        else:
            self._notices.tell("WARNING", message, once=(message, kind), error=str(error), count=count)

    async def _read_new(self, connection: Connection) -> list[Delivery]:
        if not self._audit.is_counted:
            await self._audit.run(connection)
        longest = min(self._block, self._connector.topology.max_block)
        block = max(0.001, min(longest, self._next_claim - asyncio.get_running_loop().time()))
        command = self._group.read(count=self._entries.count, block=block)
        reply = await self._entries.fetch(connection, command, within=self._block + GRACE)
        deliveries = parse_deliveries(_entries(reply))
        self._audit.receive([delivery.position for delivery in deliveries])
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
        # Those that no read returned yet were in a reply that was lost with the connection.
        self._audit.receive([position for position in lost if self._audit.is_unread(position)])
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
            self._audit.gaps.append(Gap(previous(min(positions, key=sort_key)), "trimmed", len(positions)))
            for position in positions:
                self.settler.settle(Delivery(b"", position), None)

    async def _on_connect(self, connection: Connection) -> None:
        """Create the group if there is none, report what it lost, and begin with what this consumer holds."""
        try:
            await self._begin(connection)
        except ServerRefused as error:
            error.retryable = error.retryable or _is_gone(error)
            raise

    async def _begin(self, connection: Connection) -> None:
        self._prover.connect(connection.place)
        epoch = await self._succession.fetch_epoch(connection, within=ATTEMPT_WITHIN)
        since, is_first = self._audit.finished, self._succession.epoch is None
        await self._audit.run(connection, is_reconnected=True, first_epoch=epoch if is_first else None)
        if await self._succession.follow(epoch, connection):  # only now, as all of this is repeated if it fails
            self._audit.restart(since)
        await self._abandoned.remove(connection)
        self._own, self._claim_cursor = OLDEST, OLDEST


def _is_gone(error: TransportError) -> bool:
    """Whether the group or its stream was deleted while it was used. Connecting again creates it."""
    return isinstance(error, ServerRefused) and (error.code == "NOGROUP" or "no such key" in str(error))


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
