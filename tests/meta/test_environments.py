"""The commands that run the tests in other environments: a missing environment must not look like a success."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

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


def test_there_is_no_pre_release(tmp_path: Path) -> None:
    """Without a pre-release newer than the newest release, its combination is neither passed nor failed."""
    (tmp_path / "redis").mkdir()
    for version in ("8.0.0b1", "8.0.0"):
        _wheel(tmp_path / "redis" / f"redis-{version}-py3-none-any.whl", version)
    result = _matrix_of_pre_release(tmp_path)
    assert "there is none: no pre-release of redis-py is newer" in result.stdout
    assert "0 passed, 0 FAILED, 0 NOT RUN" in result.stdout


def test_there_is_a_pre_release(tmp_path: Path) -> None:
    """A newer pre-release gets a combination, which counts."""
    for version in ("8.0.0b1", "8.0.0", "9.0.0b2"):
        _wheel(tmp_path / f"redis-{version}-py3-none-any.whl", version)
    result = _matrix_of_pre_release(tmp_path)
    assert "NOT RUN: there is no Python 3.99" in result.stdout
    assert "0 passed, 0 FAILED, 1 NOT RUN" in result.stdout


def _matrix_of_pre_release(index: Path) -> subprocess.CompletedProcess[str]:
    axes = ("--pythons", "3.99", "--redis-py", "pre-release", "--loops", "asyncio")
    environment = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": f"{index} {index / 'redis'}", "UV_PYTHON_DOWNLOADS": "never"}
    return run("tests.meta.matrix", *axes, COLUMNS="200", **environment)


def _wheel(path: Path, version: str) -> None:
    """Write a package that holds nothing but its version."""
    folder = f"redis-{version}.dist-info"
    with ZipFile(path, "w") as wheel:
        wheel.writestr(f"{folder}/METADATA", f"Metadata-Version: 2.1\nName: redis\nVersion: {version}\n")
        wheel.writestr(f"{folder}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{folder}/RECORD", "")
