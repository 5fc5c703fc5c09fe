"""A Sentinel process that watches a server."""

from __future__ import annotations

import asyncio
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from redis.asyncio import Redis
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel

from bench.ports import free_port
from jwt_events.embedded import EmbeddedServer, _find_binary
from tests.support.waiting import wait_until


@asynccontextmanager
async def sentinel(server: EmbeddedServer, directory: Path) -> AsyncIterator[Sentinel]:
    """Run a Sentinel process for a server on a TCP port, which it knows as ``main``; yield redis-py's client for it."""
    host, _, port = server.url.removeprefix("redis://").rpartition(":")
    own_port = free_port()
    config = directory / "sentinel.conf"
    config.write_text(f"port {own_port}\nbind {host}\ndir {directory}\nsentinel monitor main {host} {port} 1\n")
    binary = await asyncio.to_thread(_find_binary, server._binary)
    process = await asyncio.create_subprocess_exec(binary, str(config), "--sentinel", stdin=DEVNULL, stdout=DEVNULL)
    watcher = Sentinel([(host, own_port)])  # type: ignore[no-untyped-call]  # redis-py does not annotate it

    async def ready() -> bool:
        try:
            await watcher.discover_master("main")
        except MasterNotFoundError:
            return False
        return True

    try:
        await wait_until(ready)
        yield watcher
    finally:
        for client in watcher.sentinels:
            assert isinstance(client, Redis)
            await client.aclose()
        process.kill()
        await process.wait()
