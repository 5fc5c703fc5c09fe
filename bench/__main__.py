"""Measures jwt_events beside bare redis-py and beside other libraries, all in one run, in turns.

Every contender is a process of its own, on one embedded server. Prints a table, with medians and quartiles over the
rounds; what is compared was measured in the same round. The exit code is 1 if a floor was missed (not with --quick), or
if something went wrong with us; what goes wrong with others is in the table.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path

from rich.console import Console

from bench import table
from bench.race import Runs, Terms, order, race, server
from bench.report import Report, about
from bench.results import complaints
from bench.rows import ROWS, Row

HERE = Path(__file__).parent
_QUICK = Terms(rounds=2, scale=0.1)


async def measure(rows: list[Row], terms: Terms, console: Console, kept: Path | None) -> Report:
    """Run all rows, one after the other; keep what there is after each, as the whole takes its time."""
    runs: dict[str, Runs] = {}
    async with server() as running:
        described = about(running.version, terms)
        for index, row in enumerate(rows, start=1):
            began = time.monotonic()
            runs[row.id] = await race(row, running.url, terms)
            console.print(f"{index:2}/{len(rows)} {row.id}, {time.monotonic() - began:.0f} s", highlight=False)
            if kept is not None:
                Report(described, runs).save(kept)
    return Report(described, runs)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", nargs="+", default=[], metavar="ROW", help="rows whose names begin like this")
    parser.add_argument("--list", action="store_true", help="name the rows, and end")
    parser.add_argument("--rounds", type=int, default=5, help="how often each contender runs (5)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, twice: does it run at all?")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    parser.add_argument("--verbose", action="store_true", help="show what the contenders say")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep all runs")
    parser.add_argument("--read", type=Path, metavar="FILE", help="measure nothing, take what --json kept")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw the chart, as SVG or PNG")
    parser.add_argument(
        "--write", action="store_true", help="put table and chart into bench/README.md, bench/chart.svg"
    )
    given = parser.parse_args()
    if given.write and (given.only or given.quick):
        parser.error("only a whole run is written into the README")
    return given


def main() -> int:
    """Do what was asked for."""
    given, console, progress = arguments(), Console(width=None if sys.stdout.isatty() else 200), Console(stderr=True)
    if given.list:
        for row in ROWS:
            console.print(f"{row.id:20} {row.title}", highlight=False)
        return 0
    if not (rows := order(ROWS, given.only)):
        progress.print("there is no such row; --list names them")
        return 2
    terms = Terms(given.rounds, 1.0, given.loop, given.verbose)
    if given.quick:
        terms = Terms(_QUICK.rounds, _QUICK.scale, given.loop, given.verbose)
    report = Report.load(given.read) if given.read else asyncio.run(measure(rows, terms, progress, given.json))
    table.show(report, console)
    if given.write:
        table.write(report, HERE / "README.md")
    if charted := [*([given.chart] if given.chart else []), *([HERE / "chart.svg"] if given.write else [])]:
        from bench import chart  # noqa: PLC0415 - drawing needs more than measuring

        for path in charted:
            chart.draw(report, path)
    found = [
        complaint
        for row, results in report.rows()
        for complaint in complaints(row, results, floors=not given.quick)  # a tenth of the work proves nothing
    ]
    for complaint in found:
        console.print(f"MISSED: {complaint}", style="bold red", highlight=False)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
