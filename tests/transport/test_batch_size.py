"""`BatchSize`: fewer entries at once while they are large, and as many as before afterwards."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jwt_events.envelope import MAX_WIRE_BYTES
from jwt_events.transport._redis.protocol import Bounds
from jwt_events.transport._stream.batch_size import MAX_BATCH_BYTES, BatchSize


def read_all(sizes: list[int], maximum: int) -> tuple[list[int], int]:
    """Read entries of these sizes; return the bytes of each batch, and how many batches were cut off."""
    size, at, cut_off = BatchSize(maximum), 0, 0
    batches: list[int] = []
    for step in count():
        assert step < 10 * len(sizes) + 100, "no progress"
        if at == len(sizes):
            return batches, cut_off
        assert 1 <= size.count <= maximum
        batch = sizes[at : at + size.count]
        if (limit := size.bounds().reply) is not None and sum(batch) > limit:
            cut_off += 1
            size.cut_off()
            continue
        at += len(batch)
        batches.append(sum(batch))
        size.read(len(batch), sum(batch))
    raise AssertionError


class TestBatchSize:
    """How many are asked for."""

    def test_small_entries(self) -> None:
        """Entries of the usual size are read as many at once as the maximum says."""
        batches, cut_off = read_all([300] * 5_000, 500)
        assert batches == [150_000] * 10
        assert cut_off == 0

    def test_one_large_entry(self) -> None:
        """One among many costs a few attempts, and the batches are large again after it."""
        batches, cut_off = read_all([300] * 700 + [2 * MAX_BATCH_BYTES] + [300] * 5_000, 500)
        assert cut_off <= 3
        assert max(batches) <= 2 * MAX_BATCH_BYTES + 300
        assert batches[-2] == 150_000

    def test_only_large_entries(self) -> None:
        """Entries above the limit are read one by one."""
        batches, cut_off = read_all([2 * MAX_BATCH_BYTES] * 100, 500)
        assert batches == [2 * MAX_BATCH_BYTES] * 100
        assert cut_off == 2

    def test_the_largest_events(self) -> None:
        """Entries of a megabyte are read several at once, and few batches are cut off."""
        batches, cut_off = read_all([1_048_576] * 1_000, 500)
        assert len(batches) < 250
        assert cut_off <= 3

    def test_nothing_was_read(self) -> None:
        """A read without entries changes nothing."""
        size = BatchSize(10)
        size.read(0, 100)
        assert (size.count, size.bounds()) == (10, Bounds(reply=MAX_BATCH_BYTES))

    @given(
        st.lists(st.sampled_from([100, 100_000, 1_048_576, MAX_BATCH_BYTES, 3 * MAX_BATCH_BYTES]), max_size=200),
        st.integers(1, 1_000),
    )
    def test_all_are_read(self, sizes: list[int], maximum: int) -> None:
        """Whatever comes, all is read, and no batch of more than one entry exceeds the limit."""
        batches, _ = read_all(sizes, maximum)
        assert sum(batches) == sum(sizes)
        assert max(batches, default=0) <= max([MAX_BATCH_BYTES, *sizes])


@pytest.mark.parametrize("maximum", [1, 2, 31, 32, 33, 100_000])
def test_any_maximum(maximum: int) -> None:
    """It ends at one entry, of which more is kept than an event may have, and comes back."""
    size = BatchSize(maximum)
    for _ in range(5):
        size.cut_off()
    assert (size.count, size.bounds().reply, size.bounds().value) == (1, None, 2 * MAX_WIRE_BYTES)
    for _ in range(40):
        size.read(size.count, size.count)
    assert size.count == maximum


def test_few_are_enough_until_they_are_late() -> None:
    """It begins with a few, takes twice as many each time that the reader had to wait, and comes back to these."""
    size, counts = BatchSize(1_000, begin=100), []
    for is_late in (False, True, False, True, True, True):
        size.read(size.count, 1, is_late=is_late)
        counts.append(size.count)
    assert counts == [100, 200, 200, 400, 800, 1_000]
    size.cut_off()
    for _ in range(40):
        size.read(size.count, size.count)
    assert size.count == 1_000


def test_fewer_at_most_than_to_begin_with() -> None:
    """The maximum counts."""
    size = BatchSize(10, begin=100)
    size.read(10, 1, is_late=True)
    assert size.count == 10


def test_a_server_that_hangs_up() -> None:
    """One lost connection says nothing; the second, before anything was read, that the batch may be too large."""
    size = BatchSize(500)
    for expected in (500, 15, 1, 1):
        size.fail(is_too_large=False)
        assert size.count == expected
    size.read(1, 1_000_000)
    assert size.count == 2
    size.fail(is_too_large=False)
    assert size.count == 2
    size.fail(is_too_large=True)
    assert size.count == 1
