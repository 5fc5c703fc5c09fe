"""How far a group is behind, as the server tells it when its receivers ask anyway."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jwt_events.errors import TransportError
from jwt_events.transport._redis.multiplexer import Multiplexer
from jwt_events.transport._stream.consumer_group import ConsumerGroup
from jwt_events.transport._stream.position import StreamInfo
from jwt_events.transport.base import Backlog


class GroupBacklog:
    """Tells how far a group is behind: after each audit, and with the leases, as busy handlers leave no audit.

    Args:
        group: the group.

    Attributes:
        tell: is called with what is known.
    """

    def __init__(self, group: ConsumerGroup) -> None:
        self.tell: Callable[[Backlog], None] | None = None
        self._group = group

    def note(self, groups: Any, found: StreamInfo | None) -> None:
        """Tell what an audit found.

        Args:
            groups: the reply to XINFO GROUPS.
            found: the state of the stream, if it was asked afterwards.
        """
        if self.tell is None or isinstance(groups, TransportError):
            return
        for row in groups:
            fields = dict(zip(row[::2], row[1::2], strict=True))
            if fields[b"name"] == self._group.name.encode():
                lag = fields.get(b"lag")
                if lag is None and found is not None and fields[b"last-delivered-id"].decode() == found.last:
                    lag = 0  # that much is known without counts
                self.tell(Backlog(self._group.key, self._group.name, lag, fields[b"pending"]))

    async def refresh(self, multiplexer: Multiplexer, *, within: float) -> None:
        """Ask the server, and tell what it says."""
        if self.tell is not None:
            # Not XINFO STREAM, which an audit asks, too: its reply holds two entries, which may be far too large.
            (groups,) = await multiplexer.run([("XINFO", "GROUPS", self._group.key)], within=within)
            self.note(groups, None)
