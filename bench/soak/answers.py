"""What lists answered, and whether it was right. Pure.

A list that runs is asked about every event, from when it was acknowledged until it refuses the token. One that is
started anew must know everything that was acknowledged before.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from bench.soak.history import Record
from bench.soak.reported import ReportedGap
from bench.soak.spec import MAX_STALENESS, POLL_TIMEOUT

Incarnation = tuple[str, int]

MAX_ALLOW = MAX_STALENESS + POLL_TIMEOUT
"""Seconds after its revocation was acknowledged within which a fresh list may let a token in."""

_KILLS = frozenset({"kill primary", "kill owner"})

# A fault is recorded before its cause: a proof of the moments between is none of the time after.
_CAUSED_WITHIN = 0.5


@dataclass(slots=True)
class Answers:
    """The answers of all lists. Accepts the records of each process in order.

    Attributes:
        allowed: when each incarnation of a list last let each token in; by the event that revoked it.
        revoked: the events that each incarnation of a list knew.
        gaps: what each incarnation of a list reported.
        proofs: when each list was proven current, and when it knew.
        stale: how often each list said that it was stale, although it was open.
        missing: what each list that was started anew lacked, and what it reported.
        starts: how many lists were started anew.
        known: how many events were acknowledged before the last of them was started.
        acknowledged: when each event was acknowledged.
        kills: when a primary was killed.
    """

    allowed: dict[tuple[Incarnation, str], float] = field(default_factory=dict)
    revoked: dict[Incarnation, set[str]] = field(default_factory=lambda: defaultdict(set))
    gaps: dict[Incarnation, list[ReportedGap]] = field(default_factory=lambda: defaultdict(list))
    proofs: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    stale: int = 0
    missing: list[tuple[Sequence[str], Sequence[ReportedGap]]] = field(default_factory=list)
    starts: int = 0
    known: int = 0
    acknowledged: dict[str, float] = field(default_factory=dict)
    kills: list[float] = field(default_factory=list)

    def add(self, record: Record) -> None:
        """Add a record."""
        incarnation = record["who"], record["run"]
        match record["what"]:
            case "ok":
                self.acknowledged[record["id"]] = record["t"]
            case "checks":
                self.allowed.update(dict.fromkeys(((incarnation, name) for name in record["allow"]), record["asked"]))
                self.revoked[incarnation].update(record["revoked"])
                self.stale += not record["fresh"]
            case "gap":
                self.gaps[incarnation].append(ReportedGap.of(record))
            case "proof":
                self.proofs[record["who"]].append((record["as_of"], record["t"]))
            case "started":
                self.starts += 1
                if not record["stale"]:
                    self.known = max(self.known, record["known"])
                    self.missing.append((record["missing"], [ReportedGap.of(gap) for gap in record["gaps"]]))
            case "fault" if record["phase"] == "begin" and record["kind"] in _KILLS:
                self.kills.append(record["t"])


@dataclass(frozen=True, slots=True)
class Answered:
    """What was found in the answers of the lists.

    Attributes:
        asked: about how many events lists that run were asked, each counted once for each list.
        starts: how many lists were started anew.
        longest_allow: seconds after an acknowledgement at which a list that was told nothing last let the token in.
        stale_allows: how many tokens were let in for too long by a list that had reported no gap about them.
        told_allows: how many were let in for too long by a list that had reported that it may lack them.
        lost: how many events a list that ran to the end never knew.
        lost_untold: how many of them it reported no gap about.
        lacked: how many events lists that were started anew lacked.
        lacked_untold: how many of them these reported no gap about.
        stale: how often a list was found to be stale.
        fresh_after: seconds from the kill of a primary until a list was proven current again: median, p99, maximum.
        published_after: the same until an event was acknowledged.
    """

    asked: int
    starts: int
    longest_allow: float
    stale_allows: int
    told_allows: int
    lost: int
    lost_untold: int
    lacked: int
    lacked_untold: int
    stale: int
    fresh_after: Sequence[float]
    published_after: Sequence[float]

    @property
    def must_be_zero(self) -> Mapping[str, int]:
        """What must never happen, whatever the servers lose."""
        return {
            "tokens let in too long after their revocation, without a gap": self.stale_allows,
            "acknowledged events that a list never knew, without a gap": self.lost_untold,
            "acknowledged events that a list lacked when it was started anew, without a gap": self.lacked_untold,
        }

    @property
    def must_be_zero_if_kept(self) -> Mapping[str, int]:
        """What must not happen where the servers lose nothing that they confirmed."""
        return {
            "tokens let in too long after their revocation": self.told_allows,
            "acknowledged events that a list never knew": self.lost,
            "acknowledged events that a list lacked when it was started anew": self.lacked,
        }


def judge_answers(answers: Answers, positions: Mapping[str, str], lists: Sequence[str]) -> Answered:
    """Return what is right and wrong in the answers of the lists.

    Args:
        answers: the answers.
        positions: the position of each acknowledged event.
        lists: the names of those that run.
    """

    def is_told(gaps: Sequence[ReportedGap], name: str) -> bool:
        return any(gap.covers(positions[name]) for gap in gaps)

    longest, counts = 0.0, {False: 0, True: 0}
    for (incarnation, name), asked in answers.allowed.items():
        age = asked - answers.acknowledged.get(name, asked)
        told = age > 0 and is_told(answers.gaps[incarnation], name)
        counts[told] += age > MAX_ALLOW
        longest = longest if told else max(longest, age)
    lost = [(name, gaps) for name, gaps in _lost(answers, lists) if name in positions]
    lacked = [(name, gaps) for names, gaps in answers.missing for name in names]
    return Answered(
        asked=sum(map(len, answers.revoked.values())),
        starts=answers.starts,
        longest_allow=round(longest, 3),
        stale_allows=counts[False],
        told_allows=counts[True],
        lost=len(lost),
        lost_untold=sum(not is_told(gaps, name) for name, gaps in lost),
        lacked=len(lacked),
        lacked_untold=sum(not is_told(gaps, name) for name, gaps in lacked),
        stale=answers.stale,
        fresh_after=_spread([after for proofs in answers.proofs.values() for after in _after(answers.kills, proofs)]),
        published_after=_spread(_after(answers.kills, [(at, at) for at in sorted(answers.acknowledged.values())])),
    )


def _lost(answers: Answers, lists: Sequence[str]) -> list[tuple[str, Sequence[ReportedGap]]]:
    """Return the events that the last incarnation of each list never knew, each with what it reported."""
    found: list[tuple[str, Sequence[ReportedGap]]] = []
    for who in lists:
        last = max((one for one in answers.revoked if one[0] == who), default=(who, 0))
        found += [(name, answers.gaps[last]) for name in answers.acknowledged.keys() - answers.revoked[last]]
    return found


def _after(moments: Sequence[float], ends: Sequence[tuple[float, float]]) -> list[float]:
    """Return how long after each moment the first thing ended that began after it; in order of their beginnings."""
    found = []
    for moment, following in pairwise([*moments, math.inf]):
        index = bisect_left(ends, (moment + _CAUSED_WITHIN, -math.inf))
        if index < len(ends) and ends[index][0] < following:
            found.append(ends[index][1] - moment)
    return found


def _spread(values: Sequence[float]) -> Sequence[float]:
    if not values:
        return ()
    ordered = sorted(values)
    places = (len(ordered) // 2, min(len(ordered) - 1, int(0.99 * len(ordered))), -1)
    return tuple(round(ordered[place], 2) for place in places)
