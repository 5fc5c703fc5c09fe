"""Redis Pub/Sub: fan-out to the receivers that are connected at the moment, at the lowest cost.

An event that is sent while a receiver is disconnected is lost, and Redis does not report it. This transport does: every
reconnection is a `Gap`. To detect a dead connection, it sends PING when nothing arrives, and drops a connection that
does not reply.

Source: https://redis.io/docs/latest/develop/pubsub/
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from jwt_events._internal import options
from jwt_events.errors import ConnectionFailed, ServerRefused, SubscriptionRefused, TransportError
from jwt_events.transport._redis.connection import Connection, Connector
from jwt_events.transport._redis.multiplexer import Multiplexer, RedisSender
from jwt_events.transport._redis.protocol import Command
from jwt_events.transport._redis.reconnecting import ATTEMPT_WITHIN, ReconnectingConnection
from jwt_events.transport._redis.replies import number
from jwt_events.transport._redis.shapes import push_message
from jwt_events.transport.base import Batch, Delivery, Failure, Gap, Guarantees, Receiver, Sender, Sent, Server

if TYPE_CHECKING:
    from redis.asyncio import Redis

# Seconds without a message after which a PING is sent; after the third such timeout in a row the connection is dropped.
_PING_AFTER = 0.75
_MAX_TIMEOUTS = 3


class RedisPubSub:
    """Events over a Redis Pub/Sub channel: at most once, to the receivers that are connected at the moment.

    Choose it when a missed event does no harm, or when the application can recover from a `Gap` by other means. If in
    doubt, use `RedisStream`, which stores events.

    Args:
        client_or_url: a ``redis.asyncio.Redis`` client, whose options are copied and which is left alone, or a
            ``redis://``, ``rediss://`` or ``unix://`` URL; ``valkey://`` and ``valkeys://`` mean the same as the first
            two.
        channel: the name of the channel; all who use the same name share its events. Pub/Sub channels are shared by all
            databases of a server.

    Raises:
        InvalidOption: an argument is invalid.
    """

    name = "pubsub"
    guarantees: Guarantees = Guarantees(durable=False, redelivers=False, ordered=False, fan_out=True)
    retention: timedelta | None = None
    claim_after: float | None = None

    def __init__(self, client_or_url: Redis | str, channel: str = "jwt:events") -> None:
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
        channel = self.destination.encode()

        def command(payload: bytes) -> Command:
            return (b"PUBLISH", channel, payload)

        async with Multiplexer(self.connector) as multiplexer:
            yield RedisSender(multiplexer, command=command, parse=lambda reply: Sent(receivers=number(reply)))

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
        self._channel = connector.destination.encode()
        self._parse = partial(push_message, channel=self._channel)
        self._timeouts = 0
        self._has_reported_gap = False

    async def receive(self) -> Batch:
        connection = self.reconnecting.connection
        if connection is None:
            return await self._reconnect()
        try:
            messages = await connection.pushed(poll_timeout=_PING_AFTER, parse=self._parse)
            if not messages:
                return await self._ping(connection)
        except TransportError as error:
            if not error.retryable:
                raise
            await self.reconnecting.drop(error)
            return Batch()
        self._timeouts = 0
        if any(message[0] == b"unsubscribe" for message in messages):
            await self.reconnecting.drop(ConnectionFailed("the server ended the subscription"))
        return Batch([Delivery(message[2]) for message in messages if message[0] == b"message"])

    def settle(self, delivery: Delivery, failure: Failure | None = None) -> None:
        """Do nothing: Pub/Sub has neither acknowledgements nor dead letters."""

    async def _subscribe(self, connection: Connection) -> None:
        try:
            connection.write("SUBSCRIBE", self._channel)
            (confirmation,) = await connection.pushed(within=ATTEMPT_WITHIN, maximum=1, parse=self._parse)
        except ServerRefused as error:
            if error.retryable:
                raise
            raise SubscriptionRefused(str(error)) from None
        if confirmation[:2] != [b"subscribe", self._channel]:
            raise SubscriptionRefused("the server did not confirm the subscription")
        self._timeouts = 0

    async def _ping(self, connection: Connection) -> Batch:
        """Send PING on a connection on which nothing arrived; drop it if the PINGs before had no reply."""
        self._timeouts += 1
        if self._timeouts < _MAX_TIMEOUTS:
            connection.write("PING")
            return Batch()
        await self.reconnecting.drop(ConnectionFailed("the server does not answer"))
        return self._report_disconnected()

    async def _reconnect(self) -> Batch:
        if not await self.reconnecting.reconnect():
            return self._report_disconnected()
        self._has_reported_gap = False
        return Batch(gaps=(Gap(None, "reconnected"),), reconnected=True)

    def _report_disconnected(self) -> Batch:
        """Report once, early, that events are being missed. A second gap, on reconnection, says when that ended."""
        if self._has_reported_gap:
            return Batch()
        self._has_reported_gap = True
        return Batch(gaps=(Gap(None, "disconnected"),))
