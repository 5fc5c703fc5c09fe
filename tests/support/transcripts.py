"""What a document shows of a terminal, carried out: the commands as they stand, and what they print."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import groupby
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import IO, Self

from bench.ports import free_port
from tests.support.documents import ROOT, Block
from tests.support.waiting import block_until, scaled

# The programs that a reader has: those of this interpreter.
_PROGRAMS = {
    "curl": "-m tests.support.curl",
    "jwt-events": "-m jwt_events.cli",
    "python": "",
    "uvicorn": "-m uvicorn",
}

# What is done for the reader: installing, and a server.
_PREPARATION = re.compile(r"git |pip |python3 -m venv |jwt-events serve\b|\.venv/bin/")

_OWN_TERMINAL = "# in a terminal of its own"
_ASSIGNMENT = re.compile(r"([A-Z]+)=\$\((.*)\)")


def follow(page: list[Block], directory: Path, url: str) -> None:
    """Go through the blocks of a page as a reader does, section by section; what runs ends with its section.

    Args:
        page: the blocks, in order.
        directory: where to save the files.
        url: the server, wherever the page has ``redis://localhost:6379``.
    """
    terminals = Terminals(directory, url)
    for _, section in groupby(page, key=lambda block: block.section):
        with terminals:
            for block in section:
                terminals.follow(block)


def _is_deaf_to_interrupts(pid: int) -> bool:
    """Whether a process ignores Ctrl-C or holds it back, as it may inherit it from a shell that runs the tests."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return False
    masks = re.findall(r"^Sig(?:Ign|Blk):\s*([0-9a-f]+)$", status.read_text(), re.MULTILINE)
    return any(int(mask, 16) >> (signal.SIGINT - 1) & 1 for mask in masks)


class Terminals:
    """A directory with the files that a page tells to save, and terminals in it.

    Args:
        directory: where.
        url: the server, wherever the page has ``redis://localhost:6379``.
    """

    def __init__(self, directory: Path, url: str) -> None:
        self._directory = directory
        self._replaced = {"redis://localhost:6379": url}
        self._replaced |= {port: str(free_port()) for port in ("8000", "9000")}
        programs = directory / "bin"
        programs.mkdir()
        for name, arguments in _PROGRAMS.items():
            program = programs / name
            program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
            program.chmod(0o755)
        self._environment = os.environ | {
            "PATH": os.pathsep.join((str(programs), os.environ["PATH"])),
            "PYTHONPATH": os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", ""))).rstrip(os.pathsep),
            "PYTHONUNBUFFERED": "1",
            "JWT_EVENTS_URL": url,
            "UVICORN_PORT": self._replaced["8000"],
            "PYTHONFAULTHANDLER": "1",
        }
        self._heard: list[str] = []  # what was printed in the terminals that have a command of their own
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._heard.clear()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()
        if exc is None:
            assert "Traceback" not in "\n".join(self._heard), self._heard

    def follow(self, block: Block) -> None:
        """Do what a reader does who comes to this block."""
        if block.file is not None:
            (self._directory / block.file).write_text(self._adapted(block.text))
        elif block.language == "console":
            for command, printed in _commands(self._adapted(block.text)):
                if _PREPARATION.match(command) is None:
                    self._carry_out(command, printed)
        elif block.language == "text":
            self._wait_for(block.text.splitlines())

    def _adapted(self, text: str) -> str:
        for written, meant in self._replaced.items():
            text = text.replace(written, meant)
        return text

    def _carry_out(self, command: str, printed: list[str]) -> None:
        if _OWN_TERMINAL in command:
            self._stack.enter_context(self._own_terminal(command.partition("#")[0]))
            self._wait_for(printed)
        elif (assignment := _ASSIGNMENT.fullmatch(command)) is not None:
            self._environment[assignment[1]] = self._run(assignment[2]).strip()
        elif command.startswith("curl "):  # what it asks may have to start first, and to hear of a revocation
            tries: list[str] = []

            def is_answered() -> bool:
                tries.append(self._run(command, check=False))
                return _shows(tries[-1].splitlines(), printed)

            block_until(is_answered, within=30, what=lambda: f"{command}: {tries[-1]!r}; {self._heard}")
        else:
            output = self._run(command)
            assert _shows(output.splitlines(), printed), (command, output)

    def _run(self, command: str, *, check: bool = True) -> str:
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=self._directory,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=scaled(60),
            check=False,
        )
        assert done.returncode == 0 or not check, (command, done.stderr)
        return done.stdout

    @contextmanager
    def _own_terminal(self, command: str) -> Iterator[None]:
        with subprocess.Popen(
            ["sh", "-c", f"exec {command}"],
            cwd=self._directory,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            assert process.stdout is not None
            listening = Thread(target=self._listen, args=(process.stdout,))
            listening.start()
            try:
                yield
                process.send_signal(signal.SIGTERM if _is_deaf_to_interrupts(process.pid) else signal.SIGINT)
                self._expect_end(process, command)
            finally:
                process.kill()
                listening.join()

    def _expect_end(self, process: subprocess.Popen[str], command: str) -> None:
        try:
            process.wait(scaled(30))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # then it says where its threads are
            process.wait(scaled(30))
            raise AssertionError(f"{command} did not end; {self._heard}") from None

    def _listen(self, stream: IO[str]) -> None:
        for line in stream:
            self._heard.append(line.rstrip("\n"))

    def _wait_for(self, lines: list[str]) -> None:
        block_until(
            lambda: all(_shows(self._heard, [line]) for line in lines),
            within=30,
            what=lambda: f"{lines} in {self._heard}",
        )


def _commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Read a terminal: each command, and the lines that it prints."""
    command, printed = "", list[str]()
    for line in text.splitlines():
        if line.startswith("$ "):
            if command:
                yield command, printed
            command, printed = line.removeprefix("$ "), []
        else:
            printed.append(line)
    if command:
        yield command, printed


def _shows(output: list[str], expected: list[str]) -> bool:
    """Say whether the lines are there in this order, perhaps with others between them; ``…`` stands for anything."""
    rest = iter(output)
    patterns = (".*".join(map(re.escape, line.split("…"))) for line in expected if line)
    return all(any(re.fullmatch(pattern, line) for line in rest) for pattern in patterns)
