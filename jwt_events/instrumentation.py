"""What an operator sees: an `Observer` is told of everything that happens to the events of a publisher or subscriber.

Metrics and traces derive from `Observer`. A component holds one observer, made by `combine` of those that there are,
and knows nothing of Prometheus or OpenTelemetry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

from jwt_events.errors import InvalidOption
from jwt_events.events import Event
from jwt_events.transport.base import Backlog


class Published(StrEnum):
    """Outcome of publishing an event."""

    PUBLISHED = "published"
    FAILED = "failed"
    """Surely not published."""
    UNKNOWN = "unknown"
    """Sent, and not confirmed."""
    REFUSED = "refused"
    """Not valid; nothing was sent."""


class Handled(StrEnum):
    """Outcome of one call of a handler."""

    HANDLED = "handled"
    RETRIED = "retried"
    """Failed, and will be called again."""
    FAILED = "failed"
    """Failed for good."""
    CANCELLED = "cancelled"


class SignalOutcome(StrEnum):
    """What became of a signal of another system."""

    PUBLISHED = "published"
    IGNORED = "ignored"
    """Accepted, and about nothing that is published."""
    REFUSED = "refused"
    FAILED = "failed"
    """Valid as far as known, and not published; the sender is told to send it again."""


class Polled(StrEnum):
    """Outcome of one poll of a transmitter."""

    ANSWERED = "answered"
    REFUSED = "refused"
    """The transmitter refused it."""
    FAILED = "failed"
    """There was no answer, or one that is no use."""


class Observer:
    """Receives a call for each thing that happens to the events of one publisher or subscriber.

    Override the methods of interest. None may raise or block. Each is called on the event loop of the component.
    """

    def published(self, accepted: Sequence[Event], rest: Sequence[Event], outcome: Published, seconds: float) -> None:
        """A call of publish has ended.

        Args:
            accepted: the events that the server confirmed.
            rest: the events that it did not confirm.
            outcome: what became of the rest.
            seconds: duration of the call, with all attempts and pauses.
        """

    def republished(self, count: int) -> None:
        """Events were published again, because another server has taken over."""

    def refused(self, event: Event) -> None:
        """An event was not valid, and was not sent."""

    def ledger(self, behind: float, counts: Mapping[str, int], size: int | None) -> None:
        """A publisher looked after the ledger of its stream, or tried to.

        Args:
            behind: seconds by which folding is behind, or since it fails.
            counts: how many rules there are of a kind; empty if that is not known.
            size: the bytes that the ledger takes; ``None`` if that is not known.
        """

    def received(self, events: Sequence[Event]) -> None:
        """Events were delivered, for the first time or again. Called once for many."""

    def duplicate(self, event: Event) -> None:
        """An event was received again."""

    def decode_error(self, reason: str) -> None:
        """A delivery was not an event; the reason is that of `DecodeError`."""

    def gap(self, cause: str) -> None:
        """Events may have been missed; the cause is that of `Gap`."""

    def reconnected(self) -> None:
        """A subscription that was lost was renewed."""

    def proof_refused(self, reason: str) -> None:
        """What the server said proves nothing; the reason is that of `NotProven`, or ``refused`` for an error reply."""

    def in_flight(self, count: int) -> None:
        """The number of handlers that were started and have not ended. Called when one first waits, and at its end."""

    def called(self, event: Event, handler: str, outcome: Handled, seconds: float) -> None:
        """One call of a handler has ended."""

    def processed(self, event: Event, error: str | None, began: float) -> None:
        """All handlers of an event have ended.

        Args:
            event: the event.
            error: the class of the error that one of them failed with for good; ``None`` if all succeeded.
            began: when the first of them was called, by `time.perf_counter`.
        """

    def dead_lettered(self, event: Event) -> None:
        """An event was given up."""

    def dead_letters_dropped(self, count: int) -> None:
        """The server did not take dead letters, and they were dropped."""

    def backlog(self, backlog: Backlog) -> None:
        """So far is the subscriber's group behind. Called now and then, never for each event."""

    def unsubscribed(self) -> None:
        """The subscription has ended."""


