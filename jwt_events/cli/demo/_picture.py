"""The demo while it runs: a picture that moves, or lines where nothing can be redrawn."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from jwt_events.cli.demo._board import Board, Row
from jwt_events.cli.demo._messages import KINDS
from jwt_events.cli.demo._trial import Trial
from jwt_events.cli.demo._wording import legend, marks, milliseconds, story

_COLORS = {
    "token_revoked": "red",
    "token_expired": "yellow",
    "key_rotated": "magenta",
    "session_created": "green",
    "session_destroyed": "blue",
}

# Seconds between two lines where nothing can be redrawn.
_LINE_INTERVAL = 1.0


@contextmanager
def drawing(console: Console, transport: str, *, quiet: bool) -> Iterator[Callable[[Board], None]]:
    """Open what suits the output: nothing, a picture that moves, or lines."""
    if quiet:
        yield lambda _: None
    elif console.is_terminal and not console.is_dumb_terminal:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            yield lambda board: live.update(frame(board, transport), refresh=True)
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
            self._show_answers(board.trial)
            self._phase = board.phase
            self._print(f"{board.phase} ...")
        elif board.trial is None and board.published and now - self._last >= _LINE_INTERVAL:
            counts = ", ".join(f"{row.name} {row.count:,}" for row in board.services)
            self._print(f"  published {board.published:,}; handled: {counts}")
        else:
            return
        self._last = now

    def _show_answers(self, trial: Trial | None) -> None:
        """Print how the services answered at the end of a phase."""
        if trial is not None:
            for name in trial.services:
                self._print(f"  {name:<12}" + "  ".join(marks(group).plain for group in trial.statuses(name)))
            for done, outcome in list(story(trial))[-1:]:
                self._print(f"  {done}: {outcome}")

    def _print(self, line: str) -> None:
        self._console.print(line, soft_wrap=True)


def frame(board: Board, transport: str) -> Padding:
    """Draw what there is to see at this moment."""
    title = Text.assemble((board.phase, "bold"), (f"   {board.server or '...'} · {transport}", "dim"))
    parts = _first_act(board) if board.trial is None else _second_act(board, board.trial, transport)
    return Padding(Group(title, "", *parts), (1, 2, 0, 2))


def _first_act(board: Board) -> Iterator[RenderableType]:
    rows = Table.grid(padding=(0, 2), expand=True)
    for justify in ("left", "right"):
        rows.add_column(justify=justify, no_wrap=True)
    rows.add_column(ratio=1)
    for _ in range(3):
        rows.add_column(justify="right", no_wrap=True, min_width=9)
    for row in board.rows:
        rows.add_row(*_cells(row, board))
    feed = Table.grid(padding=(0, 2))
    for _ in range(4):
        feed.add_column(no_wrap=True)
    for time_of_day, kind, fingerprint, remark in board.feed:
        color = _COLORS.get(kind, "white")
        feed.add_row(Text(time_of_day, "dim"), Text(f"● {kind}", color), f"#{fingerprint}", Text(remark, "dim"))
    for _ in range((board.feed.maxlen or 0) - len(board.feed)):
        feed.add_row("")
    yield from (rows, "", feed)


def _cells(row: Row, board: Board) -> Iterator[Text | ProgressBar]:
    publishes = row is board.issuer
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
    yield Text("" if latency is None else milliseconds(latency), _latency_color(latency))


def _latency_color(latency: float | None) -> str:
    return "green" if latency is None or latency < 10 else "yellow" if latency < 100 else "red"


def _second_act(board: Board, trial: Trial, transport: str) -> Iterator[RenderableType]:
    rows = Table.grid(padding=(0, 2))
    rows.add_row("", *(f"{kind}s" for kind in KINDS), "good", "refused after", style="dim")
    for row in board.services:
        if row.name in trial.services:
            typical = trial.refused_after(service=row.name).percentile(50)
            answers = (marks(group) for group in trial.statuses(row.name))
            rows.add_row(Text(row.name, "bold"), *answers, Text(milliseconds(typical), _latency_color(typical)))
    told = Table.grid(padding=(0, 2))
    for done, outcome in story(trial):
        told.add_row(Text(done, "bold"), outcome)
    yield from (rows, "", legend(), "", told)
    if transport != "stream":
        yield Text("\nThis act runs on a stream: a list of revocations needs a transport that remembers.", "dim")
