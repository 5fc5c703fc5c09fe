"""Sends payloads to a channel: sharded if the server is a node of a cluster that has shards, else plain."""

from __future__ import annotations

from functools import partial
from typing import Any

from jwt_events.errors import ConnectionFailed
from jwt_events.transport._redis.channels import PLAIN, SHARDED, Channels, channels_of
from jwt_events.transport._redis.multiplexer import Multiplexer, RedisSender
from jwt_events.transport._redis.protocol import Command
from jwt_events.transport._redis.replies import number
from jwt_events.transport.base import Sent


class ChannelSender(RedisSender):
    """A `Sender` to a channel.

    The commands are made before the server is known, so their kind is a guess. A server that has the other kind is left
    before they are sent: they fail, and when they are tried again they are of its kind.

    Args:
        multiplexer: runs the commands.
        channel: the channel.
        is_cluster: whether the server is known to be a node of a cluster.
    """

    def __init__(self, multiplexer: Multiplexer, channel: bytes, *, is_cluster: bool) -> None:
        self._channels = SHARDED if is_cluster else PLAIN
        super().__init__(multiplexer, command=partial(_command, self._channels, channel), parse=_parse)
        self._channel = channel
        multiplexer.on_hello = self._check

    def _check(self, hello: Any) -> None:
        """Return if the server has the kind of channels that commands are made for.

        Raises:
            ConnectionFailed: it has the other kind, of which the next ones are.
        """
        channels = channels_of(hello)
        if channels is not self._channels:
            self._channels = channels
            self._command = partial(_command, channels, self._channel)
            problem = f"{self._multiplexer.address} needs {channels.publish.decode()}"
            raise ConnectionFailed(problem)


def _command(channels: Channels, channel: bytes, payload: bytes) -> Command:
    return channels.publish, channel, payload


def _parse(reply: Any) -> Sent:
    return Sent(receivers=number(reply))
