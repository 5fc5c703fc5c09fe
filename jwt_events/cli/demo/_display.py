"""The display of the demo: a live picture, or lines of text; in the end a summary, or JSON."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from jwt_events import __version__
from jwt_events.cli.demo._board import Board, Row
from jwt_events.cli.demo._messages import ALLOWED, KINDS, REVOKED, STALE, Latencies
from jwt_events.cli.demo._trial import Trial

_MARKS = {
    None: ("·", "dim", "not asked yet"),
    ALLOWED: ("✓", "green", "200 let in"),
    REVOKED: ("✗", "red", "401 revoked"),
    STALE: ("…", "yellow", "503 cannot know"),
}

_COLORS = {
    "token_revoked": "red",
    "token_expired": "yellow",
    "key_rotated": "magenta",
    "session_created": "green",
    "session_destroyed": "blue",
}

# Seconds between two lines of text while the phase stays the same.
_LINE_INTERVAL = 1.0


@contextmanager
def drawing(console: Console, transport: str, *, quiet: bool) -> Iterator[Callable[[Board], None]]:
    """Yield a function that draws a board: not at all, as a live picture in a terminal, or as lines elsewhere."""
    if quiet:
        yield lambda _: None
    elif console.is_terminal and not console.is_dumb_terminal:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            yield lambda board: live.update(frame(board, transport), refresh=True)
    else:
        yield _Lines(console).draw


class _Lines:
    """Prints each new phase and, in the first act, the counts once a second."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._phase = ""
        self._last = 0.0

    def draw(self, board: Board) -> None:
        now = time.monotonic()
        if board.phase != self._phase:
            self._print_statuses(board.trial)
            self._phase = board.phase
            self._print(f"{board.phase} ...")
        elif board.trial is None and board.published and now - self._last >= _LINE_INTERVAL:
            counts = ", ".join(f"{row.name} {row.count:,}" for row in board.services)
            self._print(f"  published {board.published:,}; handled: {counts}")
        else:
            return
        self._last = now

    def _print_statuses(self, trial: Trial | None) -> None:
        """Print the latest statuses of each service at the end of a phase."""
        if trial is not None:
            for name in trial.services:
                self._print(f"  {name:<12}" + "  ".join(_marks(group).plain for group in trial.statuses(name)))
            for step, outcome in list(_outcomes(trial))[-1:]:
                self._print(f"  {step}: {outcome}")

    def _print(self, line: str) -> None:
        self._console.print(line, soft_wrap=True)


def frame(board: Board, transport: str) -> Padding:
    """Draw the live picture of a board."""
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
    count = board.published if publishes else row.count
    yield ProgressBar(board.events, count, complete_style="cyan" if publishes else "green", finished_style="green")
    yield Text(f"{count:,}")
    if row.report is None or row.died:
        yield Text("ended", "bold red") if row.died else Text("starting", "dim")
        yield Text()
        return
    yield Text(f"{row.rate:,.0f}/s")
    latency = row.report.latency_ms
    yield Text("" if latency is None else _milliseconds(latency), _latency_color(latency))


def _latency_color(latency: float | None) -> str:
    return "green" if latency is None or latency < 10 else "yellow" if latency < 100 else "red"


def _second_act(board: Board, trial: Trial, transport: str) -> Iterator[RenderableType]:
    rows = Table.grid(padding=(0, 2))
    rows.add_row("", *(f"{kind}s" for kind in KINDS), "good", "refused after", style="dim")
    for row in board.services:
        if row.name in trial.services:
            typical = trial.refused_after(service=row.name).percentile(50)
            statuses = (_marks(group) for group in trial.statuses(row.name))
            rows.add_row(Text(row.name, "bold"), *statuses, Text(_milliseconds(typical), _latency_color(typical)))
    steps = Table.grid(padding=(0, 2))
    for step, outcome in _outcomes(trial):
        steps.add_row(Text(step, "bold"), outcome)
    yield from (rows, "", _legend(), "", steps)
    if transport != "stream":
        yield Text("\nThis act runs on a stream: a list of revocations needs a transport that remembers.", "dim")


def summary(board: Board, transport: str) -> Padding:
    """Draw the summary of a run that has ended."""
    parts: list[RenderableType] = [_deliveries(board), "", _verdict_on_events(board)]
    if board.trial is not None:
        parts += ["", _refusals(board.trial), "", *_verdict_on_tokens(board.trial)]
        if transport != "stream":
            parts.append(Text("(on a stream: a list of revocations needs a transport that remembers)", "dim"))
    versions = " · ".join(f"{name} {number}" for name, number in _versions().items())
    footer = Text(f"{board.server} · {transport}\n{versions}", "dim")
    return Padding(Group(*parts, "", footer), (1, 2), expand=False)


