"""Sends payloads to a channel: sharded if the server is a node of a cluster that has shards, else plain."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from functools import partial
from typing import Any

from jwt_events.errors import TransportError
from jwt_events.transport._redis.channels import PLAIN, Channels, channels_of
from jwt_events.transport._redis.connection import Connection
from jwt_events.transport._redis.multiplexer import Multiplexer, RedisSender
from jwt_events.transport._redis.protocol import Command
from jwt_events.transport._redis.reconnecting import ATTEMPT_WITHIN
from jwt_events.transport._redis.replies import number
from jwt_events.transport._redis.role import HELLO
from jwt_events.transport.base import Sent


class ChannelSender(RedisSender):
    """A `Sender` to a channel. It asks each server that it connects to which kind of channels to use.

    Args:
        multiplexer: runs the commands.
        channel: the channel.
    """

    def __init__(self, multiplexer: Multiplexer, channel: bytes) -> None:
        super().__init__(multiplexer, command=partial(_command, PLAIN, channel), parse=_parse)
        self._channel = channel
        self._has_asked = False
        multiplexer.on_connect = self._ask

    def send(self, payloads: Sequence[bytes], *, within: float) -> Awaitable[Sequence[Sent | TransportError]]:
        """Send payloads in order; see `Sender.send`."""
        return super().send(payloads, within=within) if self._has_asked else self._connect_and_send(payloads, within)

    async def _connect_and_send(self, payloads: Sequence[bytes], within: float) -> Sequence[Sent | TransportError]:
        """Send the first payloads, which have to wait for what the server says."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within
        (reply,) = await self._multiplexer.run([HELLO], within=within)
        if not self._has_asked:
            error = reply if isinstance(reply, TransportError) else TransportError("the server was not asked")
            error.maybe_done = False  # none of the payloads was sent
            return [error] * len(payloads)
        return await super().send(payloads, within=deadline - loop.time())

    async def _ask(self, connection: Connection) -> None:
        (reply,) = await connection.execute_many([HELLO], within=ATTEMPT_WITHIN)
        if isinstance(reply, TransportError):
            raise reply
        self._command = partial(_command, channels_of(reply), self._channel)
        self._has_asked = True


def _command(channels: Channels, channel: bytes, payload: bytes) -> Command:
    return channels.publish, channel, payload


def _parse(reply: Any) -> Sent:
    return Sent(receivers=number(reply))
