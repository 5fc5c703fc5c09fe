"""Two million mutated messages."""

from __future__ import annotations

import pytest

from tests.support.decoding import differences
from tests.support.mutations import mutated
from tests.support.waiting import scaled

pytestmark = [pytest.mark.stress, pytest.mark.timeout(scaled(1_200))]


@pytest.mark.parametrize("seed", range(10))
def test_two_million_mutated_messages_are_decoded_as_without_the_canonical_path(seed: int) -> None:
    """Each is decoded to the same event, or refused with the same error: 200,000 for each seed."""
    different, covered = differences(mutated(200_000, seed=100 + seed))
    assert different == []
    assert covered > 10_000
