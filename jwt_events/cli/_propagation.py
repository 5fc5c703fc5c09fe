"""What a command says about where an event is in force."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from jwt_events.cli import _output as output
from jwt_events.cli._running import NO

if TYPE_CHECKING:
    from jwt_events.fleet import Propagation


def report(found: Propagation, *, as_json: bool) -> None:
    """Print it, as JSON unless the receipt that holds it was printed.

    Raises:
        typer.Exit: it may not be in force everywhere.
    """
    if not as_json:
        for words in ("acknowledged", "expired", "unsafe", "missing"):
            if names := getattr(found, words):
                output.line(f"{words}: {', '.join(names)}")
        output.line(f"in force by {found.by}" if found.is_complete else "not known to be in force everywhere")
    if not found.is_complete:
        raise typer.Exit(NO)
