"""What a command prints: for people in a terminal, plain where nobody sees it, or JSON, an object on each line."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import Any

import typer

from jwt_events.cli.wording import instant, printable, without_tokens

_UNREAD = 128 + signal.SIGPIPE


def line(text: str) -> None:
    """Print a line at once."""
    _print(printable(text))


def record(content: Mapping[str, object] | object) -> None:
    """Print a JSON object on one line, at once."""
    if is_dataclass(content):
        content = {field.name: getattr(content, field.name) for field in fields(content)}
    _print(without_tokens(json.dumps(content, default=_jsonable)))


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table: drawn in a terminal, with tabs between the columns elsewhere."""
    cells = [[printable(_cell(value)) for value in row] for row in rows]
    if not sys.stdout.isatty():
        for row in (columns, *cells):
            _print("\t".join(row))
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=SIMPLE_HEAD)
    for number, name in enumerate(columns):
        # Nothing is left out: an id that is not whole is of no use. The first column is what one copies.
        drawn.add_column(name, overflow="fold", no_wrap=number == 0)
    for row in cells:
        drawn.add_row(*map(Text, row))
    Console().print(drawn)


def ensure_read() -> None:
    """End if nobody reads the output any more: who waits for events would otherwise not notice before the next one.

    Raises:
        typer.Exit: nobody does.
    """
    with suppress(OSError):  # it is no file
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        if any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
            raise typer.Exit(_UNREAD)


def _print(text: str) -> None:
    try:
        # An output that knows fewer letters than the events gets them written out.
        sys.stdout.write(text.encode(sys.stdout.encoding, "backslashreplace").decode(sys.stdout.encoding) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it ends
        raise typer.Exit(_UNREAD) from None


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return instant(value) if isinstance(value, datetime) else str(value)


def _jsonable(value: Any) -> object:
    if isinstance(value, datetime):
        return instant(value)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
