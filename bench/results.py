"""Results of a row: medians with quartiles, ratios round by round, and missed floors. Pure."""

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
        """Compute the spread of values, of which there must be at least one."""
        if len(values) == 1:
            return Spread(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return Spread(low, median, high)


@dataclass(frozen=True)
class Result:
    """The result of a competitor.

    Attributes:
        runs: the measured runs, one for each round.
        problem: the first failure in any run, the warm-up included.
    """

    runs: Sequence[Run]
    problem: str | None

    @staticmethod
    def of(runs: Sequence[Run]) -> Result:
        """Make a result of runs, without the first, which is the warm-up, unless it is the only one."""
        problem = next((run.problem for run in runs if run.problem), None)
        return Result(runs[1:] or runs, problem)

    @property
    def value(self) -> Spread | None:
        """The value in the unit of the row; ``None`` after a failure: a library that loses messages is not fast."""
        return None if self.problem else Spread.of([run.value for run in self.runs])

    @property
    def cpu(self) -> float | None:
        """The median of the processor time, if it was measured."""
        taken = [run.cpu for run in self.runs if run.cpu is not None]
        return statistics.median(taken) if taken and not self.problem else None

    @property
    def also(self) -> Mapping[str, float]:
        """The medians of the other figures."""
        return {name: statistics.median(run.also[name] for run in self.runs) for name in self.runs[0].also}


Results = Mapping[str, Result]
"""The results of a row, by competitor."""


def ratio(results: Results, of: str, to: str) -> Spread | None:
    """Return the spread of ``of / to`` over the rounds, each ratio within one round; ``None`` if one of them failed."""
    one, other = results[of], results[to]
    if one.problem or other.problem:
        return None
    return Spread.of([a.value / b.value for a, b in zip(one.runs, other.runs, strict=True)])


@dataclass(frozen=True)
class Verdict:
    """Whether a floor was reached.

    Attributes:
        floor: the floor.
        reached: the figure; ``None`` if one of the two competitors has none.
        passed: whether the floor was reached. It counts as reached if the competitor that it compares with failed.
    """

    floor: Floor
    reached: float | None
    passed: bool


def judge(floor: Floor, results: Results) -> Verdict:
    """Compare a floor with the results of its row."""
    own = results[floor.name].value
    if own is None:
        return Verdict(floor, None, passed=False)
    if floor.against is None:
        return Verdict(floor, own.median, own.median <= floor.maximum)
    found = ratio(results, floor.against, floor.name)
    if found is None:
        return Verdict(floor, None, passed=True)
    return Verdict(floor, found.median, found.median >= floor.minimum)


def failures(row: Row, results: Results, *, floors: bool = True) -> list[str]:
    """Return what makes the benchmark fail: failures of jwt_events, and missed floors."""
    found = [
        f"{row.title}: {name}: {result.problem}" for name, result in results.items() if result.problem and is_ours(name)
    ]
    for floor in row.floors if floors else ():
        verdict = judge(floor, results)
        if not verdict.passed:
            reached = "nothing" if verdict.reached is None else f"{verdict.reached:.3g}"
            found.append(f"{row.title}: {floor.name} reached {reached}, must be {floor}")
    return found


def is_ours(name: str) -> bool:
    """Whether a competitor is jwt_events; the failures of other libraries are reported in the table only."""
    return name.startswith(("jwt_events", "RevocationList", "import jwt_events"))
