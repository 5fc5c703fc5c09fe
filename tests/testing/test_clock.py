"""ManualClock, and a revocation list that uses it."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from jwt_events import InvalidOption, MemoryTransport, RevocationList, TokenRevoked, Verdict, ViewState
from jwt_events._internal.clock import SYSTEM, Clock, sleep
from jwt_events.testing import FaultyTransport, ManualClock, eventually


def instant(clock: Clock, later: float) -> datetime:
    """Return the instant that is a number of seconds later on a clock."""
    return datetime.fromtimestamp(clock.wall() + later, UTC)


def test_it_begins_now_and_stands_still() -> None:
    """Both times start at those of the system."""
    before = (time.monotonic(), time.time())
    clock = ManualClock()
    now = (clock.monotonic(), clock.wall())
    assert before[0] <= now[0] <= time.monotonic()
    assert before[1] - 0.001 <= now[1] <= time.time() + 0.001
    assert (clock.monotonic(), clock.wall()) == now


def test_it_calls_what_is_due_in_order() -> None:
    """Calls run at their times, those due at the same time in order, and cancelled ones never."""
    clock = ManualClock()
    began = clock.monotonic()
    called: list[tuple[str, float]] = []

    def call(name: str, after: float) -> Any:
        return clock.call_later(after, lambda: called.append((name, round(clock.monotonic() - began, 3))))

    call("late", 30.0)
    call("second", 2.0)
    call("third", 2.0)
    call("first", 1.0)
    call("never", 1.5).cancel()
    clock.call_later(3.0, lambda: call("from within", 1.0))
    clock.advance(10.0)
    assert called == [("first", 1.0), ("second", 2.0), ("third", 2.0), ("from within", 4.0)]
    assert clock.monotonic() - began == pytest.approx(10.0)
    assert repr(clock) == "<ManualClock with 1 timers>"


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), "1"])
def test_it_does_not_go_back(seconds: Any) -> None:
    """Advancing by a number that is not positive is refused."""
    with pytest.raises(InvalidOption, match=r"^seconds: "):
        ManualClock().advance(seconds)


async def test_sleeping() -> None:
    """A sleep ends when the clock is advanced; on the system clock it ends by itself."""
    clock = ManualClock()
    sleeping = asyncio.create_task(sleep(clock, 60.0))
    await sleep(SYSTEM, 0.001)
    clock.advance(59.0)
    await sleep(SYSTEM, 0.001)
    assert not sleeping.done()
    clock.advance(1.0)
    await sleeping


@pytest.mark.parametrize("clock", [None, time, ManualClock])
def test_an_invalid_clock_is_refused(clock: Any) -> None:
    """A value without the methods of a clock is refused."""
    with pytest.raises(InvalidOption, match=r"^clock: "):
        RevocationList(MemoryTransport(), clock=clock)


def test_both_clocks_are_clocks() -> None:
    """The system clock and ManualClock implement the protocol."""
    clocks: list[Clock] = [SYSTEM, ManualClock()]
    assert all(isinstance(clock, Clock) for clock in clocks)


async def test_states_follow_the_clock() -> None:
    """The list becomes stale when the clock is advanced, and fresh after the next proof."""
    clock = ManualClock()
    states: list[ViewState] = []
    revocations = RevocationList(MemoryTransport(), max_staleness=0.4, clock=clock)
    revocations.on_state(states.append)
    async with revocations:
        clock.advance(1.0)
        assert states == [ViewState.CATCHING_UP, ViewState.FRESH, ViewState.STALE]
        await eventually(lambda: states[-1] is ViewState.FRESH)
        assert revocations.staleness < 0.4


async def test_rules_expire_by_the_clock() -> None:
    """A rule is in force until the token expires, and is dropped soon after."""
    clock = ManualClock()
    async with RevocationList(FaultyTransport(MemoryTransport()), clock=clock) as revocations:
        revocations.apply(TokenRevoked(token_id="short", expires_at=instant(clock, 900)))
        revocations.apply(TokenRevoked(token_id="long", expires_at=instant(clock, 86_400)))
        clock.advance(850)
        await eventually(lambda: revocations.is_fresh)
        assert revocations.check({"jti": "short"}) is Verdict.REVOKED
        clock.advance(3_600)
        await eventually(lambda: revocations.stats.rules["token"] == 1)
        assert revocations.check({"jti": "long"}) is Verdict.REVOKED
