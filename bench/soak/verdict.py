"""What a history proves. Pure: the same history always gets the same verdict.

A *reader* is who must see every event that was acknowledged: each subscriber by itself where all see everything, all of
them together where they share. It lives on when its process is killed and started again.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.soak.history import Record
from jwt_events.subscriber._dedup import WINDOW
from jwt_events.transport._stream.position import sort_key

SHARED = "the group"
"""The reader where subscribers share."""


@dataclass(frozen=True, slots=True)
class Told:
    """A gap that a subscriber was told of.

    Attributes:
        at: when, in milliseconds of the clock that positions are made of.
        since: the position after which events may be missing.
        cause: why.
    """

    at: int
    since: str | None
    cause: str

    def covers(self, position: str) -> bool:
        """Whether it says that an event which was there may be missing: one added after ``since``, before it was told.

        The position says when an event was added; its publisher may have been frozen before it could note that.
        """
        return sort_key(position)[0] <= self.at and (self.since is None or sort_key(self.since) < sort_key(position))


@dataclass(slots=True)
class Ledger:
    """The books: what was invoked, acknowledged, handled. Takes the records of each process in order.

    Attributes:
        settings: those of the run.
        events: every event that was invoked: its key, and its number among those of that key.
        acknowledged: what the server accepted, and at which position.
        accepted: how many events of each life of a publisher that was.
        refused: what was surely not published.
        handled: which events each reader handled.
        lives: what each life of a subscriber handled and was told, in order: the id of an event, or a gap.
        ready: the processes that were ready, with the number of that life.
        faults: those that ended, by kind.
        buried: which events are among the dead letters.
        overlaps: how often two handlers of one key ran at the same time.
        broken: what must not happen, and did.
        began: when the first event was invoked.
        ended: when nothing more was expected.
    """

    settings: Record = field(default_factory=dict)
    events: dict[str, tuple[str, int]] = field(default_factory=dict)
    acknowledged: dict[str, str] = field(default_factory=dict)
    accepted: Counter[tuple[str, int]] = field(default_factory=Counter)
    refused: set[str] = field(default_factory=set)
    handled: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    lives: dict[tuple[str, int], list[str | Told]] = field(default_factory=lambda: defaultdict(list))
    ready: set[tuple[str, int]] = field(default_factory=set)
    faults: Counter[str] = field(default_factory=Counter)
    buried: set[str] = field(default_factory=set)
    overlaps: int = 0
    broken: list[str] = field(default_factory=list)
    began: float | None = None
    ended: float | None = None

    @property
    def readers(self) -> Sequence[str]:
        """Who must see every event."""
        return [SHARED] if self.settings["transport"] == "group" else self.settings["subscribers"]

    def reader(self, who: str) -> str:
        """Return the reader that a subscriber is, or is part of."""
        return SHARED if self.settings["transport"] == "group" else who

    def missing(self) -> dict[str, set[str]]:
        """Return which acknowledged events each reader has not handled."""
        return {reader: self.acknowledged.keys() - self.handled[reader] for reader in self.readers}

    def take(self, record: Record) -> None:
        """Enter a record."""
        life = record["who"], record["run"]
        match record["what"]:
            case "invoke":
                self.events[record["id"]] = record["key"], record["n"]
                self.began = min(self.began or record["t"], record["t"])
            case "ok":
                self.acknowledged[record["id"]] = record["position"]
                self.accepted[life] += 1
            case "fail":
                self.refused.add(record["id"])
            case "handled":
                self.handled[self.reader(record["who"])].add(record["id"])
                self.lives[life].append(record["id"])
            case "gap":
                self.lives[life].append(Told(record["at"], record["since"], record["cause"]))
            case "ready":
                self.ready.add(life)
            case _:
                self._take_rare(record)

    def _take_rare(self, record: Record) -> None:
        match record["what"]:
            case "run":
                self.settings = record
            case "fault" if record["phase"] == "end":
                self.faults[record["kind"]] += 1
            case "buried":
                self.buried.add(record["id"])
            case "overlap":
                self.overlaps += 1
            case "broken":
                self.broken.append(f"{record['who']}: {record['problem']}")
            case "end":
                self.ended = record["t"]

    def gaps(self) -> dict[str, list[Told]]:
        """Return what each reader was told of gaps."""
        found: dict[str, list[Told]] = {reader: [] for reader in self.readers}
        for (who, _), life in self.lives.items():
            found[self.reader(who)].extend(entry for entry in life if isinstance(entry, Told))
        return found


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a history proves.

    Attributes:
        settings: those of the run.
        seconds: from the first event to the last.
        acknowledged: how many events the server accepted.
        unknown: how many may have been accepted or not; either is right.
        refused: how many were surely not published.
        handled: how many different events each reader handled.
        again: how many were handled more than once, by different lives or subscribers: at least once means that.
        lost: how many acknowledged events each reader never handled.
        uncovered: how many of them no gap tells of.
        phantoms: handled, but never published, or surely not published.
        duplicates: handled twice by one life of a subscriber, within the window that it promises.
        out_of_order: handled by one life after a later event of the same key; always counted, held to where promised.
        overlaps: handled while an earlier event of the same key was.
        buried: given up, although no handler ever failed.
        gaps: how many were reported, by cause.
        faults: how many there were, by kind.
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
    buried: int
    gaps: Mapping[str, int]
    faults: Mapping[str, int]
    broken: Sequence[str]

    @property
    def problems(self) -> list[str]:
        """Which promises were not kept, in words; empty if all were."""
        must_be_zero = {
            "acknowledged events lost without a gap that tells of them": self.uncovered,
            "events handled that were not published": self.phantoms,
            "events handled twice within one life and window": self.duplicates,
            "handlers of one key overlapped": self.overlaps,
        }
        if self.settings["fsync"] == "always":
            must_be_zero |= {"acknowledged events lost": sum(self.lost.values()), "events given up": self.buried}
        if self.settings["transport"] == "stream":
            must_be_zero["events handled out of order"] = self.out_of_order
        at_least = {
            "events acknowledged": (self.acknowledged, self.settings["events"]),
            "faults carried out": (sum(self.faults.values()), self.settings["faults"]),
        }
        return [
            *(f"{number:,} {what}" for what, number in must_be_zero.items() if number),
            *(f"only {done:,} of {asked:,} {what}" for what, (done, asked) in at_least.items() if done < asked),
            *self.broken,
        ]

    def to_json(self) -> dict[str, Any]:
        """Return everything, for machines."""
        return {"ok": not self.problems, "problems": self.problems, **asdict(self)}


def judge(history: Iterable[Record]) -> Verdict:
    """Say what a history proves."""
    books = Ledger()
    last = 0.0
    for record in history:
        books.take(record)
        last = max(last, record["t"])
    missing, gaps = books.missing(), books.gaps()
    handled = set().union(*books.handled.values())
    began = books.began or last
    return Verdict(
        settings={name: books.settings[name] for name in ("transport", "fsync", "seed", "events", "faults")},
        seconds=round((books.ended or last) - began, 1),
        acknowledged=len(books.acknowledged),
        unknown=len(books.events.keys() - books.acknowledged.keys() - books.refused),
        refused=len(books.refused),
        handled={reader: len(books.handled[reader]) for reader in books.readers},
        again=_handled_again(books),
        lost={reader: len(ids) for reader, ids in missing.items()},
        uncovered=sum(
            not any(told.covers(books.acknowledged[name]) for told in gaps[reader])
            for reader, ids in missing.items()
            for name in ids
        ),
        phantoms=len(handled - books.events.keys()) + len(handled & books.refused - books.acknowledged.keys()),
        duplicates=sum(map(_duplicates, books.lives.values())),
        out_of_order=sum(_out_of_order(life, books) for life in books.lives.values()),
        overlaps=books.overlaps,
        buried=len(books.buried),
        gaps=dict(Counter(told.cause for reader in gaps.values() for told in reader)),
        faults=dict(books.faults),
        broken=books.broken,
    )


def _handled_again(books: Ledger) -> int:
    seen: dict[str, Counter[str]] = {reader: Counter() for reader in books.readers}
    for (who, _), life in books.lives.items():
        seen[books.reader(who)].update({entry for entry in life if isinstance(entry, str)})
    return sum(number > 1 for counter in seen.values() for number in counter.values())


def _duplicates(life: Sequence[str | Told]) -> int:
    """Count what was handled again while it was among the events that a subscriber promises to remember."""
    latest: dict[str, int] = {}
    found = 0
    for place, name in enumerate(entry for entry in life if isinstance(entry, str)):
        found += place - latest.get(name, -WINDOW - 1) <= WINDOW
        latest[name] = place
    return found


def _out_of_order(life: Sequence[str | Told], books: Ledger) -> int:
    """Count what came after a later event of its key.

    Left out are events whose place in the stream nobody knows, because their publish was not answered, and those that
    a reader was told it would read again: at or before the ``since`` of a gap.
    """
    latest: dict[str, int] = {}
    replayed_up_to = (0, 0)
    found = 0
    for entry in life:
        if isinstance(entry, Told):
            replayed_up_to = max(replayed_up_to, sort_key(entry.since) if entry.since else (0, 0))
        elif (position := books.acknowledged.get(entry)) is not None and sort_key(position) > replayed_up_to:
            key, number = books.events.get(entry, (entry, 0))
            found += number < latest.get(key, number)
            latest[key] = max(number, latest.get(key, number))
    return found
