"""The command line: ``python -m bench.soak --events 100000 --faults 100 --seed 1``."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.soak.answers import Answered
from bench.soak.history import read, write
from bench.soak.plan import BLOCKS
from bench.soak.processes import PERSISTENCE
from bench.soak.runner import Runner, Settings
from bench.soak.verdict import Verdict, judge

_INTERRUPTED = 130
_FRAME = 0.2


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description="Publish and handle under faults.")
    parser.add_argument("--events", type=int, default=20_000, help="events that must be acknowledged (%(default)s)")
    parser.add_argument("--faults", type=int, default=21, help="faults to inject meanwhile (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the faults and their order (%(default)s)")
    parser.add_argument("--topology", choices=tuple(BLOCKS), default="single", help="the servers (%(default)s)")
    parser.add_argument("--transport", choices=("stream", "group"), default="stream", help="(%(default)s)")
    parser.add_argument(
        "--fsync",
        choices=tuple(PERSISTENCE),
        default="always",
        help="what the server keeps when it is killed: all, all but a second, nothing (%(default)s)",
    )
    parser.add_argument("--publishers", type=int, default=2, help="processes that publish (%(default)s)")
    parser.add_argument("--subscribers", type=int, default=3, help="processes that handle (%(default)s)")
    parser.add_argument("--lists", type=int, default=0, help="processes with a list that is asked (%(default)s)")
    parser.add_argument("--replicas", type=int, default=0, help="replicas that must have an event (%(default)s)")
    parser.add_argument("--retention", type=float, help="seconds for which events stay in the stream (a day)")
    parser.add_argument("--only", action="append", default=[], help="a kind of fault; may be repeated (all kinds)")
    parser.add_argument("--rate", type=float, default=2_500.0, help="events per second, at most (%(default)s)")
    parser.add_argument("--history", type=Path, help="file for the history (default: a temporary file)")
    parser.add_argument("--keep", type=Path, help="an empty directory for histories, logs and data, which is kept")
    parser.add_argument("--judge", type=Path, help="run nothing; judge this history")
    parser.add_argument("--json", action="store_true", help="print the verdict as JSON")
    parser.add_argument(
        "--verbose", action="store_true", help="let the processes log, into files beside their histories"
    )
    return parser.parse_args()


def show(verdict: Verdict, console: Console) -> None:
    """Print a verdict as a table."""
    settings = verdict.settings
    told = (f"{name} {settings[name]}" for name in ("topology", "transport", "replicas", "fsync", "seed"))
    table = Table(title=f"Soak: {', '.join(told)}", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    handled = " / ".join(f"{count:,}" for count in verdict.handled.values())
    lost = " / ".join(f"{count:,}" for count in verdict.lost.values())
    rows = {
        "seconds": f"{verdict.seconds:,.1f}",
        "faults": f"{sum(verdict.faults.values()):,}",
        "acknowledged": f"{verdict.acknowledged:,}",
        "unknown outcomes (either is correct)": f"{verdict.unknown:,}",
        "certainly not published": f"{verdict.refused:,}",
        "handled": handled,
        "lost": lost,
        "lost without a gap": f"{verdict.uncovered:,}",
        "gaps reported": _by_kind(verdict.gaps),
        "phantoms": f"{verdict.phantoms:,}",
        "duplicates within one incarnation": f"{verdict.duplicates:,}",
        "handled again by another incarnation": f"{verdict.again:,}",
        "out of order"
        + ("" if settings["transport"] == "stream" else " (not guaranteed)"): f"{verdict.out_of_order:,}",
        "overlaps of one key": f"{verdict.overlaps:,}",
        "dead letters": f"{verdict.dead_lettered:,}",
    }
    if verdict.lists.asked:
        rows |= _of_lists(verdict.lists)
    for row in rows.items():
        table.add_row(*row)
    table.add_section()
    for kind, count in sorted(verdict.faults.items()):
        table.add_row(f"  {kind}", f"{count:,}")
    console.print(table)
    for problem in verdict.problems:
        console.print(f"[bold red]broken guarantee[/]: {problem}", highlight=False)
    if not verdict.problems:
        console.print("[bold green]every guarantee was kept[/]")


def _name(settings: Settings) -> str:
    return f"{settings.topology}-{settings.transport}-{settings.fsync}"


def _of_lists(lists: Answered) -> Mapping[str, str]:
    return {
        "lists: tokens asked about until refused": f"{lists.asked:,}",
        "lists: longest allow after an acknowledgement": f"{lists.longest_allow:.2f} s",
        "lists: stale allows, untold / told": f"{lists.stale_allows:,} / {lists.told_allows:,}",
        "lists: never known, all / untold": f"{lists.lost:,} / {lists.lost_untold:,}",
        "lists: started anew": f"{lists.starts:,}",
        "lists: lacked then, all / untold": f"{lists.lacked:,} / {lists.lacked_untold:,}",
        "lists: found stale": f"{lists.stale:,}",
        "fresh after a kill, median / p99 / maximum": " / ".join(f"{value:.2f} s" for value in lists.fresh_after),
        "published after a kill": " / ".join(f"{value:.2f} s" for value in lists.published_after),
    }


def _by_kind(counts: Mapping[str, int]) -> str:
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(counts.items()))
    return kinds or "0"


async def _run(settings: Settings, directory: Path, console: Console) -> Runner:
    """Carry out a run and show its progress. SIGTERM ends it as Ctrl-C does."""
    runner = Runner(settings, directory)
    running = asyncio.create_task(runner.run())
    interrupted = False

    def interrupt() -> None:
        nonlocal interrupted
        interrupted = True
        running.cancel()

    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, interrupt)
    with console.status("Starting") as status:
        while not running.done():
            done, faults = len(runner.summary.acknowledged), sum(runner.summary.faults.values())
            status.update(f"{done:,} of {settings.events:,} acknowledged, {faults} of {settings.faults} faults")
            await asyncio.wait([running], timeout=_FRAME)
    if interrupted and not running.cancelled():  # what fails as it ends is no verdict
        running.exception()
        raise KeyboardInterrupt
    running.result()
    return runner


def main() -> int:
    """Run, judge, print; return the exit code: 0 if every guarantee was kept."""
    given = _arguments()
    console = Console(stderr=given.json)
    if given.judge:
        verdict = judge(read(given.judge))
    else:
        settings = Settings(**{one.name: getattr(given, one.name) for one in fields(Settings)})
        with ExitStack() as stack:
            directory = given.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jwt_events-soak-")))
            directory.mkdir(parents=True, exist_ok=True)
            try:
                runner = asyncio.run(_run(settings, directory, console))
            except (KeyboardInterrupt, asyncio.CancelledError):
                return _INTERRUPTED
        history = given.history or Path(
            tempfile.gettempdir(), f"soak-{settings.topology}-{settings.transport}-{settings.fsync}.jsonl"
        )
        write(history, runner.history)
        console.print(f"history: {history}", highlight=False)
        verdict = judge(read(history))
    if given.json:
        print(json.dumps(verdict.to_json()))
    else:
        show(verdict, console)
    return 1 if verdict.problems else 0


if __name__ == "__main__":
    sys.exit(main())
