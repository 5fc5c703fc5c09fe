"""Detection of entries that were removed from a stream before its group delivered them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

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
        self._unshown = _UnshownLoss()

    @property
    def is_counted(self) -> bool:
        """Whether the server counts what was added. If not, what was trimmed shows only right before the next read."""
        return self._found is None or self._found.added is not None

    def receive(self, positions: Sequence[str | None]) -> None:
        """Note entries that this consumer was the first to receive."""
        self.received += len(positions)
        self._unshown.received += positions

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
        self._unshown.begin(position, found)
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
        beyond = await self._look_beyond(connection, cursor, found)
        # From here on nothing can fail: what is noted now counts as told.
        gaps = self._compare(cursor, found, beyond, is_alone=is_alone, is_reconnected=is_reconnected)
        has_passed = not is_reconnected and self._unshown.has_passed(cursor.position, found, beyond, is_alone=is_alone)
        if gaps:
            self._unshown.shown()
        return gaps or ([Gap(cursor.position, "trimmed")] if has_passed else [])

    def _compare(
        self, cursor: StreamCursor, found: StreamInfo, beyond: _Beyond, *, is_alone: bool, is_reconnected: bool
    ) -> list[Gap]:
        """Return what was lost, as counts of the server and of this consumer say."""
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
        if beyond.is_removed and (has_moved or not is_same):
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

    async def _look_beyond(self, connection: Connection, cursor: StreamCursor, found: StreamInfo) -> _Beyond:
        """Return what comes after the cursor of the group, if the stream had entries there that were not accounted."""
        if sort_key(found.last) <= max(sort_key(cursor.position), sort_key(self._accounted)):
            return _Beyond()
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
        if later is None:
            return _Beyond()
        return _Beyond(later.position, is_removed=not left and later.position == cursor.position)


class _Beyond(NamedTuple):
    """What comes after the cursor of a group.

    Attributes:
        position: the last position that was delivered, asked for after the state of the stream; ``None`` if it was not.
        is_removed: whether entries up to the last position were removed and can no longer be delivered.
    """

    position: str | None = None
    is_removed: bool = False


class _UnshownLoss:
    """Finds a loss that the counts do not show, as XSETID can set those to anything. Pure.

    Attributes:
        received: the entries that this consumer was the first to receive since the last audit.
    """

    def __init__(self) -> None:
        self.received: list[str | None] = []
        self._found: StreamInfo | None = None
        self._position: str | None = None  # up to here the group had read then, as its only consumer
        self._upto: str | None = None  # an entry up to here was deleted before it was delivered

    def begin(self, position: str, found: StreamInfo) -> None:
        """Begin with a group that was just created at a position of a stream."""
        self._found, self._position = found, position

    def shown(self) -> None:
        """Forget what was found: a gap was reported."""
        self._upto = None

    def has_passed(self, position: str, found: StreamInfo, beyond: _Beyond, *, is_alone: bool) -> bool:
        """Whether the group has passed an entry that was deleted before it was delivered; told once.

        Args:
            position: the last position that was delivered, asked for before the state of the stream.
            found: the state of the stream.
            beyond: what was asked for afterwards.
            is_alone: whether the group has one consumer.
        """
        before, self._found = self._found, found
        since, self._position = self._position, position if is_alone else None
        received, self.received = self.received, []
        self._note(before, found, since if is_alone and found.deleted not in received else beyond.position)
        # Where the group had and has no other consumer, nobody received what it was moved over.
        was_moved = is_alone and since is not None and _is_after(position, since) and position not in received
        if not was_moved and (self._upto is None or not (beyond.is_removed or not _is_after(self._upto, position))):
            return False
        self._upto = None
        return True

    def _note(self, before: StreamInfo | None, found: StreamInfo, after: str | None) -> None:
        """Note what the stream says of entries that were deleted before the group read them.

        Args:
            before: the state of the stream at the last audit.
            found: its state now.
            after: the position from which on no entry was delivered before that; what another consumer received it may
                have deleted when it had handled it.
        """
        if before is None or before.added is None or found.added is None:
            return
        if _is_after(found.last, before.last) and found.added <= before.added:
            self._upto = found.last  # a position for which no entry was counted
        elif after is not None and found.has_deleted(before.deleted, after):
            self._upto = found.deleted


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
