"""The head of a ledger: pure."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jwt_events._internal.positions import OLDEST, sort_key
from jwt_events.errors import TransportError
from jwt_events.transport._stream.ledger_audit import LedgerAudit, LedgerState
from jwt_events.transport._stream.ledger_head import LedgerHead, advance, successor, united
from jwt_events.transport._stream.position import StreamInfo, previous
from jwt_events.transport.base import Gap

NUMBERS = st.integers(min_value=0, max_value=10**19 - 1)
PARTS = st.integers(min_value=0, max_value=2**64 - 1)
HEADS = st.builds(
    LedgerHead,
    position=st.builds("{}-{}".format, PARTS, PARTS),
    counted=st.none() | NUMBERS,
    lost=NUMBERS,
    lost_at=NUMBERS,
    kept=NUMBERS,
    beyond=NUMBERS,
)


@given(HEADS)
def test_there_and_back(head: LedgerHead) -> None:
    """A head is read as it was written."""
    assert LedgerHead.parse(head.encode()) == head


@given(st.binary(max_size=20))
def test_anything_else(member: bytes) -> None:
    """Whatever else stands there is refused."""
    with pytest.raises(TransportError):
        LedgerHead.parse(member)


@pytest.mark.parametrize(
    "member",
    [
        b"",
        b"\0",
        b"\x001",
        b"\x000 1-0 5 0 0 0 0",
        b"\x001 1-0 5 0 0 0",
        b"\x001 1-0 5 0 0 0 0 0",
        b"\x001 1-0 x 0 0 0 0",
        b"\x001 99999999999999999999-0 5 0 0 0 0",
        b"1 1-0 5 0 0 0 0",
        b"\x001 1-0 5 0 0 0 0\n",
    ],
)
def test_no_head(member: bytes) -> None:
    """What looks like a head, but is none, is refused."""
    with pytest.raises(TransportError, match="not written by this library"):
        LedgerHead.parse(member)


@pytest.mark.parametrize("member", [b"\x002", b"\x002 1-0 5 0 0", b"\x0017 anything"])
def test_later_versions(member: bytes) -> None:
    """A later version is refused with the advice to upgrade."""
    with pytest.raises(TransportError, match="upgrade"):
        LedgerHead.parse(member)


@given(st.builds("{}-{}".format, st.integers(0, 2**63), PARTS))
def test_successor(position: str) -> None:
    """The position after the one before is the same."""
    assert previous(successor(position)) == position
    assert sort_key(position) < sort_key(successor(position))


ANEW = [
    StreamInfo("1-0", "1-0", 1, 1),
    StreamInfo("9-0", "9-0", 1, 1),
    StreamInfo("5-0", "19-0", 9, 9),
    StreamInfo("6-0", "19-0", 9, 9),
]


class TestAdvance:
    """What a head knows after a batch."""

    def test_first(self) -> None:
        """A new ledger takes what was removed before as it is."""
        stream = StreamInfo("4-0", "9-0", added=8, length=5)
        assert advance(None, stream, 2, "5-0", now=7) == LedgerHead("5-0", 5)

    def test_a_ledger_that_vanished(self) -> None:
        """Where there was a ledger before, what was removed with it is lost; if nothing was, nothing is."""
        stream = StreamInfo("4-0", "9-0", added=8, length=5)
        assert advance(None, stream, 1, "4-0", now=7, vanished=True) == LedgerHead("4-0", 4, lost=3, lost_at=7)
        whole = StreamInfo("4-0", "9-0", added=5, length=5)
        assert advance(None, whole, 1, "4-0", now=7, vanished=True) == LedgerHead("4-0", 1)
        uncounted = StreamInfo("4-0", "9-0", added=None, length=5)
        assert advance(None, uncounted, 1, "4-0", now=7, vanished=True) == LedgerHead("4-0", None, lost_at=7)

    def test_in_order(self) -> None:
        """As long as nobody else removes anything, nothing is lost."""
        head = LedgerHead("5-0", 5)
        stream = StreamInfo("6-0", "9-0", added=8, length=3)
        assert head.missing(stream) == 0
        assert advance(head, stream, 1, "6-0", now=7) == LedgerHead("6-0", 6)

    def test_removed_by_others(self) -> None:
        """What others removed is counted once."""
        head = LedgerHead("5-0", 5, lost=1, lost_at=3)
        stream = StreamInfo("8-0", "9-0", added=9, length=2)
        assert head.missing(stream) == 2
        moved = advance(head, stream, 1, "8-0", now=7)
        assert moved == LedgerHead("8-0", 8, lost=3, lost_at=7)
        assert moved.missing(StreamInfo("9-0", "9-0", added=9, length=1)) == 0

    @pytest.mark.parametrize("stream", ANEW)
    def test_another_stream(self, stream: StreamInfo) -> None:
        """A stream that began anew, with a clock set back or not, is known by its ends or its count."""
        head = LedgerHead("5-0", 5)
        assert head.missing(stream) is None
        moved = advance(head, stream, 1, str(stream.first), now=7)
        assert moved == LedgerHead(str(stream.first), 1, 0, 7)

    def test_without_counts(self) -> None:
        """A server that does not count (before Redis 7) cannot tell what others removed."""
        stream = StreamInfo("8-0", "9-0", added=None, length=2)
        head = LedgerHead("5-0", None)
        assert head.missing(stream) == 0
        assert advance(head, stream, 1, "8-0", now=7) == LedgerHead("8-0", None)
        assert advance(head, StreamInfo("8-0", "9-0", 9, 2), 1, "8-0", now=7) == LedgerHead("8-0", 8)
        assert advance(LedgerHead("5-0", 5), stream, 1, "8-0", now=7) == LedgerHead("8-0", None)


class TestUnited:
    """The head of a ledger that another one is merged into."""

    STREAM = StreamInfo("8-0", "9-0", added=9, length=2)

    def test_one(self) -> None:
        """Where only one of them is there, it is the head."""
        head = LedgerHead("5-0", 5, 1, 2, 3, 4)
        assert united(None, None, self.STREAM) is None
        assert united(head, None, self.STREAM) == united(None, head, self.STREAM) == head

    def test_the_later_counts(self) -> None:
        """Of two that fit the stream the later counts; what either calls lost is lost; the own count stays."""
        early, late = LedgerHead("5-0", 5, 2, 30, 7, 70), LedgerHead("7-0", 7, 1, 40, 8, 80)
        assert united(early, late, self.STREAM) == LedgerHead("7-0", 7, 2, 40, 7, 70)
        assert united(late, early, self.STREAM) == LedgerHead("7-0", 7, 2, 40, 8, 80)

    def test_of_another_stream(self) -> None:
        """One that is about another stream does not count, although it is later."""
        here, there = LedgerHead("5-0", 5, 0, 0, 7, 70), LedgerHead("99-0", 99, 0, 0, 8, 80)
        assert united(here, there, self.STREAM) == here
        assert united(there, here, self.STREAM) == LedgerHead("5-0", 5, 0, 0, 8, 80)
        assert united(there, replace(there, position="98-0"), self.STREAM) == there

    @given(HEADS, HEADS, st.builds(StreamInfo, st.none(), st.builds("{}-{}".format, PARTS, PARTS), NUMBERS))
    def test_again(self, own: LedgerHead, plain: LedgerHead, stream: StreamInfo) -> None:
        """Merging twice is merging once, so that it may be interrupted and repeated."""
        once = united(own, plain, stream)
        assert once is not None
        assert united(once, plain, stream) == once

    def test_judged_together(self) -> None:
        """A reader judges both as one ledger, and tells what either lacks."""
        plain = LedgerState(LedgerHead("5-0", 5, 0, 0, 3, 2_000_000_000), StreamInfo(), kept=3)
        whole = StreamInfo("6-0", "9-0", added=9, length=4)
        assert LedgerAudit().judge(LedgerState(None, whole), [], now=1.9e9, plain=plain) == []
        assert LedgerAudit().judge(LedgerState(None, whole), [], now=1.9e9) == [Gap(OLDEST, "trimmed", 5)]
        lacking = replace(plain, kept=1)
        expected = [Gap(OLDEST, "ledger", 2)]
        assert LedgerAudit().judge(LedgerState(None, whole), [], now=1.9e9, plain=lacking) == expected
        own = LedgerState(LedgerHead("5-0", 5), whole)
        assert LedgerAudit().judge(own, [], now=1.9e9, plain=lacking) == expected
        assert LedgerAudit().judge(own, [], now=1.9e9, plain=plain) == []
        assert LedgerAudit().judge(own, [], now=2e9 + 1, plain=lacking) == []

    def test_taken_over(self) -> None:
        """A reader that knew a ledger under its plain name finds it taken over, and then gone: the latter is a gap."""
        audit = LedgerAudit()
        head, whole = LedgerHead("5-0", 5, 0, 0, 3, 2_000_000_000), StreamInfo("6-0", "9-0", added=9, length=4)
        plain = LedgerState(head, StreamInfo(), kept=3)
        assert audit.judge(LedgerState(None, whole), [], now=1.9e9, plain=plain) == []
        assert audit.judge(LedgerState(head, whole, kept=3), [], now=1.9e9) == []
        assert audit.judge(LedgerState(None, whole), [], now=1.9e9) == [Gap("5-0", "ledger")]
