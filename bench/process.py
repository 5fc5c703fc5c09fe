"""The worker process of a competitor: takes a request as a line of JSON, and replies with one."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from bench.run import Failed

_ROOT = Path(__file__).parent.parent
# A library that does not work with the newest redis-py has its own environment; see the Makefile.
PYTHONS = {"broadcaster": _ROOT / ".venv" / "broadcaster" / "bin" / "python"}

_STARTED_WITHIN = 60.0  # seconds; imports take one or two
_MAX_REPLY_BYTES = 2**20


class WorkerProcess:
    """A running worker process. Created by `start_worker`."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def request(self, request: Any, within: float) -> Any:
        """Send a request, and return the reply.

        Raises:
            Failed: no reply came within the time, or the process ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            async with asyncio.timeout(within):
                line = await self._process.stdout.readline()
        except TimeoutError:
            self._process.kill()
            raise Failed(f"hung, and was killed after {within:g} s") from None
        except ConnectionError:
            line = b""
        if not line:
            raise Failed(f"the process ended with exit code {await self._process.wait()}")
        return json.loads(line)


@asynccontextmanager
async def start_worker(row: str, competitor: str, part: str, *, verbose: bool = False) -> AsyncIterator[WorkerProcess]:
    """Start ``python -m bench.worker`` for one part of a competitor's workload, and end it after the block.

    Raises:
        Failed: it does not start.
    """
    python = PYTHONS.get(competitor.partition(" ")[0], Path(sys.executable))
    if not python.exists():
        raise Failed(f"has no environment: {python} is missing; `make bench` creates it")
    process = await asyncio.create_subprocess_exec(
        python, "-m", "bench.worker", row, competitor, part,
        cwd=_ROOT, stdin=PIPE, stdout=PIPE, stderr=None if verbose else DEVNULL, limit=_MAX_REPLY_BYTES,
    )  # fmt: skip
    try:
        started = WorkerProcess(process)
        await started.request("ready?", _STARTED_WITHIN)
        yield started
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
