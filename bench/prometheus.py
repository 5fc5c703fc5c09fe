"""A temporary Prometheus server: scrapes given targets, and answers queries."""

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
    """The program is not on the PATH."""


class Prometheus:
    """A Prometheus on a free port of this machine, with its data in a temporary directory; a context manager.

    Args:
        targets: the ports of 127.0.0.1 to scrape, by job.
        every: seconds between two scrapes, and between two evaluations of the rules.
        rules: files with rules.

    Raises:
        PrometheusMissing: by the constructor, if the program is not on the PATH.
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
        (path / "prometheus.yml").write_text(json.dumps(self._config))  # JSON is YAML too
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
        """Return the current value of an expression: a list of ``{"metric": labels, "value": [time, text]}``."""
        return self._get("query", query=expression)

    def query_range(self, expression: str, *, start: float, end: float, step: float) -> Series:
        """Return an expression over time: a list of ``{"metric": labels, "values": [[time, text], …]}``."""
        return self._get("query_range", query=expression, start=start, end=end, step=step)

    def _get(self, name: str, **parameters: str | float) -> Series:
        reply = self._client.get(f"/api/v1/{name}", params=parameters).json()
        if reply["status"] != "success":
            raise ValueError(f"{reply['error']}: {parameters['query']}")
        result: Series = reply["data"]["result"]
        return result

    def _address(self) -> str:
        """Wait until it is ready, and return its address."""
        address, ready, output = None, False, []
        assert self._process.stderr is not None
        for line in self._process.stderr:  # what follows after this is little enough for the pipe to hold
            output.append(line)
            entry = json.loads(line) if line.startswith("{") else {}
            if entry.get("msg") == "Listening on":
                address = entry["address"]
            ready = ready or "ready to receive web requests" in entry.get("msg", "")
            if ready and address is not None:
                return f"http://{address}"
        raise RuntimeError(f"Prometheus did not start:\n{''.join(output)}")

    def _end(self) -> None:
        with self._process:
            self._process.kill()
        self._directory.cleanup()


def program(name: str) -> str:
    """Return the path of ``prometheus`` or ``promtool``.

    Raises:
        PrometheusMissing: it is not on the PATH.
    """
    if (found := shutil.which(name)) is None:
        raise PrometheusMissing(f"there is no {name} on the PATH; `make test-observability` gets it")
    return found
