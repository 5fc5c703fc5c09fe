"""Runs the tests on each Python, redis-py and event loop: ``make test-matrix``.

In place of a version of redis-py, ``lowest`` is the lowest version of every dependency, redis-py among them: the lower
bounds of ``pyproject.toml`` are tested, not believed. What only the tests need is as new as it can be.

Every pair of a Python and a redis-py has an environment of its own in ``.venv/matrix``. uv finds the interpreters on
the PATH and among those of pyenv, and fetches what is missing where it may. What was not to be had is counted and named
at the end, never passed over.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[2]
NEWEST = "newest"
LOWEST = "lowest"
PRE_RELEASE = "pre-release"
EXTRAS = frozenset({"otlp", "fastapi", "aiohttp", "cli", "embedded", "keys"})
"""The extras that users install; the others are for the tests and the bench."""

_PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")

console = Console(soft_wrap=True, highlight=False)


@dataclass(frozen=True)
class Cell:
    """One combination of what the library runs on.

    Attributes:
        python: the version of the interpreter: ``3.12``.
        redis: the version of redis-py, ``newest``, ``pre-release`` for the newest one that is newer than that, or
            ``lowest`` for the lowest version of every dependency.
        loop: ``asyncio`` or ``uvloop``.
    """

    python: str
    redis: str
    loop: str

    def __str__(self) -> str:
        versions = "the lowest versions" if self.redis == LOWEST else f"redis-py {self.redis}"
        return f"Python {self.python}, {versions}, {self.loop}"

    @property
    def environment(self) -> Path:
        """Where it is installed; event loops share one."""
        return ROOT / ".venv" / "matrix" / f"python-{self.python}-redis-{self.redis}"

    def set_up(self) -> bool:
        """Make the environment, or bring it up to date; return whether there is such a Python."""
        python = str(self.environment / "bin" / "python")
        if not Path(python).exists():
            interpreter = find_interpreter(self.python)
            if interpreter is None:
                return False
            subprocess.run([interpreter, "-m", "venv", "--clear", self.environment], check=True)
        # By pip, as the Makefile does: it knows the registry that this machine has been set up with.
        if self.redis == LOWEST:
            wanted = lowest_versions()
        else:
            is_latest = self.redis in {NEWEST, PRE_RELEASE}
            wanted = ["--upgrade", "redis"] if is_latest else [f"redis=={self.redis}"]
        subprocess.run([python, *_PIP, "--editable", f"{ROOT}[dev]", *wanted], check=True)
        if self.redis == PRE_RELEASE:  # with whatever this project, and others, require for the time being
            subprocess.run([python, *_PIP, "--no-deps", f"redis=={pre_release()}"], check=True)
        return True

    def run(self, arguments: Sequence[str]) -> bool:
        """Run the tests and let them say what they have to say; return whether they passed."""
        command = [str(self.environment / "bin" / "python"), "-m", "pytest", *arguments]
        tests = subprocess.run(command, cwd=ROOT, env=os.environ | {"JWT_EVENTS_TEST_LOOP": self.loop}, check=False)
        return tests.returncode == 0


def lowest_versions() -> list[str]:
    """Return the lowest version of each dependency and of each extra that users install, as requirements."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(one for name, needs in extras.items() if name in EXTRAS for one in needs)]
    return [re.sub(r">=([0-9.]+).*", r"==\1", one) for one in wanted]


@cache
def pre_release() -> str | None:
    """Return the version of the newest pre-release of redis-py; ``None`` if none is newer than the newest release."""
    newest, candidate = [
        _newest(
            sys.executable, *_PIP, *options, "--dry-run", "--ignore-installed", "--no-deps", "--report", "-", "redis"
        )
        for options in ((), ("--pre",))
    ]
    return None if candidate == newest else candidate


def _newest(*command: str) -> str:
    report = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    version: str = json.loads(report)["install"][0]["metadata"]["version"]
    return version


def find_interpreter(version: str) -> str | None:
    """Find a Python of this version, or fetch one; ``None`` if there is none and none was to be had."""
    for _ in range(2):
        found = _uv("find", "--system", version)
        if found.returncode == 0:
            return found.stdout.strip()
        if _uv("install", version).returncode != 0:
            break
    return None


def _uv(*arguments: str) -> subprocess.CompletedProcess[str]:
    # A shim of pyenv answers only for the version that is switched on, so show uv all of them.
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    path = os.pathsep.join([os.environ["PATH"], *map(str, sorted(pyenv.glob("versions/*/bin")))])
    uv = ["uv", "python", *arguments]
    return subprocess.run(uv, env=os.environ | {"PATH": path}, stdout=subprocess.PIPE, text=True, check=False)


def _told(cells: Sequence[Cell], arguments: Sequence[str]) -> Iterator[tuple[Cell, str]]:
    for number, cell in enumerate(cells, start=1):
        console.print(f"==> {number} of {len(cells)}: {cell}", style="bold")
        if cell.redis == PRE_RELEASE and pre_release() is None:
            yield cell, "there is none: no pre-release of redis-py is newer than its newest release"
            continue
        if not cell.set_up():
            yield cell, f"[yellow]NOT RUN: there is no Python {cell.python}, and none could be fetched"
            continue
        began = time.monotonic()
        verdict = "[green]passed" if cell.run(arguments) else "[red]FAILED"
        yield cell, f"{verdict} in {time.monotonic() - began:.0f} s"


def main() -> int:
    """Run all cells, then say of each what became of it; return an exit code."""
    parser = argparse.ArgumentParser(prog="make test-matrix", allow_abbrev=False)
    parser.add_argument("--pythons", required=True, help="versions with blanks between them")
    known = f"{NEWEST}, {PRE_RELEASE} or {LOWEST}"
    parser.add_argument("--redis-py", required=True, help=f"versions of redis-py, {known}")
    parser.add_argument("--loops", required=True, help="asyncio, uvloop or both")
    options, arguments = parser.parse_known_args()
    axes = (options.pythons.split(), options.redis_py.split(), options.loops.split())
    outcomes = dict(_told([Cell(*values) for values in product(*axes)], arguments))
    table = Table("cell", "outcome")
    for cell, outcome in outcomes.items():
        table.add_row(str(cell), outcome)
    console.print(table)
    count = {word: sum(word in outcome for outcome in outcomes.values()) for word in ("passed", "FAILED", "NOT RUN")}
    console.print(", ".join(f"{number} {word}" for word, number in count.items()), style="bold")
    if count["NOT RUN"]:
        console.print("Install the missing interpreters with uv or pyenv to have these run.", style="bold yellow")
    return 1 if count["FAILED"] or not count["passed"] else 0


if __name__ == "__main__":
    sys.exit(main())
