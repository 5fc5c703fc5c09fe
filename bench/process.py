"""A process of a contender's own: asked by a line of JSON, it answers with one."""

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
# A library that does not work with the newest redis-py has an environment of its own; see the Makefile.
PYTHONS = {"broadcaster": _ROOT / ".venv" / "broadcaster" / "bin" / "python"}

_STARTED_WITHIN = 60.0  # seconds; importing takes one or two
_MAX_REPLY_SECONDS = 2**20


class Child:
    """A process that can be asked. Make it by `child`."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def ask(self, question: Any, within: float) -> Any:
        """Ask, and return the answer.

        Raises:
            Failed: there is none, and there will be no other.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
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
async def child(row: str, contender: str, part: str, *, verbose: bool = False) -> AsyncIterator[Child]:
    """Start ``python -m bench.contend`` for a part of a contender's work, and end it afterwards.

    Raises:
        Failed: it does not start.
    """
    python = PYTHONS.get(contender.partition(" ")[0], Path(sys.executable))
    if not python.exists():
        raise Failed(f"has no environment: {python} is missing; `make bench` makes it")
    process = await asyncio.create_subprocess_exec(
        python, "-m", "bench.contend", row, contender, part,
        cwd=_ROOT, stdin=PIPE, stdout=PIPE, stderr=None if verbose else DEVNULL, limit=_MAX_REPLY_SECONDS,
    )  # fmt: skip
    try:
        started = Child(process)
        await started.ask("ready?", _STARTED_WITHIN)
        yield started
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
