"""The report of a benchmark run, and its JSON file."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path

from bench.competitors import PACKAGES
from bench.process import PYTHONS
from bench.results import Result, Results
from bench.rounds import Options, Runs
from bench.rows import ROWS, Row
from bench.run import Run


@dataclass(frozen=True)
class Report:
    """All rows of one benchmark run.

    Attributes:
        about: the machine, the server, the interpreter and the versions.
        runs: by row and competitor.
    """

    about: Mapping[str, str]
    runs: Mapping[str, Runs]

    def rows(self) -> Iterator[tuple[Row, Results]]:
        """Iterate over the rows that were run, with their results."""
        for row in ROWS:
            if row.id in self.runs:
                yield row, {name: Result.of(runs) for name, runs in self.runs[row.id].items()}

    def save(self, path: Path) -> None:
        """Write the report as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @staticmethod
    def load(path: Path) -> Report:
        """Read a report that `save` wrote."""
        saved = json.loads(path.read_text())
        runs = {
            row: {name: [Run(**run) for run in found] for name, found in saved_runs.items()}
            for row, saved_runs in saved["runs"].items()
        }
        return Report(saved["about"], runs)


def about(server_version: str, options: Options) -> dict[str, str]:
    """Describe the machine, the server and the versions that were measured."""
    return {
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "server": f"{server_version}, embedded, over TCP on the same machine",
        "interpreter": f"{platform.python_implementation()} {platform.python_version()}, {options.loop}",
        "packages": ", ".join(_versions()),
        "rounds": f"{options.rounds}, after one warm-up round; "
        + ("more where a floor is near, fewer of long runs" if options.scale == 1 else "QUICK, a smoke test only"),
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
