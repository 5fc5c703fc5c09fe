"""The handling of one event, and its outcome."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from jwt_events.events import Event
from jwt_events.instrumentation import UNOBSERVED, Handled, Observer
from jwt_events.tracing import Processing
from jwt_events.transport.base import Delivery, Failure, Gap

_NOTHING = nullcontext()

# The name of the handler where the program takes the events by ``events()``.
_PULLED = "events()"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of handling an event.

    Attributes:
        failure: why it was given up; ``None`` if no handler failed for good.
        finished: whether all handlers came to an end by themselves; otherwise some were cancelled.
        incomplete: whether some were not even started, because the subscriber was stopped.
    """

    failure: Failure | None = None
    finished: bool = True
    incomplete: bool = False


class CutOff(Failure):
    """A failure that is not the event's: the subscriber ends, and what the handler uses was closed before it."""


_HANDLED = Outcome()

# The job in whose handler this runs: in the handler itself, in a task that it started, or in its thread.
current_job: contextvars.ContextVar[Job | None] = contextvars.ContextVar("current_job", default=None)


class Job:
    """The handling of an event, or a gap, by all of its handlers.

    Args:
        subject: what the handlers are called with.
        handlers: how many there are.
        done: called once, with the job and its outcome, when all of them have ended.
        delivery: how the event was delivered; ``None`` for a gap.
        observer: is told what happens to an event.
        trace: makes the span; ``None`` without traces.

    Attributes:
        key: the ordering key; ``None`` for none.
        takes_room: whether its handlers count for the concurrency.
    """

    # There is one for each event: slots take half as long to read as attributes on the class.
    __slots__ = (
        "_began",
        "_done",
        "_error",
        "_left",
        "_observer",
        "_outcome",
        "attempt",
        "delivery",
        "key",
        "subject",
        "takes_room",
        "trace",
    )

    def __init__(
        self,
        subject: Event | Gap,
        handlers: int = 1,
        done: Callable[[Job, Outcome], None] = lambda *_: None,
        *,
        delivery: Delivery | None = None,
        observer: Observer = UNOBSERVED,
        trace: Processing | None = None,
    ) -> None:
        self.subject: Any = subject
        self.delivery: Delivery | None = delivery
        self.attempt: int = 1 if delivery is None else delivery.attempt
        """How often the event was delivered, this time included, to whichever consumer."""
        self.trace: Processing | None = trace
        self.key: Hashable = None
        self.takes_room = True
        self._began: float | None = None
        self._error: str | None = None
        self._outcome = _HANDLED
        self._observer = observer
        self._left = handlers
        self._done = done

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of log lines about it."""
        if isinstance(self.subject, Gap):
            return {"cause": self.subject.cause, "since": self.subject.since}
        return {"event_id": self.subject.id, "event_type": str(self.subject.type)[:100]}

    def begin(self) -> float:
        """Note that a handler is about to be called, perhaps again. Return when, by `time.perf_counter`."""
        now = perf_counter()
        if self._began is None:
            self._began = now
            if self.trace is not None:
                self.trace.begin()
        return now

    def active(self) -> AbstractContextManager[None]:
        """Begin, and return a context in which the span, if there is one, is the current one."""
        self.begin()
        return _NOTHING if self.trace is None else self.trace.active()

    def called(self, handler: str, outcome: Handled, began: float, error: BaseException | None = None) -> None:
        """Note that a call of a handler has ended."""
        if self._observer is not UNOBSERVED and self.delivery is not None:
            self._observer.called(self.subject, handler, outcome, perf_counter() - began)
        if error is not None:
            if self.trace is not None:
                self.trace.record(error, handler)
            if outcome is Handled.FAILED:
                self._error = type(error).__qualname__

    def one_ended(self, failure: Failure | None, *, finished: bool) -> None:
        """Note that one of the handlers has ended, with all its attempts.

        Args:
            failure: why it was given up, if it was.
            finished: whether it came to an end by itself.
        """
        self._left -= 1  # stays below zero after giving up
        if not finished:
            self._outcome = Outcome(self._outcome.failure, finished=False)
        elif failure is not None:
            self._outcome = Outcome(failure, finished=self._outcome.finished)
        if self._left == 0:
            self._end(self._outcome)

    def give_up(self) -> None:
        """End as unfinished now: not all of the handlers will be started."""
        self._left = -1
        self._end(Outcome(finished=False, incomplete=True))

    def hand_back(self, *, finished: bool) -> None:
        """Note that the program has taken the event by ``events()``, and finished it or not."""
        self.called(_PULLED, Handled.HANDLED if finished else Handled.CANCELLED, self._began or perf_counter())
        self._end(Outcome(finished=finished))

    def _end(self, outcome: Outcome) -> None:
        if self._began is not None and self.delivery is not None:
            if self._observer is not UNOBSERVED:
                error = None if outcome is _HANDLED else self._error_of(outcome)
                self._observer.processed(self.subject, error, perf_counter() - self._began)
            if self.trace is not None:
                self.trace.end(self._error_of(outcome))
        self._done(self, outcome)

    def _error_of(self, outcome: Outcome) -> str | None:
        if not outcome.finished:
            return asyncio.CancelledError.__qualname__
        return None if outcome.failure is None else self._error or outcome.failure.error
