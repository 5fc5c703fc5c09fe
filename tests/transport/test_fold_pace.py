"""The pace of folding: with pauses while there is time."""

from __future__ import annotations

import pytest

from jwt_events.transport._stream.fold_pace import FoldPace


def test_while_there_is_time() -> None:
    """There are pauses until a quarter of the time to the next round has passed, and then as far as it goes on."""
    pace = FoldPace(100.0, before=2_000, now=1_000.0)
    assert pace.pause(now=1_000.0) > 0
    assert pace.pause(now=1_024.0) > 0
    assert pace.pause(now=1_025.0) == 0
    pace.reached("1000-0")
    assert pace.pause(now=1_025.0) == 0
    pace.reached("1500-7")
    assert pace.pause(now=1_049.0) > 0
    assert pace.pause(now=1_050.0) == 0
    pace.reached("1999-0")
    assert pace.pause(now=1_074.0) > 0
    assert pace.pause(now=1_075.0) == 0


def test_one_moment() -> None:
    """Events of one moment are half of the work, or all of it."""
    pace = FoldPace(100.0, before=2_000, now=0.0)
    pace.reached("1000-0")
    pace.reached("1000-9")
    assert pace.pause(now=24.0) > 0
    assert pace.pause(now=26.0) == 0


@pytest.mark.parametrize("position", ["2000-0", "9000-0"])
def test_nothing_left(position: str) -> None:
    """One that has reached the end at once is not late."""
    pace = FoldPace(100.0, before=2_000, now=0.0)
    pace.reached(position)
    assert pace.pause(now=74.0) > 0


def test_at_once() -> None:
    """Without time there are no pauses."""
    pace = FoldPace(0.0, before=2_000, now=0.0)
    assert pace.pause(now=0.0) == 0
    pace.reached("1000-0")
    assert pace.pause(now=0.0) == 0
