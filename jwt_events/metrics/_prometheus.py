"""Observers that record what happens as Prometheus metrics.

Importing this module imports prometheus_client, which reads ``PROMETHEUS_MULTIPROC_DIR`` at that moment to choose
between one process and many; the rest of the library does not import it.

Source: https://prometheus.github.io/client_python/multiprocess/
"""

from __future__ import annotations

import math
from collections import Counter as Multiset
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import time
from typing import TypeVar

from prometheus_client import REGISTRY, CollectorRegistry

from jwt_events.errors import InvalidOption
from jwt_events.events import Event
from jwt_events.instrumentation import (
    Handled,
    KeysObserver,
    LookedUp,
    Observer,
    Polled,
    PollObserver,
    Published,
    SignalObserver,
    SignalOutcome,
    ViewObserver,
)
from jwt_events.metrics._fast import Counter, Histogram
from jwt_events.metrics._instruments import (
    CAUSES,
    TYPES,
    Instruments,
    KeyInstruments,
    SignalInstruments,
    instruments_for,
    remove_series,
)
from jwt_events.transport.base import Backlog


class Metrics:
    """Prometheus metrics. Pass one instance as ``metrics`` to all parts of a program.

    ::

        metrics = Metrics()
        publisher = Publisher(transport, metrics=metrics)

    The instruments exist once in each registry: several ``Metrics`` on the same registry share them. If
    ``PROMETHEUS_MULTIPROC_DIR`` is set before the first import of this module or of prometheus_client, the values cover
    all processes: counters and ``in_flight`` are summed, ``staleness_seconds`` and ``revocation_rules`` are the maximum
    over live processes. Call prometheus_client's ``mark_process_dead`` for each worker that ended, and serve a separate
    registry with a ``MultiProcessCollector``.

    Args:
        registry: a ``prometheus_client.CollectorRegistry``; ``None`` means the default one of prometheus_client.

    Raises:
        InvalidOption: it is not a registry, or it holds a metric with one of these names that this library did not
            create.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        if registry is not None and not isinstance(registry, CollectorRegistry):
            raise InvalidOption("registry", f"must be a CollectorRegistry, not {type(registry).__name__}")
        self._instruments = instruments_for(REGISTRY if registry is None else registry)

    def publishing(self, transport: str) -> Observer:
        """Return an observer for a publisher; see `Instrumentation.publishing`."""
        return _Publishing(self._instruments, transport)

    def subscribing(self, transport: str) -> Observer:
        """Return an observer for a subscriber; see `Instrumentation.subscribing`."""
        return _Subscribing(self._instruments, transport)

    def view(self, transport: str, destination: str, *, staleness: Callable[[], float]) -> ViewObserver:
        """Return an observer for a view; see `Instrumentation.view`."""
        return _Viewing(self._instruments, transport, destination, staleness)

    def keys(self, issuer: str) -> KeysObserver:
        """Return an observer for the signing keys of an issuer; see `Instrumentation.keys`."""
        return _Keys(self._instruments.keys, issuer)

    def signals(self, source: str) -> SignalObserver:
        """Return an observer for the signals of an issuer; see `Instrumentation.signals`."""
        return _Signals(self._instruments.signals, source)

    def polling(self, source: str, *, staleness: Callable[[], float]) -> PollObserver:
        """Return an observer for a poller of the signals of an issuer; see `Instrumentation.polling`."""
        return _Polling(self._instruments.signals, source, staleness)


_HANDLED = Handled.HANDLED  # the attribute lookup costs more than the increment

# Up to this number of events, one increment for each takes no longer than grouping them first.
_MAX_SINGLE_INCREMENTS = 16


def _count(events: Sequence[Event], counters: Mapping[type[Event], Counter]) -> None:
    """Increment the counters of the events' classes."""
    if len(events) <= _MAX_SINGLE_INCREMENTS:
        for event in events:
            counters[type(event)].increment()
    else:
        for cls, count in Multiset(map(type, events)).items():
            counters[cls].inc(count)


# Each observer looks up its series once, because the lookup costs more than the increment.


