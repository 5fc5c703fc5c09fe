"""What a subscriber or a list said that it may have missed. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from bench.soak.history import Record
from jwt_events._internal.positions import sort_key


@dataclass(frozen=True, slots=True)
class ReportedGap:
    """A gap that a subscriber or a list reported.

    Attributes:
        at: when, in milliseconds of the clock that positions are made of.
        since: the position after which events may be missing.
        cause: why.
    """

    at: int
    since: str | None
    cause: str

    @classmethod
    def of(cls, record: Record) -> Self:
        """Return the gap of a record."""
        return cls(record["at"], record["since"], record["cause"])

    def covers(self, position: str) -> bool:
        """Whether it says that this event may be missing: one added after ``since``, before the report.

        The position says when an event was added; its publisher may have been frozen before it could record that.
        """
        return sort_key(position)[0] <= self.at and (self.since is None or sort_key(self.since) < sort_key(position))
