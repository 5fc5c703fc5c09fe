"""The table: on a terminal, and in the README between its markers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.report import Report
from bench.results import Result, Results, Verdict, judge, ratio
from bench.rows import Row

_BEGIN, _END = "<!-- written by `make bench` -->", "<!-- end -->"
_HEADINGS = ("work", "who", "median", "quartiles", "processor", "times the first", "")


class Line(NamedTuple):
    """A line of the table, as text."""

    work: str
    who: str
    median: str
    quartiles: str
    processor: str
    against: str
    remarks: str


def number(value: float) -> str:
    """Write three digits that count."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def lines(report: Report) -> Iterator[Line]:
    """Say it all."""
    for row, results in report.rows():
        first = row.contenders[0].name
        for name, result in results.items():
            title = f"{row.title} ({row.unit})" if name == first else ""
            value = result.value
            if value is None:
                yield Line(title, name, "FAILED", "", "", "", result.problem or "")
                continue
            times = ratio(results, name, first)
            yield Line(
                title,
                name,
                number(value.median),
                f"{number(value.low)} to {number(value.high)}",
                "" if result.cpu is None else number(result.cpu),
                "" if times is None or name == first else number(times.median),
                remarks(row, name, result, results),
            )


def remarks(row: Row, name: str, result: Result, results: Results) -> str:
    """Tell the other figures, and of the floors."""
    also = [f"{figure} {number(value)}" for figure, value in result.also.items()]
    floors = [said(judge(floor, results)) for floor in row.floors if floor.name == name]
    return "; ".join([*also, *floors])


def said(verdict: Verdict) -> str:
    """Say whether a floor was reached."""
    if verdict.floor.against is None:
        return f"{verdict.floor} {'✓' if verdict.kept else '✗ MISSED'}"
    against = verdict.floor.against
    if verdict.reached is None:
        return f"{against} failed, so nothing can be divided by it"
    mark = "✓" if verdict.kept else "✗ MISSED"
    return f"{number(verdict.reached)} times as fast as {against}, floor {verdict.floor.least:.3g} {mark}"


def show(report: Report, console: Console) -> None:
    """Print it."""
    table = Table(*_HEADINGS)
    for line in lines(report):
        if line.work and table.rows:
            table.add_section()
        table.add_row(
            *map(escape, line), style="bold red" if line.median == "FAILED" or "MISSED" in line.remarks else None
        )
    console.print(table)
    for what, found in report.about.items():
        console.print(f"{what}: {found}", highlight=False)


def markdown(report: Report) -> str:
    """Write it down."""
    rows = [_HEADINGS, ("---", "---", "---:", "---", "---:", "---:", "---"), *lines(report)]
    table = "\n".join(f"| {' | '.join(emphasised(row))} |" for row in rows)
    facts = "\n".join(f"- {what}: {found}" for what, found in report.about.items())
    return f"{facts}\n\n{table}"


def emphasised(row: tuple[str, ...]) -> list[str]:
    """Make failures loud, and keep cells apart."""
    cells = [cell.replace("|", "\\|").replace("\n", " ") for cell in row]
    return [f"**{cell}**" if cell == "FAILED" else cell.replace("✗ MISSED", "**✗ MISSED**") for cell in cells]


def write(report: Report, path: Path) -> None:
    """Put the table into a file, in place of the one that is there."""
    before, found, rest = path.read_text().partition(_BEGIN)
    _, ended, after = rest.partition(_END)
    if not (found and ended):
        raise ValueError(f"{path} has no place for the table: {_BEGIN} … {_END}")
    path.write_text(f"{before}{_BEGIN}\n{markdown(report)}\n{_END}{after}")
