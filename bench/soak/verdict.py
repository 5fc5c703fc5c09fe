"""The verdict on a history. Pure: the same history always gets the same verdict.

A *reader* is what must see every acknowledged event: each subscriber by itself where all receive everything, all of
them together where they share. It persists when its process is killed and restarted.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.soak.history import Record
from jwt_events._internal.positions import sort_key
from jwt_events.subscriber._reader import WINDOW

SHARED = "the group"
"""The reader where subscribers share the events."""


@dataclass(frozen=True, slots=True)
class ReportedGap:
    """A gap that a subscriber reported.

    Attributes:
        at: when, in milliseconds of the clock that positions are made of.
        since: the position after which events may be missing.
        cause: why.
    """

    at: int
    since: str | None
    cause: str

    def covers(self, position: str) -> bool:
        """Whether it says that this event may be missing: one added after ``since``, before the report.

        The position says when an event was added; its publisher may have been frozen before it could record that.
        """
        return sort_key(position)[0] <= self.at and (self.since is None or sort_key(self.since) < sort_key(position))


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
            case "gap":
                self.incarnations[incarnation].append(ReportedGap(record["at"], record["since"], record["cause"]))
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


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on a history.

    Attributes:
        settings: those of the run.
        seconds: from the first event to the last.
        acknowledged: the number of events that the server accepted.
        unknown: how many may have been accepted or not; either is correct.
        refused: how many were certainly not published.
        handled: the number of different events that each reader handled.
        again: how many were handled more than once, by different incarnations or subscribers: at-least-once allows it.
        lost: the number of acknowledged events that each reader never handled.
        uncovered: how many of the lost events no gap covers.
        phantoms: handled, but never published, or certainly not published.
        duplicates: handled twice by one incarnation of a subscriber, within the guaranteed window.
        out_of_order: handled by one incarnation after a later event of its key; a problem where guaranteed.
        overlaps: handled while an earlier event of the same key was being handled.
        dead_lettered: dead-lettered, although no handler ever failed.
        gaps: the number of reported gaps, by cause.
        faults: the number of faults, by kind.
        broken: what must not happen, and did.
    """

    settings: Mapping[str, Any]
    seconds: float
    acknowledged: int
    unknown: int
    refused: int
    handled: Mapping[str, int]
    again: int
    lost: Mapping[str, int]
    uncovered: int
    phantoms: int
    duplicates: int
    out_of_order: int
    overlaps: int
    dead_lettered: int
    gaps: Mapping[str, int]
    faults: Mapping[str, int]
    broken: Sequence[str]

    @property
    def problems(self) -> list[str]:
        """The broken guarantees, in words; empty if all were kept."""
        must_be_zero = {
            "acknowledged events lost without a gap that covers them": self.uncovered,
            "events handled that were not published": self.phantoms,
            "events handled twice within one incarnation and window": self.duplicates,
            "handlers of one key overlapped": self.overlaps,
        }
        if self.settings["fsync"] == "always":
            must_be_zero |= {
                "acknowledged events lost": sum(self.lost.values()),
                "events dead-lettered": self.dead_lettered,
            }
        if self.settings["transport"] == "stream":
            must_be_zero["events handled out of order"] = self.out_of_order
        at_least = {
            "events acknowledged": (self.acknowledged, self.settings["events"]),
            "faults carried out": (sum(self.faults.values()), self.settings["faults"]),
        }
        return [
            *(f"{count:,} {what}" for what, count in must_be_zero.items() if count),
            *(
                f"only {done:,} of {required:,} {what}"
                for what, (done, required) in at_least.items()
                if done < required
            ),
            *self.broken,
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the whole verdict as JSON values."""
        return {"ok": not self.problems, "problems": self.problems, **asdict(self)}


def judge(history: Iterable[Record]) -> Verdict:
    """Return the verdict on a history."""
    summary = HistorySummary()
    last = 0.0
    for record in history:
        summary.add(record)
        last = max(last, record["t"])
    missing, gaps = summary.missing(), summary.gaps()
    handled = set().union(*summary.handled.values())
    began = summary.began or last
    return Verdict(
        settings={name: summary.settings[name] for name in ("transport", "fsync", "seed", "events", "faults")},
        seconds=round((summary.ended or last) - began, 1),
        acknowledged=len(summary.acknowledged),
        unknown=len(summary.events.keys() - summary.acknowledged.keys() - summary.refused),
        refused=len(summary.refused),
        handled={reader: len(summary.handled[reader]) for reader in summary.readers},
        again=_handled_again(summary),
        lost={reader: len(ids) for reader, ids in missing.items()},
        uncovered=sum(
            not any(gap.covers(summary.acknowledged[name]) for gap in gaps[reader])
            for reader, ids in missing.items()
            for name in ids
        ),
        phantoms=len(handled - summary.events.keys()) + len(handled & summary.refused - summary.acknowledged.keys()),
        duplicates=sum(map(_duplicates, summary.incarnations.values())),
        out_of_order=sum(_out_of_order(incarnation, summary) for incarnation in summary.incarnations.values()),
        overlaps=summary.overlaps,
        dead_lettered=len(summary.dead_lettered),
        gaps=dict(Counter(gap.cause for reader in gaps.values() for gap in reader)),
        faults=dict(summary.faults),
        broken=summary.broken,
    )


def _handled_again(summary: HistorySummary) -> int:
    seen: dict[str, Counter[str]] = {reader: Counter() for reader in summary.readers}
    for (who, _), incarnation in summary.incarnations.items():
        seen[summary.reader(who)].update({entry for entry in incarnation if isinstance(entry, str)})
    return sum(count > 1 for counter in seen.values() for count in counter.values())


def _duplicates(incarnation: Sequence[str | ReportedGap]) -> int:
    """Count events that were handled again within the window of a subscriber's duplicate detection."""
    latest: dict[str, int] = {}
    found = 0
    for index, name in enumerate(entry for entry in incarnation if isinstance(entry, str)):
        found += index - latest.get(name, -WINDOW - 1) <= WINDOW
        latest[name] = index
    return found


def _out_of_order(incarnation: Sequence[str | ReportedGap], summary: HistorySummary) -> int:
    """Count events that were handled after a later event of their key.

    Excluded are events whose position is unknown, because their publish had no reply, and those that a reader reported
    it would read again: at or before the ``since`` of a gap.
    """
    latest: dict[str, int] = {}
    replayed_up_to = (0, 0)
    found = 0
    for entry in incarnation:
        if isinstance(entry, ReportedGap):
            replayed_up_to = max(replayed_up_to, sort_key(entry.since) if entry.since else (0, 0))
        elif (position := summary.acknowledged.get(entry)) is not None and sort_key(position) > replayed_up_to:
            key, number = summary.events.get(entry, (entry, 0))
            found += number < latest.get(key, number)
            latest[key] = max(number, latest.get(key, number))
    return found
