"""The handling of one event, and its outcome."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Hashable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from time import perf_counter
from typing import Any, TypeAlias

from jwt_events._internal.opaque import OpaqueStruct
from jwt_events.events import Handler
from jwt_events.instrumentation import UNOBSERVED, Handled, Observer
from jwt_events.tracing import Processing
from jwt_events.transport.base import Delivery, Failure, Gap

_NOTHING = nullcontext()

# The name of the handler where the program takes the events by ``events()``.
_PULLED = "events()"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of a handler, or of an event, which is that of its handlers together.

    Attributes:
        failure: why the event was given up; ``None`` if no handler failed for good.
        finished: whether all handlers came to an end by themselves; otherwise some were cancelled.
        incomplete: whether some were not even started, because the subscriber was stopped.
    """

    failure: Failure | None = None
    finished: bool = True
    incomplete: bool = False


class CutOff(Failure):
    """A failure that is not the event's: the subscriber ends, and what the handler uses was closed before it."""


HANDLED = Outcome()
"""The outcome of every handler that succeeds, and of every event all of whose handlers do."""

CANCELLED = Outcome(finished=False)
"""The outcome of a handler that was cancelled."""


# The job in whose handler this runs: in the handler itself, in a task that it started, or in its thread.
current_job: contextvars.ContextVar[Job | None] = contextvars.ContextVar("current_job", default=None)


class Job(OpaqueStruct):
    """The handling of an event, or a gap, by all of its handlers.

    There is one for each event, and a struct takes a quarter of the time of another object to make.

    Attributes:
        subject: what the handlers are called with.
        left: how many of its handlers have not ended; below zero after giving up.
        delivery: how the event was delivered; ``None`` for a gap.
        observer: is told what happens to an event; of a gap nobody is told.
        trace: makes the span; ``None`` without traces.
        attempt: how often the event was delivered, this time included, to whichever consumer.
        key: the ordering key; ``None`` for none.
        takes_room: whether its handlers count for the concurrency.
        began: when the first handler was called, by `time.perf_counter`.
        error: the class of the error that a handler failed with for good.
        outcome: the outcome so far.
    """

    subject: Any
    left: int = 1
    delivery: Delivery | None = None
    observer: Observer = UNOBSERVED
    trace: Processing | None = None
    attempt: int = 1
    key: Hashable = None
    takes_room: bool = True
    began: float | None = None
    error: str | None = None
    outcome: Outcome = HANDLED

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of log lines about it."""
        if isinstance(self.subject, Gap):
            return {"cause": self.subject.cause, "since": self.subject.since}
        return {"event_id": self.subject.id, "event_type": str(self.subject.type)[:100]}

    def begin(self) -> float:
        """Note that a handler is about to be called, perhaps again. Return when, by `time.perf_counter`."""
        now = perf_counter()
        if self.began is None:
            self.began = now
            if self.trace is not None:
                self.trace.begin()
        return now

    def active(self) -> AbstractContextManager[None]:
        """Begin, and return a context in which the span, if there is one, is the current one."""
        self.begin()
        return _NOTHING if self.trace is None else self.trace.active()

    def called(self, handler: str, outcome: Handled, began: float, error: BaseException | None = None) -> None:
        """Note that a call of a handler has ended."""
        if self.observer is not UNOBSERVED:
            self.observer.called(self.subject, handler, outcome, perf_counter() - began)
        if error is not None:
            if self.trace is not None:
                self.trace.record(error, handler)
            if outcome is Handled.FAILED:
                self.error = type(error).__qualname__

    def one_ended(self, outcome: Outcome) -> Outcome | None:
        """Note that one of the handlers has ended, with all its attempts; return how the job ends, if it was the last.

        Of those that end after giving up, none is.
        """
        self.left = left = self.left - 1
        if outcome is not HANDLED:
            before = self.outcome
            self.outcome = Outcome(outcome.failure or before.failure, outcome.finished and before.finished)
        if left:
            return None
        return self.outcome if self.began is None else self._end(self.outcome)

    def give_up(self) -> Outcome:
        """End as unfinished now, as not all of the handlers will be started; return how it ends."""
        self.left = -1
        return self._end(Outcome(finished=False, incomplete=True))

    def hand_back(self, *, finished: bool) -> Outcome:
        """Note that the program has taken the event by ``events()``, and finished it or not; return how it ends."""
        self.called(_PULLED, Handled.HANDLED if finished else Handled.CANCELLED, self.began or perf_counter())
        return self._end(HANDLED if finished else CANCELLED)

    def _end(self, outcome: Outcome) -> Outcome:
        """Tell the observer and the tracer, if it has begun, how it ends; return that."""
        if self.began is not None:
            if self.observer is not UNOBSERVED:
                error = None if outcome is HANDLED else self._error_of(outcome)
                self.observer.processed(self.subject, error, self.began)
            if self.trace is not None:
                self.trace.end(self._error_of(outcome))
        return outcome

    def _error_of(self, outcome: Outcome) -> str | None:
        if not outcome.finished:
            return asyncio.CancelledError.__qualname__
        return None if outcome.failure is None else self.error or outcome.failure.error


HandlerCall: TypeAlias = tuple[Handler, Job]
"""A handler that is to be called, or is being called, and the event or gap: a tuple, as there is one for each event."""
