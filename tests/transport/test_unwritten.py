"""`UnwrittenLetters`: bounded, whatever is refused."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jwt_events.transport._stream.unwritten import MAX_LETTERS, MAX_REFUSED, MAX_UNWRITTEN, UnwrittenLetters
from jwt_events.transport.base import Delivery, Failure

FAILURE = Failure("DecodeError: not_json")


def test_in_order() -> None:
    """The oldest is written first, and its bytes count until then."""
    letters = UnwrittenLetters()
    first, second = Delivery(b"x" * MAX_UNWRITTEN, "1-0"), Delivery(b"y", "2-0", 1, (b"a", b"b" * 100))
    assert letters.add(first, FAILURE) == []
    assert letters.is_large
    assert letters.add(second, FAILURE) == []
    assert letters.oldest == (first, FAILURE)
    letters.remove(first)
    assert letters.oldest == (second, FAILURE)
    assert not letters.is_large
    letters.remove(first)  # again: it is not there any more
    letters.remove(second)
    assert (len(letters), letters.size, letters.dropped) == (0, 0, 0)


@given(st.lists(st.sampled_from([0, 1000, MAX_UNWRITTEN, MAX_REFUSED // 3, 2 * MAX_REFUSED]), max_size=60))
def test_bytes(sizes: list[int]) -> None:
    """Their bytes are bounded, but for one; the oldest go, and each is dropped or kept."""
    letters, dropped = UnwrittenLetters(), []
    payload = bytes(2 * MAX_REFUSED)
    for number, size in enumerate(sizes):
        dropped += letters.add(Delivery(payload[:size], f"{number}-0"), FAILURE)
        assert len(letters) == 1 or letters.size <= MAX_REFUSED
    assert [one.position for one in dropped] == [f"{number}-0" for number in range(letters.dropped)]
    assert letters.dropped + len(letters) == len(sizes)


def test_number() -> None:
    """So is their number, also of empty ones."""
    letters = UnwrittenLetters()
    for number in range(MAX_LETTERS + 5):
        letters.add(Delivery(b"", f"{number}-0"), FAILURE)
    assert (len(letters), letters.dropped, letters.oldest[0].position) == (MAX_LETTERS, 5, "5-0")
