"""The command line: ``jwt-events demo``."""

from __future__ import annotations

import asyncio
import json
import platform
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from enum import StrEnum
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated

try:
    import typer
    from rich.console import Console, Group
    from rich.live import Live
    from rich.padding import Padding
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text
except ImportError as error:
    sys.exit(f"jwt-events needs {error.name}; get it with: pip install 'jwt_events[cli,embedded]'")

from jwt_events import __version__

if TYPE_CHECKING:
    from jwt_events.demo import Board, Row
    from jwt_events.demo_process import Latencies

_COLORS = {
    "token_revoked": "red",
    "token_expired": "yellow",
    "key_rotated": "magenta",
    "session_created": "green",
    "session_destroyed": "blue",
}

# Seconds between two lines where nothing can be redrawn.
_LINE_INTERVAL = 1.0

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


class TransportName(StrEnum):
    """What can carry the events of the demo."""

    STREAM = "stream"
    PUBSUB = "pubsub"


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"jwt_events {__version__}")
        raise typer.Exit


@app.callback()
def main(
    _: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """JWT lifecycle events between services, over Redis."""


@app.command()
def demo(
    *,
    events: Annotated[int, typer.Option(min=1, help="How many events to publish.")] = 2_000,
    rate: Annotated[int, typer.Option(min=0, help="How many per second; 0 is as fast as possible.")] = 1_000,
    subscribers: Annotated[int, typer.Option(min=3, max=64, help="How many processes handle them.")] = 3,
    transport: Annotated[TransportName, typer.Option(help="What carries them.")] = TransportName.STREAM,
    url: Annotated[
        str | None, typer.Option(help="A Redis or Valkey server to use instead of starting one.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Start a server and some processes, and watch events cross between them.

    Ends with 0 if every process handled every event, 1 if any was lost, 2 if the demo could not be carried out.
    """
    from jwt_events.demo import perform  # noqa: PLC0415 - "--help" should not wait for it
    from jwt_events.errors import JWTEventsError  # noqa: PLC0415 - the same

    console = Console(highlight=False)
    try:
        with _drawing(console, transport, quiet=as_json) as draw:
            work = perform(
                events=events, rate=rate, subscribers=subscribers, transport=transport.value, url=url, draw=draw
            )
            board = asyncio.run(_until_signalled(work))
    except (JWTEventsError, OSError) as error:
        typer.echo(f"jwt-events: {error}", err=True)
        raise typer.Exit(2) from None
    if as_json:
        typer.echo(json.dumps(_as_json(board, transport)))
    else:
        console.print(_summary(board, transport))
    raise typer.Exit(1 if board.lost else 0)


async def _until_signalled(work: Coroutine[None, None, Board]) -> Board:
    """Do the work; the first signal to stop cancels it, further ones change nothing."""
    loop = asyncio.get_running_loop()
    working = asyncio.ensure_future(work)
    received: list[int] = []

    def stop(number: int) -> None:
        received.append(number)
        if len(received) == 1:
            working.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop, number)
    try:
        return await working
    except asyncio.CancelledError:
        if not received:
            raise
        raise typer.Exit(128 + received[0]) from None


@contextmanager
def _drawing(console: Console, transport: str, *, quiet: bool) -> Iterator[Callable[[Board], None]]:
    """Open what suits the output: nothing, a picture that moves, or lines."""
    if quiet:
        yield lambda _: None
    elif console.is_terminal and not console.is_dumb_terminal:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            yield lambda board: live.update(_picture(board, transport), refresh=True)
    else:
        yield _Lines(console).draw


class _Lines:
    """The demo told line by line."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._phase = ""
        self._last = 0.0

    def draw(self, board: Board) -> None:
        now = time.monotonic()
        if board.phase != self._phase:
            self._phase = board.phase
            self._console.print(f"{board.phase} ...", soft_wrap=True)
        elif board.published and now - self._last >= _LINE_INTERVAL:
            counts = ", ".join(f"{row.name} {row.count:,}" for row in board.services)
            self._console.print(f"  published {board.published:,}; handled: {counts}", soft_wrap=True)
        else:
            return
        self._last = now


def _picture(board: Board, transport: str) -> Padding:
    title = Text.assemble((board.phase, "bold"), (f"   {board.server or '...'} · {transport}", "dim"))
    rows = Table.grid(padding=(0, 2), expand=True)
    for justify in ("left", "right"):
        rows.add_column(justify=justify, no_wrap=True)
    rows.add_column(ratio=1)
    for _ in range(3):
        rows.add_column(justify="right", no_wrap=True, min_width=9)
    for row in (board.publisher, *board.services):
        rows.add_row(*_cells(row, board))
    feed = Table.grid(padding=(0, 2))
    for _ in range(4):
        feed.add_column(no_wrap=True)
    for time_of_day, kind, fingerprint, remark in board.feed:
        color = _COLORS.get(kind, "white")
        feed.add_row(Text(time_of_day, "dim"), Text(f"● {kind}", color), f"#{fingerprint}", Text(remark, "dim"))
    for _ in range((board.feed.maxlen or 0) - len(board.feed)):
        feed.add_row("")
    return Padding(Group(title, "", rows, "", feed), (1, 2, 0, 2))


def _cells(row: Row, board: Board) -> Iterator[Text | ProgressBar]:
    publishes = row is board.publisher
    yield Text(row.name, "bold cyan" if publishes else "bold")
    yield Text(f"pid {row.pid}" if row.pid else "", "dim")
    number = board.published if publishes else row.count
    yield ProgressBar(board.events, number, complete_style="cyan" if publishes else "green", finished_style="green")
    yield Text(f"{number:,}")
    if row.report is None or row.died:
        yield Text("ended", "bold red") if row.died else Text("starting", "dim")
        yield Text()
        return
    yield Text(f"{row.rate:,.0f}/s")
    latency = row.report.latency_ms
    yield Text("" if latency is None else f"{_milliseconds(latency)}", _latency_color(latency))


def _latency_color(latency: float | None) -> str:
    return "green" if latency is None or latency < 10 else "yellow" if latency < 100 else "red"


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f} ms"


def _summary(board: Board, transport: str) -> Padding:
    """Draw what stays on the screen."""
    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_column(no_wrap=True)
    for _ in range(5):
        table.add_column(justify="right", no_wrap=True)
    table.add_row("", "published", "handled", "lost", "p50", "p99", style="dim")
    table.add_row("publisher", f"{board.publisher.count:,}", style="cyan")
    for row in board.services:
        table.add_row(row.name, "", f"{row.count:,}", *_outcome(board.lost_by(row), row.latencies))
    handled = sum(row.count for row in board.services)
    table.add_row("together", "", f"{handled:,}", *_outcome(board.lost, board.latencies), style="bold")
    if board.lost:
        verdict = Text(f"✗ {board.lost:,} of {board.lost + handled:,} deliveries were lost.", "bold red")
    else:
        verdict = Text("✓ Every service handled every event.", "bold green")
    versions = " · ".join(f"{name} {number}" for name, number in _versions().items())
    footer = Text(f"{board.server} · {transport}\n{versions}", "dim")
    return Padding(Group(table, "", verdict, "", footer), (1, 2), expand=False)


def _outcome(lost: int, latencies: Latencies) -> tuple[Text, str, str]:
    p50, p99 = latencies.percentile(50), latencies.percentile(99)
    return Text(f"{lost:,}", "red" if lost else "green"), _milliseconds(p50), _milliseconds(p99)


def _as_json(board: Board, transport: str) -> dict[str, object]:
    return {
        "published": board.publisher.count,
        "handled": {row.name: row.count for row in board.services},
        "lost": board.lost,
        "p50_ms": board.latencies.percentile(50),
        "p99_ms": board.latencies.percentile(99),
        "server": board.server,
        "transport": transport,
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    return {"Python": platform.python_version(), "redis-py": version("redis"), "jwt_events": __version__}


if __name__ == "__main__":
    app()
