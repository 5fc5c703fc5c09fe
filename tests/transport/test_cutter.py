"""`ValueCutter`: values that are far too large, cut out of replies before they are collected."""

from __future__ import annotations

from typing import Any

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jwt_events.envelope import MAX_WIRE_BYTES
from jwt_events.transport._redis.cutter import ValueCutter
from jwt_events.transport._stream.entry import MAX_VALUE_BYTES
from tests.support.resp import NIL, Node, encode

LIMIT = 8
HIGH_LIMIT = 100_000  # below which short replies are passed on unread

SCALARS = st.one_of(
    st.builds(Node, st.just(b"$"), st.binary(max_size=40)),
    st.builds(Node, st.just(b"$"), st.just(b"$30\r\n*2\r\n")),
    st.builds(Node, st.just(b":"), st.integers(-5, 10**12).map(lambda number: b"%d" % number)),
    st.builds(
        Node, st.sampled_from([b"+", b"-"]), st.sampled_from([b"OK", b"", b"ERR $5", b"a long text, not a value"])
    ),
    st.sampled_from([NIL, Node(b"*", b"-1"), Node(b"_", b"")]),
)
REPLIES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.builds(lambda items: Node(b"*", None, tuple(items)), st.lists(inner, max_size=4)),
        st.builds(lambda pairs: Node(b"%", None, sum(pairs, ())), st.lists(st.tuples(SCALARS, inner), max_size=3)),
    ),
    max_leaves=12,
)


def cut(node: Node, limit: int) -> Node:
    """Return a reply with its values cut."""
    if node.has_items:
        return Node(node.kind, None, tuple(cut(item, limit) for item in node.items))
    return Node(b"$", (node.content or b"")[:limit]) if node.kind == b"$" and node != NIL else node


def missing(node: Node, limit: int) -> int:
    """Return how many bytes of the values of a reply are cut."""
    if node.has_items:
        return sum(missing(item, limit) for item in node.items)
    return max(0, len(node.content or b"") - limit) if node.kind == b"$" else 0


def fed(cutter: ValueCutter, data: bytes, sizes: list[int]) -> bytes:
    """Feed bytes in parts of these sizes, over and over."""
    passed, place, turn = b"", 0, 0
    while place < len(data):
        size = sizes[turn % len(sizes)]
        passed += cutter.feed(data[place : place + size])
        place, turn = place + size, turn + 1
    return passed


@pytest.mark.parametrize("limit", [LIMIT, HIGH_LIMIT])
@given(
    st.lists(REPLIES, min_size=1, max_size=6), st.integers(1, 6), st.lists(st.integers(1, 50), min_size=1, max_size=9)
)
def test_replies(limit: int, replies: list[Node], number: int, sizes: list[int]) -> None:
    """However the bytes are split, the values of so many replies are cut, and nothing else is changed."""
    cutter = ValueCutter(limit, 10**9, number)
    passed = fed(cutter, b"".join(map(encode, replies)), sizes)
    expected = [cut(one, limit) for one in replies[:number]] + replies[number:]
    assert passed == b"".join(map(encode, expected))
    if limit == LIMIT:  # else it may not have looked
        assert cutter.is_done is (number <= len(replies))
    if number <= len(replies):
        assert cutter.dropped == missing(replies[number - 1], limit)


@given(st.lists(REPLIES, min_size=1, max_size=4), st.lists(st.integers(1, 50), min_size=1, max_size=5))
def test_hiredis(replies: list[Node], sizes: list[int]) -> None:
    """Hiredis reads as many replies as without it."""
    reader: Any = hiredis.Reader(notEnoughData=reader_has_none, replyError=ValueError)
    reader.feed(fed(ValueCutter(LIMIT, 10**9, len(replies)), b"".join(map(encode, replies)), sizes))
    found = [reader.gets() for _ in replies]
    assert reader_has_none not in found
    assert reader.gets() is reader_has_none


LONG = st.sampled_from([0, 10, 60_000, 99_999, 100_000, 100_001, 300_000]).map(
    lambda size: Node(b"$", b"\r\n" * (size // 2))
)


@given(
    st.lists(st.one_of(REPLIES, LONG), min_size=1, max_size=8),
    st.integers(1, 9),
    st.lists(st.sampled_from([999, 4_096, 65_536, 200_000]), min_size=1, max_size=5),
)
def test_long_values(replies: list[Node], number: int, sizes: list[int]) -> None:
    """Replies that are passed on unread at first are cut as if they had been read."""
    cutter = ValueCutter(HIGH_LIMIT, 10**9, number)
    passed = fed(cutter, b"".join(map(encode, replies)), sizes)
    expected = [cut(one, HIGH_LIMIT) for one in replies[:number]] + replies[number:]
    assert passed == b"".join(map(encode, expected))


@pytest.mark.parametrize("lines", [b"*3\r\n$1\r\na\r\n", b"*3\r\n$7\r\n$999999\r\n", b"*3\r\n$2\r\n\r\n\r\n"])
def test_few_lines_first(lines: bytes) -> None:
    """What follows is cut where it should be, whatever the lines before it looked like."""
    long = encode(Node(b"$", b"x" * 150_000))
    cutter = ValueCutter(HIGH_LIMIT, 10**9, 1)
    assert cutter.feed(lines) == lines
    assert cutter.feed(long) == encode(Node(b"$", b"x" * HIGH_LIMIT))
    assert cutter.feed(b"$1\r\nb\r\n:1\r\n") == b"$1\r\nb\r\n:1\r\n"
    assert (cutter.is_done, cutter.dropped) == (True, 50_000)


reader_has_none = object()


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_budget(size: int) -> None:
    """All values together have a limit, too; what comes after it is empty."""
    values = [Node(b"$", b"x" * 6), Node(b"$", b"y" * 6), Node(b"$", b"z" * 6)]
    cutter = ValueCutter(LIMIT, 10, 1)
    passed = fed(cutter, encode(Node(b"*", None, tuple(values))), [size])
    assert passed == encode(Node(b"*", None, (values[0], Node(b"$", b"yyyy"), Node(b"$", b""))))
    assert (cutter.is_done, cutter.dropped) == (True, 8)


def test_attributes() -> None:
    """Attributes come before the reply that they are about, and are no reply."""
    data = b"|1\r\n$1\r\na\r\n*1\r\n:1\r\n$9\r\n123456789\r\n$9\r\n123456789\r\n"
    cutter = ValueCutter(LIMIT, 10**9, 1)
    assert fed(cutter, data, [2]) == data.replace(b"$9\r\n123456789", b"$8\r\n12345678", 1)


def test_limit() -> None:
    """What is cut is too large for an event all the same."""
    assert MAX_VALUE_BYTES > MAX_WIRE_BYTES
