"""Definitions of all Prometheus metrics of this library: name, labels and help text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from threading import Lock
from typing import Literal, TypeVar
from weakref import WeakKeyDictionary, WeakSet

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.metrics import MetricWrapperBase

from jwt_events.errors import InvalidOption
from jwt_events.events import EVENT_CLASSES, Event, UnknownEvent
from jwt_events.metrics._fast import Counter, Histogram, is_multiprocess

_T = TypeVar("_T", bound=MetricWrapperBase)

# Buckets from 0.2 ms, the duration of one hop, to 60 s, which always indicates a fault. No boundary is more than 2.5
# times the previous one, which bounds the error of every quantile estimate. All durations share the same buckets, so
# that their graphs can be compared.
SECONDS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60)

UNKNOWN = "unknown"
"""Label value for event types that this version does not know: values on the wire must not create new series."""

TYPES: Mapping[type[Event], str] = {cls: kind.value for kind, cls in EVENT_CLASSES.items()} | {UnknownEvent: UNKNOWN}
CAUSES = ("disconnected", "reconnected", "trimmed", "deleted", "rewound", "restarted", "unproven_history")
_DOUBTS = (
    "replica",
    "unknown_role",
    "few_replicas",
    "few_sentinels",
    "other_primary",
    "called_down",
    "failing_over",
    "other_owner",
    "cluster_down",
    "few_primaries",
    "refused",
)
_REASONS = ("too_large", "not_json", "duplicate_key", "not_an_envelope", "invalid_event")


class Instruments:
    """The instruments in one registry."""

    def __init__(self, make: _InstrumentFactory) -> None:
        self.published: Counter = make.counter(
            "published_total", "Events passed to publish, by outcome.", "type", "transport", "outcome"
        )
        self.publish_duration: Histogram = make.histogram("publish_duration_seconds", "Duration of a call of publish.")
        self.received: Counter = make.counter(
            "received_total", "Deliveries that were events, including duplicates.", "type", "transport"
        )
        self.duplicates: Counter = make.counter(
            "duplicates_total", "Deliveries of events that had been received before.", "transport"
        )
        self.decode_errors: Counter = make.counter("decode_errors_total", "Deliveries that were not events.", "reason")
        self.handled: Counter = make.counter("handled_total", "Calls of handlers.", "type", "handler", "outcome")
        self.handler_duration: Histogram = make.histogram(
            "handler_duration_seconds", "Duration of a call of a handler.", "type", "handler"
        )
        self.propagation: Histogram = make.histogram(
            "propagation_seconds", "Time from when an event occurred until all its handlers had succeeded.", "type"
        )
        self.gaps: Counter = make.counter("gaps_total", "Times that events may have been missed.", "transport", "cause")
        self.reconnects: Counter = make.counter("reconnects_total", "Subscriptions lost and restored.", "transport")
        self.dead_lettered, self.letters_dropped = _dead_letters(make)
        self.checks: Counter = make.counter("revocation_checks_total", "Checks of tokens, by verdict.", "verdict")
        self.signals, self.regions = SignalInstruments(make), RegionInstruments(make)
        # Handlers of a process that has ended do not run any more, so gauges include live processes only.
        self.in_flight: _InFlight = _InFlight(
            make.gauge("in_flight", "Handlers that were started and have not ended.", mode="livesum")
        )
        # Every process holds the same rules and any of them may check a token, so the maximum is reported, not the sum.
        self.rules: Gauge = make.gauge("revocation_rules", "Rules in the revocation lists.", "kind", mode="livemax")
        self.staleness: _Staleness = _Staleness(
            make.gauge(
                "staleness_seconds", "Age of the last proof that a view is current.", "destination", mode="livemax"
            )
        )
        self.lag, self.pending = _groups(make)
        self.keys, self.ledger = KeyInstruments(make), LedgerInstruments(make)
        self.proofs_refused, self.republished = _failovers(make)
        _create_at_zero(self.decode_errors, _REASONS)


class LedgerInstruments:
    """The instruments about the ledger of a stream. Every publisher sees the same one, so the maximum is reported."""

    def __init__(self, make: _InstrumentFactory) -> None:
        self.rules: Gauge = make.gauge(
            "ledger_rules", "Rules in the ledger: ending, endless, or about a key.", "kind", mode="livemax"
        )
        self.bytes: Gauge = make.gauge("ledger_bytes", "Memory of the server that the ledger takes.", mode="livemax")
        self.folded: Gauge = make.gauge(
            "ledger_folded_seconds",
            "Time by which folding is behind, or for which it fails.",
            mode="livemax",
        )


class RegionInstruments:
    """The instruments about the regions of a list."""

    def __init__(self, make: _InstrumentFactory) -> None:
        self.cut_off: Counter = make.counter(
            "regions_cut_off_total", "Times that a region proved nothing for longer than max_staleness.", "region"
        )
        self.staleness: _Staleness = _Staleness(
            make.gauge("region_staleness_seconds", "Age of the last proof of a region.", "region", mode="livemax")
        )


class KeyInstruments:
    """The instruments about issuers' signing keys."""

    def __init__(self, make: _InstrumentFactory) -> None:
        self.fetches: Counter = make.counter(
            "signing_key_fetches_total", "Fetches of an issuer's signing keys, by outcome.", "issuer", "outcome"
        )
        self.lookups: Counter = make.counter(
            "signing_key_lookups_total", "Signing keys that were asked for, by outcome.", "issuer", "outcome"
        )
        # An instant, not an age: it goes on growing old in a program that hangs, and for a scrape of other processes.
        self.fetched_at: Gauge = make.gauge(
            "signing_keys_fetched_timestamp_seconds",
            "Unix time of the last successful fetch of an issuer's signing keys.",
            "issuer",
            mode="livemin",
        )


