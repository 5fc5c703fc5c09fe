"""Redis Streams: events that the server stores for a time.

Without a group every receiver keeps a cursor of its own and sees every event, also those that were sent while it was
disconnected. With a group each event goes to one of its receivers and is delivered again until it is settled. A stream
keeps events for ``retention``; what is in force of older ones is in the ledger beside it, so that trimming loses no
revocation. Without a ledger the retention is a security setting: a revocation must be kept as long as a token it covers
can live, or a service that starts later would accept that token.

Source: https://redis.io/docs/latest/develop/data-types/streams/
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from jwt_events._internal import options
from jwt_events._internal.cancellation import end
from jwt_events._internal.positions import OLDEST, is_position
from jwt_events.errors import InvalidOption
from jwt_events.transport._redis.commands import Command, CommandTemplate
from jwt_events.transport._redis.connection import Connection, Connector
from jwt_events.transport._redis.multiplexer import Multiplexer
from jwt_events.transport._redis.reconnecting import ATTEMPT_WITHIN
from jwt_events.transport._redis.replicas import ReplicaConnector
from jwt_events.transport._redis.replicated import ReplicatedMultiplexer
from jwt_events.transport._redis.replies import position
from jwt_events.transport._redis.republishing import RepublishingSender
from jwt_events.transport._redis.role import RoleRule
from jwt_events.transport._redis.senders import Senders
from jwt_events.transport._stream.consumer_group import ConsumerGroup, new_consumer_name, reserve_consumer_name
from jwt_events.transport._stream.cursor import CursorReceiver, stream_info
from jwt_events.transport._stream.entry import FIELD
from jwt_events.transport._stream.folder import Folder
from jwt_events.transport._stream.group import GroupReceiver
from jwt_events.transport._stream.horizon import LongestRetention
from jwt_events.transport._stream.keys import StreamKeys
from jwt_events.transport._stream.ledger import Ledger
from jwt_events.transport._stream.plain import PlainKeys
from jwt_events.transport._stream.position import StreamCursor, StreamInfo
from jwt_events.transport._stream.read_proof import DirectProof
from jwt_events.transport._stream.registry import RegisteringSender, StreamRegistry
from jwt_events.transport._stream.replica import ReplicaReceiver
from jwt_events.transport._stream.replica_proof import ReplicaProof
from jwt_events.transport._stream.settler import Settler
from jwt_events.transport.base import Guarantees, Receiver, Sender, Sent, Server
from jwt_events.transport.optional import Fold, LedgerReport, Registry

if TYPE_CHECKING:
    from redis.asyncio import Redis, RedisCluster

__all__ = ["FIELD", "RedisStream", "StreamInfo", "StreamKeys", "stream_info"]

_MAX_REPLICAS = 100

_PRIMARY, _REPLICA = "primary", "replica"

# Seconds by which a replica may lag at least before it is left.
_MIN_LAG = 0.2


class RedisStream:
    """Events over a Redis stream: durable, in one order, at least once.

    If in doubt, use this one, without a group: every receiver has a cursor of its own, sees every event, and resumes
    at its cursor after a lost connection. With a group, receivers share the work: each event goes to one of them, is
    acknowledged when all its handlers have succeeded, and goes to another if that one dies. When the stream no longer
    holds events that a receiver has not read, that is reported as a `Gap`.

    Args:
        client_or_url: a ``redis.asyncio.Redis`` or ``RedisCluster`` client, whose options are copied and which is left
            alone, or a ``redis://``, ``rediss://``, ``unix://``, ``redis+sentinel://`` or ``redis+cluster://`` URL;
            with ``valkey`` for ``redis`` it means the same.
        key: the name of the stream.
        group: the name of the group to share the work with; ``None`` for none.
        consumer: the name of this receiver within the group; must differ between receivers that run at the same time,
            and is best kept when a receiver is started again. ``None`` means a new name for each receiver that is
            opened, of the host, the process and chance; when such a receiver is gone and its entries have been claimed,
            the others remove it.
        start: where a receiver begins: ``"new"`` with events that are sent from now on, ``"all"`` with the oldest event
            that is stored, a datetime with the first event from then on, a position (as in `Receipt.position`) with
            the first event after it. A group begins there when it is first used.
        retention: how long the stream keeps events, by the server's clock. If publishers of a stream differ, the
            longest counts. Without a ledger, at least the longest lifetime of a token: publishing an event that expires
            later is refused.
        claim_after: seconds without a renewed lease after which the deliveries of a group's receiver go to another.
        batch_size: how many events one read may return.
        block: how long one read waits for an event, in seconds. It does not delay events; it is how often a receiver
            without new events proves that it is current.
        dead_letter: the key of the stream for dead letters; ``None`` means ``<key>:dead``; in a cluster
            ``{<key>}:dead``, unless the key has a hash tag.
        ledger: the key of the ledger, the same for all publishers and readers of a stream; ``None`` means
            ``<key>:ledger``, or ``{<key>}:ledger``. ``False`` means that there is none: what is trimmed is forgotten.
        replicas: how many replicas of the server must have an event before ``publish`` returns, so that it survives a
            failover; and how many must be in contact with the server before a list counts as current, as one that is
            cut off from all of them may have been replaced.
        read_from: where receivers read events: from the ``"primary"``; from a ``"replica"``, which each receiver
            chooses among those that the primary names; or from the replica at this URL, such as
            ``unix:///run/replica.sock`` for one on the same host. What proves that a receiver is current still comes
            from the primary, and so do the events while no replica is fit. Only without a group.

    Attributes:
        keys: the names of its keys on this server.
        trims: whether its publishers remove what is older than the retention. Set it to ``False`` in a script, whose
            ``retention`` may differ from that of the services.

    Raises:
        InvalidOption: an argument is invalid.
    """

    name = "stream"

    def __init__(
        self,
        client_or_url: Redis | RedisCluster | str,
        key: str = "jwt:events",
        *,
        group: str | None = None,
        consumer: str | None = None,
        start: str | datetime = "new",
        retention: timedelta = timedelta(days=1),
        claim_after: float = 30.0,
        batch_size: int = 500,
        block: float = 1.0,
        dead_letter: str | None = None,
        ledger: str | Literal[False] | None = None,
        replicas: int = 0,
        read_from: str = "primary",
    ) -> None:
        self.connector: Connector = Connector(client_or_url, destination=key)
        connector = self.connector
        self.keys: StreamKeys = StreamKeys(
            key, in_cluster=lambda: connector.is_cluster, ledger=ledger, dead_letter=dead_letter
        )
        self.connector.check = self.keys.check
        self.destination: str = key
        self.retention: timedelta = options.duration("retention", retention)
        self.trims: bool = True
        self._senders = Senders()
        self.claim_after: float | None = None if group is None else options.seconds("claim_after", claim_after)
        self.guarantees: Guarantees = Guarantees(
            durable=True, redelivers=group is not None, ordered=True, fan_out=group is None
        )
        self._group = None if group is None else options.name("group", group, maximum=options.MAX_GROUP_NAME_LENGTH)
        self._consumer = _consumer_name(consumer, self._group)
        self._start = _start_position(start)
        self._is_time = isinstance(start, datetime)
        self._batch_size = options.count("batch_size", batch_size, maximum=100_000)
        self._block = options.seconds("block", block)
        self.replicas: int = options.count_or_none("replicas", replicas, maximum=_MAX_REPLICAS)
        self._read_from = _read_from(read_from, self._group)

    def __repr__(self) -> str:
        shared = "" if self._group is None else f" group {self._group!r}"
        return f"<RedisStream {self.destination!r}{shared} at {self.connector.address}>"

    @property
    def server(self) -> Server:
        """The server and the group, as traces name them."""
        return Server("redis", self.connector.host, self.connector.port, self._group)

    @property
    def ledger(self) -> str | None:
        """The key of the ledger; ``None`` if there is none."""
        return self.keys.ledger if self.keys.has_ledger else None

    @property
    def dead_letter(self) -> str:
        """The key of the stream for dead letters."""
        return self.keys.dead_letter

    @asynccontextmanager
    async def sender(self) -> AsyncIterator[Sender]:
        """Open a sender; see `Transport.sender`."""
        key = self.destination.encode()

        fill = CommandTemplate(b"XADD", key, b"*", FIELD).fill

        def lookup(position: str) -> Command:
            return (b"XRANGE", key, position, position)

        trimming = _Trimming(self.connector, self.keys, self.retention) if self.trims and self.ledger is None else None
        role = self._role()
        sender: RepublishingSender
        async with AsyncExitStack() as stack:
            if self.replicas:  # then all that it runs is waited for, and it must not read
                writing = ReplicatedMultiplexer(self.connector, trimming, role=role, replicas=self.replicas)
                multiplexer: Multiplexer = await stack.enter_async_context(writing)
                sender = RepublishingSender(writing, make_commands=fill, lookup=lookup, parse=_parse_sent)
            else:
                multiplexer = await stack.enter_async_context(Multiplexer(self.connector, trimming, role=role))
                sender = RegisteringSender(multiplexer, self.keys, make_commands=fill, lookup=lookup, parse=_parse_sent)
            stack.enter_context(self._senders.noting(multiplexer))
            try:
                yield sender
            finally:
                sender.close()

    def _role(self) -> RoleRule:
        """Say which servers are accepted: a replica that may be written to loses entries, any other shows old ones."""
        return RoleRule(self.connector.address, is_needed=False)

    @asynccontextmanager
    async def receiver(
        self, *, from_oldest: bool = False, poll_timeout: float | None = None
    ) -> AsyncIterator[Receiver]:
        """Subscribe; see `Transport.receiver`. ``from_oldest`` has no effect on a group that exists."""
        start = OLDEST if from_oldest else self._start
        block = self._block if poll_timeout is None else min(poll_timeout, self._block)
        subscribe = (
            self._cursor_receiver(start, block)
            if self._group is None
            else self._group_receiver(self._group, start, block)
        )
        async with subscribe as receiver:
            yield receiver

    @asynccontextmanager
    async def registry(self) -> AsyncIterator[Registry]:
        """Open the registry of instances; see `Registering`."""
        async with Multiplexer(self.connector, role=self._role()) as multiplexer:
            yield StreamRegistry(multiplexer, self.keys)

    @asynccontextmanager
    async def folding(self, fold: Fold, report: Callable[[LedgerReport], None] | None = None) -> AsyncIterator[None]:
        """Fold and trim in the background; see `Ledgered.folding`."""
        if self.ledger is None or not self.trims:
            yield
            return
        folder = Folder(self.connector, Ledger(self.keys), fold, self.retention, report, quiet=self._senders.quiet)
        async with _background(folder.run(), name="jwt_events folding"):
            yield

    @asynccontextmanager
    async def replica_receiver(self, *, poll_timeout: float | None = None) -> AsyncIterator[Receiver]:
        """Read the stream, then its ledger, then follow; see `Ledgered.replica_receiver`."""
        async with self.receiver(from_oldest=True, poll_timeout=poll_timeout) as receiver:
            if self.ledger is None or not isinstance(receiver, CursorReceiver):
                yield receiver
                return
            plain = PlainKeys(self.connector, self.keys)
            async with aclosing(ReplicaReceiver(receiver, Ledger(self.keys), plain)) as replica:
                await replica.check()
                yield replica

    @asynccontextmanager
    async def _cursor_receiver(self, start: str | None, block: float) -> AsyncIterator[Receiver]:
        async with (
            Multiplexer(self.connector) as multiplexer,
            Settler(
                multiplexer,
                keys=self.keys,
                consumer=self._consumer or new_consumer_name(),
                keep_once_for=self.retention.total_seconds(),
            ) as settler,
        ):
            cursor = StreamCursor(start, is_time=self._is_time and start != OLDEST)
            open_receiver = self._direct_receiver if self._read_from == _PRIMARY else self._distant_receiver
            async with open_receiver(settler, cursor, block) as receiver, receiver.reconnecting:
                yield receiver

    @asynccontextmanager
    async def _direct_receiver(
        self, settler: Settler, cursor: StreamCursor, block: float
    ) -> AsyncIterator[CursorReceiver]:
        proof = partial(DirectProof, self.connector, replicas=self.replicas)
        yield CursorReceiver(self.connector, settler, cursor, batch_size=self._batch_size, block=block, proof=proof)

    @asynccontextmanager
    async def _distant_receiver(
        self, settler: Settler, cursor: StreamCursor, block: float
    ) -> AsyncIterator[CursorReceiver]:
        """Read from a replica. There are two who have to reply, so each is asked twice as often."""
        interval, max_lag = block / 2, max(block, _MIN_LAG)
        named = None if self._read_from == _REPLICA else Connector(self._read_from, destination=self.destination)
        source = ReplicaConnector(self.connector, named, max_lag=max_lag)
        async with ReplicaProof(
            self.connector, source, replicas=self.replicas, interval=interval, max_lag=max_lag
        ) as proof:
            yield CursorReceiver(
                source,
                settler,
                cursor,
                batch_size=self._batch_size,
                block=interval,
                proof=lambda _: proof,
                grace=max_lag,
            )

    @asynccontextmanager
    async def _group_receiver(self, name: str, start: str | None, block: float) -> AsyncIterator[Receiver]:
        group = ConsumerGroup(self.destination, name, self._consumer or new_consumer_name())
        async with AsyncExitStack() as stack:
            stack.enter_context(reserve_consumer_name(self.connector.address, self.connector.database, group))
            multiplexer = await stack.enter_async_context(Multiplexer(self.connector))
            settler = Settler(multiplexer, keys=self.keys, consumer=group.consumer, acknowledge=group.acknowledge)
            receiver = GroupReceiver(
                self.connector,
                settler,
                group,
                start=start,
                claim_after=self.claim_after or 0.0,
                batch_size=self._batch_size,
                block=block,
            )
            stack.push_async_callback(receiver.remove_consumer, multiplexer)
            await stack.enter_async_context(settler)
            await stack.enter_async_context(receiver.reconnecting)
            await stack.enter_async_context(_background(receiver.renew(multiplexer), name="jwt_events lease"))
            yield receiver


@asynccontextmanager
async def _background(coroutine: Coroutine[None, None, None], *, name: str) -> AsyncIterator[None]:
    task = asyncio.create_task(coroutine, name=name)
    try:
        yield
    finally:
        await end([task])


def _consumer_name(consumer: str | None, group: str | None) -> str | None:
    if consumer is None:
        return None
    if group is None:
        raise InvalidOption("consumer", "needs a group")
    return options.name("consumer", consumer, maximum=options.MAX_GROUP_NAME_LENGTH)


def _read_from(source: str, group: str | None) -> str:
    if source == _PRIMARY:
        return source
    if group is not None:
        raise InvalidOption("read_from", "a group reads from the primary, as it writes there what it read")
    if source != _REPLICA:
        if not isinstance(source, str) or "://" not in source:
            raise InvalidOption("read_from", "must be 'primary', 'replica', or the URL of a replica")
        try:
            connector = Connector(source)
        except InvalidOption as error:
            raise InvalidOption("read_from", str(error).partition(": ")[2]) from None
        if not connector.is_server:
            raise InvalidOption("read_from", "must name one server: 'replica' finds those of a service or cluster")
    return source


def _start_position(start: str | datetime) -> str | None:
    """Return the position after which to read; ``None`` for the end of the stream when it is first read."""
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


def _parse_sent(reply: Any) -> Sent:
    return Sent(position(reply))


class _Trimming:
    """Removes the entries of a stream that no publisher keeps any more. A `Maintenance`."""

    def __init__(self, connector: Connector, keys: StreamKeys, retention: timedelta) -> None:
        self._key = keys.stream
        self._retention = LongestRetention(keys, retention, PlainKeys(connector, keys))
        self.due_at: float = 0.0

    async def run(self, connection: Connection) -> None:
        """Remove entries, in a command of its own, so that appending stays as cheap as it can be."""
        self.due_at = asyncio.get_running_loop().time() + self._retention.interval
        horizon = await self._retention.announce(connection)
        await connection.call("XTRIM", self._key, "MINID", horizon.before, within=ATTEMPT_WITHIN)
