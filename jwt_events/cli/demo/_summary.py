"""The demo when it is over: what stays on the screen, and the same as JSON."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from importlib.metadata import version

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from jwt_events import __version__
from jwt_events.cli.demo._board import Board
from jwt_events.cli.demo._counts import Latencies
from jwt_events.cli.demo._trial import Trial
from jwt_events.cli.demo._wording import milliseconds, story


def failed(board: Board) -> bool:
    """Whether anything went wrong that must not: an event lost, a token let in, or not refused."""
    trial = board.trial
    return bool(board.lost or (trial is not None and (trial.stale_allows or trial.not_refused)))


def picture_of(board: Board, transport: str) -> Padding:
    """Draw what stays on the screen."""
    parts: list[RenderableType] = [_crossings(board), "", _verdict_on_events(board)]
    if board.trial is not None:
        parts += ["", _refusals(board.trial), "", *_verdict_on_tokens(board.trial)]
        if transport != "stream":
            parts.append(Text("(on a stream: a list of revocations needs a transport that remembers)", "dim"))
    versions = " · ".join(f"{name} {number}" for name, number in _versions().items())
    footer = Text(f"{board.server} · {transport}\n{versions}", "dim")
    return Padding(Group(*parts, "", footer), (1, 2), expand=False)


def _crossings(board: Board) -> Table:
    table = _table("published", "handled", "lost", "p50", "p99")
    table.add_row("issuer", f"{board.issuer.count:,}", style="cyan")
    for row in board.services:
        table.add_row(row.name, "", f"{row.count:,}", _count(board.lost_by(row)), *_spread(row.latencies, 50, 99))
    handled = sum(row.count for row in board.services)
    spread = _spread(board.latencies, 50, 99)
    table.add_row("together", "", f"{handled:,}", _count(board.lost), *spread, style="bold")
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
        table.add_row(name, f"{trial.revoked():,}", f"{after.total():,}", *_spread(after, 50, 99, 100))
    return table


def _verdict_on_tokens(trial: Trial) -> Iterator[RenderableType]:
    told = Table.grid(padding=(0, 2))
    for done, outcome in story(trial):
        told.add_row(done, Text(outcome, "dim"))
    yield from (told, "")
    if trial.stale_allows:
        yield _bad(f"{trial.stale_allows:,} times a token was let in that should have been refused by then.")
    if trial.not_refused:
        yield _bad(f"{trial.not_refused:,} revocations did not lead to a refusal.")
    elif not trial.stale_allows:
        yield _good("Every service refused every revoked token; none was let in too late.")


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


def _count(lost: int) -> Text:
    return Text(f"{lost:,}", "red" if lost else "green")


def _spread(latencies: Latencies, *percents: float) -> list[str]:
    return [milliseconds(latencies.percentile(percent)) for percent in percents]


def to_json(board: Board, transport: str) -> str:
    """Say it to a program. What was not observed is null."""
    result = {
        "published": board.issuer.count,
        "handled": {row.name: row.count for row in board.services},
        "lost": board.lost,
        "p50_ms": board.latencies.percentile(50),
        "p99_ms": board.latencies.percentile(99),
        **_of_tokens(board.trial),
        "server": board.server,
        "transport": transport,
        "versions": _versions(),
    }
    return json.dumps(result)


def _of_tokens(trial: Trial | None) -> dict[str, object]:
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