class SignalInstruments:
    """The instruments about signals of other systems."""

    def __init__(self, make: _InstrumentFactory) -> None:
        self.received: Counter = make.counter(
            "signals_received_total", "Signals of other systems, by outcome.", "source", "kind", "outcome"
        )
        self.age: Histogram = make.histogram(
            "signal_age_seconds", "Time from when a signal's event occurred until it was published.", "source"
        )
        self.polls: Counter = make.counter("signal_polls_total", "Polls for signals, by outcome.", "source", "outcome")
        self.staleness: _Staleness = _Staleness(
            make.gauge(
                "signal_staleness_seconds",
                "Age of the last proof that a stream of signals is alive.",
                "source",
                mode="livemax",
            )
        )


class _InstrumentFactory:
    """Creates instruments in a registry; unregisters them all if one of the names is taken."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._created: list[MetricWrapperBase] = []

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        return self._make(name, lambda full: Counter(full, text, labels, registry=self._registry))

    def gauge(self, name: str, text: str, *labels: str, mode: Literal["livesum", "livemax", "livemin"]) -> Gauge:
        return self._make(name, lambda full: Gauge(full, text, labels, registry=self._registry, multiprocess_mode=mode))

    def histogram(self, name: str, text: str, *labels: str) -> Histogram:
        return self._make(name, lambda full: Histogram(full, text, labels, registry=self._registry, buckets=SECONDS))

    def _make(self, name: str, make: Callable[[str], _T]) -> _T:
        full = f"jwt_events_{name}"
        try:
            instrument = make(full)
        except ValueError:  # raised by the registry if the name is taken
            for created in self._created:
                self._registry.unregister(created)
            problem = f"has a metric {full} already, which is not of this library, or of another copy of it"
            raise InvalidOption("registry", problem) from None
        self._created.append(instrument)
        return instrument


def _groups(make: _InstrumentFactory) -> tuple[Gauge, Gauge]:
    """Create the instruments of consumer groups, about each of which all processes that receive know the same."""
    lag = "Events not yet delivered to a consumer group; NaN if the server does not know."
    pending = "Events delivered to a consumer group and not acknowledged."
    return (
        make.gauge("group_lag", lag, "destination", "group", mode="livemax"),
        make.gauge("group_pending", pending, "destination", "group", mode="livemax"),
    )


def _dead_letters(make: _InstrumentFactory) -> tuple[Counter, Counter]:
    """Create the instruments of dead letters: events that were given up, and those of them that were not kept."""
    given_up = make.counter("dead_lettered_total", "Events that were dead-lettered.", "type")
    _create_at_zero(given_up, TYPES.values())
    text = "Dead letters that were dropped, as the server did not take them."
    return given_up, make.counter("dead_letters_dropped_total", text, "transport")


def _failovers(make: _InstrumentFactory) -> tuple[Counter, Counter]:
    """Create the instruments of failovers: answers that prove nothing, and events that were published again."""
    text = "Answers of a server that prove nothing, as it may be no primary any more."
    refused = make.counter("proof_refused_total", text, "reason")
    _create_at_zero(refused, _DOUBTS)
    text = "Events that were published again, as another server had taken over."
    return refused, make.counter("republished_total", text, "transport")


def _create_at_zero(counter: Counter, values: Iterable[str]) -> None:
    """Create the series with value 0: for Prometheus, a series that first appears with value 1 has not increased."""
    for value in values:
        counter.labels(value)


def remove_series(gauge: Gauge, *labels: str) -> None:
    """Remove a series; in multiprocess mode, which does not support that, set it to 0."""
    if is_multiprocess():
        gauge.labels(*labels).set(0.0)
    else:
        with suppress(KeyError):  # another part of the program has removed it
            gauge.remove(*labels)


class _InFlight:
    """Sums the running handlers of this process's subscribers on scrape, or writes them to the multiprocess file."""

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._counts: WeakSet[InFlight] = WeakSet()
        gauge.set_function(lambda: sum(count.value for count in tuple(self._counts)))

    def new_count(self) -> InFlight:
        """Create the count of one subscriber."""
        created = _WrittenInFlight(self._gauge) if is_multiprocess() else InFlight()
        self._counts.add(created)
        return created


class InFlight:
    """Number of running handlers of one subscriber."""

    value: int = 0

    def set(self, value: int) -> None:
        """Set the current number."""
        self.value = value


class _WrittenInFlight(InFlight):
    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge

    def set(self, value: int) -> None:
        self._gauge.inc(value - self.value)
        self.value = value


class _Staleness:
    """Reports the staleness of the stalest view of each destination.

    It is computed on scrape, because a stored value would look fresh forever in a program that hangs. In multiprocess
    mode the scrape happens in another process, so the value is also written to the file.
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
            remove_series(self._gauge, destination)

    def _worst(self, destination: str) -> float:
        return max([staleness() for staleness in tuple(self._views[destination])], default=0.0)


_by_registry: WeakKeyDictionary[CollectorRegistry, Instruments] = WeakKeyDictionary()
_lock = Lock()


def instruments_for(registry: CollectorRegistry) -> Instruments:
    """Return the instruments in a registry; create them on the first call.

    Raises:
        InvalidOption: one of their names is taken.
    """
    with _lock:
        if registry not in _by_registry:
            _by_registry[registry] = Instruments(_InstrumentFactory(registry))
        return _by_registry[registry]
