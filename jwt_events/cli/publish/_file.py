"""Publishing a file: reads events from its lines and publishes them a batch at a time."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from jwt_events._internal.functions import in_thread
from jwt_events.cli._running import describe, problems, say
from jwt_events.cli.publish._parsing import event_from_line
from jwt_events.envelope import MAX_WIRE_BYTES
from jwt_events.errors import InvalidEvent, InvalidOption, JWTEventsError, PublishError
from jwt_events.events import Event
from jwt_events.publisher import Publisher

_MAX_LINE_LENGTH = MAX_WIRE_BYTES + 2  # with the end of the line, which may be two bytes


class FileNotPublished(JWTEventsError):
    """A file was not published to its end; the message names the line to resume with."""


class _Line(NamedTuple):
    number: int
    event: Event


class FilePublisher:
    """Publishes the events of a file in order.

    Args:
        publisher: publishes them.
        path: the file; ``-`` for standard input.
        from_line: the first line to publish, counted from 1.
        batch_size: how many events to publish at a time.

    Attributes:
        published: how many events were published.
        next_line: the line to resume with.

    Raises:
        InvalidOption: the file cannot be read.
    """

    def __init__(self, publisher: Publisher, path: str, *, from_line: int, batch_size: int) -> None:
        self._publisher = publisher
        self._name = "standard input" if path == "-" else path
        self._first = from_line
        self._batch_size = batch_size
        self._read = 0
        self._invalid: tuple[int, InvalidEvent] | None = None
        self.published: int = 0
        self.next_line: int = from_line
        try:
            # Not sys.stdin: a thread that is reading would hold its lock when the interpreter ends.
            self._file: BinaryIO = open(0, "rb", closefd=False) if path == "-" else Path(path).open("rb")  # noqa: SIM115 - closed by `close`
        except OSError as error:
            raise InvalidOption("file", f"{path!r} cannot be read: {error.strerror}") from None

    def close(self) -> None:
        """Close the file, unless a thread is still waiting for standard input."""
        if self._name != "standard input":
            self._file.close()

    async def publish(self) -> None:
        """Publish to the end of the file.

        Raises:
            FileNotPublished: a line is not an event, or the server did not confirm it.

        When cancelled, it prints the line to resume with.
        """
        try:
            async with self._publisher:
                with _progress(self._file) as show:
                    # A thread that ends with the process: standard input may block for ever.
                    while lines := await in_thread(self._next, name="jwt_events reading"):
                        await self._publish(lines)
                        show(self.published)
        except asyncio.CancelledError:
            say(f"stopped: {self._resume()}")
            raise
        self.next_line = max(self._first, self._read + 1)
        if self._invalid is not None:
            self.next_line, error = self._invalid
            raise self._failed(error)

    def _next(self) -> list[_Line]:
        """Read the next batch; it ends early at the end of the file, or before a line that is not an event."""
        lines: list[_Line] = []
        while len(lines) < self._batch_size and self._invalid is None and (line := self._line()):
            self._read += 1
            if self._read < self._first or not line.strip():
                continue
            try:
                lines.append(_Line(self._read, event_from_line(line)))
            except InvalidEvent as error:
                self._invalid = self._read, error
        return lines

    def _line(self) -> bytes:
        """Read a line; if it is longer than any event, keep only its beginning."""
        line = rest = self._file.readline(_MAX_LINE_LENGTH)
        while len(rest) == _MAX_LINE_LENGTH and not rest.endswith(b"\n"):
            rest = self._file.readline(_MAX_LINE_LENGTH)
        return line

    async def _publish(self, lines: Sequence[_Line]) -> None:
        self.next_line = lines[0].number
        try:
            receipts = await self._publisher.publish_many([event for _, event in lines])
        except InvalidEvent as error:  # nothing was sent; publish one by one to find the line
            if len(lines) == 1:
                raise self._failed(error) from None
            for line in lines:
                await self._publish([line])
            return
        except PublishError as error:
            self.published += len(error.receipts)
            self.next_line = next(number for number, event in lines if event.id in error.event_ids)
            raise self._failed(error) from None
        self.published += len(receipts)
        self.next_line = lines[-1].number + 1

    def _failed(self, error: JWTEventsError) -> FileNotPublished:
        problem = problems(error) if isinstance(error, InvalidEvent) else describe(error)
        end = "" if problem.endswith((".", "?")) else "."
        return FileNotPublished(f"{self._name}, line {self.next_line}: {problem}{end} {self._resume()}")

    def _resume(self) -> str:
        return f"published: {self.published}; go on with --from-line {self.next_line}"


@contextmanager
def _progress(file: BinaryIO) -> Iterator[Callable[[int], None]]:
    """Draw a progress bar on standard error, if that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    size = Path(file.name).stat().st_size if isinstance(file.name, str) else None
    columns = (TextColumn("{task.fields[published]:,} events"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=size, published=0)

        def show(published: int) -> None:
            progress.update(task, published=published, completed=file.tell() if size is not None else 0)

        yield show