class ViewObserver(Observer):
    """Receives, besides, what happens in a view: a local replica of what the events say."""

    def applied(self, event: Event) -> None:
        """An event is in force in the view. For events as they happen, not for history that is read again."""

    def caught_up(self, cls: type[Event], count: int) -> None:
        """``count`` events of a class were received, and are in force: history, of which no event was made."""

    def checked(self, verdict: str, count: int) -> None:
        """The view was asked ``count`` times more, and gave this verdict."""

    def rules(self, kind: str, count: int) -> None:
        """The view now holds ``count`` rules of this kind."""

    def region(self, region: str, *, staleness: Callable[[], float]) -> None:
        """The view is fed from this region, among others.

        Args:
            region: its name.
            staleness: returns the age of its last proof, in seconds; may be called from any thread.
        """

    def region_cut_off(self, region: str) -> None:
        """A region has proven nothing for longer than a proof is good."""

    def refresh(self) -> None:
        """Time has passed: update what ages by itself. Called about once a second."""

    def close(self) -> None:
        """The view was closed. Idempotent."""


class LookedUp(StrEnum):
    """Outcome of looking up a signing key."""

    FOUND = "found"
    UNKNOWN = "unknown"
    """The issuer does not list it."""
    RETIRED = "retired"
    COMPROMISED = "compromised"
    UNAVAILABLE = "unavailable"
    """The keys could not be fetched."""


class KeysObserver:
    """Receives a call for each thing that happens to an issuer's signing keys. None may raise or block."""

    def fetched(self, *, succeeded: bool) -> None:
        """A fetch of the keys has ended."""

    def looked_up(self, outcome: LookedUp) -> None:
        """A caller got a key, or was refused."""


class SignalObserver:
    """Receives what happens to the signals of one issuer. Override the methods of interest; none may raise or block."""

    def received(self, kind: str, outcome: SignalOutcome) -> None:
        """A signal was received; the kind is a word of a fixed set."""

    def in_force(self, seconds: float) -> None:
        """An event of a signal was published, this long after it occurred."""


class PollObserver:
    """Receives what happens to a poller of signals. Override the methods of interest; none may raise or block."""

    def polled(self, outcome: Polled) -> None:
        """A poll has ended."""

    def refresh(self) -> None:
        """Time has passed: update what ages by itself. Called about once a second."""

    def close(self) -> None:
        """The poller was closed. Idempotent."""


UNOBSERVED = Observer()
"""Observes nothing: what a component holds that has neither metrics nor traces."""


class _CompositeObserver(Observer):
    """Passes each call on to those of its observers that override the method."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        for name, base in vars(Observer).items():
            if not name.startswith("_"):
                overriding = [observer for observer in observers if getattr(type(observer), name) is not base]
                methods = [getattr(observer, name) for observer in overriding]
                if methods:
                    setattr(self, name, methods[0] if len(methods) == 1 else _call_all(methods))


def _call_all(methods: Sequence[Callable[..., None]]) -> Callable[..., None]:
    def call(*arguments: Any) -> None:
        for method in methods:
            method(*arguments)

    return call


def combine(*observers: Observer | None) -> Observer:
    """Return one observer that stands for all of these; ``None`` stands for no observer."""
    present = [observer for observer in observers if observer is not None]
    if not present:
        return UNOBSERVED
    return present[0] if len(present) == 1 else _CompositeObserver(present)


@runtime_checkable
class Instrumentation(Protocol):
    """Makes observers, as `jwt_events.metrics.Metrics` does."""

    def publishing(self, transport: str) -> Observer:
        """Make an observer for a publisher on a kind of transport."""
        ...

    def subscribing(self, transport: str) -> Observer:
        """Make an observer for a subscriber on a kind of transport."""
        ...

    def view(self, transport: str, destination: str, *, staleness: Callable[[], float]) -> ViewObserver:
        """Make an observer for a view.

        Args:
            transport: the kind of transport.
            destination: the channel or key that it is fed from.
            staleness: returns the age of the last proof that the view is current, in seconds; may be called from any
                thread.
        """
        ...

    def keys(self, issuer: str) -> KeysObserver:
        """Make an observer for the signing keys of an issuer; its name may be empty."""
        ...

    def signals(self, source: str) -> SignalObserver:
        """Make an observer for the signals of an issuer."""
        ...

    def polling(self, source: str, *, staleness: Callable[[], float]) -> PollObserver:
        """Make an observer for a poller of the signals of an issuer.

        Args:
            source: the issuer.
            staleness: returns the age of the last proof that the stream is alive, in seconds; may be called from any
                thread.
        """
        ...


def instrumentation(metrics: object) -> Instrumentation | None:
    """Validate the ``metrics`` option of a component.

    Raises:
        InvalidOption: it is neither a `Metrics` nor ``None``.
    """
    if metrics is None:
        return None
    if isinstance(metrics, type) or not isinstance(metrics, Instrumentation):
        raise InvalidOption("metrics", "must be a jwt_events.metrics.Metrics")
    return metrics
