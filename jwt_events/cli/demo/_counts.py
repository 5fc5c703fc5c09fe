"""What the processes of the demo count."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import datetime

from jwt_events.cli.demo._messages import Order, Report
from jwt_events.cli.demo._mix import remark_on
from jwt_events.events import Event, fingerprint


class Latencies(Counter[float]):
    """How many events took how many milliseconds. Kept with three digits, so that millions of them stay small."""

    def note(self, milliseconds: float) -> float:
        """Count one, and return it as it is kept."""
        kept = float(f"{max(milliseconds, 0.0):.3g}")
        self[kept] += 1
        return kept

    def percentile(self, percent: float) -> float | None:
        """Return the smallest value that so many percent of all do not exceed; ``None`` if there are none."""
        needed = self.total() * percent / 100
        for value, number in sorted(self.items()):
            needed -= number
            if needed <= 0:
                return value
        return None


class Counters:
    """What a subscriber has handled."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._latencies = Latencies()
        self._latest: float | None = None

    def add(self, event: Event, now: datetime) -> None:
        """Count an event, once."""
        if event.id not in self._ids:
            self._ids.add(event.id)
            self._latest = self._latencies.note((now - event.occurred_at).total_seconds() * 1_000)

    def report(self) -> Report:
        """Say how far it has come."""
        return Report(count=len(self._ids), latency_ms=self._latest)

    def final_report(self) -> Report:
        """Say everything."""
        return replace(self.report(), final=True, latencies=tuple(self._latencies.items()))


class Pace:
    """The publisher's progress: which event is next, and when it is due."""

    def __init__(self, order: Order) -> None:
        self._numbers = iter(range(order.events))
        self._interval = 1 / order.rate if order.rate else 0.0
        self._count = 0
        self._recent: Event | None = None

    def next_due(self) -> tuple[int, float] | None:
        """Return the next event's number and when it is due, in seconds after the first; ``None`` after the last."""
        number = next(self._numbers, None)
        return None if number is None else (number, number * self._interval)

    def add(self, event: Event) -> None:
        """Count a published event."""
        self._count += 1
        self._recent = event

    def report(self, *, final: bool = False) -> Report:
        """Say how far it has come."""
        event, self._recent = self._recent, None
        recent = (event.type, fingerprint(event.subject or event.id), remark_on(event)) if event else None
        return Report(count=self._count, recent=recent, final=final)
