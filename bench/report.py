"""What a whole run of the bench says, and how it is kept."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path

from bench.contenders import PACKAGES
from bench.process import PYTHONS
from bench.race import Runs, Terms
from bench.results import Result, Results
from bench.rows import ROWS, Row
from bench.run import Run


@dataclass(frozen=True)
class Report:
    """All rows of one run.

    Attributes:
        about: when, on what machine, with which versions.
        runs: by row and contender.
    """

    about: Mapping[str, str]
    runs: Mapping[str, Runs]

    def rows(self) -> Iterator[tuple[Row, Results]]:
        """Go through the rows that were run."""
        for row in ROWS:
            if row.id in self.runs:
                yield row, {name: Result.of(runs) for name, runs in self.runs[row.id].items()}

    def save(self, path: Path) -> None:
        """Keep it as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @staticmethod
    def load(path: Path) -> Report:
        """Have one again that was kept."""
        kept = json.loads(path.read_text())
        runs = {
            row: {name: [Run(**run) for run in found] for name, found in contenders.items()}
            for row, contenders in kept["runs"].items()
        }
        return Report(kept["about"], runs)


def about(server_version: str, terms: Terms) -> dict[str, str]:
    """Say on what all this was measured."""
    return {
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "server": f"{server_version}, embedded, over TCP on the same machine",
        "interpreter": f"{platform.python_implementation()} {platform.python_version()}, {terms.loop}",
        "packages": ", ".join(_versions()),
        "rounds": f"{terms.rounds}, after one that warms up"
        + ("" if terms.scale == 1 else "; QUICK, not to be quoted"),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _versions() -> Iterator[str]:
    for package in PACKAGES:
        try:
            yield f"{package} {version(package)}"
        except PackageNotFoundError:
            yield f"{package} missing"
    for name, python in PYTHONS.items():
        places = [str(path) for path in python.parent.parent.glob("lib/python*/site-packages")]
        found = {one.name: one.version for one in distributions(path=places)}
        yield f"{name} {found.get(name, 'missing')} with redis {found.get('redis', 'missing')}"
