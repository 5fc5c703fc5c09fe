"""Detection of entries that were removed from a stream before its group delivered them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from jwt_events._internal.positions import OLDEST, sort_key
from jwt_events.errors import TransportError
from jwt_events.transport._redis.connection import Connection
from jwt_events.transport._redis.reconnecting import ATTEMPT_WITHIN
from jwt_events.transport._stream.batch_size import ENTRY_BOUNDS
from jwt_events.transport._stream.consumer_group import ConsumerGroup
from jwt_events.transport._stream.position import Doubt, GroupProgress, StreamCursor, StreamInfo
from jwt_events.transport.base import Gap


class GroupLosses:
    """Finds what a group lost, from the server's count of the group and from its progress between two audits.

    Args:
        group: the group and the consumer that asks.

    Attributes:
        received: how many entries this consumer was the first to receive since the last audit.
    """

    def __init__(self, group: ConsumerGroup) -> None:
        self.received: int = 0
        self._group = group
        self._counted: Gap | None = None  # what the server counts as lost
        self._doubt = Doubt()  # what was last reported without a count
        self._progress: GroupProgress | None = None
        self._found: StreamInfo | None = None  # the stream at the last audit
        self._accounted = OLDEST  # up to here, what was removed at the end was reported

    @property
    def is_counted(self) -> bool:
        """Whether the server counts what was added. If not, what was trimmed shows only right before the next read."""
        return self._found is None or self._found.added is not None

    def begin(self, position: str, found: StreamInfo, *, is_told: bool) -> None:
        """Begin with a group that was just created at a position of a stream.

        Args:
            position: where it begins.
            found: the state of the stream.
            is_told: whether a gap at this position was reported.
        """
        # Where no entry is left up to the position, as many were removed up to there as were ever removed.
        is_behind = position == OLDEST or found.first is None or _is_after(found.first, position)
        index = found.added if position == found.last else found.removed if is_behind else None
        self._progress = GroupProgress(position, index, found.removed, found.first, is_alone=True)
        self._found = found
        self._accounted = OLDEST if found.has_last else found.last
        if found.added is None and (is_told or position != found.last):
            cursor = StreamCursor.after(position, None)
            cursor.reconcile(found)  # without counts it cannot be told from a loss: told, or no loss
            self._doubt = cursor.doubt

    async def find(
        self, connection: Connection, cursor: StreamCursor, found: StreamInfo, *, is_reconnected: bool
    ) -> list[Gap]:
        """Return what was lost since the last audit.

        Args:
            connection: the connection to use.
            cursor: the cursor of the group, as the audit found it.
            found: the state of the stream, as the audit found it afterwards.
            is_reconnected: whether replies that were lost with a connection may have held entries, which are in
                ``received`` only at the next audit.
        """
        is_alone = len(await list_consumers(connection, self._group)) <= 1
        is_end_removed = await self._is_end_removed(connection, cursor, found)
        # From here on nothing can fail: what is noted now counts as told.
        before = self._progress
        is_own = cursor.count is None and is_alone
        if is_own and before is not None and before.is_alone and before.index is not None:
            # The server lost count, as entries were deleted in between. One consumer counts for itself.
            cursor = StreamCursor.after(cursor.position, before.index + self.received)
        gap, is_same = self._reconcile(cursor, found, is_own=is_own)
        now = GroupProgress.of(cursor, found, is_alone=is_alone)  # behind what was reported just now
        if is_same and before is not None and before.position == now.position:
            now = replace(before, is_alone=is_alone)  # still behind what was reported then
        if gap is not None:
            self._found, self._progress, self.received = found, now, 0
            return [gap]
        if is_reconnected and before is not None:
            return []
        self._found, self._progress = found, now
        received, self.received = self.received, 0
        lost = 0 if before is None else before.lost(now, received)
        has_moved = before is not None and before.position != now.position
        if is_end_removed and (has_moved or not is_same):
            self._accounted = found.last
            is_known = None not in (lost, now.index, found.added)
            lost = (lost or 0) + (found.added or 0) - (now.index or 0) if is_known else None
            self._progress = now.at_end(found)
            if lost is not None:  # Redis 7.0 will count it when the group reads on
                counted = 0 if self._counted is None else self._counted.lost or 0
                self._counted = Gap(cursor.position, "trimmed", counted + lost)
        if lost is None or lost > 0:
            return [Gap(cursor.position if before is None else before.position, "trimmed", lost)]
        return []

    def _reconcile(self, cursor: StreamCursor, found: StreamInfo, *, is_own: bool) -> tuple[Gap | None, bool]:
        """Return what the server counts as newly lost, and whether the stream is as it was at the last audit."""
        before = self._found
        counts = found.added, found.removed
        if None not in counts and before is not None:
            if counts == (before.added, before.removed):
                return None, True
            if cursor.count is None and found.removed == before.removed:
                return None, False
        had_left = before is not None and before.first is not None and _is_after(before.first, cursor.position)
        if not had_left and OLDEST != self._accounted == found.last:
            return None, True  # nothing was added since all was delivered or reported
        if found.added is None:
            return self._reconcile_uncounted(cursor, found, OLDEST if had_left else self._accounted), False
        if is_own and cursor.count is not None:  # counted from the last audit on, and not from the beginning
            return cursor.reconcile(found), False
        last, self._counted = self._counted, cursor.reconcile(found)
        return None if self._counted is None else _new_part(self._counted, last), False

    def _reconcile_uncounted(self, cursor: StreamCursor, found: StreamInfo, accounted: str) -> Gap | None:
        cursor.follow(self._doubt, accounted)
        gap, self._doubt = cursor.reconcile(found), cursor.doubt
        if gap is not None and found.first is None:
            self._accounted = found.last
        return gap

    async def _is_end_removed(self, connection: Connection, cursor: StreamCursor, found: StreamInfo) -> bool:
        """Whether entries up to the last position were removed and can no longer be delivered to any consumer."""
        if sort_key(found.last) <= max(sort_key(cursor.position), sort_key(self._accounted)):
            return False
        left, groups = await connection.execute_many(
            [
                ("XRANGE", self._group.key, f"({cursor.position}", "+", "COUNT", 1),
                ("XINFO", "GROUPS", self._group.key),  # last: an entry may have been delivered, and then removed
            ],
            within=ATTEMPT_WITHIN,
            bounds=ENTRY_BOUNDS,
        )
        if isinstance(left, TransportError):
            raise left
        later = parse_cursor(self._group.name, groups)
        return not left and later is not None and later.position == cursor.position


def _is_after(position: str, other: str) -> bool:
    return sort_key(position) > sort_key(other)


def _new_part(gap: Gap, previous: Gap | None) -> Gap | None:
    """Return the new part of a gap: a group's gap stays visible until it reads on; on Redis 7.0, for ever."""
    if gap == previous:
        return None
    if gap.lost is not None and previous is not None and previous.lost is not None:
        return replace(gap, lost=gap.lost - previous.lost) if gap.lost > previous.lost else None
    return gap


async def list_consumers(connection: Connection, group: ConsumerGroup) -> list[dict[bytes, Any]]:
    """Return the consumers of a group, each with the fields of XINFO CONSUMERS."""
    rows = await connection.call("XINFO", "CONSUMERS", group.key, group.name, within=ATTEMPT_WITHIN)
    return [dict(zip(row[::2], row[1::2], strict=True)) for row in rows]


def parse_cursor(name: str, groups: Any) -> StreamCursor | None:
    """Return the cursor of a group from the reply to XINFO GROUPS; ``None`` if there is no such group."""
    if isinstance(groups, TransportError):
        raise groups
    for row in groups:
        fields = dict(zip(row[::2], row[1::2], strict=True))
        if fields[b"name"] == name.encode():
            return StreamCursor.after(fields[b"last-delivered-id"].decode(), fields.get(b"entries-read"))
    return None
