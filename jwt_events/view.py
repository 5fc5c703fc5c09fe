"""Know it: the rules that are in force here, how old that knowledge is, and whom to tell when either changes."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from datetime import timedelta
from enum import StrEnum

from loguru import logger

from jwt_events.callbacks import Callback, Callbacks
from jwt_events.errors import DecodeError
from jwt_events.events import Event, UnknownEvent
from jwt_events.handlers import Routes
from jwt_events.rules import Rules
from jwt_events.transport.base import Gap
from jwt_events.watches import Watches


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


class Calendar:
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


class View:
    """What a feed has told so far. A `Follower`.

    Args:
        retention: for how long to keep a rule that does not say when it expires.
        leeway: see `Rules`.
        max_staleness: seconds after which a proof is too old.

    Attributes:
        rules: what is in force.
        watches: who is to be told when a token is revoked.
        proven: the time (`time.monotonic`) for which it is proven that nothing is missing; minus infinity for none.
        routes: whom to tell of events, on the event loop.
        on_gap: whom to tell of gaps.
        on_state: whom to tell of states.
        events: how many were taken.
        gaps: how often something may have been missed.
        decode_errors: how many deliveries were no events.
    """

    def __init__(self, *, retention: timedelta | None, leeway: float, max_staleness: float) -> None:
        self._calendar = Calendar()
        self._callbacks = Callbacks()
        self._max_staleness = max_staleness
        self._told = ViewState.CLOSED
        self._alarm: asyncio.TimerHandle | None = None
        self.rules = Rules(epoch=self._calendar.steady(), retention=retention, leeway=leeway)
        self.watches = Watches(self.rules, self._callbacks)
        self.proven = -math.inf
        self.routes = Routes()
        self.on_gap: list[Callback] = []
        self.on_state: list[Callback] = []
        self.events = self.gaps = self.decode_errors = 0

    @property
    def staleness(self) -> float:
        """Seconds since the last proof; infinite without one."""
        return time.monotonic() - self.proven

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
        if self.routes:
            for handler in self.routes.to(event):
                self._callbacks.call(handler.function, event)

    def take_poison(self, error: DecodeError) -> None:
        """Count bytes that were no event."""
        self.decode_errors += 1

    def report(self, gap: Gap) -> None:
        """Tell that something may have been missed."""
        self.gaps += 1
        for callback in self.on_gap:
            self._callbacks.call(callback, gap)

    def prove(self, current_as_of: float) -> None:
        """Note that nothing is missing of what existed at that time."""
        self.proven = max(self.proven, current_as_of)
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
            self._alarm = asyncio.get_running_loop().call_later(left + 0.001, self._await_staleness)

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
        self._told = ViewState.CLOSED
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        await self._callbacks.aclose()
