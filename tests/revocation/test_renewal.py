"""Watches that end with the expiry of their token, and go on with a new one."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jwt_events import (
    AnotherSubject,
    Closed,
    ExpiredTokenError,
    InvalidClaims,
    InvalidOption,
    MemoryTransport,
    OlderToken,
    RevocationList,
    RevokedTokenError,
    StaleRevocationsError,
    TokenRevoked,
    Watch,
)
from jwt_events.revocation._deadlines import Deadlines
from jwt_events.testing import ManualClock
from tests.support.handling import running, soon
from tests.support.waiting import wait_until

NOW = 1_700_000_000
DAY = 86_400


class SetClock(ManualClock):
    """A manual clock whose wall clock can be set.

    Attributes:
        skew: how much it was set ahead.
    """

    skew = 0.0

    def wall(self) -> float:
        """Return the date."""
        return super().wall() + self.skew


@pytest.fixture
def clock() -> SetClock:
    """Decides what has expired."""
    return SetClock()


@pytest.fixture
async def revocations(clock: SetClock) -> AsyncIterator[RevocationList]:
    """An open list that is fresh however long the clock is advanced."""
    async with RevocationList(MemoryTransport(), clock=clock, max_staleness=1e9) as revocations:
        yield revocations


def claims_of(clock: SetClock, life: float = 60.0, **others: object) -> dict[str, object]:
    """Return the claims of a token that was issued now."""
    now = clock.wall()
    return {"jti": "1", "sub": "alice", "sid": "s", "azp": "app", "iss": "i", "iat": now, "exp": now + life, **others}


class TestExpiry:
    """A watch ends when its token expires."""

    async def test_event(self, revocations: RevocationList, clock: SetClock) -> None:
        """The event is set at ``exp``, not before; the callback is called once; there is no rule."""
        calls: list[str] = []
        async with revocations.watch(claims_of(clock), lambda: calls.append("called")) as watch:
            clock.advance(59.9)
            assert (watch.revoked.is_set(), watch.reason, repr(watch)) == (False, None, "<Watch live>")
            clock.advance(0.2)
            assert (watch.revoked.is_set(), watch.reason, repr(watch)) == (True, "expired", "<Watch expired>")
            assert (watch.rule, calls) == (None, ["called"])
            revocations.apply(TokenRevoked(token_id="1"))
            assert (watch.reason, calls) == ("expired", ["called"])

    async def test_block(self, revocations: RevocationList, clock: SetClock) -> None:
        """A block with ``cancel=True`` is cancelled where it waits, and raises the error with the ``exp``."""
        claims = claims_of(clock)

        async def serve() -> None:
            async with revocations.watch(claims, cancel=True):
                await asyncio.Event().wait()

        async with running(serve()) as serving:
            await wait_until(lambda: len(revocations._view.watches) == 1)
            clock.advance(61.0)
            with pytest.raises(ExpiredTokenError) as ended:
                await soon(serving)
        assert ended.value.expired_at == claims["exp"]

    async def test_expired_already(self, revocations: RevocationList, clock: SetClock) -> None:
        """The block of a token that has expired already is never entered."""
        with pytest.raises(ExpiredTokenError):
            async with revocations.watch(claims_of(clock, life=0.0), cancel=True):
                pytest.fail("it was entered")
        assert len(revocations._view.watches) == 0

    @pytest.mark.parametrize("exp", [None, math.inf, 10**400, 253_402_300_799, 1e11])
    async def test_never(self, revocations: RevocationList, clock: SetClock, exp: Any) -> None:
        """Without ``exp``, and with one too late to matter, a watch goes on."""
        async with revocations.watch(claims_of(clock, exp=exp)) as watch:
            clock.advance(365 * DAY)
            assert watch.reason is None

    async def test_not_asked_for(self, revocations: RevocationList, clock: SetClock) -> None:
        """With ``until_expiry=False`` the ``exp`` is not looked at, whatever it is."""
        watches = [revocations.watch(claims_of(clock, exp=exp), until_expiry=False) for exp in (clock.wall(), "odd")]
        for watch in watches:
            async with watch:
                clock.advance(DAY)
                assert watch.reason is None
        revocations.apply(TokenRevoked(token_id="1"))
        async with watches[0] as watch:
            assert watch.reason == "revoked"
        not_a_flag: Any = "no"
        with pytest.raises(InvalidOption, match="until_expiry"):
            revocations.watch(claims_of(clock), until_expiry=not_a_flag)

    @pytest.mark.parametrize("exp", ["1", True, math.nan, [1]])
    async def test_odd(self, revocations: RevocationList, clock: SetClock, exp: Any) -> None:
        """An ``exp`` that is no number is refused before the token is watched."""
        with pytest.raises(InvalidClaims, match="exp"):
            revocations.watch(claims_of(clock, exp=exp))

    @pytest.mark.parametrize("exp", [-1, -(10**400), -math.inf, 0])
    async def test_long_ago(self, revocations: RevocationList, clock: SetClock, exp: Any) -> None:
        """An ``exp`` before 1970 is past, too."""
        async with revocations.watch(claims_of(clock, exp=exp)) as watch:
            assert watch.reason == "expired"

    async def test_leeway(self, clock: SetClock) -> None:
        """The leeway of the list is added."""
        async with (
            RevocationList(MemoryTransport(), clock=clock, max_staleness=1e9, leeway=30) as revocations,
            revocations.watch(claims_of(clock)) as watch,
        ):
            clock.advance(89.0)
            assert watch.reason is None
            clock.advance(1.5)
            assert watch.reason == "expired"

    async def test_months(self, revocations: RevocationList, clock: SetClock) -> None:
        """A token of thirty days ends after thirty days; no timer sleeps for longer than event loops can count."""
        async with revocations.watch(claims_of(clock, life=30 * DAY)) as watch:
            assert clock._timers[0][0] - clock.monotonic() <= 600
            clock.advance(30 * DAY - 1)
            assert watch.reason is None
            clock.advance(1.5)
            assert watch.reason == "expired"

    @pytest.mark.parametrize("skew", [3_600.0, -3_600.0])
    async def test_the_clock_is_set(self, revocations: RevocationList, clock: SetClock, skew: float) -> None:
        """When the wall clock is set, or the machine was suspended, the new date counts within about a second."""
        async with revocations.watch(claims_of(clock, life=600.0)) as watch:
            clock.skew = skew
            clock.advance(1.1)
            if skew > 0:
                await soon(watch.revoked.wait())
                return
            clock.advance(600.0)
            assert watch.reason is None
            clock.advance(3_600.0)
            assert watch.reason == "expired"

    async def test_one_timer(self, revocations: RevocationList, clock: SetClock) -> None:
        """Thousands of watches share a timer, and each ends at its time."""
        before = len(clock._timers)
        lives = [5 + number % 997 for number in range(3_000)]
        watches = [revocations.watch(claims_of(clock, life=life)) for life in lives]
        for watch in watches:
            await watch.__aenter__()
        assert len(clock._timers) <= before + 1
        clock.advance(500.5)
        assert [watch.reason is not None for watch in watches] == [life <= 500 for life in lives]
        for watch in watches:
            await watch.__aexit__(None, None, None)
        assert revocations._view.watches._deadlines.earliest() == math.inf


class TestRenewal:
    """`Watch.renew` goes on with a new token."""

    async def test_goes_on(self, revocations: RevocationList, clock: SetClock) -> None:
        """The new expiry counts; so do rules about the new token and session, and those about the old ones do not."""
        async with revocations.watch(claims_of(clock)) as watch:
            clock.advance(50.0)
            watch.renew(claims_of(clock, jti="2", sid="s2"))
            clock.advance(50.0)
            revocations.apply(TokenRevoked(token_id="1"))
            revocations.apply(TokenRevoked(session_id="s"))
            assert watch.reason is None
            revocations.apply(TokenRevoked(session_id="s2", issued_before=clock.wall()))
            assert watch.reason == "revoked"
            assert watch.rule is not None
            assert watch.rule.kind == "session"
        assert len(revocations._view.watches) == 0
        assert revocations._view.watches._by_subject == {}

    async def test_the_new_one_expires(self, revocations: RevocationList, clock: SetClock) -> None:
        """A new token may live for a shorter time if it was issued later."""
        async with revocations.watch(claims_of(clock, life=1_000.0)) as watch:
            clock.advance(1.0)
            watch.renew(claims_of(clock, jti="2", life=10.0))
            clock.advance(10.5)
            assert watch.reason == "expired"

    @pytest.mark.parametrize(
        ("fields", "claim"),
        [
            ({"sub": "bob"}, "sub"),
            ({"sub": None}, "sub"),
            ({"iss": "other"}, "iss"),
            ({"iss": None}, "iss"),
            ({"azp": "other"}, "client_id"),
            ({"azp": None}, "client_id"),
            ({"client_id": "second"}, "client_id"),
        ],
    )
    async def test_another_subject(
        self, revocations: RevocationList, clock: SetClock, fields: dict[str, Any], claim: str
    ) -> None:
        """Another user, client or issuer is refused, and the token before stays in use."""
        async with revocations.watch(claims_of(clock)) as watch:
            with pytest.raises(AnotherSubject, match=claim) as refused:
                watch.renew(claims_of(clock, jti="2", life=90.0, **fields))
            assert refused.value.claim == claim
            assert "bob" not in str(refused.value)
            clock.advance(60.5)
            assert watch.reason == "expired"

    async def test_machines(self, revocations: RevocationList, clock: SetClock) -> None:
        """Tokens without a user need the same session and client; with neither, nothing says whose they are."""
        async with revocations.watch(claims_of(clock, sub=None)) as watch:
            with pytest.raises(AnotherSubject, match="sid"):
                watch.renew(claims_of(clock, sub=None, sid="other"))
            watch.renew(claims_of(clock, sub=None, jti="2"))
        async with revocations.watch(claims_of(clock, sub=None, sid=None)) as watch:
            watch.renew(claims_of(clock, sub=None, sid=None, jti="2"))
        async with revocations.watch(claims_of(clock, sub=None, sid=None, azp=None)) as watch:
            with pytest.raises(AnotherSubject, match="sub"):
                watch.renew(claims_of(clock, sub=None, sid=None, azp=None))

    @pytest.mark.parametrize(
        ("issued", "life", "claim"), [(-1.0, 900.0, "iat"), (None, 900.0, "iat"), (0.0, 59.0, "exp")]
    )
    async def test_older(
        self, revocations: RevocationList, clock: SetClock, issued: float | None, life: float, claim: str
    ) -> None:
        """A token that was issued before, does not say when, or is of the same time and expires earlier is refused."""
        now = clock.wall()
        async with revocations.watch(claims_of(clock)) as watch:
            with pytest.raises(OlderToken, match=claim) as refused:
                watch.renew(claims_of(clock, life=life, iat=None if issued is None else now + issued))
            assert refused.value.claim == claim
            watch.renew(claims_of(clock))  # the same token does no harm

    async def test_without_issue_times(self, revocations: RevocationList, clock: SetClock) -> None:
        """Where no token says when it was issued, the expiry decides; one that says so is not older."""
        async with revocations.watch(claims_of(clock, iat=None)) as watch:
            with pytest.raises(OlderToken, match="exp"):
                watch.renew(claims_of(clock, life=59.0, iat=None))
            watch.renew(claims_of(clock, life=61.0, iat=None))
            watch.renew(claims_of(clock, life=50.0))

    async def test_revoked(self, revocations: RevocationList, clock: SetClock) -> None:
        """A revoked token is refused; so is every token once the one in use was revoked, or has expired."""
        revocations.apply(TokenRevoked(token_id="2"))
        async with revocations.watch(claims_of(clock)) as watch:
            with pytest.raises(RevokedTokenError):
                watch.renew(claims_of(clock, jti="2"))
            with pytest.raises(ExpiredTokenError):
                watch.renew(claims_of(clock, jti="3", iat=clock.wall() + 1, life=0.0))
            assert watch.reason is None
            revocations.apply(TokenRevoked(token_id="1"))
            with pytest.raises(RevokedTokenError):
                watch.renew(claims_of(clock, jti="3"))
        async with revocations.watch(claims_of(clock, jti="4")) as watch:
            clock.skew = 3_600.0  # the timer has not noticed yet
            with pytest.raises(ExpiredTokenError):
                watch.renew(claims_of(clock, jti="5"))
            assert watch.reason == "expired"

    async def test_stale(self) -> None:
        """A stale list cannot tell whether the new token was revoked."""
        clock = SetClock()
        async with (
            RevocationList(MemoryTransport(), clock=clock) as revocations,
            revocations.watch(claims_of(clock)) as watch,
        ):
            clock.advance(10.0)
            with pytest.raises(StaleRevocationsError):
                watch.renew(claims_of(clock, jti="2"))
            assert watch.reason is None

    async def test_out_of_turn(self, revocations: RevocationList, clock: SetClock) -> None:
        """Before and after the block there is nothing to renew; claims are checked as everywhere."""
        watch: Watch = revocations.watch(claims_of(clock))
        with pytest.raises(Closed):
            watch.renew(claims_of(clock))
        async with watch:
            for odd in ({"sub": 7}, {"exp": "1"}, {"iat": math.nan}):
                with pytest.raises(InvalidClaims):
                    watch.renew(claims_of(clock, **odd))
        with pytest.raises(Closed):
            watch.renew(claims_of(clock))


@given(st.lists(st.tuples(st.sampled_from(["add", "discard", "pop"]), st.integers(0, 6), st.integers(0, 3))))
def test_deadlines(steps: list[tuple[str, int, int]]) -> None:
    """Deadlines equal a plain set of pairs."""
    deadlines: Deadlines[int] = Deadlines()
    model: set[tuple[float, int]] = set()
    for step, at, thing in steps:
        if step == "add":
            deadlines.add(thing, at)
            model.add((at, thing))
        elif step == "discard":
            deadlines.discard(thing, at)
            model.discard((at, thing))
        else:
            due = sorted(thing for when, thing in model if when <= at)
            assert sorted(deadlines.pop_due(at)) == due
            model = {(when, thing) for when, thing in model if when > at}
        assert deadlines.earliest() == min((when for when, _ in model), default=math.inf)


def test_deadlines_do_not_grow() -> None:
    """Coming and going at the same time for ever leaves nothing behind."""
    deadlines: Deadlines[int] = Deadlines()
    for number in range(20_000):
        deadlines.add(number, 5.0)
        deadlines.discard(number, 5.0)
    assert len(deadlines._times) < 2_000
