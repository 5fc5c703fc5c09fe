"""Programs and servers that a measurement starts beside itself, and what they spend."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

from redis.asyncio import Redis

from jwt_events.embedded import EmbeddedServer

_ROOT = Path(__file__).parents[1]
_MAX_REPLY_BYTES = 2**22


async def start_program(stack: AsyncExitStack, module: str, *arguments: str) -> Process:
    """Start ``python -m module`` with pipes, and kill it when the stack is closed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments), stdin=PIPE, stdout=PIPE, cwd=_ROOT, limit=_MAX_REPLY_BYTES
    )
    stack.push_async_callback(process.wait)
    stack.callback(_kill, process)
    return process


async def ask(process: Process, line: str = "") -> bytes:
    """Send a program a line, if there is one, and return the next line that it says."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(line.encode())
    return await process.stdout.readline()


async def start_replica(stack: AsyncExitStack, server: EmbeddedServer) -> EmbeddedServer:
    """Start a replica of a server, and end it when the stack is closed."""
    at = urlsplit(server.url)
    return await stack.enter_async_context(EmbeddedServer(port=0, config={"replicaof": f"{at.hostname} {at.port}"}))


async def server_time(client: Redis) -> float:
    """Return the seconds of processor time that a server says it has used."""
    found = await client.info("cpu")
    return float(found["used_cpu_user"]) + float(found["used_cpu_sys"])


def _kill(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()
