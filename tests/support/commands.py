"""Runs commands of the command line in this process, which is fast, or in a process of their own."""

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
    """Result of a command.

    Attributes:
        code: exit code.
        output: standard output.
        errors: standard error.
    """

    code: int
    output: str
    errors: str

    @property
    def lines(self) -> list[str]:
        """Lines of standard output."""
        return self.output.splitlines()

    @property
    def records(self) -> list[dict[str, Any]]:
        """JSON objects on standard output, one on each line."""
        return [json.loads(line) for line in self.lines]

    @property
    def complaint(self) -> str:
        """The only line on standard error; standard output must be empty."""
        assert self.output == ""
        (line,) = self.errors.splitlines()
        assert line.startswith("jwt-events: ")
        return line


def run(*arguments: str, url: str | None = None, given: str | bytes = b"") -> Outcome:
    """Run a command in this process.

    Args:
        arguments: its arguments.
        url: value of JWT_EVENTS_URL; ``None`` means unset.
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
    """Run a command in a process of its own beside the test; it is killed afterwards."""
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
    """Run a command in a terminal; return its exit code and output."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=environment(url) | {"TERM": "xterm"}
    ) as process:
        os.close(theirs)
        written = b""
        while select.select([ours], [], [], scaled(30))[0]:
            try:
                written += os.read(ours, 65_536)
            except OSError:  # raised on Linux at the end of the terminal
                break
        os.close(ours)
        return process.wait(scaled(10)), written.decode()


def environment(url: str | None) -> dict[str, str]:
    """Return the environment with JWT_EVENTS_URL set to this URL, or unset."""
    others = {name: value for name, value in os.environ.items() if name != "JWT_EVENTS_URL"}
    return others if url is None else others | {"JWT_EVENTS_URL": url}


def pipe(stream: IO[str] | None) -> IO[str]:
    """Return a stream of a process after checking that it is a pipe."""
    assert stream is not None
    return stream
