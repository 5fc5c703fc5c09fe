"""What an operator sees, as the parts tell it: a method for each thing that happens, called once when it does.

Who counts (`jwt_events.metrics`, `jwt_events.tracing`) derives from `Observer`. The parts hold a tuple of observers,
which is empty when nobody looks, and know nothing of Prometheus.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Protocol, runtime_checkable

from jwt_events.errors import InvalidOption
from jwt_events.events import Event


class Published(StrEnum):
    """What became of an event that was to be published."""

    PUBLISHED = "published"
    FAILED = "failed"
    """Surely not published."""
    UNKNOWN = "unknown"
    """Sent, and not answered."""
    REFUSED = "refused"
    """Not fit to be published; nothing was sent."""


class Handled(StrEnum):
    """What became of one call of a handler."""

    HANDLED = "handled"
    RETRIED = "retried"
    """Failed, and will be called again."""
    FAILED = "failed"
    """Failed for good."""
    CANCELLED = "cancelled"


class Observer:
    """Is told what happens to the events of one publisher or subscriber. Override what is of interest.

    No method may raise or block. Each is called in the event loop of the part that tells.
    """

    def published(self, accepted: Sequence[Event], rest: Sequence[Event], outcome: Published, seconds: float) -> None:
        """A call of publish has ended.

        Args:
            accepted: the events that the server confirmed.
            rest: those that it did not.
            outcome: what became of the rest.
            seconds: how long the call took, all tries and pauses included.
        """

    def refused(self, event: Event) -> None:
        """An event was not fit to be published."""

    def received(self, events: Sequence[Event]) -> None:
        """Events were delivered, each for the first time or once more. Told for many at once."""

    def duplicate(self, event: Event) -> None:
        """An event that was received had been there already."""

    def decode_error(self, reason: str) -> None:
        """A delivery was no event; the reason is that of `DecodeError`."""

    def gap(self, cause: str) -> None:
        """Something may have been missed; the cause is that of `Gap`."""

    def reconnected(self) -> None:
        """A subscription that was lost is there again."""

    def in_flight(self, number: int) -> None:
        """So many handlers were started and have not ended. Told when one begins to wait, and when one has ended."""

    def called(self, event: Event, handler: str, outcome: Handled, seconds: float) -> None:
        """One call of a handler has ended."""

    def processed(self, event: Event, error: str | None, seconds: float) -> None:
        """All handlers of an event have ended.

        Args:
            event: which one.
            error: the class of the error that one of them failed with for good; ``None`` if all succeeded.
            seconds: since the first of them was called.
        """

    def dead_lettered(self, event: Event) -> None:
        """An event was given up."""


Observers = tuple[Observer, ...]


class ViewObserver(Observer):
    """Is told, besides, how a view of the events is doing: a local copy of what they say, asked again and again."""

    def applied(self, event: Event) -> None:
        """An event is in force in the view. For events as they happen, not for history that is read again."""

    def checked(self, verdict: str, number: int) -> None:
        """The view was asked so many times more, and gave this answer."""

    def rules(self, kind: str, number: int) -> None:
        """The view now holds so many rules of this kind."""

    def refresh(self) -> None:
        """Time has passed: what ages by itself is due. Call it about once a second."""

    def close(self) -> None:
        """The view has ended. Idempotent."""


@runtime_checkable
class Instrumentation(Protocol):
    """Makes observers: a `jwt_events.metrics.Metrics`."""

    def publishing(self, transport: str) -> Observer:
        """Make one for a publisher on a kind of transport."""
        ...

    def subscribing(self, transport: str) -> Observer:
        """Make one for a subscriber on a kind of transport."""
        ...

    def view(self, transport: str, destination: str, *, staleness: Callable[[], float]) -> ViewObserver:
        """Make one for a view.

        Args:
            transport: the kind of transport.
            destination: the channel or key that it is fed from.
            staleness: returns the age of the last proof that the view is current, in seconds; may be called from any
                thread.
        """
        ...


def instrumentation(metrics: object) -> Instrumentation | None:
    """Accept what a part was given as ``metrics``.

    Raises:
        InvalidOption: it is neither a `Metrics` nor ``None``.
    """
    if metrics is None:
        return None
    if isinstance(metrics, type) or not isinstance(metrics, Instrumentation):
        raise InvalidOption("metrics", "must be a jwt_events.metrics.Metrics")
    return metrics
