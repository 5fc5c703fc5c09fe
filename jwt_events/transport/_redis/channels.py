"""Plain and sharded channels: the words of their commands and messages, and which of the two a server has. Pure.

In a cluster a message on a plain channel goes to all nodes, whether anybody listens there or not. One on a sharded
channel stays with the owner of the channel's slot, and a server tells its subscribers when that is another one. The two
share no messages, so publishers and subscribers must use the same kind: both ask the owner.

Source: https://redis.io/docs/latest/develop/pubsub/#sharded-pubsub
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from jwt_events.transport._redis.protocol import PushedMessage
from jwt_events.transport._redis.role import is_in_cluster, version_of_hello

_FIRST_WITH_SHARDS: Final = 7  # of Redis and Valkey; as a node of a cluster, older servers have plain channels only


class Channels(NamedTuple):
    """A kind of channels.

    Attributes:
        publish: the command that publishes.
        subscribe: the command that subscribes.
        message: the kind of a message that was published.
        subscribed: the kind of a message that confirms a subscription.
        unsubscribed: the kind of a message that ends one.
    """

    publish: bytes
    subscribe: bytes
    message: bytes
    subscribed: bytes
    unsubscribed: bytes


PLAIN: Final = Channels(b"PUBLISH", b"SUBSCRIBE", b"message", b"subscribe", b"unsubscribe")
SHARDED: Final = Channels(b"SPUBLISH", b"SSUBSCRIBE", b"smessage", b"ssubscribe", b"sunsubscribe")


def channels_of(hello: Any) -> Channels:
    """Return the kind of channels to use at a server, given its reply to HELLO."""
    return SHARDED if is_in_cluster(hello) and version_of_hello(hello) >= _FIRST_WITH_SHARDS else PLAIN


def push_message(reply: Any, name: bytes, channels: Channels) -> list[Any]:
    """Parse a message that a server sends to the subscriber of a channel: its kind, then what that kind holds.

    Args:
        reply: what the server sent.
        name: the channel.
        channels: the kind of channels that it is one of.

    Raises:
        Exception: of any kind, if it is no such message.
    """
    if type(reply) is not PushedMessage:
        raise TypeError
    kind, of, content = reply
    if kind == channels.message:
        fits = of == name and type(content) is bytes
    else:
        fits = kind in (channels.subscribed, channels.unsubscribed) and type(content) is int
    if not fits:
        raise ValueError
    return reply