def _deliveries(board: Board) -> Table:
    table = _table("published", "handled", "lost", "p50", "p99")
    table.add_row("issuer", f"{board.issuer.count:,}", style="cyan")
    for row in board.services:
        spread = _percentiles(row.latencies, 50, 99)
        table.add_row(row.name, "", f"{row.count:,}", _lost(board.lost_by(row)), *spread)
    handled = sum(row.count for row in board.services)
    spread = _percentiles(board.latencies, 50, 99)
    table.add_row("together", "", f"{handled:,}", _lost(board.lost), *spread, style="bold")
    return table


def _verdict_on_events(board: Board) -> Text:
    if not board.lost:
        return _good("Every service handled every event.")
    handled = sum(row.count for row in board.services)
    return _bad(f"{board.lost:,} of {board.lost + handled:,} deliveries were lost.")


def _refusals(trial: Trial) -> Table:
    table = _table("revoked", "refused", "p50", "p99", "max")
    for name in trial.services:
        after = trial.refused_after(service=name)
        table.add_row(name, f"{trial.revoked():,}", f"{after.total():,}", *_percentiles(after, 50, 99, 100))
    return table


def _verdict_on_tokens(trial: Trial) -> Iterator[RenderableType]:
    steps = Table.grid(padding=(0, 2))
    for step, outcome in _outcomes(trial):
        steps.add_row(step, Text(outcome, "dim"))
    yield from (steps, "")
    if trial.stale_allows:
        yield _bad(f"{trial.stale_allows:,} times a token was let in that should have been refused by then.")
    if trial.not_refused:
        yield _bad(f"{trial.not_refused:,} revocations did not lead to a refusal.")
    elif not trial.stale_allows:
        yield _good("Every service refused every revoked token; none was let in too late.")


def _outcomes(trial: Trial) -> Iterator[tuple[str, str]]:
    """Yield the steps of the second act so far, each with its outcome."""
    for kind in KINDS:
        if count := trial.revoked(kind):
            after = trial.refused_after(kind=kind)
            typical, worst = (_milliseconds(after.percentile(percent)) for percent in (50, 100))
            outcome = f"refused after {typical}, {worst} at most" if after else "not refused"
            yield f"{count} {kind}{'s' * (count > 1)} revoked", outcome
    if trial.stale_at:
        stands = "every 401 stands" if not trial.reversals else f"{trial.reversals} answers went back on a 401"
        yield "server killed", f"503 after {_milliseconds(trial.stale_after_ms)}; {stands}"
    if trial.fresh_at:
        yield "server back", f"fresh again after {_milliseconds(trial.fresh_again_after_ms)}"
    if trial.tried_again:
        yield "services started anew", f"{trial.not_refused or 'nothing'} forgotten"


def _marks(statuses: Sequence[int | None]) -> Text:
    """Draw the latest statuses of a service, a mark for each token."""
    return Text.assemble(*((mark, style) for mark, style, _ in map(_MARKS.__getitem__, statuses)))


def _legend() -> Text:
    """Explain the marks."""
    return Text("   ").join(Text.assemble((mark, style), (f" {text}", "dim")) for mark, style, text in _MARKS.values())


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f} ms"


def _table(*columns: str) -> Table:
    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_column(no_wrap=True, min_width=9)
    for _ in columns:
        table.add_column(justify="right", no_wrap=True)
    table.add_row("", *columns, style="dim")
    return table


def _good(sentence: str) -> Text:
    return Text(f"✓ {sentence}", "bold green")


def _bad(sentence: str) -> Text:
    return Text(f"✗ {sentence}", "bold red")


def _lost(count: int) -> Text:
    return Text(f"{count:,}", "red" if count else "green")


def _percentiles(latencies: Latencies, *percents: float) -> list[str]:
    return [_milliseconds(latencies.percentile(percent)) for percent in percents]


def to_json(board: Board, transport: str) -> str:
    """Return the summary as a JSON object. What was not observed is null."""
    result = {
        "published": board.issuer.count,
        "handled": {row.name: row.count for row in board.services},
        "lost": board.lost,
        "p50_ms": board.latencies.percentile(50),
        "p99_ms": board.latencies.percentile(99),
        **_trial_fields(board.trial),
        "server": board.server,
        "transport": transport,
        "versions": _versions(),
    }
    return json.dumps(result)


def _trial_fields(trial: Trial | None) -> dict[str, object]:
    if trial is None:
        names = ("revoked", "not_refused", "refused_after_ms", "stale_allows", "stale_for_ms", "fresh_again_after_ms")
        return dict.fromkeys(names)
    after = trial.refused_after()
    return {
        "revoked": trial.revoked(),
        "not_refused": trial.not_refused,
        "refused_after_ms": {"p50": after.percentile(50), "p99": after.percentile(99), "max": after.percentile(100)},
        "stale_allows": trial.stale_allows,
        "stale_for_ms": trial.stale_for_ms,
        "fresh_again_after_ms": trial.fresh_again_after_ms,
    }


def _versions() -> dict[str, str]:
    return {"Python": platform.python_version(), "redis-py": version("redis"), "jwt_events": __version__}
