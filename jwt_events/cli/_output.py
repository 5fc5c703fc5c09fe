"""Standard output: lines, tables and JSON records, and the forms of values in them. It never has a whole token."""

from __future__ import annotations

import json
import os
import re
import select
import shlex
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields, is_dataclass
from datetime import UTC, datetime
from typing import Any, TextIO

import typer

_UNREAD = 128 + signal.SIGPIPE

_TOKEN = re.compile(r"eyJ[\w-]*(\.[\w-]*){2,4}", re.ASCII)
_CREDENTIALS = re.compile(r"://(?!user:password@host:6379)[^\s'\"]*@")  # except the example that advice gives


class Writes:
    """Writes to standard output and error, which a signal ends if the reader has stopped reading."""

    def __init__(self) -> None:
        self._number: int | None = None
        self._stream: TextIO | None = None

    def reset(self) -> None:
        """Forget the signals of an earlier command."""
        self._number = None

    def handle(self, number: int, _: object) -> None:
        """Handle a signal.

        Raises:
            typer.Exit: it arrived while a stream was written to that has no room.
        """
        self._number = number
        self._check()

    @contextmanager
    def to(self, stream: TextIO) -> Iterator[None]:
        """Write to a stream.

        Raises:
            typer.Exit: a signal has arrived, and the stream has no room.
        """
        self._stream = stream
        try:
            self._check()
            yield
        finally:
            self._stream = None

    def _check(self) -> None:
        if self._number is not None and self._stream is not None and not _has(self._stream, select.POLLOUT):
            _discard(self._stream)
            raise typer.Exit(128 + self._number)


writes = Writes()


def line(text: str) -> None:
    """Print a line at once."""
    _print(printable(text))


def record(content: Mapping[str, object] | object) -> None:
    """Print a JSON object on one line, at once."""
    if is_dataclass(content):
        content = {field.name: getattr(content, field.name) for field in fields(content)}
    _print(without_tokens(json.dumps(content, default=_jsonable)))


def counted(number: int, noun: str) -> str:
    """Return a number of things: ``1 event``, ``2 events``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


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
        # Cells are folded, not cut: an id that is not whole is of no use. The first column is the one that is copied.
        drawn.add_column(name, overflow="fold", no_wrap=number == 0)
    for row in cells:
        drawn.add_row(*map(Text, row))
    Console().print(drawn)


def ensure_read() -> None:
    """Exit if the reader of standard output is gone; a command that waits would notice only at its next line.

    Raises:
        typer.Exit: the reader is gone.
    """
    if _has(sys.stdout, select.POLLERR | select.POLLHUP, unknown=False):
        raise typer.Exit(_UNREAD)


def redacted(text: str) -> str:
    """Return a text as one line, without tokens, URL credentials and control characters."""
    return printable(" ".join(_CREDENTIALS.sub("://***@", without_tokens(text)).split()))


def without_tokens(text: str) -> str:
    """Replace whatever could be a whole token."""
    return _TOKEN.sub("(a token)", text)


def printable(text: str) -> str:
    """Replace tokens, and escape characters that could control a terminal."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in without_tokens(text)
    )


def rfc3339(value: datetime) -> str:
    """Format an instant as RFC 3339, in UTC, with milliseconds."""
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def approximate(seconds: float) -> str:
    """Format a duration for people, in its largest unit: ``1.5 h``."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def logfmt(**values: object) -> str:
    """Format values as ``name=value``, quoted where a shell would need it; empty ones are left out."""
    return " ".join(f"{name}={_quoted(value)}" for name, value in values.items() if not _is_empty(value))


def _is_empty(value: object) -> bool:
    return value is None or value is False or value == {}


def _quoted(value: object) -> str:
    return rfc3339(value) if isinstance(value, datetime) else shlex.quote(str(value))


def _print(text: str) -> None:
    try:
        with writes.to(sys.stdout):
            # Characters that the encoding of the output does not have are escaped.
            sys.stdout.write(text.encode(sys.stdout.encoding, "backslashreplace").decode(sys.stdout.encoding) + "\n")
            sys.stdout.flush()
    except BrokenPipeError:
        _discard(sys.stdout)
        raise typer.Exit(_UNREAD) from None


def _discard(stream: TextIO) -> None:
    """Discard what is left to be written, which Python would try to write, and complain, when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _has(stream: TextIO, events: int, *, unknown: bool = True) -> bool:
    """Whether a stream has one of these events now, of `select.poll`; ``unknown`` if it is not a file."""
    with suppress(OSError):
        poll = select.poll()
        poll.register(stream.fileno(), events & select.POLLOUT)
        return any(found & (events | select.POLLERR) for _, found in poll.poll(0))
    return unknown


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return rfc3339(value) if isinstance(value, datetime) else str(value)


def _jsonable(value: Any) -> object:
    if isinstance(value, datetime):
        return rfc3339(value)
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
