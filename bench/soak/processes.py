"""The server and the workers, as the process that starts and kills them sees them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bench.ports import free_port
from bench.soak.spec import WorkerSpec
from jwt_events.embedded import EmbeddedServer
from jwt_events.transport._redis.commands import Argument
from jwt_events.transport._redis.connection import Connector

ROOT = Path(__file__).parent.parent.parent

PERSISTENCE = {
    "always": {"appendonly": "yes", "appendfsync": "always"},
    "everysec": {"appendonly": "yes", "appendfsync": "everysec"},
    "no": {"appendonly": "no"},
}
"""What the server keeps when it is killed: everything it confirmed, all but the last second, or nothing."""

_POWER_LOSS_SECONDS = 1.0
"""What a power failure takes from a file that is synchronised every second."""

_REPLY_WITHIN = 5.0
_START_WITHIN = 60.0

# A shell does it, so that the frozen process continues even if this process is killed meanwhile.
_FREEZE = 'kill -STOP "$1" && sleep "$2"; kill -CONT "$1"'


class Server:
    """A server that keeps its port and its data when it is killed.

    Args:
        directory: an existing directory for its data.
        fsync: one of `PERSISTENCE`.
        config: more options.
        password: the password of its clients; empty for none.
    """

    def __init__(
        self, directory: Path, fsync: str, *, config: Mapping[str, str] | None = None, password: str = ""
    ) -> None:
        self.port = free_port()
        self.url = f"redis://{f':{password}@' if password else ''}127.0.0.1:{self.port}"
        self._directory = directory
        self._loses_power = fsync == "everysec"
        self._sizes: deque[tuple[float, Path, int]] = deque()
        self._server = EmbeddedServer(
            port=self.port,
            data_dir=directory,
            config={**PERSISTENCE[fsync], **(config or {})},
            start_timeout=_START_WITHIN,
        )

    @property
    def pid(self) -> int:
        """The id of its process."""
        return self._server.pid

    async def start(self) -> None:
        """Start the server, or restart it."""
        await self._server.__aenter__()

    async def aclose(self) -> None:
        """Stop the server for good; idempotent."""
        await self._server.aclose()

    async def kill(self) -> None:
        """Kill the server. With ``everysec`` its last writes are lost, as in a power failure.

        Killing the process alone takes nothing from the page cache, and so would hardly ever lose anything.
        """
        os.kill(self.pid, signal.SIGKILL)
        killed_at = time.monotonic()
        await self._server.aclose()
        if self._loses_power:
            self._truncate_to(killed_at - _POWER_LOSS_SECONDS)

    def observe(self) -> None:
        """Record the current size of the append-only file. To be called often."""
        if not self._loses_power:
            return
        now = time.monotonic()
        for path in self._directory.glob("appendonlydir/*.incr.aof"):
            self._sizes.append((now, path, path.stat().st_size))
        while self._sizes and now - self._sizes[0][0] > 2 * _POWER_LOSS_SECONDS:
            self._sizes.popleft()

    def _truncate_to(self, moment: float) -> None:
        """Truncate the append-only file to its size at `moment`."""
        for path in self._directory.glob("appendonlydir/*.incr.aof"):
            known = [size for at, seen, size in self._sizes if seen == path and at <= moment]
            if known:
                os.truncate(path, known[-1])
        self._sizes.clear()

    async def execute(self, *command: Argument, within: float = _REPLY_WITHIN) -> Any:
        """Execute a command, and return its reply."""
        return await execute(self.url, *command, within=within)


async def execute(url: str, *command: Argument, within: float = _REPLY_WITHIN) -> Any:
    """Execute a command at the server with this URL, and return its reply."""
    connection = await Connector(url).connect(within=within)
    try:
        return await connection.call(*command, within=within)
    finally:
        await connection.aclose()


class Worker:
    """A publisher or a subscriber, through all its incarnations.

    Args:
        spec: what the process does.
        on_exit: called with the worker and its exit code if it exits by itself.
    """

    def __init__(self, spec: WorkerSpec, on_exit: Callable[[Worker, int], None]) -> None:
        self.name = spec.name
        self._spec = replace(spec, incarnation=-1)
        self._on_exit = on_exit
        self._process: asyncio.subprocess.Process | None = None
        self._exit_task: asyncio.Task[None] | None = None

    @property
    def incarnation(self) -> int:
        """The number of the current incarnation, from 0."""
        return self._spec.incarnation

    @property
    def pid(self) -> int:
        """The id of its process."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start the process, or restart it."""
        self._spec = replace(self._spec, incarnation=self.incarnation + 1)
        log = os.open(
            Path(self._spec.directory, f"{self.name}.{self.incarnation}.log"), os.O_WRONLY | os.O_CREAT, 0o600
        )
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "bench.soak.worker"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,  # Ctrl-C in the terminal is for the parent, which ends its children in order
                cwd=ROOT,
            )
        finally:
            os.close(log)
        self.send(json.dumps(asdict(self._spec)))
        self._exit_task = asyncio.create_task(self._wait_for_exit(self._process))

    def send(self, line: str) -> None:
        """Send a line to the process."""
        if self._process is not None and self._process.stdin is not None and not self._process.stdin.is_closing():
            self._process.stdin.write(line.encode() + b"\n")

    async def kill(self) -> None:
        """Kill the process."""
        await self._end(signal.SIGKILL, _REPLY_WITHIN)

    async def stop(self, within: float) -> bool:
        """Ask the process to shut down gracefully, and kill it after `within` seconds; return whether it did."""
        return await self._end(signal.SIGTERM, within)

    async def _end(self, how: signal.Signals, within: float) -> bool:
        process, exit_task = self._process, self._exit_task
        if process is None or exit_task is None:
            return True
        self._process = None  # marks the exit as requested
        with suppress(ProcessLookupError):
            process.send_signal(how)
        try:
            async with asyncio.timeout(within):
                return await process.wait() == 0
        except TimeoutError:
            return False
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await asyncio.shield(process.wait())
            await asyncio.wait([exit_task])

    async def _wait_for_exit(self, process: asyncio.subprocess.Process) -> None:
        code = await process.wait()
        if process.stdin is not None:
            process.stdin.close()
        if self._process is process:
            self._process = None
            self._on_exit(self, code)


async def freeze(pid: int, seconds: float) -> None:
    """Stop a process for `seconds` seconds. When cancelled, the process continues at once."""
    helper = await asyncio.create_subprocess_exec(
        *("/bin/sh", "-c", _FREEZE, "sh", str(pid), f"{seconds:.2f}"),
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        await helper.wait()
    except asyncio.CancelledError:
        os.killpg(helper.pid, signal.SIGKILL)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
        await asyncio.shield(helper.wait())
        raise
