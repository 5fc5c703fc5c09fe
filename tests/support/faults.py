"""Faults of servers: frozen processes, lost connections."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from jwt_events.embedded import EmbeddedServer
from tests.support.waiting import wait_until


@contextmanager
def frozen(server: EmbeddedServer) -> Iterator[None]:
    """Suspend the server's process: it keeps its connections, accepts new ones, and sends no reply."""
    pid = server.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def readers(client: Redis) -> list[str]:
    """Return the ids of the connections that read a stream or are subscribed to a channel."""
    found = await client.client_list()
    return [one["id"] for one in found if one["cmd"] == "xread" or int(one["sub"]) > 0]


async def the_reader(client: Redis) -> str:
    """Wait until exactly one connection reads, and return its id."""
    found: list[str] = []

    async def one() -> bool:
        found[:] = await readers(client)
        return len(found) == 1

    await wait_until(one, what=lambda: f"one reader; there are {len(found)}")
    return found[0]


async def kill_reader(client: Redis) -> None:
    """Close the only reading connection, from the server's side."""
    await client.client_kill_filter(_id=await the_reader(client))


@asynccontextmanager
async def while_reader_is_away(client: Redis) -> AsyncIterator[Pipeline]:
    """Run the queued commands while the reader is disconnected, in one transaction with its disconnection."""
    name = await the_reader(client)
    async with client.pipeline(transaction=True) as pipeline:
        pipeline.client_kill_filter(_id=name)
        yield pipeline
        await pipeline.execute()
