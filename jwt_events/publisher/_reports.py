"""What a publisher's transport reports from the background, told to its observer and log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jwt_events.instrumentation import Observer
from jwt_events.transport.optional import LedgerReport

if TYPE_CHECKING:
    from loguru import Logger


class Reports:
    """Passes reports on."""

    def __init__(self, observer: Observer, log: Logger) -> None:
        self._observer = observer
        self._log = log

    def ledger(self, report: LedgerReport) -> None:
        """Tell how far folding is behind, and what the ledger holds."""
        self._observer.ledger(report.behind, report.counts, report.size)

    def republished(self, count: int) -> None:
        """Tell that events were published again."""
        self._log.warning("events published again, as another server has taken over", count=count)
        self._observer.republished(count)
