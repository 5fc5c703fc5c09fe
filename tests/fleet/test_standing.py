"""How instances stand, as a person sees it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jwt_events.fleet import Announcement, Status, standings
from jwt_events.transport.optional import Reading
from tests.fleet.test_announcement import SAID, announcements

NOW = 1_800_000_000.0
NEWEST = "1700000000000-5"


def standing_of(**changes: Any) -> Any:
    """Return how an instance stands that has applied everything, but for these changes."""
    said = replace(SAID, **{"said_at": NOW - 1.0} | changes)
    (found,) = standings(Reading({said.field: said.encode()}, NOW, ""), NEWEST)
    return found


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, Status.FRESH),
        ({"position": "1700000000000-4"}, Status.BEHIND),
        ({"position": ""}, Status.BEHIND),
        ({"history": "another"}, Status.BEHIND),
        ({"state": "stale"}, Status.STALE),
        ({"state": "catching_up"}, Status.CATCHING_UP),
        ({"said_at": NOW - 5.1}, Status.SILENT),
        ({"said_at": NOW - 5.1, "allows_stale": True}, Status.SILENT),
        ({"said_at": NOW - 3_601}, Status.GONE),
        ({"state": "closed", "said_at": NOW - 3_601}, Status.CLOSED),
        ({"allows_stale": True}, Status.UNSAFE),
        ({"allows_stale": True, "state": "stale"}, Status.UNSAFE),
        ({"said_at": None}, Status.FRESH),
        ({"said_at": NOW + 4.9}, Status.FRESH),
        ({"said_at": NOW + 3_600}, Status.SILENT),
        ({"said_at": NOW + 3_600, "state": "closed"}, Status.CLOSED),
    ],
)
def test_status(changes: dict[str, Any], status: Status) -> None:
    """Each has one status; the worst that is known counts."""
    assert standing_of(**changes).status is status
    assert status.is_trouble == (status in (Status.STALE, Status.SILENT, Status.UNSAFE))


def test_how_far_behind() -> None:
    """The distance to the newest event, in seconds of the server's clock."""
    assert standing_of().behind == 0
    assert standing_of(position="1700000000001-0").behind == 0
    assert standing_of(position="1699999998500-9").behind == 1.5
    assert standing_of().heard == 1.0


def test_a_name_that_is_used_twice() -> None:
    """Two that were heard lately; one that was killed, and started again under its name, is no double."""
    first, second = replace(SAID, said_at=NOW), replace(SAID, run="2", said_at=NOW)
    found = standings(Reading({one.field: one.encode() for one in (first, second)}, NOW, ""), NEWEST)
    assert [one.is_double for one in found] == [True, True]
    killed = replace(first, said_at=NOW - 60)
    found = standings(Reading({one.field: one.encode() for one in (killed, second)}, NOW, ""), NEWEST)
    assert [one.is_double for one in found] == [False, False]


@given(st.lists(announcements), st.none() | st.floats(0, 2e9))
def test_any_registry(said: list[Announcement], clock: float | None) -> None:
    """Whatever the clocks say, everybody is shown, and nobody is heard from the future."""
    entries = {one.field: one.encode() for one in said} | {"foreign": b"x"}
    found = standings(Reading(entries, clock, ""), NEWEST)
    assert len(found) == len({one.field for one in said})
    assert all(one.heard is None or one.heard >= 0 for one in found)
    assert all(one.behind >= 0 for one in found)
