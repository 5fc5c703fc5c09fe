"""The board: the state of a run as the processes have reported it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from jwt_events.cli.demo._messages import Issued, Latencies, Message, Rebuilt, Report, Responses, Revoked
from jwt_events.cli.demo._trial import Trial

# The feed scrolls no faster than a person can read.
_FEED_LINES, _FEED_INTERVAL = 6, 0.3


@dataclass(slots=True)
class Row:
    """One process.

    Attributes:
        name: its name.
        pid: its process id, once it runs.
        report: its last report; ``None`` until it is ready.
        exited: whether it has ended.
    """

    name: str
    pid: int | None = None
    report: Report | None = None
    exited: bool = False
    _samples: deque[tuple[float, int]] = field(default_factory=lambda: deque([(0.0, 0)]), repr=False)

    def add(self, report: Report, now: float) -> None:
        """Record a report that came at this moment."""
        self.report = report
        self._samples.append((now, report.count))
        while now - self._samples[0][0] > 1.0:
            self._samples.popleft()

    @property
    def count(self) -> int:
        """How many events it has published or handled."""
        return self.report.count if self.report else 0

    @property
    def latencies(self) -> Latencies:
        """Latencies from publish to handler; empty before the final report."""
        return Latencies(dict(self.report.latencies) if self.report else {})

    @property
    def finished(self) -> bool:
        """Whether no more reports will come."""
        return self.exited or (self.report is not None and self.report.final)

    @property
    def died(self) -> bool:
        """Whether it ended without a final report."""
        return self.exited and (self.report is None or not self.report.final)

    @property
    def rate(self) -> float:
        """Events per second, over the last second."""
        (began, first), (ended, last) = self._samples[0], self._samples[-1]
        return (last - first) / (ended - began) if ended > began else 0.0


@dataclass(slots=True)
class Board:
    """The state of a run as the processes have reported it.

    Attributes:
        events: how many will be published.
        issuer: the process that publishes them.
        services: the processes that handle them.
        server: the name and version of the server.
        phase: the step that the run is in.
        feed: the last few events, oldest first: ``(time, type, fingerprint, remark)``.
        issued: the tokens of the second act; empty before it.
        trial: what was observed in the second act; ``None`` before it.
    """

    events: int
    issuer: Row
    services: Sequence[Row]
    server: str = ""
    phase: str = "Looking for the server"
    feed: deque[tuple[str, ...]] = field(default_factory=lambda: deque(maxlen=_FEED_LINES))
    issued: Issued = field(default_factory=lambda: Issued((), ()))
    trial: Trial | None = None
    _fed: float = field(default=0.0, repr=False)

    @property
    def rows(self) -> list[Row]:
        """All processes."""
        return [self.issuer, *self.services]

    @property
    def published(self) -> int:
        """How many events are known to be published: what was handled was, even if its receipt is on its way."""
        return max(row.count for row in self.rows)

    @property
    def latencies(self) -> Latencies:
        """Latencies of all services together."""
        total = Latencies()
        for row in self.services:
            total.update(row.latencies)
        return total

    @property
    def lost(self) -> int:
        """How many events are missing, over all services."""
        return sum(self.lost_by(row) for row in self.services)

    @property
    def failed(self) -> bool:
        """Whether an event was lost, a revoked token let in too late, or a revoked token not refused."""
        return bool(self.lost or (self.trial is not None and (self.trial.stale_allows or self.trial.not_refused)))

    def lost_by(self, row: Row) -> int:
        """Return how many events a service is missing."""
        return max(self.issuer.count - row.count, 0)

    def requires(self, row: Row) -> bool:
        """Whether the run cannot go on without a process: in the first act it can do with fewer services."""
        takes_part = self.trial is not None and row.name in self.trial.services
        return row is self.issuer or row.report is None or takes_part

    def apply(self, row: Row, message: Message, now: float) -> None:
        """Apply a message that a process sent at this moment."""
        match message:
            case Report():
                self._apply_report(row, message, now)
            case Issued():
                self.issued = message
            case Revoked() if self.trial is not None:
                self.trial.add_revoked(message)
            case Rebuilt() if self.trial is not None:
                self.trial.add_rebuilt(row.name, message)
            case Responses() if self.trial is not None:
                self.trial.add_responses(row.name, message.given)

    def _apply_report(self, row: Row, report: Report, now: float) -> None:
        row.add(report, now)
        if report.recent and now - self._fed >= _FEED_INTERVAL:
            self._fed = now
            self.feed.append((f"{datetime.now().astimezone():%H:%M:%S.%f}"[:10], *report.recent))
