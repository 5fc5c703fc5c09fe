"""Guards never open: a million random cases against the naive model."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings

from tests.guard.test_never_open import CLAIMS_OF, SHAPES, Trial, run, trials
from tests.support.waiting import scaled

WAYS = [(shape, claims_of) for shape in sorted(set(SHAPES)) for claims_of in CLAIMS_OF]


@pytest.mark.stress
@pytest.mark.timeout(scaled(1_200))
@given(trials)
@settings(max_examples=-(-1_000_000 // len(WAYS)))
async def test_a_million_requests(trial: Trial) -> None:
    """Whatever is odd in claims, headers, rules and functions ends in a refusal.

    Each set of claims, header and rules is tried with every way in which the functions of the application can answer.
    """
    await run(*(replace(trial, shape=shape, claims_of=claims_of) for shape, claims_of in WAYS))
