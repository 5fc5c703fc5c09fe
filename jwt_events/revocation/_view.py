"""Know it: the rules that are in force here, how old that knowledge is, and whom to tell when either changes."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import timedelta
from enum import StrEnum

from loguru import logger

from jwt_events._internal.callbacks import Callback, Callbacks
from jwt_events._internal.clock import Clock, Timer, sleep
from jwt_events.errors import DecodeError
from jwt_events.events import Event, Routes, UnknownEvent
from jwt_events.instrumentation import ViewObserver
from jwt_events.revocation._rules import TICK, Rules
from jwt_events.revocation._watch import Watches
from jwt_events.transport.base import Gap

_COUNTS_PER_SWEEP = 600  # metrics are brought up to date once a second


class ViewState(StrEnum):
    """What a view of revocations is worth at the moment.

    Attributes:
        CATCHING_UP: it has begun to read the history and has not come to its end yet.
        FRESH: it was proven current within ``max_staleness``.
        STALE: it was not.
        CLOSED: nobody reads.
    """

    CATCHING_UP = "catching_up"
    FRESH = "fresh"
    STALE = "stale"
    CLOSED = "closed"


class SteadyClock:
    """The date, for deciding what to forget: whatever is done to the system's clock, nothing is forgotten too early.

    Args:
        wall: returns seconds since 1970, on a clock that people set.
        monotonic: returns seconds, on a clock that nobody sets.
    """

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._offset = wall() - monotonic()

    def steady(self) -> float:
        """Seconds since 1970 as of the making of this calendar, counted on from there."""
        return self._monotonic() + self._offset

    def earliest(self) -> float:
        """Seconds since 1970, at the earliest: a clock that was ahead may have been put right since."""
        return min(self.steady(), self._wall())


class RevocationView:
    """What a feed has told so far. A `Follower`.

    Args:
        retention: for how long to keep a rule that does not say when it expires.
        leeway: see `Rules`.
        max_staleness: seconds after which a proof is too old.
        clock: decides what is too old.

    Attributes:
        rules: what is in force.
        watches: who is to be told when a token is revoked.
        proven: the time (monotonic, by the clock) for which it is proven that nothing is missing; minus infinity for
            none.
        routes: whom to tell of events, on the event loop.
        on_gap: whom to tell of gaps.
        on_state: whom to tell of states.
        observer: is told what happens while the list is open; ``None`` without metrics.
        events: how many were taken.
        gaps: how often something may have been missed.
        decode_errors: how many deliveries were no events.
    """

    def __init__(self, *, retention: timedelta | None, leeway: float, max_staleness: float, clock: Clock) -> None:
        self._clock = clock
        self._calendar = SteadyClock(clock.wall, clock.monotonic)
        self._callbacks = Callbacks()
        self._max_staleness = max_staleness
        self._told = ViewState.CLOSED
        self._alarm: Timer | None = None
        self.rules: Rules = Rules(epoch=self._calendar.steady(), retention=retention, leeway=leeway)
        self.watches: Watches = Watches(self.rules, self._callbacks)
        self.proven: float = -math.inf
        self.routes: Routes = Routes()
        self.on_gap: list[Callback] = []
        self.on_state: list[Callback] = []
        self.observer: ViewObserver | None = None
        self._is_live = False  # what comes now has just happened
        self._reported: Counter[str] = Counter()
        self.events: int = 0
        self.gaps: int = 0
        self.decode_errors: int = 0

    @property
    def staleness(self) -> float:
        """Seconds since the last proof; infinite without one."""
        return self._clock.monotonic() - self.proven

    @property
    def is_fresh(self) -> bool:
        """Whether the last proof is not too old."""
        return self.staleness <= self._max_staleness

    def take(self, event: Event) -> None:
        """Put an event in force, then tell those whom it concerns."""
        rule = self.rules.apply(event, now=self._calendar.steady())
        self.events += 1
        if rule is not None:
            self.watches.compare(rule)
        elif isinstance(event, UnknownEvent):
            logger.warning("event of an unknown type passed over", event_id=event.id, event_type=event.type[:100])
        if self.observer is not None:
            self.observer.received((event,))
            if self._is_live:
                self.observer.applied(event)
        if self.routes:
            for handler in self.routes.to(event):
                self._callbacks.call(handler.function, event)

    def take_poison(self, error: DecodeError) -> None:
        """Count bytes that were no event."""
        self.decode_errors += 1
        if self.observer is not None:
            self.observer.decode_error(error.reason)

    def report(self, gap: Gap) -> None:
        """Tell that something may have been missed."""
        self.gaps += 1
        self._is_live = False  # history may be read again
        if self.observer is not None:
            self.observer.gap(gap.cause)
        for callback in self.on_gap:
            self._callbacks.call(callback, gap)

    def reconnected(self) -> None:
        """Count a connection that was replaced."""
        if self.observer is not None:
            self.observer.reconnected()

    def prove(self, current_as_of: float) -> None:
        """Note that nothing is missing of what existed at that time (`time.monotonic`)."""
        ahead = self._clock.monotonic() - time.monotonic()  # in this order: if in doubt, the proof is older
        self.proven = max(self.proven, current_as_of + ahead)
        self._is_live = True
        if self.is_fresh and self._told is not ViewState.FRESH:
            self.enter(ViewState.FRESH)
            self._await_staleness()

    def enter(self, state: ViewState) -> None:
        """Tell of a new state."""
        self._told = state
        logger.info("view state changed", state=state.value, staleness=self.staleness)
        for callback in self.on_state:
            self._callbacks.call(callback, state)

    def _await_staleness(self) -> None:
        """Look again when the last proof will be too old; it is one timer, not one for each proof."""
        left = self._max_staleness - self.staleness
        if left < 0:
            self._alarm = None
            self.enter(ViewState.STALE)
        else:
            self._alarm = self._clock.call_later(left + 0.001, self._await_staleness)

    def count(self, checks: Mapping[str, int]) -> None:
        """Tell the observer how it is doing. Checks are too many and too quick to be told one by one.

        Args:
            checks: how often each verdict has been given so far.
        """
        if self.observer is None:
            return
        new = {verdict: number - self._reported[verdict] for verdict, number in checks.items()}
        self._reported.update(new)
        for verdict, number in new.items():
            self.observer.checked(verdict, number)
        for kind, number in self.rules.counts.items():
            self.observer.rules(kind, number)
        self.observer.refresh()

    async def tend(self, checks: Callable[[], Mapping[str, int]]) -> None:
        """Do what is to be done from time to time, until cancelled.

        Args:
            checks: returns how often each verdict has been given so far.
        """
        swept_at = self._clock.monotonic()
        while True:
            await sleep(self._clock, TICK / _COUNTS_PER_SWEEP)
            self.count(checks())
            if (now := self._clock.monotonic()) >= swept_at + TICK:
                swept_at = now
                await self.sweep()

    async def sweep(self) -> None:
        """Forget the rules whose time has come, and let others work in between."""
        forgotten = 0
        for number in self.rules.sweep(now=self._calendar.earliest()):
            forgotten += number
            await asyncio.sleep(0)
        logger.debug("rules forgotten", count=forgotten)

    async def aclose(self) -> None:
        """Know nothing of what is current any more, and end the callbacks; idempotent."""
        self.proven = -math.inf
        self._is_live = False
        self._told = ViewState.CLOSED
        observer, self.observer = self.observer, None
        if observer is not None:
            observer.close()
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        await self._callbacks.aclose()
