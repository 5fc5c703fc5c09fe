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
    return _POSITION.fullmatch(text) is not None and max(order(text)) < 2**64


def order(position: str) -> tuple[int, int]:
    """Return a key by which positions sort."""
    milliseconds, _, sequence = position.partition("-")
    return int(milliseconds), int(sequence)


@dataclass(frozen=True, slots=True)
class History:
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
    def parse(cls, answer: Sequence[Any]) -> History:
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


def missed(cursor: str, read: int | None, now: History | None) -> Gap | None:
    """Say what a reader that has read up to ``cursor`` can no longer get.

    Args:
        cursor: the position of the last entry that the reader has had.
        read: how many entries had ever been added up to there; ``None`` if unknown.
        now: what the stream holds; ``None`` if it does not exist.
    """
    if now is None:
        return Gap(cursor, "deleted") if cursor != OLDEST else None
    if order(now.last) < order(cursor):
        return Gap(cursor, "rewound")
    if read is not None and now.added is not None and now.added < read:
        return Gap(cursor, "deleted")  # and made anew since
    if now.last == cursor or (now.first is not None and order(now.first) <= order(cursor)):
        return None
    if now.removed is None or read is None:
        return Gap(cursor, "trimmed") if now.removed is None or now.removed > 0 else None
    lost = now.removed - read
    # Below zero, what was read is gone and yet was never removed from this stream: it is another one.
    return Gap(cursor, "trimmed", lost) if lost > 0 else Gap(cursor, "deleted") if lost else None
