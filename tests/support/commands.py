"""Commands of the command line: in this process, which is quick, or in one of their own, as an operator runs them."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from typer.testing import CliRunner

from jwt_events.cli import app
from tests.support.waiting import scaled

COMMAND = (sys.executable, "-m", "jwt_events.cli")


@dataclass(frozen=True)
class Outcome:
    """What came of a command.

    Attributes:
        code: its exit code.
        output: what it printed.
        errors: what it said on standard error.
    """

    code: int
    output: str
    errors: str

    @property
    def lines(self) -> list[str]:
        """The lines that it printed."""
        return self.output.splitlines()

    @property
    def records(self) -> list[dict[str, Any]]:
        """The JSON objects that it printed, one on each line."""
        return [json.loads(line) for line in self.lines]

    @property
    def complaint(self) -> str:
        """The one line that it said on standard error; it printed nothing."""
        assert self.output == ""
        (line,) = self.errors.splitlines()
        assert line.startswith("jwt-events: ")
        return line


def run(*arguments: str, url: str | None = None, given: str | bytes = b"") -> Outcome:
    """Run a command in this process.

    Args:
        arguments: its arguments.
        url: what JWT_EVENTS_URL is to be; ``None`` for not set.
        given: its standard input.
    """
    result = CliRunner(env={"JWT_EVENTS_URL": url}).invoke(app, arguments, input=given, prog_name="jwt-events")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Outcome(result.exit_code, result.stdout, result.stderr)


def run_apart(*arguments: str, url: str | None = None, given: str = "") -> Outcome:
    """Run a command in a process of its own."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        input=given,
        capture_output=True,
        text=True,
        timeout=scaled(30),
        check=False,
        env=environment(url),
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


@contextmanager
def running(*arguments: str, url: str | None = None) -> Iterator[subprocess.Popen[str]]:
    """Run a command in a process of its own, alongside the test; it is killed in the end."""
    with subprocess.Popen(
        [*COMMAND, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(url),
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def run_in_terminal(*arguments: str, url: str) -> tuple[int, str]:
    """Run a command in a terminal; return its exit code and what was written."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=environment(url) | {"TERM": "xterm"}
    ) as process:
        os.close(theirs)
        written = b""
        while select.select([ours], [], [], scaled(30))[0]:
            try:
                written += os.read(ours, 65_536)
            except OSError:  # how the end of a terminal looks on Linux
                break
        os.close(ours)
        return process.wait(scaled(10)), written.decode()


def environment(url: str | None) -> dict[str, str]:
    """The environment, in which JWT_EVENTS_URL is this one, or not set."""
    others = {name: value for name, value in os.environ.items() if name != "JWT_EVENTS_URL"}
    return others if url is None else others | {"JWT_EVENTS_URL": url}


def pipe(stream: IO[str] | None) -> IO[str]:
    """Return a stream of a process that is known to be a pipe."""
    assert stream is not None
    return stream
