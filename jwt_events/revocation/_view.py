"""State of a revocation replica: rules in force, freshness, and listeners."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from enum import StrEnum

from loguru import logger

from jwt_events._internal.callbacks import Callback, Callbacks
from jwt_events._internal.clock import Clock, Timer, boottime, sleep
from jwt_events._internal.loops import OwnLoop
from jwt_events._internal.notices import Notices
from jwt_events.errors import DecodeError
from jwt_events.events import STANDARD, ClaimNames, Event, Routes, UnknownEvent
from jwt_events.instrumentation import ViewObserver
from jwt_events.revocation._entries import restore_all
from jwt_events.revocation._progress import Progress
from jwt_events.revocation._reading import RulesRead
from jwt_events.revocation._rules import TICK, Rules
from jwt_events.revocation._watch import WatchRegistry
from jwt_events.transport.base import Delivery, Gap

_COUNTS_PER_SWEEP = 600  # metrics are updated once a second

_NOT_OPEN = "revocation list is not open, so every token is stale"
_HOW_TO_OPEN = (
    "pass lifespan=lifespan(revocations) to FastAPI, app.cleanup_ctx.append(lifespan(revocations)) in aiohttp,"
    " or use `async with revocations`"
)
_CHANGED = "revocation list changed state"


class ViewState(StrEnum):
    """Whether a revocation list is current.

    Attributes:
        CATCHING_UP: it is reading the history and has not reached its end yet.
        FRESH: it was proven current within ``max_staleness``.
        STALE: its last proof is older than that.
        CLOSED: it is not open, so nothing is read.
    """

    CATCHING_UP = "catching_up"
    FRESH = "fresh"
    STALE = "stale"
    CLOSED = "closed"


class SteadyClock:
    """The date as a clock that is never set back: however the system clock is set, no rule is removed too early.

    Args:
        wall: returns seconds since 1970, on a clock that people set.
        monotonic: returns seconds, on a clock that is never set.
    """

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = boottime) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._offset = wall() - monotonic()

    def now(self) -> float:
        """Seconds since 1970: the date at construction, plus the time that has passed since."""
        return self._monotonic() + self._offset

    def earliest(self) -> float:
        """Seconds since 1970, at the earliest: a system clock that was ahead may have been corrected since."""
        return min(self.now(), self._wall())


class RevocationView:
    """The state of a revocation list. A `FeedListener`.

    Args:
        retention: how long to keep a rule that does not say when it expires.
        leeway: see `Rules`.
        max_staleness: seconds after which a proof is too old.
        clock: decides what is too old.
        claim_names: see `Rules`.
        regions: the names of the regions that it is fed from; an empty name where there are none.

    Attributes:
        rules: the rules in force.
        loop: the event loop in which the list is open.
        watches: the watched tokens.
        current_as_of: the time (monotonic, by the clock) of the last proof that no event is missing; minus infinity if
            there is none.
        fresh_until: until when, by the same clock, that proof is good.
        routes: functions to call with events, on the event loop.
        on_gap: functions to call with gaps.
        on_state: functions to call with states.
        on_news: function to call after an event whose publisher waits for it, and after the state changed.
        progress: up to which position all events are in force, and who waits for more.
        observer: metrics to update while the list is open; ``None`` without metrics.
        events: count of events applied.
        gaps: how often events may have been missed.
        decode_errors: count of deliveries that were not events.
    """

    def __init__(
        self,
        *,
        retention: timedelta | None,
        leeway: float,
        max_staleness: float,
        clock: Clock,
        claim_names: ClaimNames = STANDARD,
        regions: Iterable[str] = ("",),
    ) -> None:
        self._clock = clock
        self._steady_clock = SteadyClock(clock.wall, clock.monotonic)
        self._callbacks = Callbacks()
        self._notices = Notices()
        self._max_staleness = max_staleness
        self._state = ViewState.CLOSED
        self._staleness_timer: Timer | None = None
        self.rules: Rules = Rules(
            epoch=self._steady_clock.now(), retention=retention, leeway=leeway, claim_names=claim_names
        )
        self.loop: OwnLoop = OwnLoop("the revocation list")
        self.watches: WatchRegistry = WatchRegistry(self.rules, self._callbacks, self.loop, clock)
        self.current_as_of: float = -math.inf
        self.fresh_until: float = -math.inf
        self.routes: Routes = Routes()
        self.on_gap: list[Callback] = []
        self.on_state: list[Callback] = []
        self.on_news: Callable[[], None] | None = None
        self.progress: Progress = Progress(regions)
        self.observer: ViewObserver | None = None
        self._reported_closed = False
        self._is_live = False  # whether events that arrive now have just happened, and are not history
        self._reported: Counter[str] = Counter()
        self._rotations: set[str] = set()  # the ids of those that were in the ledger
        self.events: int = 0
        self.gaps: int = 0
        self.decode_errors: int = 0

    @property
    def staleness(self) -> float:
        """Seconds since the last proof; infinite without one."""
        return self._clock.monotonic() - self.current_as_of

    @property
    def is_fresh(self) -> bool:
        """Whether the last proof is at most ``max_staleness`` old."""
        return self._clock.monotonic() <= self.fresh_until

    def report_closed(self, destination: str) -> None:
        """Report, once until it is opened, that a token was checked although nothing is read."""
        if not self._reported_closed:
            self._reported_closed = True
            self._notices.tell("ERROR", _NOT_OPEN, once=_NOT_OPEN, destination=destination, problem=_HOW_TO_OPEN)

    def apply_event(self, event: Event) -> None:
        """Put the rules of an event in force, then notify watches, the observer and listeners."""
        rules = self.rules.apply(event, now=self._steady_clock.now())
        self.events += 1
        for rule in rules:
            self.watches.notify(rule)
        if len(rules) > 1:
            logger.warning("rotation names two keys as compromised: both are refused", event_id=event.id)
        elif isinstance(event, UnknownEvent):
            logger.warning("event of an unknown type passed over", event_id=event.id, event_type=event.type[:100])
        if self.observer is not None:
            self.observer.received((event,))
            if self._is_live:
                self.observer.applied(event)
        if self.routes:
            for handler in self.routes.to(event):
                self._callbacks.call(handler.function, event)

    def apply_many(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Put the rules of deliveries in force at once; return those of which the events are needed, perhaps all."""
        if self.routes or (self.observer is not None and self._is_live):
            return deliveries
        read = RulesRead(deliveries)
        read.put_in_force(self.rules, now=self._steady_clock.now())
        self.events += len(deliveries) - len(read.left)
        read.report(self.observer)
        self.watches.check_all()
        return read.left

    def restore(self, entries: Sequence[tuple[bytes, float]]) -> int:
        """Put entries of a ledger in force, then notify watches and listeners; return how many of them are no rules.

        A rotation among them is passed to the listeners as its event, once; a rule is not.
        """
        rotations, foreign = restore_all(self.rules, entries)
        for event in rotations:
            if event.id not in self._rotations:
                self._rotations.add(event.id)
                self.apply_event(event)
        self.watches.check_all()
        return foreign

    def count_decode_error(self, error: DecodeError) -> None:
        """Count a delivery that was not an event."""
        self.decode_errors += 1
        if self.observer is not None:
            self.observer.decode_error(error.reason)

    def report_gap(self, gap: Gap) -> None:
        """Count a gap, and pass it to the listeners."""
        self.gaps += 1
        self._is_live = False  # the history may be read again
        if self.observer is not None:
            self.observer.gap(gap.cause)
        for callback in self.on_gap:
            self._callbacks.call(callback, gap)

    def count_reconnect(self) -> None:
        """Count a lost connection that was replaced."""
        if self.observer is not None:
            self.observer.reconnected()

    def record_position(self, position: str, *, history: str = "", confirm: bool, region: str = "") -> None:
        """Record up to where all events of a history are in force, and tell a publisher that waits to hear of it."""
        is_other = self.progress.reach(position, region, history)
        if (confirm or is_other) and self.on_news is not None:
            self.on_news()

    def record_proof(self, current_as_of: float) -> None:
        """Record that no event is missing of those that existed at that time (`boottime`)."""
        ahead = self._clock.monotonic() - boottime()  # in this order: if in doubt, the proof is older
        self.current_as_of = max(self.current_as_of, current_as_of + ahead)
        self.fresh_until = self.current_as_of + self._max_staleness
        self.progress.prove(current_as_of)
        self._is_live = True
        if self.is_fresh and self._state is not ViewState.FRESH:
            self.enter_state(ViewState.FRESH)
            self._check_staleness()

    def refuse_proof(self, reason: str) -> None:
        """Count an answer of the server that proves nothing."""
        if self.observer is not None:
            self.observer.proof_refused(reason)

    def enter_state(self, state: ViewState) -> None:
        """Enter a state, and pass it to the listeners."""
        self._state = state
        self._reported_closed = False
        if state is ViewState.STALE:
            self._notices.tell("WARNING", _CHANGED, once=state, state=state.value, staleness=round(self.staleness, 3))
        else:
            logger.info(_CHANGED, state=state.value, staleness=round(self.staleness, 3))
        if self.on_news is not None:
            self.on_news()
        for callback in self.on_state:
            self._callbacks.call(callback, state)

    def notice_staleness(self) -> None:
        """Enter `ViewState.STALE` at once if the timer is late: it stands still while the machine is suspended."""
        if self._state is ViewState.FRESH and not self.is_fresh and self._staleness_timer is not None:
            self._staleness_timer.cancel()
            self._check_staleness()

    def _check_staleness(self) -> None:
        """Enter `ViewState.STALE` if the last proof is too old, else check again at that time: one timer for all."""
        left = self.fresh_until - self._clock.monotonic()
        if left < 0:
            self._staleness_timer = None
            self.enter_state(ViewState.STALE)
        else:
            self._staleness_timer = self._clock.call_later(left + 0.001, self._check_staleness)

    def count(self, checks: Mapping[str, int]) -> None:
        """Update the observer's counts. Checks are too frequent, and too quick, to be reported one by one.

        Args:
            checks: how often each verdict has been returned so far.
        """
        if self.observer is None:
            return
        new = {verdict: count - self._reported[verdict] for verdict, count in checks.items()}
        self._reported.update(new)
        for verdict, count in new.items():
            self.observer.checked(verdict, count)
        for kind, count in self.rules.counts.items():
            self.observer.rules(kind, count)
        self.observer.refresh()

    async def maintain(self, checks: Callable[[], Mapping[str, int]]) -> None:
        """Update metrics and end expired watches once a second, remove expired rules once a tick, until cancelled.

        Args:
            checks: returns how often each verdict has been returned so far.
        """
        swept_at = self._clock.monotonic()
        while True:
            await sleep(self._clock, TICK / _COUNTS_PER_SWEEP)
            self.count(checks())
            self.notice_staleness()  # timers sleep on when the machine is suspended, or the wall clock is set
            self.watches.expire()
            if (now := self._clock.monotonic()) >= swept_at + TICK:
                swept_at = now
                await self.sweep()

    async def sweep(self) -> None:
        """Remove expired rules, and let other tasks run after each slice."""
        removed = 0
        for count in self.rules.sweep(now=self._steady_clock.earliest()):
            removed += count
            await asyncio.sleep(0)
        logger.debug("expired rules removed", count=removed)

    async def aclose(self) -> None:
        """Discard the last proof, detach the observer and end the callbacks. Idempotent."""
        self.current_as_of = self.fresh_until = -math.inf
        self._is_live = False
        self._state = ViewState.CLOSED
        observer, self.observer = self.observer, None
        if observer is not None:
            observer.close()
        if self._staleness_timer is not None:
            self._staleness_timer.cancel()
            self._staleness_timer = None
        self.progress.close()
        self.watches.close()
        self.loop.release()
        await self._callbacks.aclose()
