"""Sends payloads to a channel: sharded if the server is a node of a cluster that has shards, else plain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jwt_events.errors import ConnectionFailed
from jwt_events.transport._redis.channels import PLAIN, SHARDED, Channels, channels_of
from jwt_events.transport._redis.commands import CommandTemplate, FilledTemplate
from jwt_events.transport._redis.multiplexer import Multiplexer, RedisSender
from jwt_events.transport._redis.replies import number
from jwt_events.transport._redis.role import RoleRule
from jwt_events.transport.base import Sent


class ChannelRule(RoleRule):
    """Accepts the servers that have the kind of channels for which commands are made.

    Commands are made before the server is known, so their kind is a guess. A server that has the other kind is left
    before they are sent: they fail, and when they are tried again they are of its kind.

    Args:
        address: where the server is.
        is_cluster: whether it is known to be a node of a cluster.

    Attributes:
        channels: the kind of channels.
    """

    def __init__(self, address: str, *, is_cluster: bool) -> None:
        # Publishing succeeds on a replica, too, and no reply tells.
        super().__init__(address, is_needed=True)
        self.channels: Channels = SHARDED if is_cluster else PLAIN

    def check(self, reply: Any, *, maybe_done: bool) -> bool:
        """Return whether the role is known; see `RoleRule.check`.

        Raises:
            TransportError: as there; or the server has the other kind of channels.
        """
        is_known = super().check(reply, maybe_done=maybe_done)
        if (channels := channels_of(reply)) is not self.channels:
            self.channels = channels
            raise ConnectionFailed(f"the server needs {channels.publish.decode()}", maybe_done=maybe_done)
        return is_known


class ChannelSender(RedisSender):
    """A `Sender` to a channel.

    Args:
        multiplexer: runs the commands.
        channel: the channel.
        rule: knows the kind of channels.
    """

    def __init__(self, multiplexer: Multiplexer, channel: bytes, rule: ChannelRule) -> None:
        templates = {kind: CommandTemplate(kind.publish, channel) for kind in (PLAIN, SHARDED)}

        def fill(payloads: Sequence[bytes]) -> list[FilledTemplate]:
            return templates[rule.channels].fill(payloads)

        super().__init__(multiplexer, make_commands=fill, parse=lambda reply: Sent(receivers=number(reply)))
