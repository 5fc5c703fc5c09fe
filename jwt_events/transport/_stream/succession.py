"""The servers that a reader was connected to, one after another, and whether each has all that the one before had.

After a planned failover the old primary lives on as a replica, and says how much it ever wrote; the new one says up to
where it continued that. So nothing is missing, and nothing is told. After any other failover the old primary says
nothing, or that it wrote more. In a cluster a primary may also hand over a slot, with all that is in it; it remains a
primary, and says so.

Source: https://redis.io/docs/latest/operate/oss_and_stack/management/replication/#replication-id-explained
"""

from __future__ import annotations

from contextlib import suppress

from jwt_events.errors import TransportError
from jwt_events.transport._redis.connection import Connection, Connector
from jwt_events.transport._redis.membership import MEMBERSHIP, Membership
from jwt_events.transport._redis.proof import Replication
from jwt_events.transport._redis.survey import Address
from jwt_events.transport._stream.epoch import Epoch, fetch_epoch

# Seconds for asking the old primary how much it wrote: it is often gone, and reading does not go on meanwhile.
_ASK_WITHIN = 0.5


class Succession:
    """Remembers the last server of a reader, and judges the next one.

    Args:
        connector: connects to the last server once more.

    Attributes:
        epoch: the epoch of the last server; ``None`` if there was none.
    """

    def __init__(self, connector: Connector) -> None:
        self._connector = connector
        self._connection: Connection | None = None  # to the last server; closed by now
        self._end: int | None = None  # how much was written in that epoch
        self.epoch: Epoch | None = None

    def hear(self, replication: Replication) -> None:
        """Take what the last server says of itself now."""
        if self.epoch is not None and (end := replication.end_of(self.epoch.replication.history)) is not None:
            self._end = end

    async def fetch_epoch(self, connection: Connection, *, within: float) -> Epoch:
        """Return the epoch of a server, which may be the last one and a replica by now."""
        epoch = await fetch_epoch(connection, within=within)
        self._connector.follow(is_node=epoch.is_in_cluster)
        self._connector.require_slot()
        if self.epoch is not None and epoch.run_id == self.epoch.run_id != "":
            self.hear(epoch.replication)
        return epoch

    async def follow(self, epoch: Epoch, connection: Connection) -> bool:
        """Remember this server as the last one, and return whether it may lack what the one before had confirmed."""
        may_lack = await self._may_lack(epoch)
        self.epoch, self._connection, self._end = epoch, connection, None
        return may_lack

    async def _may_lack(self, epoch: Epoch) -> bool:
        if (before := self.epoch) is None or not epoch.may_lack(before, end=self._end):
            return False
        may_say = self._connector.is_cluster or epoch.replication.earlier == before.replication.history
        if self._end is None and may_say and (place := self._last_place) is not None:
            with suppress(TransportError):
                if await self._ask(place, before):
                    return False
        return epoch.may_lack(before, end=self._end)

    @property
    def _last_place(self) -> Address | None:
        """Where the last server may be asked; ``None`` if it had fallen silent: asking it would only take time."""
        last = self._connection
        return None if last is None or last.fell_silent else last.peer

    async def _ask(self, place: Address, before: Epoch) -> bool:
        """Ask the old primary how much it wrote, and return whether it handed over the slot instead."""
        connection = await self._connector.open(place, within=_ASK_WITHIN)
        try:
            now = await self.fetch_epoch(connection, within=_ASK_WITHIN)
            if not self._connector.is_cluster or now.may_lack(before) or now.replication.role != "master":
                return False
            said = await connection.execute_many(MEMBERSHIP, within=_ASK_WITHIN)
            return Membership.parse(said, self._connector.destination).has_handed_over
        finally:
            connection.abort()
            await connection.aclose()
