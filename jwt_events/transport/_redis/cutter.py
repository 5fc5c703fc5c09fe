"""Cuts values that are far too large out of replies before they are collected. Pure.

hiredis collects a reply until it is complete, then copies it out. A value that no reader can use would cost several
times its size on the way. Here its announced length is read first, and what goes beyond the limit is not passed on.

Reading every line costs too much for all replies, so this stands before hiredis for single ones only. Of those most are
a few lines, none of which announces a long value: that is seen at once, and they are read only if much more follows.

Source: https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from __future__ import annotations

import re

# So many bytes at most are passed on unread, all of them in whole lines, if none announces a value of so many bytes.
_MAX_UNREAD = 65_536
_LONG = 100_000
_BEGINS_LONG = re.compile(rb"[$=!]\d{6}")
_HOLDS_LONG = re.compile(rb"\n[$=!]\d{6}")  # by the end of the line before, it is found in a fifth of the time

_VALUES = frozenset(b"$=!")  # a line is followed by so many bytes, and by the end of a line
_ATTRIBUTES = ord("|")  # of the item that follows
_ITEMS = {ord("*"): 1, ord("~"): 1, ord(">"): 1, ord("%"): 2, _ATTRIBUTES: 2}  # items that follow, for each one counted


class ValueCutter:
    """Passes the bytes of replies on, with every value in the first of them cut to a limit.

    Args:
        limit: how many bytes of one value are kept.
        budget: how many bytes of all values together are kept.
        replies: in how many replies values are cut.

    Attributes:
        dropped: how many bytes of values were left out of the last of these replies.
    """

    def __init__(self, limit: int, budget: int, replies: int) -> None:
        self._limit = limit
        self._budget = budget
        self._replies = replies
        self._open: list[int] = []  # how many items are to come, of each array around
        self._line = bytearray()  # the line so far that says what comes
        self._to_pass = 0
        self._to_drop = 0
        self._unread: bytearray | None = bytearray() if min(limit, budget - _MAX_UNREAD) >= _LONG else None
        self.dropped: int = 0

    @property
    def is_done(self) -> bool:
        """Whether the replies are known to have been passed on."""
        return not (self._replies or self._to_pass or self._to_drop)

    def feed(self, data: bytes) -> bytes:
        """Return what is left of the next bytes of the replies."""
        if self._unread is not None:
            if len(self._unread) + len(data) <= _MAX_UNREAD and _is_plain(data):
                self._unread += data
                return data
            unread, self._unread = bytes(self._unread), None
            self._read(unread)  # as whole lines that announce no long value, it has been passed on as it is
        return self._read(data)

    def _read(self, data: bytes) -> bytes:
        passed: list[bytes | memoryview] = []
        view, place, end = memoryview(data), 0, len(data)
        while place < end:
            if self._to_pass:
                taken = min(self._to_pass, end - place)
                passed.append(view[place : place + taken])
                self._to_pass -= taken
            elif self._to_drop:
                taken = min(self._to_drop, end - place)
                self._to_drop -= taken
                if not self._to_drop:
                    self._to_pass = 2  # the end of the line
            elif self.is_done:
                passed.append(view[place:])
                break
            else:
                taken = (data.find(b"\n", place) + 1 or end) - place
                self._line += view[place : place + taken]
                if self._line.endswith(b"\r\n"):
                    passed.append(self._heading(bytes(self._line)))
                    self._line.clear()
            place += taken
        return b"".join(passed)

    def _heading(self, line: bytes) -> bytes:
        """Return the line that is passed on in place of one, and note what follows it."""
        kind, number = line[0], line[1:-2]
        count = int(number) if number.isdigit() else 0
        if kind in _ITEMS and count:
            if kind == _ATTRIBUTES:
                self._open.append(2)
            self._open.append(count * _ITEMS[kind])
            return line
        if kind in _VALUES and number.isdigit():
            line = self._value(line, count)
        while self._open:
            self._open[-1] -= 1
            if self._open[-1]:
                return line
            self._open.pop()
        self._replies -= 1
        return line

    def _value(self, line: bytes, announced: int) -> bytes:
        kept = min(announced, self._limit, self._budget)
        self._budget -= kept
        if kept == announced:
            self._to_pass = kept + 2
            return line
        self._to_pass, self._to_drop = kept, announced - kept
        if self._replies == 1:
            self.dropped += self._to_drop
        return b"%c%d\r\n" % (line[0], kept)


def _is_plain(data: bytes) -> bool:
    """Return whether these bytes, if they begin with a line, are whole lines none of which announces a long value."""
    return data.endswith(b"\r\n") and not _BEGINS_LONG.match(data) and not _HOLDS_LONG.search(data)
