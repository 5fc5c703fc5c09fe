"""Gap arithmetic: which entries a reader at a position can no longer read."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from jwt_events import Gap
from jwt_events._internal.positions import OLDEST, is_position, sort_key
from jwt_events.transport._redis.connection import Connector
from jwt_events.transport._stream.position import StreamCursor, StreamInfo
from tests.support.raw import add, count_where_known, trim
from tests.support.waiting import scaled

numbers = st.integers(min_value=0, max_value=2**64 - 1)
few = st.integers(min_value=0, max_value=8)


def missed(position: str, count: int | None, found: StreamInfo | None) -> Gap | None:
    """Return the gap of a reader at this position."""
    return StreamCursor.after(position, count).reconcile(found)


@dataclass
class Stream:
    """A model of a stream: its entries are numbers, the next one is ``last + 1``."""

    last: int = 0
    added: int = 0
    entries: list[int] = field(default_factory=list)

    def add(self, count: int) -> None:
        """Append entries."""
        for _ in range(count):
            self.last += 1
            self.added += 1
            self.entries.append(self.last)

    def trim(self, count: int) -> None:
        """Remove the oldest entries."""
        del self.entries[:count]

    def info(self) -> StreamInfo:
        """Return what XINFO STREAM would tell."""
        first = f"{self.entries[0]}-0" if self.entries else None
        return StreamInfo(first, f"{self.last}-0", self.added, len(self.entries))


def streams(before: int = 0) -> st.SearchStrategy[Stream]:
    """Streams to which entries were added and from which some were trimmed."""

    def build(steps: list[tuple[int, int]]) -> Stream:
        stream = Stream(last=before)
        for added, trimmed in steps:
            stream.add(added)
            stream.trim(trimmed)
        return stream

    return st.lists(st.tuples(few, few), max_size=4).map(build)


@given(streams(), st.data())
def test_what_was_trimmed_unread_is_lost(stream: Stream, data: st.DataObject) -> None:
    """A gap is reported exactly if an unread entry was trimmed, and counts them exactly."""
    read = data.draw(st.integers(0, stream.added))
    removed = stream.added - len(stream.entries)
    lost = max(0, removed - read)
    cursor = f"{read}-0"
    assert missed(cursor, read, stream.info()) == (Gap(cursor, "trimmed", lost) if lost else None)


@given(streams(), st.data())
def test_an_uncounted_loss_is_still_a_gap(stream: Stream, data: st.DataObject) -> None:
    """Where the server or the reader has no count, every loss is a gap without a count."""
    read = data.draw(st.integers(0, stream.added))
    lost = stream.added - len(stream.entries) - read
    counted = stream.info()
    for gap in (missed(f"{read}-0", read, replace(counted, added=None)), missed(f"{read}-0", None, counted)):
        assert gap in (None, Gap(f"{read}-0", "trimmed"))
    if lost > 0:
        assert missed(f"{read}-0", None, counted) is not None
    # A server that does not count cannot tell what was removed before the oldest entry.
    if lost > 0 and read > 0:
        assert missed(f"{read}-0", read, replace(counted, added=None)) is not None
    assert missed(OLDEST, None, replace(counted, added=None)) is None


@pytest.mark.parametrize(("holds", "gaps"), [(True, 0), (None, 0), (False, 1)])
def test_a_missing_entry_at_the_position_is_a_doubt(*, holds: bool | None, gaps: int) -> None:
    """Where the server does not count, a stream without the entry that was read last may be another: one gap."""
    cursor = StreamCursor.after("5-0", None)
    found = [cursor.reconcile(StreamInfo("1-0", "9-0", None, 4), holds=holds) for _ in range(2)]
    assert found == [Gap("5-0", "trimmed") if gaps else None, None]


def test_a_time_is_no_entry() -> None:
    """Where the server does not count, nothing is missing before the oldest entry if none was read, as at a time."""
    cursor = StreamCursor("3-0", is_time=True)
    assert cursor.reconcile(StreamInfo("5-0", "9-0", None, 2)) is None
    assert cursor.advance([[b"5-0", []]], is_end=False) is None
    assert cursor.reconcile(StreamInfo("8-0", "9-0", None, 2)) == Gap("5-0", "trimmed")


def test_without_counts_one_look_is_one_gap() -> None:
    """Where the server does not count, what is missing behind the position and at the end is one gap."""
    cursor = StreamCursor.after("5-0", None)
    assert cursor.reconcile(StreamInfo(None, "9-0", None, 0, has_last=False)) == Gap("5-0", "trimmed")
    assert cursor.advance([], is_end=True) is None


def test_what_is_missing_later_is_another_gap() -> None:
    """Where the server does not count, an emptied stream is told once; what follows may be missing again."""
    cursor = StreamCursor.after("5-0", None)
    empty = StreamInfo(None, "9-0", None, 0, has_last=False)
    assert [cursor.reconcile(empty) for _ in range(2)] == [Gap("5-0", "trimmed"), None]
    assert cursor.reconcile(StreamInfo("12-0", "12-0", None, 1)) == Gap("9-0", "trimmed")
    assert cursor.advance([[b"12-0", []]], is_end=True) is None
    assert cursor.reconcile(StreamInfo(None, "15-0", None, 0, has_last=False)) == Gap("12-0", "trimmed")
    assert cursor.advance([[b"16-0", []]], is_end=True) is None  # it came between the look and the read


def test_what_was_left_at_a_gap_can_be_missing_later() -> None:
    """Where the server does not count, entries that were left when a gap was told may be removed unread, too."""
    cursor = StreamCursor.after("5-0", None)
    assert cursor.reconcile(StreamInfo("7-0", "9-0", None, 3)) == Gap("5-0", "trimmed")
    assert cursor.reconcile(StreamInfo("7-0", "10-0", None, 4)) is None
    assert cursor.reconcile(StreamInfo(None, "10-0", None, 0, has_last=False)) == Gap("5-0", "trimmed")


def test_an_entry_that_was_seen_and_not_read_is_missing() -> None:
    """Where the server does not count, an entry that was the last at a look, and that no read returned, was removed."""
    for entries, since in (([b"9-0"], "5-0"), ([b"6-0", b"9-0"], "5-0"), ([], "5-0")):
        cursor = StreamCursor.after("5-0", None)
        assert cursor.reconcile(StreamInfo("5-0", "8-0", None, 3)) is None
        assert cursor.advance([[entry, []] for entry in entries], is_end=True) == Gap(since, "trimmed")
    cursor = StreamCursor.after("5-0", None)
    assert cursor.reconcile(StreamInfo("5-0", "8-0", None, 3)) is None
    assert cursor.advance([[b"8-0", []], [b"9-0", []]], is_end=True) is None


def test_a_removed_end_is_one_gap_together_with_the_front() -> None:
    """Where the server does not count, one look at which both ends are missing is one gap, and another look another."""
    for later, gap in ((("9-0",), None), (("9-0", "11-0"), Gap("5-0", "trimmed"))):
        cursor = StreamCursor.after("5-0", None)
        told = [cursor.reconcile(StreamInfo("7-0", last, None, 2, has_last=False)) for last in later]
        assert [one for one in told if one] == [Gap("5-0", "trimmed")]
        assert cursor.advance([[b"7-0", []], [b"8-0", []]], is_end=True) == gap


def test_a_stream_that_went_back_is_judged_anew() -> None:
    """What was reported of a stream is no excuse for what is missing in an older state of it."""
    cursor = StreamCursor.after("50-0", None)
    assert cursor.reconcile(StreamInfo(None, "90-0", None, 0, has_last=False)) == Gap("50-0", "trimmed")
    older = StreamInfo("1-0", "5-0", None, 5)
    assert cursor.reconcile(older) == Gap("50-0", "rewound")
    assert cursor.reconcile(older) is None
    assert cursor.advance([[b"1-0", []], [b"4-0", []]], is_end=True) == Gap("0-0", "trimmed")


uncounted_steps = st.lists(st.tuples(st.sampled_from(["add", "trim", "read"]), st.integers(1, 4)), max_size=20)


@given(uncounted_steps, st.integers(1, 4))
def test_no_trimming_is_hidden_without_counts(steps: list[tuple[str, int]], batch_size: int) -> None:
    """Where the server does not count, a read tells of all that was trimmed unread since the last, once."""
    stream, cursor, read, lost = Stream(), StreamCursor.after("1-0", None), 1, False
    stream.add(1)
    for name, count in [*steps, ("read", 0)]:
        if name == "add":
            stream.add(count)
        elif name == "trim":
            lost |= any(entry > read for entry in stream.entries[:count])
            stream.trim(count)
        else:
            found = replace(stream.info(), added=None, has_last=bool(stream.entries))
            entries = [[f"{entry}-0".encode(), []] for entry in stream.entries if entry > read][:batch_size]
            told = [cursor.reconcile(found), cursor.advance(entries, is_end=len(entries) < batch_size)]
            assert any(told) or not lost
            assert not all(told)
            read, lost = int(cursor.position.partition("-")[0]), False
            if not entries:
                assert cursor.reconcile(found) is cursor.advance([], is_end=True) is None


@given(streams())
def test_a_reader_at_the_end_misses_nothing(stream: Stream) -> None:
    """A reader that has read the last entry has no gap, whatever was trimmed behind it."""
    assert missed(f"{stream.last}-0", stream.added, stream.info()) is None
    assert missed(f"{stream.last}-0", None, stream.info()) is None


@given(streams(), st.integers(1, 100))
def test_a_stream_behind_the_reader_was_rewound(stream: Stream, ahead: int) -> None:
    """A stream whose last position is before the cursor was rewound."""
    cursor = f"{stream.last + ahead}-0"
    assert missed(cursor, None, stream.info()) == Gap(cursor, "rewound")
    assert missed(cursor, stream.added + ahead, stream.info()) == Gap(cursor, "rewound")


@given(st.data())
def test_a_stream_made_anew_is_not_taken_for_the_old_one(data: st.DataObject) -> None:
    """A stream that was deleted and made anew is a gap, unless as many entries are gone from it as were read."""
    read = data.draw(st.integers(1, 8))
    anew = data.draw(streams(before=100).filter(lambda stream: stream.added > 0))
    removed = anew.added - len(anew.entries)
    gap = missed(f"{read}-0", read, anew.info())
    if removed < read:
        assert gap == Gap(f"{read}-0", "deleted")
    else:
        assert gap in (None, Gap(f"{read}-0", "trimmed", removed - read))


@given(streams().filter(lambda stream: stream.added > 0), st.integers(1, 8))
def test_a_stream_that_has_had_fewer_than_were_read_is_another(stream: Stream, more: int) -> None:
    """A stream that was restored from older state and has grown past the cursor is recognized by its count."""
    cursor = f"{stream.last}-0"
    assert missed(cursor, stream.added + more, stream.info()) == Gap(cursor, "deleted")


@given(streams(), streams(), st.booleans())
def test_the_stream_of_another_server_is_no_later_state(old: Stream, new: Stream, holds: bool) -> None:
    """A server that took over is not compared with the one before: that it may lack entries is one gap, not two."""
    cursor = StreamCursor.after(f"{old.last}-0", old.added)
    assert cursor.reconcile(old.info()) is None
    cursor.forget_server()
    if not holds:
        cursor.rewind(new.info())
        assert cursor.reconcile(new.info()) is None


@given(st.none() | few)
def test_a_missing_stream_was_deleted_if_anything_was_read(read: int | None) -> None:
    """A stream that does not exist is a gap for a reader that has read an entry, and none for another."""
    assert missed("7-1", read, None) == Gap("7-1", "deleted")
    assert missed(OLDEST, read, None) is None


@given(numbers, numbers, numbers, numbers)
def test_positions_sort_by_both_parts(a: int, b: int, c: int, d: int) -> None:
    """Positions sort by milliseconds, then by sequence number, as numbers and not as text."""
    assert (sort_key(f"{a}-{b}") < sort_key(f"{c}-{d}")) == ((a, b) < (c, d))


@given(st.integers(), st.integers())
def test_a_position_is_two_numbers_of_64_bits(a: int, b: int) -> None:
    """Both parts of a position fit into 64 bits, without a sign."""
    assert is_position(f"{a}-{b}") == (0 <= a < 2**64 and 0 <= b < 2**64)


@given(st.text(alphabet="0123456789-٣ \n+*x", max_size=8))
def test_nothing_else_is_a_position(text: str) -> None:
    """Only digits, a hyphen and digits are accepted."""
    if is_position(text):
        left, hyphen, right = text.partition("-")
        assert hyphen
        assert all(part.isascii() and part.isdigit() for part in (left, right))


async def test_it_is_read_from_what_the_server_says(url: str, client: Redis, key: str) -> None:
    """The reply of a real server to XINFO STREAM is parsed, before and after trimming and deleting."""

    async def info() -> StreamInfo:
        connection = await Connector(url).connect(within=scaled(5))
        try:
            return StreamInfo.parse(await connection.call("XINFO", "STREAM", key, within=scaled(5)))
        finally:
            await connection.aclose()

    for number in range(1, 6):
        await add(client, key, f"{number}-{number}")
    added, removed = await count_where_known(client, 5), await count_where_known(client, 3)
    assert await info() == StreamInfo("1-1", "5-5", added, 5)
    await trim(client, key, 3)
    await client.xdel(key, "4-4")
    deleted = OLDEST if added is None else "4-4"
    trimmed = await info()
    assert (trimmed, trimmed.removed) == (StreamInfo("3-3", "5-5", added, 2, deleted=deleted), removed)
    await trim(client, key, 0)
    empty = await info()
    assert (empty, empty.removed) == (StreamInfo(None, "5-5", added, 0, has_last=False, deleted=deleted), added)


@pytest.mark.parametrize("entry", [None, [b"3-0", [b"event", b"x"]]])
def test_a_server_that_does_not_count_is_understood(entry: list[object] | None) -> None:
    """Before Redis 7 there is no entries-added, so it is unknown how many entries were removed."""
    reply = [b"length", 1 if entry else 0, b"last-generated-id", b"3-0", b"first-entry", entry, b"last-entry", entry]
    info = StreamInfo.parse(reply)
    assert info == StreamInfo("3-0" if entry else None, "3-0", None, 1 if entry else 0, has_last=entry is not None)
    assert info.removed is None
