"""What a group has read and lost, as its server says from time to time; and the group itself, if there is none yet."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from jwt_events._internal.positions import OLDEST, sort_key
from jwt_events.errors import ConnectionFailed, ServerRefused, TransportError
from jwt_events.transport._redis.connection import Connection
from jwt_events.transport._redis.prover import Prover
from jwt_events.transport._redis.reconnecting import ATTEMPT_WITHIN
from jwt_events.transport._redis.role import replication_of
from jwt_events.transport._stream.backlog import GroupBacklog
from jwt_events.transport._stream.batch_size import ENTRY_BOUNDS
from jwt_events.transport._stream.consumer_group import ConsumerGroup
from jwt_events.transport._stream.cursor import stream_info
from jwt_events.transport._stream.epoch import Epoch
from jwt_events.transport._stream.group_losses import GroupLosses, parse_cursor
from jwt_events.transport._stream.position import StreamCursor, StreamInfo, previous
from jwt_events.transport.base import Gap


class GroupAudit:
    """Compares what one consumer of a group received with what the server says of the group.

    Args:
        group: the group and the name of this consumer.
        prover: is told what the server says of its role.
        start: where a group that does not exist begins; ``None`` for the end of the stream.

    Attributes:
        gaps: what was lost, and is not taken yet.
        finished: up to here every entry is settled; where the group is created again.
        has_joined: whether this consumer was made known to the others.
        backlog: how far the group is behind.
    """

    def __init__(self, group: ConsumerGroup, prover: Prover, *, start: str | None) -> None:
        self.gaps: list[Gap] = []
        self.finished: str = OLDEST
        self.has_joined = False
        self.backlog: GroupBacklog = GroupBacklog(group)
        self._group = group
        self._prover = prover
        self._start = start
        self._last_read: str | None = None  # the group read at least up to here; ``None`` until it is known to exist
        self._losses = GroupLosses(group)

    @property
    def is_counted(self) -> bool:
        """Whether the server counts what was added; see `GroupLosses`."""
        return self._losses.is_counted

    def is_unread(self, position: str) -> bool:
        """Whether an entry comes after all that the group is known to have read."""
        return sort_key(position) > sort_key(self._last_read or OLDEST)

    def receive(self, positions: Sequence[str | None]) -> None:
        """Note entries that this consumer was the first to receive, in their order."""
        if positions:
            self._last_read = positions[-1]
            self._losses.receive(positions)

    def restart(self, since: str) -> None:
        """Report a server that may lack what followed a position; that the group went back is part of it."""
        self.gaps = [Gap(since, "restarted"), *(gap for gap in self.gaps if gap != Gap(since, "rewound"))]

    def take_gaps(self) -> list[Gap]:
        """Return what was lost, once."""
        gaps, self.gaps = self.gaps, []
        return gaps

    async def run(
        self,
        connection: Connection,
        *,
        is_reconnected: bool = False,
        first_epoch: Epoch | None = None,
        is_created: bool = False,
    ) -> None:
        """Find entries that were removed before the group read them; create the group if there is none.

        Args:
            connection: the connection to use.
            is_reconnected: whether it is a new one, so that entries may be lost in replies on the one before.
            first_epoch: the server's epoch, if it is the first that this receiver knows: the group may have existed in
                an earlier one.
            is_created: whether the server has just said that there is such a group.
        """
        groups, pending, stream = await self._fetch(connection)
        found = stream_info(stream)
        cursor = None if found is None else parse_cursor(self._group.name, groups)
        if found is None or cursor is None:
            if is_created:  # deleted again, or not listed
                raise ConnectionFailed(f"the group {self._group.name!r} exists, and XINFO GROUPS does not list it")
            await self._create(connection, found, first_epoch)
            return
        if self._last_read is not None and sort_key(cursor.position) < sort_key(self._last_read):
            self.gaps.append(Gap(self.finished, "rewound"))  # replaced, together with its groups, by an older state
            self._last_read = cursor.position
            self._losses = GroupLosses(self._group)
        self._last_read = self._last_read or cursor.position
        self.backlog.note(groups, found)
        self.finished = _last_settled(cursor, pending)
        losses = await self._losses.find(connection, cursor, found, is_reconnected=is_reconnected)
        position = _last_known(cursor, found)
        if first_epoch is not None and position and first_epoch.may_lack_what_followed(position, is_there=True):
            self.gaps.append(Gap(self.finished, "restarted"))
        self.gaps += losses
        if is_reconnected:
            await self._join(connection)

    async def _fetch(self, connection: Connection) -> tuple[Any, Any, Any]:
        """Return the replies about the groups, what is pending, and the stream; tell the prover the others."""
        # XINFO STREAM comes last: otherwise entries added and read in between would look like a stream that went back.
        # XINFO GROUPS comes first: otherwise entries delivered in between would look settled.
        key, sent_at = self._group.key, asyncio.get_running_loop().time()
        self._prover.request(sent_at)
        groups, pending, stream, replication, *beside = await connection.execute_many(
            [
                ("XINFO", "GROUPS", key),
                self._group.summarize_pending(),
                ("XINFO", "STREAM", key),
                ("INFO", "replication"),
                *self._prover.commands,
            ],
            within=ATTEMPT_WITHIN,
            bounds=ENTRY_BOUNDS,
        )
        self._prover.hear(replication_of(replication), sent_at, beside)
        return groups, pending, stream

    async def _create(self, connection: Connection, found: StreamInfo | None, first_epoch: Epoch | None) -> None:
        end = OLDEST if found is None else found.last
        position = self._start or end
        gaps: list[Gap] = []
        if self._last_read is not None:
            # It existed before. Which consumer held what is lost with it, so all that was not settled comes again.
            position = OLDEST if sort_key(end) < sort_key(self._last_read) else self.finished
            gaps.append(Gap(self.finished, "deleted"))
        refusal = None
        try:
            await connection.call(*self._group.create(position), within=ATTEMPT_WITHIN)
        except ServerRefused as error:
            if error.code != "BUSYGROUP":
                raise
            refusal = error
        self.gaps += gaps
        self._losses = GroupLosses(self._group)
        if refusal is not None:
            self._last_read = None  # another consumer was faster, and may have begun at another position
            await self.run(connection, is_reconnected=True, first_epoch=first_epoch, is_created=True)
        else:
            self._last_read = self.finished = position
            self._losses.begin(position, found or StreamInfo(), is_told=bool(gaps))
            await self._join(connection)

    async def _join(self, connection: Connection) -> None:
        """Make this consumer known to the others; whether that fails shows at the next read."""
        self.has_joined = True
        await connection.execute_many([self._group.join()], within=ATTEMPT_WITHIN)


def _last_known(cursor: StreamCursor, found: StreamInfo) -> str | None:
    """Return a position that was certainly assigned, after which an earlier run of the server may have had entries.

    A group that has read nothing does not tell: its stream does. ``None`` if that never had an entry.
    """
    if cursor.position != OLDEST or found.last == OLDEST:
        return None if found.last == OLDEST else cursor.position
    return found.last if found.first is None or found.removed != 0 else found.first


def _last_settled(cursor: StreamCursor, pending: Any) -> str:
    """Return the position up to which every entry was delivered and settled, from the reply to XPENDING."""
    if isinstance(pending, TransportError):
        raise pending
    count, oldest, *_ = pending
    return min(cursor.position, previous(oldest.decode()), key=sort_key) if count else cursor.position
