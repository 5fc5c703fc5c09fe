"""The barrier against a naive model: nobody is given up before its lease has ended."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from jwt_events.fleet import Announcement
from jwt_events.fleet._barrier import Barrier, lease_ends
from tests.fleet.test_announcement import SAID, announcements

POSITION = "5-0"
ACCEPTED_AT = 1_000.0
AS_OF = datetime(2026, 1, 1, tzinfo=UTC)

readings = st.lists(st.tuples(st.floats(0, 200), st.lists(announcements, max_size=4)), min_size=1, max_size=6)


def barrier(*services: str) -> Barrier:
    """Make a barrier for one event."""
    return Barrier(POSITION, ACCEPTED_AT, services, timeout=2.0)


@given(readings, st.sampled_from([(), ("orders",), ("orders", "billing", "orders")]))
def test_nobody_is_given_up_early(read: list[tuple[float, list[Announcement]]], services: tuple[str, ...]) -> None:
    """Who has not acknowledged is waited for by the least that it ever promised; the result names all."""
    waiting = barrier(*services)
    seen: dict[str, list[Announcement]] = {}
    now = ACCEPTED_AT
    for after, said in read:
        now += after
        waiting.read(said)
        for one in said:
            if not services or one.service in services:
                seen.setdefault(one.field, []).append(one)
        pending = {one.field for one in waiting.pending(now)}
        for field, told in seen.items():
            is_done = any(one.has_applied(POSITION, "") or one.state == "closed" for one in told)
            ends = lease_ends(ACCEPTED_AT, max(one.lease for one in told))
            if any(one.allows_stale for one in told):
                ends = ACCEPTED_AT + 2.0
            assert (field in pending) == (not is_done and now < ends)
        until = waiting.wait_until(now)
        assert (until is None) == (not pending)
        assert until is None or until > now
    result = waiting.result(AS_OF)
    named = {*result.acknowledged, *result.expired, *result.unsafe, *result.missing}
    is_open = {field for field, told in seen.items() if all(one.state != "closed" for one in told)}
    assert named == {seen[field][0].name for field in is_open} | {*waiting.unheard()}
    assert result.is_complete == (not result.missing)
    assert waiting.unheard() == [
        service
        for service in dict.fromkeys(services)
        if not any(seen[field][0].service == service for field in is_open)
    ]


def test_who_is_waited_for() -> None:
    """An acknowledgement ends the wait; so does the end of the lease; a list without one is missing."""
    waiting = barrier()
    behind = replace(SAID, position="4-9")
    unsafe = replace(behind, instance="u", allows_stale=True)
    waiting.read([behind, replace(SAID, instance="p", position="5-0"), unsafe])
    assert {one.name for one in waiting.pending(ACCEPTED_AT)} == {"orders/o-1", "orders/u"}
    assert waiting.pending(ACCEPTED_AT + 2.1) == [behind]
    assert waiting.pending(lease_ends(ACCEPTED_AT, 5.0)) == []
    found = waiting.result(AS_OF)
    assert (found.by, found.as_of, found.is_complete) == ("fleet", AS_OF, False)
    assert (found.acknowledged, found.expired) == (["orders/p"], ["orders/o-1"])
    assert (found.unsafe, found.missing) == (["orders/u"], ["orders/u"])


def test_a_position_of_another_history() -> None:
    """It acknowledges nothing: the server that is read may have given the position again."""
    waiting = barrier()
    said = replace(SAID, position="9-0", history="before the failover")
    waiting.read([said], "after it")
    assert waiting.pending(ACCEPTED_AT) == [said]
    waiting.read([replace(said, history="after it")], "after it")
    assert waiting.result(AS_OF).acknowledged == ["orders/o-1"]


def test_an_acknowledgement_stays() -> None:
    """A list that begins again at the oldest event has the rule all the same; an unsafe one is named all the same."""
    waiting = barrier()
    waiting.read([replace(SAID, position="7-0", allows_stale=True)])
    waiting.read([replace(SAID, position="0-0", allows_stale=True)])
    assert waiting.pending(ACCEPTED_AT) == []
    found = waiting.result(AS_OF)
    assert (found.acknowledged, found.unsafe, found.missing) == (["orders/o-1"], ["orders/o-1"], [])


def test_once_unsafe() -> None:
    """A list that said once that it allows while it is stale is not believed when it promises more later."""
    behind = replace(SAID, position="4-9")
    for order in (1, -1):
        waiting = barrier()
        for said in (replace(behind, allows_stale=True), replace(behind, lease=9.0))[::order]:
            waiting.read([said])
        found = waiting.result(AS_OF)
        assert (found.unsafe, found.missing, found.expired) == (["orders/o-1"], ["orders/o-1"], [])


def test_two_of_one_name() -> None:
    """Two lists that use one name are two: one cannot acknowledge for the other."""
    waiting = barrier()
    waiting.read([replace(SAID, position="7-0"), replace(SAID, run="other", position="0-0")])
    assert [one.run for one in waiting.pending(ACCEPTED_AT)] == ["other"]


def test_a_registry_that_was_lost() -> None:
    """For a while after one instance has lost its entry, the entries of others may be missing."""
    lost = replace(SAID, position="7-0", lost_at=1_000.0)
    for clock, by in ((1_000.0, "lease"), (1_007.4, "lease"), (1_007.6, "fleet"), (990.0, "fleet"), (None, "fleet")):
        waiting = Barrier(POSITION, ACCEPTED_AT, ["orders"], timeout=2.0, lease=5.0)
        waiting.read([replace(lost, service="billing"), replace(SAID, position="7-0")], clock=clock)
        assert waiting.result(AS_OF).by == by, clock
        assert waiting.pending(ACCEPTED_AT) == []
        assert waiting.result(AS_OF).is_complete


def test_what_nobody_registered() -> None:
    """A service of which nobody is registered is missing, and then the lease is what is known."""
    waiting = barrier("orders", "billing")
    waiting.read([SAID, replace(SAID, service="billing", state="closed")])
    assert waiting.unheard() == ["billing"]
    assert not waiting.knows_all
    assert waiting.result(AS_OF).by == "lease"
    assert waiting.result(AS_OF).missing == ["billing"]
    empty = barrier()
    empty.read([])
    assert not empty.knows_all
