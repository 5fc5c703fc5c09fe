"""What a stream still holds, and what a reader at a given position can no longer get from it. Pure arithmetic.

Trimming moves no marker that a reader would see: one that fell behind silently continues at the first entry that is
left. A server that was replaced may know less than the reader has already read. So positions are compared with what
XINFO STREAM says whenever a reader connects.

Source: https://redis.io/docs/latest/commands/xinfo-stream/
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jwt_events.transport.base import Gap

OLDEST = "0-0"
"""The position before every entry."""

_POSITION = re.compile(r"\d{1,20}-\d{1,20}", re.ASCII)


def is_position(text: str) -> bool:
    """Whether ``text`` is the position of a stream entry: milliseconds, a hyphen, a sequence number."""
    return _POSITION.fullmatch(text) is not None and max(sort_key(text)) < 2**64


def sort_key(position: str) -> tuple[int, int]:
    """Return a key by which positions sort."""
    milliseconds, _, sequence = position.partition("-")
    return int(milliseconds), int(sequence)


def previous(position: str) -> str:
    """Return the last position before this one."""
    milliseconds, sequence = sort_key(position)
    if sequence:
        return f"{milliseconds}-{sequence - 1}"
    return f"{milliseconds - 1}-{2**64 - 1}" if milliseconds else OLDEST


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """What a stream holds at one moment.

    Attributes:
        first: the position of the oldest entry, or ``None`` if there is none.
        last: the last position that was ever given out.
        added: how many entries were ever added; ``None`` if the server does not count (before Redis 7).
        length: how many entries there are.
    """

    first: str | None = None
    last: str = OLDEST
    added: int | None = 0
    length: int = 0

    @classmethod
    def parse(cls, answer: Sequence[Any]) -> StreamInfo:
        """Read the answer of XINFO STREAM."""
        fields = dict(zip(answer[::2], answer[1::2], strict=True))
        first = fields[b"first-entry"]
        return cls(
            first=None if first is None else first[0].decode(),
            last=fields[b"last-generated-id"].decode(),
            added=fields.get(b"entries-added"),
            length=fields[b"length"],
        )

    @property
    def removed(self) -> int | None:
        """How many entries were ever removed."""
        return None if self.added is None else self.added - self.length


class StreamCursor:
    """Where a reader is in a stream, and how many entries had ever been added up to there.

    The count is what proves that nothing is missing: when the reader is at the end of the stream, it must equal the
    number of entries ever added.

    Args:
        cursor: the position after which to read; ``None`` for the end of the stream when it is first looked at.
        is_time: the cursor was made from a point in time, which may be still to come.
    """

    def __init__(self, cursor: str | None, *, is_time: bool = False) -> None:
        self._cursor = cursor
        self._reached = None if is_time else cursor  # a position that the stream has had
        self._read: int | None = None  # how many entries had been added up to there, where known
        self._is_settled = False
        self._existed = False
        self._doubted: str | None = ""  # the first entry at which a gap was reported without a count

    @classmethod
    def after(cls, position: str, read: int | None) -> StreamCursor:
        """Return the place after an entry, given how many entries had been added up to there, if that is known."""
        place = cls(position)
        place._read, place._is_settled = read, True
        return place

    @property
    def cursor(self) -> str:
        """The position after which to read."""
        return self._cursor or OLDEST

    @property
    def resumes(self) -> bool:
        """Whether it was made from the position of an entry, so that what came after that is expected to be there."""
        return self._reached not in (None, OLDEST)

    def advance(self, position: str, entries: int) -> None:
        """Move on by so many entries, the last of which is at ``position``."""
        self._cursor = self._reached = position
        if self._read is not None:
            self._read += entries

    def rewind(self, now: StreamInfo) -> None:
        """Begin again with the oldest entry."""
        self._cursor = self._reached = OLDEST
        self._read = now.removed

    def doubt(self) -> None:
        """Forget the count, because it may have been that of another server."""
        self._read = None

    def reconcile(self, found: StreamInfo | None) -> Gap | None:
        """Compare with what the stream holds now, and return what can no longer be read.

        Args:
            found: what it holds; ``None`` if it does not exist.
        """
        now = found or StreamInfo()
        if self._reached is None:
            self._settle(now)
        elif self._reached == OLDEST and not self._is_settled:
            self._read = now.removed
        self._is_settled = True
        since = self._reached or OLDEST
        existed, self._existed = self._existed, found is not None
        if sort_key(now.last) < sort_key(since) or (found is None and existed):
            self.rewind(now)
            return Gap(since, "deleted" if found is None else "rewound")
        if found is None:  # nothing was ever there
            return None
        if self._read is None or now.added is None or now.removed is None:
            return self._reconcile_uncounted(since, now)
        behind = _is_behind(since, now)
        if now.added < self._read or (behind and now.last != since and now.removed < self._read):
            self.rewind(now)  # deleted and made anew: what was read is not there, and was never removed from this one
            return Gap(since, "deleted")
        # At the end, everything was read. Before the end, what was removed in front of the first entry was read.
        counted = now.added if now.last == since else now.removed if behind else self._read
        lost, self._read = counted - self._read, counted
        return Gap(since, "trimmed", lost) if lost > 0 else None

    def _settle(self, now: StreamInfo) -> None:
        """Find the place in a stream that is looked at for the first time."""
        if self._cursor is None or sort_key(now.last) < sort_key(self._cursor):
            self._cursor = self._cursor or now.last
            self._reached, self._read = now.last, now.added
        else:
            self._reached = self._cursor

    def _reconcile_uncounted(self, since: str, now: StreamInfo) -> Gap | None:
        if now.last == since:
            self._read = now.added
        elif _is_behind(since, now):
            self._read = now.removed
            if now.removed != 0 and self._doubted != now.first:
                self._doubted = now.first
                return Gap(since, "trimmed")
        return None


def _is_behind(position: str, now: StreamInfo) -> bool:
    """Whether every entry that is left comes after the position."""
    return now.first is None or sort_key(now.first) > sort_key(position)
