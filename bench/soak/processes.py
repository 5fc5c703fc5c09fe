"""The server and the workers, as the one who starts and kills them sees them."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bench.soak.worker import Order
from jwt_events.embedded import EmbeddedServer
from jwt_events.transport._redis.connection import Argument, Connector

ROOT = Path(__file__).parent.parent.parent

PERSISTENCE = {
    "always": {"appendonly": "yes", "appendfsync": "always"},
    "everysec": {"appendonly": "yes", "appendfsync": "everysec"},
    "no": {"appendonly": "no"},
}
"""What the server keeps: everything it confirmed, all but the last second, or nothing."""

_FORGOTTEN_SECONDS = 1.0
"""What a loss of power takes from a file that is synchronised every second."""

_ANSWER_WITHIN = 5.0
_START_WITHIN = 60.0

# The shell sees to it that what was frozen goes on, even if whoever froze it is killed meanwhile.
_FREEZE = 'kill -STOP "$1" && sleep "$2"; kill -CONT "$1"'


class Server:
    """A server that keeps its port and its data when it is killed."""

    def __init__(self, directory: Path, fsync: str) -> None:
        self._directory = directory
        self._loses_power = fsync == "everysec"
        self._sizes: deque[tuple[float, Path, int]] = deque()
        self._server = EmbeddedServer(
            port=free_port(), data_dir=directory, config=PERSISTENCE[fsync], start_timeout=_START_WITHIN
        )

    @property
    def url(self) -> str:
        """How to reach it."""
        return self._server.url

    @property
    def pid(self) -> int:
        """Its process."""
        return self._server.pid

    async def start(self) -> None:
        """Start it, for the first time or again."""
        await self._server.__aenter__()

    async def aclose(self) -> None:
        """Stop it for good; idempotent."""
        await self._server.aclose()

    async def kill(self) -> None:
        """Kill it; where it synchronises every second, as a loss of power would: its last writes are gone.

        Killing the process alone takes nothing from the page cache, and so would hardly ever lose anything.
        """
        os.kill(self.pid, signal.SIGKILL)
        killed_at = time.monotonic()
        await self._server.aclose()
        if self._loses_power:
            self._forget_after(killed_at - _FORGOTTEN_SECONDS)

    def observe(self) -> None:
        """Take note of how much is in the append-only file by now. Call it often."""
        if not self._loses_power:
            return
        now = time.monotonic()
        for path in self._directory.glob("appendonlydir/*.incr.aof"):
            self._sizes.append((now, path, path.stat().st_size))
        while self._sizes and now - self._sizes[0][0] > 2 * _FORGOTTEN_SECONDS:
            self._sizes.popleft()

    def _forget_after(self, moment: float) -> None:
        for path in self._directory.glob("appendonlydir/*.incr.aof"):
            known = [size for at, seen, size in self._sizes if seen == path and at <= moment]
            if known:
                os.truncate(path, known[-1])
        self._sizes.clear()

    async def tell(self, *command: Argument) -> Any:
        """Run a command."""
        connection = await Connector(self.url).connect(within=_ANSWER_WITHIN)
        try:
            return await connection.call(*command, within=_ANSWER_WITHIN)
        finally:
            await connection.aclose()


class Worker:
    """A publisher or a subscriber, through all its lives.

    Args:
        order: what to tell it.
        died: called with the worker and its exit code if it ends by itself.
    """

    def __init__(self, order: Order, died: Callable[[Worker, int], None]) -> None:
        self.name = order.name
        self._order = replace(order, run=-1)
        self._died = died
        self._process: asyncio.subprocess.Process | None = None
        self._watching: asyncio.Task[None] | None = None

    @property
    def run(self) -> int:
        """Which life this is, counted from 0."""
        return self._order.run

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start it, for the first time or again."""
        self._order = replace(self._order, run=self.run + 1)
        log = os.open(Path(self._order.directory, f"{self.name}.{self.run}.log"), os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "bench.soak.worker"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,  # Ctrl-C in the terminal is for the parent, which ends the others in order
                cwd=ROOT,
            )
        finally:
            os.close(log)
        self.tell(json.dumps(asdict(self._order)))
        self._watching = asyncio.create_task(self._watch(self._process))

    def tell(self, line: str) -> None:
        """Send it a line."""
        if self._process is not None and self._process.stdin is not None and not self._process.stdin.is_closing():
            self._process.stdin.write(line.encode() + b"\n")

    async def kill(self) -> None:
        """Kill it."""
        await self._end(signal.SIGKILL, _ANSWER_WITHIN)

    async def leave(self, within: float) -> bool:
        """Ask it to end in good order; return whether it did, else kill it."""
        return await self._end(signal.SIGTERM, within)

    async def _end(self, how: signal.Signals, within: float) -> bool:
        process, watching = self._process, self._watching
        if process is None or watching is None:
            return True
        self._process = None  # what ends now was asked to
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
            await asyncio.wait([watching])

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        code = await process.wait()
        if process.stdin is not None:
            process.stdin.close()
        if self._process is process:
            self._process = None
            self._died(self, code)


async def freeze(pid: int, seconds: float) -> None:
    """Stop a process for so many seconds. Cancelled, it goes on at once."""
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


def free_port() -> int:
    """Find a port for a server that will be away now and then.

    Below those that the kernel hands out by itself: one of these could be given to somebody else meanwhile, even to
    a client that tries to connect to it, which would then be connected to itself.
    """
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
