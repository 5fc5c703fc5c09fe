"""Redis Pub/Sub: fan-out to whoever listens at the moment, at the lowest cost.

What is sent while a receiver is away is gone, and Redis does not say so. This transport does: every reconnection is a
`Gap`. So that being away cannot go unnoticed, silence is questioned by PING and a connection that does not answer is
dropped.

Source: https://redis.io/docs/latest/develop/pubsub/
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from jwt_events._internal import options
from jwt_events.errors import ConnectionFailed, ServerRefused, SubscriptionRefused, TransportError
from jwt_events.transport._redis.connection import Connection, Connector
from jwt_events.transport._redis.multiplexer import Multiplexer
from jwt_events.transport._redis.protocol import Command
from jwt_events.transport._redis.reconnecting import ATTEMPT_WITHIN, ReconnectingConnection
from jwt_events.transport._redis.replies import number
from jwt_events.transport._redis.sender import RedisSender
from jwt_events.transport.base import Batch, Delivery, Failure, Gap, Guarantees, Receiver, Sender, Sent, Server

if TYPE_CHECKING:
    from redis.asyncio import Redis

# A silent connection is asked for a sign of life after this long, and given up after the third silence in a row.
_SILENCE = 0.75
_SILENCES = 3


class RedisPubSub:
    """Events over a Redis Pub/Sub channel: at most once, to those who listen at the moment.

    Choose it when a missed event does no harm, or when a `Gap` can be made good by other means. If in doubt, use
    `RedisStream`, which remembers.

    Args:
        client_or_url: a ``redis.asyncio.Redis`` client, whose options are copied and which is left alone, or a
            ``redis://``, ``rediss://`` or ``unix://`` URL.
        channel: the name of the channel; everyone who uses the same name hears the same events. Pub/Sub channels are
            shared by all databases of a server.

    Raises:
        InvalidOption: an argument cannot work.
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
        """Which server, for traces."""
        return Server("redis", self.connector.host, self.connector.port)

    @asynccontextmanager
    async def sender(self) -> AsyncIterator[Sender]:
        """Open a way to send; see `Transport.sender`."""
        channel = self.destination.encode()

        def command(payload: bytes) -> Command:
            return (b"PUBLISH", channel, payload)

        async with Multiplexer(self.connector) as pipeline:
            yield RedisSender(pipeline, command=command, sent=lambda answer: Sent(receivers=number(answer)))

    @asynccontextmanager
    async def receiver(
        self, *, from_oldest: bool = False, poll_timeout: float | None = None
    ) -> AsyncIterator[Receiver]:
        """Subscribe; see `Transport.receiver`. There is no history, so ``from_oldest`` changes nothing."""
        receiver = _PubSubReceiver(self.connector)
        async with receiver.link:
            yield receiver


class _PubSubReceiver:
    def __init__(self, connector: Connector) -> None:
        self.link = ReconnectingConnection(connector, transport=RedisPubSub.name, greet=self._subscribe)
        self._channel = connector.destination.encode()
        self._silences = 0
        self._reported_away = False

    async def receive(self) -> Batch:
        connection = self.link.connection
        if connection is None:
            return await self._come_back()
        try:
            frames = await connection.frames(patience=_SILENCE)
            if not frames:
                return await self._question(connection)
        except TransportError as error:
            if not error.retryable:
                raise
            await self.link.lose(error)
            return Batch()
        self._silences = 0
        if any(frame[0] == b"unsubscribe" for frame in frames):
            await self.link.lose(ConnectionFailed("the server ended the subscription"))
        return Batch([Delivery(frame[2]) for frame in frames if frame[0] == b"message"])

    def settle(self, delivery: Delivery, failure: Failure | None = None) -> None:
        """Nobody waits for it, and there is no place for dead letters."""

    async def _subscribe(self, connection: Connection) -> None:
        try:
            connection.send("SUBSCRIBE", self._channel)
            (frame,) = await connection.frames(within=ATTEMPT_WITHIN, most=1)
        except ServerRefused as error:
            if error.retryable:
                raise
            raise SubscriptionRefused(str(error)) from None
        if frame[:2] != [b"subscribe", self._channel]:
            raise SubscriptionRefused("the server did not confirm the subscription")
        self._silences = 0

    async def _question(self, connection: Connection) -> Batch:
        """Ask a silent connection for a sign of life; drop it when it gave none to the questions before."""
        self._silences += 1
        if self._silences < _SILENCES:
            connection.send("PING")
            return Batch()
        await self.link.lose(ConnectionFailed("the server does not answer"))
        return self._away()

    async def _come_back(self) -> Batch:
        if not await self.link.reconnect():
            return self._away()
        self._reported_away = False
        return Batch(gaps=(Gap(None, "reconnected"),), reconnected=True)

    def _away(self) -> Batch:
        """Report once, early, that nothing is being heard; how long it lasted is told by the gap on return."""
        if self._reported_away:
            return Batch()
        self._reported_away = True
        return Batch(gaps=(Gap(None, "disconnected"),))
