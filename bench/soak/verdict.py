"""The verdict on a history. Pure: the same history always gets the same verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.soak.answers import Answered, judge_answers
from bench.soak.history import Record
from bench.soak.reported import ReportedGap
from bench.soak.summary import HistorySummary
from jwt_events._internal.positions import sort_key
from jwt_events.subscriber._reader import WINDOW


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
        gaps: the number of gaps that subscribers reported, by cause.
        lists: what lists answered.
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
    lists: Answered
    faults: Mapping[str, int]
    broken: Sequence[str]

    @property
    def _keeps_all(self) -> bool:
        """Whether the servers lose nothing that they confirmed."""
        return self.settings["fsync"] == "always" and self.settings["replicas"] >= ALL[self.settings["topology"]]

    @property
    def problems(self) -> list[str]:
        """The broken guarantees, in words; empty if all were kept."""
        must_be_zero = {
            "acknowledged events lost without a gap that covers them": self.uncovered,
            "events handled that were not published": self.phantoms,
            "events handled twice within one incarnation and window": self.duplicates,
            "handlers of one key overlapped": self.overlaps,
        }
        must_be_zero |= self.lists.must_be_zero
        if self._keeps_all:
            must_be_zero |= self.lists.must_be_zero_if_kept
            if self.settings["retention"] is None:  # else a subscriber that stands still may be overtaken by it
                must_be_zero["acknowledged events lost"] = sum(self.lost.values())
            must_be_zero["events dead-lettered"] = self.dead_lettered
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


# So many replicas of a server there are: what all of them have is kept, whichever is promoted.
ALL: Mapping[str, int] = {"single": 0, "sentinel": 2, "cluster": 1}

_SETTINGS = ("topology", "transport", "fsync", "replicas", "retention", "seed", "events", "faults")


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
        settings={name: summary.settings[name] for name in _SETTINGS},
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
        out_of_order=_out_of_order(summary),
        overlaps=summary.overlaps,
        dead_lettered=len(summary.dead_lettered),
        gaps=dict(Counter(gap.cause for reader in gaps.values() for gap in reader)),
        lists=judge_answers(summary.answers, summary.acknowledged, summary.settings["lists"]),
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


def _out_of_order(summary: HistorySummary) -> int:
    """Count events that were handled after a later event of their key.

    Excluded are events whose position is unknown, because their publish had no reply; those that a reader reported it
    would read again: at or before the ``since`` of a gap; and those that the same subscriber handled before. What is
    published again when a server was replaced comes after newer events, but who has not read the first copies by then
    reads the second ones in order.
    """
    handled: dict[str, set[str]] = {}
    found = 0
    for (who, _), incarnation in sorted(summary.incarnations.items()):
        before = handled.setdefault(who, set())
        found += _disorder(incarnation, summary, before)
        before.update(entry for entry in incarnation if isinstance(entry, str))
    return found


def _disorder(incarnation: Sequence[str | ReportedGap], summary: HistorySummary, before: Collection[str]) -> int:
    latest: dict[str, int] = {}
    replayed_up_to = (0, 0)
    found = 0
    for entry in incarnation:
        if isinstance(entry, ReportedGap):
            replayed_up_to = max(replayed_up_to, sort_key(entry.since) if entry.since else (0, 0))
        elif entry in before or (position := summary.acknowledged.get(entry)) is None:
            continue
        elif sort_key(position) > replayed_up_to:
            key, number = summary.events.get(entry, (entry, 0))
            found += number < latest.get(key, number)
            latest[key] = max(number, latest.get(key, number))
    return found
