"""All that there is to see while the demo runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from jwt_events.cli.demo._messages import Answers, Issued, Latencies, Message, Renewed, Report, Revoked
from jwt_events.cli.demo._trial import Trial

# The feed scrolls no faster than a person can read.
_FEED_LINES, _FEED_INTERVAL = 6, 0.3


@dataclass(slots=True)
class Row:
    """One process.

    Attributes:
        name: what it is called.
        pid: its process id, once it runs.
        report: its last report; ``None`` until it is ready.
        gone: whether it has ended.
    """

    name: str
    pid: int | None = None
    report: Report | None = None
    gone: bool = False
    _samples: deque[tuple[float, int]] = field(default_factory=lambda: deque([(0.0, 0)]), repr=False)

    def add(self, report: Report, now: float) -> None:
        """Take note of a report that came at this moment."""
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
        """From publish to handler, once it is finished."""
        return Latencies(dict(self.report.latencies) if self.report else {})

    @property
    def finished(self) -> bool:
        """Whether nothing more is to come from it."""
        return self.gone or (self.report is not None and self.report.final)

    @property
    def died(self) -> bool:
        """Whether it ended without its last word."""
        return self.gone and (self.report is None or not self.report.final)

    @property
    def rate(self) -> float:
        """How many per second, over the last second."""
        (began, first), (ended, last) = self._samples[0], self._samples[-1]
        return (last - first) / (ended - began) if ended > began else 0.0


@dataclass(slots=True)
class Board:
    """All that there is to see while the demo runs.

    Attributes:
        events: how many will be published.
        issuer: the process that does it.
        services: the processes that handle them.
        server: what the server says that it is.
        phase: what is going on.
        feed: the last few events, oldest first: ``(time, type, fingerprint, remark)``.
        issued: the tokens of the second act; empty until they are there.
        trial: what becomes of them; ``None`` before the second act.
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
        """How many went out, as far as anybody knows: what was handled did, even if its receipt is on its way."""
        return max(row.count for row in self.rows)

    @property
    def latencies(self) -> Latencies:
        """Those of all services."""
        total = Latencies()
        for row in self.services:
            total.update(row.latencies)
        return total

    @property
    def lost(self) -> int:
        """How many are missing, over all services."""
        return sum(self.lost_by(row) for row in self.services)

    def lost_by(self, row: Row) -> int:
        """Return how many events a service is missing."""
        return max(self.issuer.count - row.count, 0)

    def needs(self, row: Row) -> bool:
        """Whether the demo cannot go on without a process: in the first act it can do with fewer services."""
        takes_part = self.trial is not None and row.name in self.trial.services
        return row is self.issuer or row.report is None or takes_part

    def take(self, row: Row, message: Message, now: float) -> None:
        """Take note of what a process said at this moment."""
        match message:
            case Report():
                self._take_report(row, message, now)
            case Issued():
                self.issued = message
            case Revoked() if self.trial is not None:
                self.trial.revoke(message)
            case Renewed() if self.trial is not None:
                self.trial.renew(row.name, message)
            case Answers() if self.trial is not None:
                self.trial.hear(row.name, message.given)

    def _take_report(self, row: Row, report: Report, now: float) -> None:
        row.add(report, now)
        if report.recent and now - self._fed >= _FEED_INTERVAL:
            self._fed = now
            self.feed.append((f"{datetime.now().astimezone():%H:%M:%S.%f}"[:10], *report.recent))
