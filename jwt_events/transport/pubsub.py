"""Redis Pub/Sub: fan-out to the receivers that are connected at the moment, at the lowest cost.

An event that is sent while a receiver is disconnected is lost, and Redis does not report it. This transport does: every
reconnection is a `Gap`. To detect a dead connection, and a server that is no primary any more, it asks for the role all
the time, and leaves a replica and a server that does not reply.

In a cluster with shards (Redis 7 and newer, Valkey) it uses sharded channels: what is published stays with the owner of
the channel's slot, in place of going to every node. When the owner is another one, the subscription is lost: a gap.

Source: https://redis.io/docs/latest/develop/pubsub/
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from jwt_events._internal import options
from jwt_events.errors import ConnectionFailed, NotProven, ServerRefused, SubscriptionRefused, TransportError
from jwt_events.transport._redis.channel_sender import ChannelRule, ChannelSender
from jwt_events.transport._redis.channels import PLAIN, channels_of
from jwt_events.transport._redis.connection import Connection, Connector
from jwt_events.transport._redis.multiplexer import Multiplexer
from jwt_events.transport._redis.proof import Replication
from jwt_events.transport._redis.protocol import Request
from jwt_events.transport._redis.prover import Prover
from jwt_events.transport._redis.reconnecting import ATTEMPT_WITHIN, ReconnectingConnection
from jwt_events.transport._redis.role import HELLO, HELLO_3, is_in_cluster, role_of_hello
from jwt_events.transport.base import Batch, Delivery, Failure, Gap, Guarantees, Receiver, Sender, Server

if TYPE_CHECKING:
    from redis.asyncio import Redis, RedisCluster

# Seconds after which the role is asked again; after two such times without a reply or a message the connection is left.
_ASK_AFTER = 0.75
_MAX_TIMEOUTS = 2


class RedisPubSub:
    """Events over a Redis Pub/Sub channel: at most once, to the receivers that are connected at the moment.

    Choose it when a missed event does no harm, or when the application can recover from a `Gap` by other means. If in
    doubt, use `RedisStream`, which stores events.

    Args:
        client_or_url: a ``redis.asyncio.Redis`` or ``RedisCluster`` client, whose options are copied and which is left
            alone, or a ``redis://``, ``rediss://``, ``unix://``, ``redis+sentinel://`` or ``redis+cluster://`` URL;
            with ``valkey`` for ``redis`` it means the same.
        channel: the name of the channel; all who use the same name share its events. Pub/Sub channels are shared by all
            databases of a server. In a cluster, it is a sharded channel if the nodes have those: ``SPUBLISH`` and
            ``SSUBSCRIBE``.

    Raises:
        InvalidOption: an argument is invalid.
    """

    name = "pubsub"
    guarantees: Guarantees = Guarantees(durable=False, redelivers=False, ordered=False, fan_out=True)
    retention: timedelta | None = None
    claim_after: float | None = None

    def __init__(self, client_or_url: Redis | RedisCluster | str, channel: str = "jwt:events") -> None:
        self.destination: str = options.name("channel", channel)
        self.connector: Connector = Connector(client_or_url, destination=channel)

    def __repr__(self) -> str:
        return f"<RedisPubSub {self.destination!r} at {self.connector.address}>"

    @property
    def server(self) -> Server:
        """The server, as traces name it."""
        return Server("redis", self.connector.host, self.connector.port)

    @asynccontextmanager
    async def sender(self) -> AsyncIterator[Sender]:
        """Open a sender; see `Transport.sender`."""
        rule = ChannelRule(self.connector.address, is_cluster=self.connector.is_cluster)
        async with Multiplexer(self.connector, role=rule) as multiplexer:
            yield ChannelSender(multiplexer, self.destination.encode(), rule)

    @asynccontextmanager
    async def receiver(
        self, *, from_oldest: bool = False, poll_timeout: float | None = None
    ) -> AsyncIterator[Receiver]:
        """Subscribe; see `Transport.receiver`. A channel stores no events, so ``from_oldest`` has no effect."""
        receiver = _PubSubReceiver(self.connector)
        async with receiver.reconnecting:
            yield receiver


class _PubSubReceiver:
    def __init__(self, connector: Connector) -> None:
        self.reconnecting = ReconnectingConnection(connector, transport=RedisPubSub.name, on_connect=self._subscribe)
        self._prover = Prover(connector.address, self.reconnecting.owner)
        self._connector = connector
        self._channel = connector.destination.encode()
        self._channels = PLAIN
        self._asked: Request | None = None  # for the role; also the proof that the server still replies
        self._asked_at = self._ask_at = 0.0
        self._timeouts = 0
        self._has_reported_gap = False

    async def receive(self) -> Batch:
        connection = self.reconnecting.connection
        if connection is None:
            return await self._reconnect()
        try:
            self._ask_role(connection)
            messages = await connection.pushed(poll_timeout=_ASK_AFTER, parse=self._parse)
            is_deaf = await self._find_deaf(connection, has_arrived=bool(messages))
        except TransportError as error:
            if not error.retryable:
                raise
            await self.reconnecting.drop(error)
            return Batch()
        deliveries = [Delivery(message[2]) for message in messages if message[0] == self._channels.message]
        if is_deaf is not None:
            await self.reconnecting.drop(is_deaf)
            return Batch(deliveries, self._report_disconnected(), refusal=self._prover.take_refusal())
        if any(message[0] == self._channels.unsubscribed for message in messages):
            await self.reconnecting.drop(ConnectionFailed("the server ended the subscription"))
        return Batch(deliveries, refusal=self._prover.take_refusal())

    @property
    def is_live(self) -> bool:
        """Whether it is connected, and the server has answered; see `Receiver`."""
        return self.reconnecting.connection is not None and not self._timeouts

    def settle(self, delivery: Delivery, failure: Failure | None = None) -> None:
        """Do nothing: Pub/Sub has neither acknowledgements nor dead letters."""

    async def _subscribe(self, connection: Connection) -> None:
        try:
            self._prover.connect(connection.place)
            replies = await connection.execute_many([HELLO_3, *self._prover.commands], within=ATTEMPT_WITHIN)
            self._hear(replies)
            if self._connector.follow(is_node=is_in_cluster(replies[0])):
                raise ConnectionFailed(f"{connection.address} is a node of a cluster, and may not own the channel")
            self._channels = channels_of(replies[0])
            connection.write(self._channels.subscribe, self._channel)
            (confirmation,) = await connection.pushed(within=ATTEMPT_WITHIN, maximum=1, parse=self._parse)
        except ServerRefused as error:
            if error.retryable:
                raise
            raise SubscriptionRefused(str(error)) from None
        if confirmation[:2] != [self._channels.subscribed, self._channel]:
            raise SubscriptionRefused("the server did not confirm the subscription")
        self._asked, self._timeouts = None, 0
        self._ask_at = asyncio.get_running_loop().time() + _ASK_AFTER

    def _parse(self, reply: Any) -> list[Any]:
        return self._channels.parse(reply, self._channel)

    def _hear(self, replies: Sequence[Any]) -> None:
        """Take the reply to HELLO, and those to the questions beside it.

        Raises:
            NotProven: the server is to be left.
            TransportError: it refuses to tell its role.
        """
        role, *said = replies
        self._prover.hear(Replication(role_of_hello(role)), self._asked_at, said)

    def _ask_role(self, connection: Connection) -> None:
        """Ask for the role beside what arrives, if it is time to: a replica may be cut off from the publishers."""
        now = asyncio.get_running_loop().time()
        if self._asked is None and now >= self._ask_at:
            self._asked = connection.send([HELLO, *self._prover.commands])
            self._asked_at = now
            self._ask_at = now + _ASK_AFTER
            self._prover.request(now)

    async def _find_deaf(self, connection: Connection, *, has_arrived: bool) -> TransportError | None:
        """Return why this connection, although it is open, may get no events; ``None`` if it gets them.

        Raises:
            TransportError: the server refuses to tell its role.
        """
        if self._asked is not None and self._asked.settled.done():
            asked, self._asked = self._asked, None
            replies = await connection.replies(asked, within=ATTEMPT_WITHIN)
            has_arrived = True
            try:
                self._hear(replies)
            except NotProven as error:
                return error
        try:
            self._prover.conclude()
        except NotProven as error:
            return error
        self._timeouts = 0 if has_arrived or self._asked is None else self._timeouts + 1
        return ConnectionFailed("the server does not answer") if self._timeouts >= _MAX_TIMEOUTS else None

    async def _reconnect(self) -> Batch:
        if not await self.reconnecting.reconnect():
            return Batch(gaps=self._report_disconnected(), refusal=self.reconnecting.take_refusal())
        self._has_reported_gap = False
        return Batch(gaps=(Gap(None, "reconnected"),), reconnected=True)

    def _report_disconnected(self) -> Sequence[Gap]:
        """Report once, early, that events are being missed. A second gap, on reconnection, says when that ended."""
        if self._has_reported_gap:
            return ()
        self._has_reported_gap = True
        return (Gap(None, "disconnected"),)
