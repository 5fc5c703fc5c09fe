"""The instruments of `jwt_events.metrics`: every series there is, with its name, labels and meaning."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from threading import Lock
from typing import Literal, TypeVar
from weakref import WeakKeyDictionary, WeakSet

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.metrics import MetricWrapperBase

from jwt_events.errors import InvalidOption
from jwt_events.events import EVENT_CLASSES, Event, UnknownEvent
from jwt_events.metrics._fast import Counter, Histogram, has_other_processes

_T = TypeVar("_T", bound=MetricWrapperBase)

# From a fifth of a millisecond, what one hop takes, to a minute, when something is surely wrong. No boundary is more
# than two and a half times the one before, which bounds the error of every quantile that is read off, be it fast or
# slow. One list for all durations, so that their graphs can be laid over one another.
SECONDS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60)

UNKNOWN = "unknown"
"""The type of every event whose type this version does not know: what is on the wire must not make new series."""

TYPES: Mapping[type[Event], str] = {cls: kind.value for kind, cls in EVENT_CLASSES.items()} | {UnknownEvent: UNKNOWN}
CAUSES = ("disconnected", "reconnected", "trimmed", "deleted", "rewound", "restarted")
_REASONS = ("too_large", "not_json", "duplicate_key", "not_an_envelope", "invalid_event")


class Instruments:
    """The instruments in one registry."""

    def __init__(self, make: _InstrumentFactory) -> None:
        self.published: Counter = make.counter(
            "published_total", "Events that were to be published.", "type", "transport", "outcome"
        )
        self.publish_duration: Histogram = make.histogram(
            "publish_duration_seconds", "How long a call of publish took."
        )
        self.received: Counter = make.counter(
            "received_total", "Deliveries that were events, duplicates included.", "type", "transport"
        )
        self.duplicates: Counter = make.counter(
            "duplicates_total", "Deliveries of events that had been there already.", "transport"
        )
        self.decode_errors: Counter = make.counter("decode_errors_total", "Deliveries that were no events.", "reason")
        self.handled: Counter = make.counter("handled_total", "Calls of handlers.", "type", "handler", "outcome")
        self.handler_duration: Histogram = make.histogram(
            "handler_duration_seconds", "How long a call of a handler took.", "type", "handler"
        )
        self.propagation: Histogram = make.histogram(
            "propagation_seconds", "From when an event occurred until all its handlers were done.", "type"
        )
        self.gaps: Counter = make.counter("gaps_total", "How often events may have been missed.", "transport", "cause")
        self.reconnects: Counter = make.counter(
            "reconnects_total", "Subscriptions that were lost and came back.", "transport"
        )
        self.dead_lettered: Counter = make.counter("dead_lettered_total", "Events that were given up.", "type")
        self.checks: Counter = make.counter("revocation_checks_total", "Answers of revocation lists.", "verdict")
        # What a process that is gone was doing, nobody does any more; so only live ones count in gauges.
        self.in_flight: _InFlight = _InFlight(
            make.gauge("in_flight", "Handlers that were started and have not ended.", mode="livesum")
        )
        # A check may go to any process, so the worst counts; each holds the same rules, so they are not added up.
        self.rules: Gauge = make.gauge("revocation_rules", "Rules that revocation lists hold.", "kind", mode="livemax")
        self.staleness: _Staleness = _Staleness(
            make.gauge(
                "staleness_seconds", "Age of the last proof that a view is current.", "destination", mode="livemax"
            )
        )
        _at_zero(self.dead_lettered, TYPES.values())
        _at_zero(self.decode_errors, _REASONS)


class _InstrumentFactory:
    """Makes instruments in a registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._made: list[MetricWrapperBase] = []

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        return self._make(name, lambda full: Counter(full, text, labels, registry=self._registry))

    def gauge(self, name: str, text: str, *labels: str, mode: Literal["livesum", "livemax"]) -> Gauge:
        return self._make(name, lambda full: Gauge(full, text, labels, registry=self._registry, multiprocess_mode=mode))

    def histogram(self, name: str, text: str, *labels: str) -> Histogram:
        return self._make(name, lambda full: Histogram(full, text, labels, registry=self._registry, buckets=SECONDS))

    def _make(self, name: str, make: Callable[[str], _T]) -> _T:
        full = f"jwt_events_{name}"
        try:
            instrument = make(full)
        except ValueError:  # the registry's way to say that the name is taken
            for made in self._made:
                self._registry.unregister(made)
            problem = f"has a metric {full} already, which is not of this library, or of another copy of it"
            raise InvalidOption("registry", problem) from None
        self._made.append(instrument)
        return instrument


def _at_zero(counter: Counter, values: Iterable[str]) -> None:
    """Begin to count with 0: a series that appears with a 1 has not increased, as far as Prometheus can see."""
    for value in values:
        counter.labels(value)


class _InFlight:
    """Adds up what the subscribers of this process are working on when it is scraped; writes it down for others."""

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._counts: WeakSet[InFlight] = WeakSet()
        gauge.set_function(lambda: sum(count.number for count in tuple(self._counts)))

    def count(self) -> InFlight:
        """Make the count of one subscriber."""
        made = _WrittenInFlight(self._gauge) if has_other_processes() else InFlight()
        self._counts.add(made)
        return made


class InFlight:
    """How many handlers of one subscriber are running."""

    number: int = 0

    def set(self, number: int) -> None:
        """Say how many there are now."""
        self.number = number


class _WrittenInFlight(InFlight):
    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge

    def set(self, number: int) -> None:
        self._gauge.inc(number - self.number)
        self.number = number


class _Staleness:
    """Tells the staleness of the stalest view of each destination.

    It is asked for when it is scraped, because a number that somebody has to bring up to date would look fresh for ever
    in a program that hangs. Other processes cannot ask, so for them it is written down as well.
    """

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._views: dict[str, list[Callable[[], float]]] = {}
        self._lock = Lock()

    def add(self, destination: str, staleness: Callable[[], float]) -> None:
        with self._lock:
            self._views.setdefault(destination, []).append(staleness)
            self._gauge.labels(destination).set_function(partial(self._worst, destination))

    def write(self, destination: str) -> None:
        self._gauge.labels(destination).set(self._worst(destination))

    def remove(self, destination: str, staleness: Callable[[], float]) -> None:
        with self._lock:
            views = self._views[destination]
            views.remove(staleness)
            if views:
                return
            if has_other_processes():  # series cannot be removed then
                self._gauge.labels(destination).set(0.0)
            else:
                self._gauge.remove(destination)

    def _worst(self, destination: str) -> float:
        return max([staleness() for staleness in tuple(self._views[destination])], default=0.0)


_known: WeakKeyDictionary[CollectorRegistry, Instruments] = WeakKeyDictionary()
_lock = Lock()


def instruments_for(registry: CollectorRegistry) -> Instruments:
    """Return the instruments in a registry, made when they are first asked for.

    Raises:
        InvalidOption: one of their names is taken.
    """
    with _lock:
        if registry not in _known:
            _known[registry] = Instruments(_InstrumentFactory(registry))
        return _known[registry]