class _Publishing(Observer):
    """Records the metrics of one publisher."""

    def __init__(self, instruments: Instruments, transport: str) -> None:
        self._duration = instruments.publish_duration
        self._republished = instruments.republished.labels(transport)
        self._published = {
            cls: {outcome: instruments.published.labels(kind, transport, outcome.value) for outcome in Published}
            for cls, kind in TYPES.items()
        }
        self._accepted = {cls: counters[Published.PUBLISHED] for cls, counters in self._published.items()}
        self._ledger = instruments.ledger

    def published(self, accepted: Sequence[Event], rest: Sequence[Event], outcome: Published, seconds: float) -> None:
        self._duration.observe(seconds)
        _count(accepted, self._accepted)
        if rest:
            _count(rest, {cls: counters[outcome] for cls, counters in self._published.items()})

    def republished(self, count: int) -> None:
        self._republished.inc(count)

    def refused(self, event: Event) -> None:
        self._published[type(event)][Published.REFUSED].inc()

    def ledger(self, behind: float, counts: Mapping[str, int], size: int | None) -> None:
        self._ledger.folded.set(behind)
        for kind, count in counts.items():
            self._ledger.rules.labels(kind).set(count)
        if size is not None:
            self._ledger.bytes.set(size)


class _Subscribing(Observer):
    """Records the metrics of one subscriber."""

    def __init__(self, instruments: Instruments, transport: str) -> None:
        self._instruments = instruments
        self._received = {cls: instruments.received.labels(kind, transport) for cls, kind in TYPES.items()}
        self._in_flight = instruments.in_flight.new_count()
        self._duplicates = instruments.duplicates.labels(transport)
        self._reconnects = instruments.reconnects.labels(transport)
        self._dropped = instruments.letters_dropped.labels(transport)
        self._gaps = partial(instruments.gaps.labels, transport)
        for cause in CAUSES:
            self._gaps(cause)
        self._handled = _HandledCalls(instruments)
        self._propagation = _Propagation(instruments)
        self._since_flush = 0
        self._backlog: Backlog | None = None

    def received(self, events: Sequence[Event]) -> None:
        _count(events, self._received)
        self._since_flush += len(events)
        if self._since_flush >= Histogram.MAX_PENDING:
            self._flush_histograms()

    def _flush_histograms(self) -> None:
        self._since_flush = 0
        for propagation in self._propagation.histograms:
            propagation.flush()
        for duration in self._handled.histograms:
            duration.flush()

    def duplicate(self, event: Event) -> None:
        self._duplicates.inc()

    def decode_error(self, reason: str) -> None:
        self._instruments.decode_errors.labels(reason).inc()

    def gap(self, cause: str) -> None:
        self._gaps(cause).inc()

    def reconnected(self) -> None:
        self._reconnects.inc()

    def proof_refused(self, reason: str) -> None:
        self._instruments.proofs_refused.labels(reason).inc()

    def in_flight(self, number: int) -> None:
        self._in_flight.set(number)

    def called(self, event: Event, handler: str, outcome: Handled, seconds: float) -> None:
        increment, add_duration = self._handled[type(event), handler]
        if outcome is not _HANDLED:
            increment = self._instruments.handled.labels(TYPES[type(event)], handler, outcome.value).increment
        increment()
        add_duration(seconds)

    def processed(self, event: Event, error: str | None, began: float) -> None:
        if error is None:
            self._propagation[type(event)](time() - event.occurred_at.timestamp())

    def dead_lettered(self, event: Event) -> None:
        self._instruments.dead_lettered.labels(TYPES[type(event)]).inc()

    def dead_letters_dropped(self, count: int) -> None:
        self._dropped.inc(count)

    def backlog(self, backlog: Backlog) -> None:
        labels = backlog.destination, backlog.group
        self._instruments.lag.labels(*labels).set(math.nan if backlog.lag is None else backlog.lag)
        self._instruments.pending.labels(*labels).set(backlog.pending)
        self._backlog = backlog

    def unsubscribed(self) -> None:
        backlog, self._backlog = self._backlog, None
        if backlog is not None:
            for gauge in (self._instruments.lag, self._instruments.pending):
                remove_series(gauge, backlog.destination, backlog.group)


_Key = TypeVar("_Key")
_Found = TypeVar("_Found")


class _Series(dict[_Key, _Found]):
    """Series by what they are about, each looked up once.

    Attributes:
        histograms: those that have observed something.
    """

    def __init__(self, instruments: Instruments) -> None:
        super().__init__()
        self._instruments = instruments
        self.histograms: list[Histogram] = []


