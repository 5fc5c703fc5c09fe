"""What the runs of a row say: medians with their spread, ratios round by round, and which floors were missed. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.rows import Floor, Row
from bench.run import Run


@dataclass(frozen=True)
class Spread:
    """A median and its quartiles."""

    low: float
    median: float
    high: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        """Sum up values; at least one."""
        if len(values) == 1:
            return Spread(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return Spread(low, median, high)


@dataclass(frozen=True)
class Result:
    """What became of a contender.

    Attributes:
        runs: those that count, one for each round.
        problem: what went wrong, ever.
    """

    runs: Sequence[Run]
    problem: str | None

    @staticmethod
    def of(runs: Sequence[Run]) -> Result:
        """Leave out the first run, which warmed up, unless it is the only one."""
        problem = next((run.problem for run in runs if run.problem), None)
        return Result(runs[1:] or runs, problem)

    @property
    def value(self) -> Spread | None:
        """In the unit of the row; ``None`` after a problem: a library that loses messages is not fast."""
        return None if self.problem else Spread.of([run.value for run in self.runs])

    @property
    def cpu(self) -> float | None:
        """The median of the processor time, if it was taken."""
        taken = [run.cpu for run in self.runs if run.cpu is not None]
        return statistics.median(taken) if taken and not self.problem else None

    @property
    def also(self) -> Mapping[str, float]:
        """The medians of the other figures."""
        return {name: statistics.median(run.also[name] for run in self.runs) for name in self.runs[0].also}


Results = Mapping[str, Result]
"""The results of a row, by contender."""


def ratio(results: Results, of: str, to: str) -> Spread | None:
    """Return how many times as much one took as the other in the same round."""
    one, other = results[of], results[to]
    if one.problem or other.problem:
        return None
    return Spread.of([a.value / b.value for a, b in zip(one.runs, other.runs, strict=True)])


@dataclass(frozen=True)
class Verdict:
    """Whether a floor was reached.

    Attributes:
        floor: which.
        reached: the figure; ``None`` if one of the two has none.
        kept: whether it was reached. It counts as reached where the other one failed.
    """

    floor: Floor
    reached: float | None
    kept: bool


def judge(floor: Floor, results: Results) -> Verdict:
    """Compare a floor with what was measured."""
    own = results[floor.name].value
    if own is None:
        return Verdict(floor, None, kept=False)
    if floor.against is None:
        return Verdict(floor, own.median, own.median <= floor.most)
    found = ratio(results, floor.against, floor.name)
    if found is None:
        return Verdict(floor, None, kept=True)
    return Verdict(floor, found.median, found.median >= floor.least)


def complaints(row: Row, results: Results, *, floors: bool = True) -> list[str]:
    """Say what must not be: whatever went wrong with us, and floors that were missed."""
    found = [
        f"{row.title}: {name}: {result.problem}"
        for name, result in results.items()
        if result.problem and not is_peer(row, name)
    ]
    for floor in row.floors if floors else ():
        verdict = judge(floor, results)
        if not verdict.kept:
            reached = "nothing" if verdict.reached is None else f"{verdict.reached:.3g}"
            found.append(f"{row.title}: {floor.name} reached {reached}, must be {floor}")
    return found


def is_peer(row: Row, name: str) -> bool:
    """Whether a contender is somebody else: its failures are told, and are not ours."""
    ours = ("jwt_events", "RevocationList", "import jwt_events")
    return not name.startswith(ours)
