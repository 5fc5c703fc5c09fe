"""Gap arithmetic: which entries a reader at a given position can no longer read. Pure: no I/O, no clock.

Trimming moves no marker that a reader would see: a reader that fell behind continues at the first entry that is left,
and no error tells it. A server that was replaced may have fewer entries than the reader has already read. So positions
are compared with what XINFO STREAM says whenever a reader connects.

Source: https://redis.io/docs/latest/commands/xinfo-stream/
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from jwt_events._internal.positions import OLDEST, sort_key
from jwt_events.transport.base import Gap


def previous(position: str) -> str:
    """Return the position directly before this one."""
    milliseconds, sequence = sort_key(position)
    if sequence:
        return f"{milliseconds}-{sequence - 1}"
    return f"{milliseconds - 1}-{2**64 - 1}" if milliseconds else OLDEST


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """State of a stream at one moment, as XINFO STREAM tells it.

    Attributes:
        first: the position of the oldest entry, or ``None`` if there is none.
        last: the last position that was ever assigned to an entry.
        added: how many entries were ever added; ``None`` if the server does not count (before Redis 7).
        length: how many entries there are.
        has_last: whether the entry at ``last`` is still there.
        deleted: the highest position that XDEL removed, which trimming does not move; 0-0 if there is none, or if the
            server does not say.
    """

    first: str | None = None
    last: str = OLDEST
    added: int | None = 0
    length: int = 0
    has_last: bool = True
    deleted: str = OLDEST

    @classmethod
    def parse(cls, reply: Sequence[Any]) -> StreamInfo:
        """Parse the reply to XINFO STREAM."""
        fields = dict(zip(reply[::2], reply[1::2], strict=True))
        first, newest, last = fields[b"first-entry"], fields[b"last-entry"], fields[b"last-generated-id"]
        return cls(
            first=None if first is None else first[0].decode(),
            last=last.decode(),
            added=fields.get(b"entries-added"),
            length=fields[b"length"],
            has_last=newest is not None and newest[0] == last,
            deleted=fields.get(b"max-deleted-entry-id", b"0-0").decode(),
        )

    @property
    def removed(self) -> int | None:
        """How many entries were ever removed."""
        return None if self.added is None else self.added - self.length

    def may_follow(self, earlier: StreamInfo) -> bool:
        """Whether this can be a later state of the same stream, and not of another that took its place."""
        if sort_key(self.last) < sort_key(earlier.last):
            return False
        if self.first is not None and earlier.first is not None and sort_key(self.first) < sort_key(earlier.first):
            return False
        if self.added is None or earlier.added is None or self.removed is None or earlier.removed is None:
            return True
        if self.added < earlier.added or self.removed < earlier.removed:
            return False
        if self.removed == earlier.removed and earlier.first not in (None, self.first):
            return False
        return self.added > earlier.added or self.last == earlier.last

    def has_deleted(self, *positions: str) -> bool:
        """Whether an entry after all of these positions was deleted."""
        return sort_key(self.deleted) > max(map(sort_key, positions))


class StreamCursor:
    """A reader's position in a stream, with the count of entries that had ever been added up to there.

    The count is the proof that nothing is missing: when the reader is at the end of the stream, it must equal the
    number of entries ever added.

    Args:
        position: the position after which to read; ``None`` for the end of the stream when it is first read.
        is_time: the position was made from a point in time, which may be in the future.
    """

    def __init__(self, position: str | None, *, is_time: bool = False) -> None:
        self._position = position
        self._is_at_time = is_time
        self._reached = None if is_time else position  # the last position that the stream is known to have had
        self._count: int | None = None  # how many entries had been added up to there, where known
        self._is_placed = False
        self._found: StreamInfo | None = None  # the last state
        self._is_early = False  # the position is later than any that the stream has had
        self._uncounted_at: str | None = ""  # the first entry at which a gap was reported without a count
        self._audit: StreamInfo | None = None  # the last state that what was read since has not been compared with
        self._accounted = OLDEST  # every position up to here was read or reported
        self._deleted: str | None = None  # the highest position that was deleted at the last `reconcile`
        self._must_show = False  # entries were deleted before they were read, which the counts have to show

    @classmethod
    def after(cls, position: str, count: int | None) -> StreamCursor:
        """Return the cursor after an entry, given how many entries had been added up to there, if that is known."""
        cursor = cls(position)
        cursor._count, cursor._is_placed = count, True
        return cursor

    @property
    def position(self) -> str:
        """The position after which to read."""
        return self._position or OLDEST

    @property
    def accounted(self) -> str:
        """The position up to which every entry was read, or was reported as missing."""
        return max(self.position, self._accounted, key=sort_key)

    @property
    def count(self) -> int | None:
        """How many entries had been added up to the position, if that is known."""
        return self._count

    @property
    def is_counted(self) -> bool:
        """Whether the server counts what was added. If not, what was trimmed shows only right before the next read."""
        return self._found is None or self._found.added is not None

    @property
    def is_at_entry(self) -> bool:
        """Whether it stands at an entry, so that the entries added after that one are expected to exist."""
        return self._reached not in (None, OLDEST)

    def advance(self, entries: Sequence[Any], *, is_end: bool) -> Gap | None:
        """Move on by entries that were read; return those that the last `reconcile` saw and that were removed since.

        Args:
            entries: what was read after the position, each a position and its fields.
            is_end: whether there were no more entries at the time of the read.
        """
        since, count, audit = self.position, self._count, self._audit
        if entries:
            self._position = self._reached = entries[-1][0].decode()
            self._is_at_time = False
            if count is not None:
                self._count = count + len(entries)
        if audit is None or not (is_end or sort_key(audit.last) <= sort_key(self.position)):
            return None
        self._audit = None
        known = bisect_right(entries, sort_key(audit.last), key=lambda entry: sort_key(entry[0].decode()))
        if self._is_early:  # entries that were added before the position are not missing
            self._is_early = not entries
            self._count = None if entries else audit.added
            self._reached = self._reached if entries else audit.last
            return None
        lost: int | None = 0
        is_end_missing = sort_key(audit.last) > max(sort_key(self.position), sort_key(self._accounted))
        if count is not None and audit.added is not None:
            lost = audit.added - count - known
            self._count = audit.added + len(entries) - known
        elif is_end_missing:
            lost = None  # without counts, only what is missing at the end can be seen
        self._accounted = audit.last
        return self._judge(since, lost, audit, must_show=self._must_show or is_end_missing)

    def _judge(self, since: str, lost: int | None, audit: StreamInfo, *, must_show: bool) -> Gap | None:
        """Return what is missing, given what the counts say, and whether they must show something.

        Others can set those to anything, or put another stream in the place of this one. If then more was read than was
        ever added, or the counts do not show what was removed, all is read again.
        """
        self._must_show = False
        if lost is not None and (lost < 0 or (lost == 0 and must_show and self._count is not None)):
            self.rewind(audit)
            return Gap(since, "deleted")
        return Gap(since, "trimmed", lost or None) if lost != 0 or must_show else None

    def rewind(self, now: StreamInfo) -> None:
        """Move back before the oldest entry."""
        self._position = self._reached = OLDEST
        self._count, self._must_show = now.removed, False
        self._accounted = OLDEST if now.has_last else now.last

    def forget_server(self) -> None:
        """Forget what a server said of the stream: another one took over, whose stream is no later state of it."""
        self._count = self._found = self._deleted = None

    def reconcile(self, found: StreamInfo | None, *, holds: bool | None = None) -> Gap | None:
        """Compare with the present state of the stream, and return what can no longer be read.

        Args:
            found: the state of the stream; ``None`` if it does not exist.
            holds: whether the stream still has the entry at the position, if that was asked.
        """
        now = found or StreamInfo()
        if self._reached is None:
            self._place(now)
        elif self._reached == OLDEST and not self._is_placed:
            self._count, self._accounted = now.removed, OLDEST if now.has_last else now.last
        self._is_placed = True
        self._audit = found
        since = self._reached or OLDEST
        before, self._found = self._found, found
        if self._deleted is not None:
            self._must_show = self._must_show or now.has_deleted(self._deleted, self.position)
        self._deleted = now.deleted
        if sort_key(now.last) < sort_key(since) or (found is None and before is not None):
            self.rewind(now)
            return Gap(since, "deleted" if found is None else "rewound")
        if found is None:  # it never existed
            return None
        if (before is not None and not now.may_follow(before)) or self._has_lost_read(since, now):
            self.rewind(now)
            return Gap(since, "deleted")
        if self._count is None or now.added is None or now.removed is None:
            return self._reconcile_uncounted(since, now, holds=holds)
        behind = _is_behind(since, now)
        # At the end, everything was read. Before the end, what was removed in front of the first entry was read.
        counted = now.added if now.last == since else now.removed if behind else self._count
        lost, self._count = counted - self._count, counted
        if lost <= 0:
            return None
        self._accounted, self._must_show = now.last, False
        return Gap(since, "trimmed", lost)

    def _has_lost_read(self, since: str, now: StreamInfo) -> bool:
        """Whether entries that were read are not in a stream and were not removed from it: it was made anew."""
        if self._count is None or now.added is None or now.removed is None:
            return False
        return now.added < self._count or (_is_behind(since, now) and now.last != since and now.removed < self._count)

    def _place(self, now: StreamInfo) -> None:
        """Place the cursor in a stream that is read for the first time."""
        if self._position is None or sort_key(now.last) < sort_key(self._position):
            self._is_early = self._position is not None
            self._position = self._position or now.last
            self._reached, self._count = now.last, now.added
        else:
            self._reached = self._position

    def _reconcile_uncounted(self, since: str, now: StreamInfo, *, holds: bool | None) -> Gap | None:
        if now.last == since:
            self._count = now.added
            return None
        behind = _is_behind(since, now)
        if behind:
            self._count = now.removed
        if now.removed is not None:
            is_doubtful = behind and now.removed != 0
        else:
            # Where the server does not count, nothing is known to be missing before the oldest entry; and behind an
            # entry that is still there, nothing was trimmed.
            is_doubtful = since != OLDEST and not self._is_at_time and (behind or holds is False)
        if not is_doubtful or self._uncounted_at == now.first:
            return None
        self._uncounted_at, self._accounted, self._must_show = now.first, now.last, False
        return Gap(since, "trimmed")


def _is_behind(position: str, now: StreamInfo) -> bool:
    """Whether every entry that is left comes after the position."""
    return now.first is None or sort_key(now.first) > sort_key(position)


@dataclass(frozen=True, slots=True)
class GroupProgress:
    """How far a group has read at one audit.

    Newer servers set a group's count of entries to the right index again whenever it reads on, whatever was removed
    before. So what was lost shows only between two audits: by how far the index moved, and how much was read.

    Attributes:
        position: the last position that was delivered to any consumer.
        index: how many entries had been added up to there; ``None`` if that is not known.
        removed: how many entries were ever removed from the stream; ``None`` if that is not known.
        first: the position of the oldest entry; ``None`` if there is none.
        is_alone: whether the group has one consumer.
    """

    position: str
    index: int | None
    removed: int | None
    first: str | None
    is_alone: bool

    @classmethod
    def of(cls, cursor: StreamCursor, found: StreamInfo, *, is_alone: bool) -> GroupProgress:
        """Return the progress of a group with this cursor."""
        index = found.added if cursor.position == found.last else cursor.count
        return cls(cursor.position, index, found.removed, found.first, is_alone)

    def at_end(self, found: StreamInfo) -> GroupProgress:
        """Return the progress of a group with nothing left to read in a stream."""
        return replace(self, index=found.added)

    def lost(self, later: GroupProgress, received: int) -> int | None:
        """Return how many entries were removed before they were delivered; ``None`` if some may have been.

        Args:
            later: the progress at the next audit.
            received: how many entries one consumer was the first to receive in between.
        """
        if self.index is None or later.index is None or (missing := later.index - self.index - received) <= 0:
            return 0
        if self.is_alone and later.is_alone:
            return missing
        if later.removed is None or later.first is None or sort_key(later.first) >= sort_key(later.position):
            return 0  # the other consumers received them, and perhaps deleted them when they had handled them
        return None if later.removed > self.index else 0
