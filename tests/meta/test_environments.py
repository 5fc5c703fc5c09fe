"""The commands that run the tests in other environments: a missing environment must not look like a success."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.meta.matrix import lowest_versions
from tests.support.waiting import scaled

ROOT = Path(__file__).parents[2]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a module of the tests as the Makefile does."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env=os.environ | {"PATH": path} | environment,
        capture_output=True,
        text=True,
        timeout=scaled(60),
        check=False,
    )


def test_docker_is_missing(tmp_path: Path) -> None:
    """Without Docker the command fails, names the image, and says what to do."""
    result = run("tests.meta.docker", "redis:8", DOCKER_HOST=f"unix://{tmp_path}/docker.sock")
    assert result.returncode == 2
    assert "needs a running Docker that has redis:8" in result.stderr
    assert "DOCKER_HOST" in result.stderr


def test_python_is_missing() -> None:
    """A combination that cannot run is counted, and is no success when no other combination ran."""
    axes = ("--pythons", "3.99", "--redis-py", "newest", "--loops", "asyncio uvloop")
    result = run("tests.meta.matrix", *axes, COLUMNS="200", UV_PYTHON_DOWNLOADS="never")
    assert result.returncode == 1
    assert result.stdout.count("NOT RUN: there is no Python 3.99") == 2
    assert "0 passed, 0 FAILED, 2 NOT RUN" in result.stdout


def test_every_lower_bound_is_run() -> None:
    """The matrix knows the lowest version of every dependency; one without a lower bound could not be tested."""
    wanted = lowest_versions()
    assert {"redis[hiredis]==6.4", "uuid-utils==0.14", "aiohttp==3.10"} <= set(wanted)
    assert [one for one in wanted if not re.fullmatch(r"[\w-]+(\[[\w,]+\])?==[0-9.]+", one)] == []
