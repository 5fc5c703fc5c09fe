"""A Prometheus of one's own for a while: scrapes what it is told to, and answers queries."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import httpx

Series = list[dict[str, Any]]


class PrometheusMissing(Exception):
    """There is no such program on the PATH."""


class Prometheus:
    """A Prometheus on a free port of this machine, with its data in a temporary directory; a context manager.

    Args:
        targets: the ports of 127.0.0.1 to scrape, by job.
        every: seconds between two scrapes, and between two evaluations of the rules.
        rules: files with rules.

    Raises:
        PrometheusMissing: on making it: there is none to start.
    """

    def __init__(self, targets: Mapping[str, Sequence[int]], *, every: float = 1.0, rules: Sequence[Path] = ()) -> None:
        self._program = program("prometheus")
        interval = f"{every * 1000:.0f}ms"
        self._config = {
            "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
            "rule_files": [str(path) for path in rules],
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}" for port in ports]}]}
                for job, ports in targets.items()
            ],
        }

    def __enter__(self) -> Self:
        self._directory = tempfile.TemporaryDirectory(prefix="jwt_events-", ignore_cleanup_errors=True)
        path = Path(self._directory.name)
        (path / "prometheus.yml").write_text(json.dumps(self._config))  # which is YAML too
        self._process = subprocess.Popen(
            [
                self._program,
                f"--config.file={path / 'prometheus.yml'}",
                f"--storage.tsdb.path={path / 'data'}",
                "--web.listen-address=127.0.0.1:0",
                "--log.format=json",
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            self._client = httpx.Client(base_url=self._address(), trust_env=False, timeout=30)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self._end()

    def query(self, expression: str) -> Series:
        """Return what an expression is now: a list of ``{"metric": labels, "value": [time, text]}``."""
        return self._get("query", query=expression)

    def query_range(self, expression: str, *, start: float, end: float, step: float) -> Series:
        """Return what an expression was: a list of ``{"metric": labels, "values": [[time, text], …]}``."""
        return self._get("query_range", query=expression, start=start, end=end, step=step)

    def _get(self, name: str, **parameters: str | float) -> Series:
        answer = self._client.get(f"/api/v1/{name}", params=parameters).json()
        if answer["status"] != "success":
            raise ValueError(f"{answer['error']}: {parameters['query']}")
        result: Series = answer["data"]["result"]
        return result

    def _address(self) -> str:
        """Wait until it is ready, and return where."""
        address, ready, said = None, False, []
        assert self._process.stderr is not None
        for line in self._process.stderr:  # little enough for the pipe to hold what follows after this
            said.append(line)
            entry = json.loads(line) if line.startswith("{") else {}
            if entry.get("msg") == "Listening on":
                address = entry["address"]
            ready = ready or "ready to receive web requests" in entry.get("msg", "")
            if ready and address is not None:
                return f"http://{address}"
        raise RuntimeError(f"Prometheus did not start:\n{''.join(said)}")

    def _end(self) -> None:
        with self._process:
            self._process.kill()
        self._directory.cleanup()


def program(name: str) -> str:
    """Find ``prometheus`` or ``promtool``.

    Raises:
        PrometheusMissing: it is not on the PATH.
    """
    if (found := shutil.which(name)) is None:
        raise PrometheusMissing(f"there is no {name} on the PATH; `make test-observability` gets it")
    return found
