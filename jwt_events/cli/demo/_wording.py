"""How the demo puts what it has to show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.text import Text

from jwt_events.cli.demo._messages import ALLOWED, KINDS, REVOKED, STALE
from jwt_events.cli.demo._trial import Trial

_MARKS = {
    None: ("·", "dim", "not asked yet"),
    ALLOWED: ("✓", "green", "200 let in"),
    REVOKED: ("✗", "red", "401 revoked"),
    STALE: ("…", "yellow", "503 cannot know"),
}


def milliseconds(value: float | None) -> str:
    """Write a duration."""
    return "-" if value is None else f"{value:,.1f} ms"


def marks(statuses: Sequence[int | None]) -> Text:
    """Draw the latest answers of a service, a mark for each token."""
    return Text.assemble(*((mark, style) for mark, style, _ in map(_MARKS.__getitem__, statuses)))


def legend() -> Text:
    """Say what the marks mean."""
    return Text("   ").join(Text.assemble((mark, style), (f" {text}", "dim")) for mark, style, text in _MARKS.values())


def story(trial: Trial) -> Iterator[tuple[str, str]]:
    """Tell what has happened to the tokens: each time what was done, and what came of it."""
    for kind in KINDS:
        if count := trial.revoked(kind):
            after = trial.refused_after(kind=kind)
            typical, worst = (milliseconds(after.percentile(percent)) for percent in (50, 100))
            outcome = f"refused after {typical}, {worst} at most" if after else "not refused"
            yield f"{count} {kind}{'s' * (count > 1)} revoked", outcome
    if trial.stale_at:
        stands = "every 401 stands" if not trial.wavered else f"{trial.wavered} answers went back on a 401"
        yield "server killed", f"503 after {milliseconds(trial.stale_after_ms)}; {stands}"
    if trial.fresh_at:
        yield "server back", f"fresh again after {milliseconds(trial.fresh_again_after_ms)}"
    if trial.asked_anew:
        yield "services started anew", f"{trial.not_refused or 'nothing'} forgotten"
