"""Consumers of a group that are gone: they are removed, so that they do not accumulate with every restart."""

from __future__ import annotations

import asyncio

from jwt_events.transport._redis.connection import Connection
from jwt_events.transport._redis.reconnecting import ATTEMPT_WITHIN
from jwt_events.transport._stream.consumer_group import ConsumerGroup
from jwt_events.transport._stream.group_losses import list_consumers

# How often the ``claim_after`` must have passed since the last command of a consumer that holds no entries, before it
# counts as abandoned. Removing one that is not does no harm: its next read creates it again.
_ABANDONED_AFTER = 3


class AbandonedConsumers:
    """Consumers of a group that hold no entries and have sent no command for a while.

    Args:
        group: the group.
        claim_after: seconds after which what a consumer holds is claimed.
    """

    def __init__(self, group: ConsumerGroup, *, claim_after: float) -> None:
        self._group = group
        self._after = _ABANDONED_AFTER * claim_after
        self._next = 0.0

    async def remove_if_due(self, connection: Connection) -> None:
        """Remove them if that was not done for as long as it takes to count as abandoned."""
        if asyncio.get_running_loop().time() >= self._next:
            await self.remove(connection)

    async def remove(self, connection: Connection) -> None:
        """Remove them; without the right to, they stay."""
        self._next = asyncio.get_running_loop().time() + self._after
        idle = int(self._after * 1000)
        for consumer in await list_consumers(connection, self._group):
            if consumer[b"pending"] == 0 and consumer[b"idle"] >= idle:
                command = self._group.remove(consumer[b"name"], idle=idle)
                await connection.execute_many([command], within=ATTEMPT_WITHIN)
