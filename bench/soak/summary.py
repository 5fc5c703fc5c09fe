"""What happened in a run, from the records of its processes. Pure.

A *reader* is what must see every acknowledged event: each subscriber by itself where all receive everything, all of
them together where they share. It persists when its process is killed and restarted.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.soak.answers import Answers
from bench.soak.history import Record
from bench.soak.reported import ReportedGap

SHARED = "the group"
"""The reader where subscribers share the events."""


@dataclass(slots=True)
class HistorySummary:
    """What was invoked, acknowledged and handled. Accepts the records of each process in order.

    Attributes:
        settings: those of the run.
        events: every event that was invoked: its key, and its number among those of that key.
        acknowledged: the position of each event that the server accepted.
        accepted: the number of accepted events, by incarnation of a publisher.
        refused: events that were certainly not published.
        handled: the events that each reader handled.
        incarnations: what each incarnation of a subscriber handled (an id) and reported (a gap), in order.
        ready: the processes that were ready, with the number of the incarnation.
        faults: the number of faults that ended, by kind.
        dead_lettered: the events among the dead letters.
        overlaps: how often two handlers of one key ran at the same time.
        broken: what must not happen, and did.
        answers: what lists answered.
        began: when the first event was invoked.
        ended: the time of the last record.
    """

    settings: Record = field(default_factory=dict)
    events: dict[str, tuple[str, int]] = field(default_factory=dict)
    acknowledged: dict[str, str] = field(default_factory=dict)
    accepted: Counter[tuple[str, int]] = field(default_factory=Counter)
    refused: set[str] = field(default_factory=set)
    handled: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    incarnations: dict[tuple[str, int], list[str | ReportedGap]] = field(default_factory=lambda: defaultdict(list))
    ready: set[tuple[str, int]] = field(default_factory=set)
    faults: Counter[str] = field(default_factory=Counter)
    dead_lettered: set[str] = field(default_factory=set)
    overlaps: int = 0
    broken: list[str] = field(default_factory=list)
    answers: Answers = field(default_factory=Answers)
    began: float | None = None
    ended: float | None = None

    @property
    def readers(self) -> Sequence[str]:
        """All readers: each must see every event."""
        return [SHARED] if self.settings["transport"] == "group" else self.settings["subscribers"]

    def reader(self, who: str) -> str:
        """Return the reader that a subscriber is, or is part of."""
        return SHARED if self.settings["transport"] == "group" else who

    def missing(self) -> dict[str, set[str]]:
        """Return the acknowledged events that each reader has not handled."""
        return {reader: self.acknowledged.keys() - self.handled[reader] for reader in self.readers}

    def add(self, record: Record) -> None:
        """Add a record."""
        incarnation = record["who"], record["run"]
        self.answers.add(record)
        match record["what"]:
            case "invoke":
                self.events[record["id"]] = record["key"], record["n"]
                self.began = min(self.began or record["t"], record["t"])
            case "ok":
                self.acknowledged[record["id"]] = record["position"]
                self.accepted[incarnation] += 1
            case "fail":
                self.refused.add(record["id"])
            case "handled":
                self.handled[self.reader(record["who"])].add(record["id"])
                self.incarnations[incarnation].append(record["id"])
            case "gap" if record["who"] not in self.settings["lists"]:
                self.incarnations[incarnation].append(ReportedGap.of(record))
            case "ready":
                self.ready.add(incarnation)
            case _:
                self._add_rare(record)

    def _add_rare(self, record: Record) -> None:
        match record["what"]:
            case "run":
                self.settings = record
            case "fault" if record["phase"] == "end":
                self.faults[record["kind"]] += 1
            case "dead_lettered":
                self.dead_lettered.add(record["id"])
            case "overlap":
                self.overlaps += 1
            case "broken":
                self.broken.append(f"{record['who']}: {record['problem']}")
            case "end":
                self.ended = record["t"]

    def gaps(self) -> dict[str, list[ReportedGap]]:
        """Return the gaps that each reader reported."""
        found: dict[str, list[ReportedGap]] = {reader: [] for reader in self.readers}
        for (who, _), incarnation in self.incarnations.items():
            found[self.reader(who)].extend(entry for entry in incarnation if isinstance(entry, ReportedGap))
        return found