class _HandledCalls(_Series[tuple[type[Event], str], tuple[Callable[[], object], Callable[[float], object]]]):
    """For each type of event and handler, what counts a call that succeeded, and what observes how long one took."""

    def __missing__(self, key: tuple[type[Event], str]) -> tuple[Callable[[], object], Callable[[float], object]]:
        kind, handler = TYPES[key[0]], key[1]
        counters = {outcome: self._instruments.handled.labels(kind, handler, outcome.value) for outcome in Handled}
        duration = self._instruments.handler_duration.labels(kind, handler)
        self.histograms.append(duration)
        found = self[key] = counters[_HANDLED].increment, duration.add
        return found


class _Propagation(_Series[type[Event], Callable[[float], object]]):
    """For each type of event, what observes its age: negative if the clock of the publisher's machine is ahead."""

    def __missing__(self, cls: type[Event]) -> Callable[[float], object]:
        histogram = self._instruments.propagation.labels(TYPES[cls])
        self.histograms.append(histogram)
        add = self[cls] = histogram.add
        return add


class _Viewing(_Subscribing, ViewObserver):
    """Records the metrics of one view."""

    def __init__(
        self, instruments: Instruments, transport: str, destination: str, staleness: Callable[[], float]
    ) -> None:
        super().__init__(instruments, transport)
        self._destination = destination
        self._staleness = staleness
        self._rules: dict[str, int] = {}
        self._closed = False
        self._regions: dict[str, Callable[[], float]] = {}
        instruments.staleness.add(destination, staleness)

    def region(self, region: str, *, staleness: Callable[[], float]) -> None:
        self._regions[region] = staleness
        self._instruments.regions.staleness.add(region, staleness)
        self._instruments.regions.cut_off.labels(region)

    def region_cut_off(self, region: str) -> None:
        self._instruments.regions.cut_off.labels(region).inc()

    def applied(self, event: Event) -> None:
        self._propagation[type(event)](time() - event.occurred_at.timestamp())

    def caught_up(self, cls: type[Event], count: int) -> None:
        self._received[cls].inc(count)

    def checked(self, verdict: str, number: int) -> None:
        self._instruments.checks.labels(verdict).inc(number)

    def rules(self, kind: str, number: int) -> None:
        # By the difference, because several views in a process share the gauge.
        self._instruments.rules.labels(kind).inc(number - self._rules.get(kind, 0))
        self._rules[kind] = number

    def refresh(self) -> None:
        self._instruments.staleness.write(self._destination)
        for region in self._regions:
            self._instruments.regions.staleness.write(region)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for kind in self._rules:
            self.rules(kind, 0)
        self._instruments.staleness.remove(self._destination, self._staleness)
        for region, staleness in self._regions.items():
            self._instruments.regions.staleness.remove(region, staleness)


class _Keys(KeysObserver):
    """Records the metrics of one issuer's signing keys."""

    def __init__(self, instruments: KeyInstruments, issuer: str) -> None:
        self._fetched_at = instruments.fetched_at.labels(issuer)
        self._succeeded = instruments.fetches.labels(issuer, "succeeded")
        self._failed = instruments.fetches.labels(issuer, "failed")
        self._lookups = {outcome: instruments.lookups.labels(issuer, outcome.value) for outcome in LookedUp}

    def fetched(self, *, succeeded: bool) -> None:
        if succeeded:
            self._succeeded.increment()
            self._fetched_at.set_to_current_time()
        else:
            self._failed.increment()

    def looked_up(self, outcome: LookedUp) -> None:
        self._lookups[outcome].increment()


class _Signals(SignalObserver):
    """Records the metrics of the signals of one issuer."""

    def __init__(self, instruments: SignalInstruments, source: str) -> None:
        self._received = partial(instruments.received.labels, source)
        self._age = instruments.age.labels(source)

    def received(self, kind: str, outcome: SignalOutcome) -> None:
        self._received(kind, outcome.value).inc()

    def in_force(self, seconds: float) -> None:
        self._age.observe(seconds)


class _Polling(PollObserver):
    """Records the metrics of one poller."""

    def __init__(self, instruments: SignalInstruments, source: str, staleness: Callable[[], float]) -> None:
        self._polls = {outcome: instruments.polls.labels(source, outcome.value) for outcome in Polled}
        self._gauge = instruments.staleness
        self._source = source
        self._staleness = staleness
        self._closed = False
        self._gauge.add(source, staleness)

    def polled(self, outcome: Polled) -> None:
        self._polls[outcome].inc()

    def refresh(self) -> None:
        self._gauge.write(self._source)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._gauge.remove(self._source, self._staleness)
