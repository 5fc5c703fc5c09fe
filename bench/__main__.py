"""Benchmarks jwt_events against bare redis-py and other libraries, all in one run.

Every competitor is a process of its own, on one embedded server; the competitors of a row take turns. Prints a table
with medians and quartiles over the rounds; ratios compare runs of the same round. The exit code is 1 if a floor was
missed (not with --quick), or if jwt_events failed; failures of other libraries are shown in the table.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path

from rich.console import Console

from bench import table
from bench.report import Report, about
from bench.results import failures
from bench.rounds import Options, Runs, run_row, select, server
from bench.rows import ROWS, Row

HERE = Path(__file__).parent
_QUICK = Options(rounds=2, scale=0.1)


async def measure(rows: list[Row], options: Options, console: Console, output: Path | None) -> Report:
    """Run all rows, one after the other; save the runs after each row, because the whole takes minutes."""
    runs: dict[str, Runs] = {}
    async with server() as running:
        described = about(running.version, options)
        for index, row in enumerate(rows, start=1):
            began = time.monotonic()
            runs[row.id] = await run_row(row, running.url, options)
            console.print(f"{index:2}/{len(rows)} {row.id}, {time.monotonic() - began:.0f} s", highlight=False)
            if output is not None:
                Report(described, runs).save(output)
    return Report(described, runs)


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="ROW", help="run only rows whose names start with this"
    )
    parser.add_argument("--list", action="store_true", help="list the rows and exit")
    parser.add_argument("--rounds", type=int, default=5, help="measured runs of each competitor (5)")
    parser.add_argument("--quick", action="store_true", help="smoke test: a tenth of each workload, two rounds")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    parser.add_argument("--verbose", action="store_true", help="show the output of the competitors")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all runs to FILE")
    parser.add_argument("--read", type=Path, metavar="FILE", help="measure nothing, read runs that --json wrote")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw the chart as SVG or PNG")
    parser.add_argument("--write", action="store_true", help="update bench/README.md and bench/chart.svg")
    given = parser.parse_args()
    if given.write and (given.only or given.quick):
        parser.error("--write needs a full run, without --only or --quick")
    return given


def main() -> int:
    """Run the command; return its exit code."""
    given, console, progress = arguments(), Console(width=None if sys.stdout.isatty() else 200), Console(stderr=True)
    if given.list:
        for row in ROWS:
            console.print(f"{row.id:20} {row.title}", highlight=False)
        return 0
    if not (rows := select(ROWS, given.only)):
        progress.print("no such row; --list shows all rows")
        return 2
    options = Options(given.rounds, 1.0, given.loop, given.verbose)
    if given.quick:
        options = Options(_QUICK.rounds, _QUICK.scale, given.loop, given.verbose)
    report = Report.load(given.read) if given.read else asyncio.run(measure(rows, options, progress, given.json))
    table.show(report, console)
    if given.write:
        table.write(report, HERE / "README.md")
    if charted := [*([given.chart] if given.chart else []), *([HERE / "chart.svg"] if given.write else [])]:
        from bench import chart  # noqa: PLC0415 - matplotlib is needed for drawing only

        for path in charted:
            chart.draw(report, path)
    found = [
        failure
        for row, results in report.rows()
        for failure in failures(row, results, floors=not given.quick)  # a tenth of a workload proves nothing
    ]
    for failure in found:
        console.print(f"MISSED: {failure}", style="bold red", highlight=False)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
