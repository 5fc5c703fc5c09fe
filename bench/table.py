"""The table of results: on a terminal, and between the markers of a Markdown file."""

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
_HEADINGS = ("workload", "competitor", "median", "quartiles", "CPU", "ratio to first", "")


class Line(NamedTuple):
    """A line of the table, as text."""

    workload: str
    competitor: str
    median: str
    quartiles: str
    cpu: str
    ratio: str
    remarks: str


def rounded(value: float) -> str:
    """Format a value with three significant digits."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def lines(report: Report) -> Iterator[Line]:
    """Iterate over the lines of the table."""
    for row, results in report.rows():
        first = row.competitors[0].name
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
                rounded(value.median),
                f"{rounded(value.low)} to {rounded(value.high)}",
                "" if result.cpu is None else rounded(result.cpu),
                "" if times is None or name == first else rounded(times.median),
                remarks(row, name, result, results),
            )


def remarks(row: Row, name: str, result: Result, results: Results) -> str:
    """Return the other figures of a competitor, and its floors."""
    also = [f"{figure} {rounded(value)}" for figure, value in result.also.items()]
    floors = [describe(judge(floor, results)) for floor in row.floors if floor.name == name]
    return "; ".join([*also, *floors])


def describe(verdict: Verdict) -> str:
    """Describe whether a floor was reached."""
    if verdict.floor.against is None:
        return f"{verdict.floor} {'✓' if verdict.passed else '✗ MISSED'}"
    against = verdict.floor.against
    if verdict.reached is None:
        return f"{against} failed, so there is no ratio"
    mark = "✓" if verdict.passed else "✗ MISSED"
    return f"{rounded(verdict.reached)} times as fast as {against}, floor {verdict.floor.minimum:.3g} {mark}"


def show(report: Report, console: Console) -> None:
    """Print the table on a terminal."""
    table = Table(*_HEADINGS)
    for line in lines(report):
        if line.workload and table.rows:
            table.add_section()
        table.add_row(
            *map(escape, line), style="bold red" if line.median == "FAILED" or "MISSED" in line.remarks else None
        )
    console.print(table)
    for name, value in report.about.items():
        console.print(f"{name}: {value}", highlight=False)


def markdown(report: Report) -> str:
    """Return the table as Markdown."""
    rows = [_HEADINGS, ("---", "---", "---:", "---", "---:", "---:", "---"), *lines(report)]
    table = "\n".join(f"| {' | '.join(emphasised(row))} |" for row in rows)
    facts = "\n".join(f"- {name}: {value}" for name, value in report.about.items())
    return f"{facts}\n\n{table}"


def emphasised(row: tuple[str, ...]) -> list[str]:
    """Emphasise failures, and escape what would end a cell."""
    cells = [cell.replace("|", "\\|").replace("\n", " ") for cell in row]
    return [f"**{cell}**" if cell == "FAILED" else cell.replace("✗ MISSED", "**✗ MISSED**") for cell in cells]


def write(report: Report, path: Path) -> None:
    """Replace the table in a Markdown file.

    Raises:
        ValueError: the file has no markers for the table.
    """
    before, found, rest = path.read_text().partition(_BEGIN)
    _, ended, after = rest.partition(_END)
    if not (found and ended):
        raise ValueError(f"{path} has no markers for the table: {_BEGIN} … {_END}")
    path.write_text(f"{before}{_BEGIN}\n{markdown(report)}\n{_END}{after}")
