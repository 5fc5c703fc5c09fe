"""Who listens, what has arrived at whom, and whether the server was told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from redis.asyncio import Redis

from bench import load
from bench.clients.base import Arrived, Client
from bench.run import Failed, Place


@asynccontextmanager
async def published(client: Client, place: Place, number: int) -> AsyncIterator[None]:
    """Make sure that the server was told of so many events in the block, and forget them."""
    async with Redis.from_url(place.url) as redis:

        async def told() -> int:
            if client.transport == "stream":
                return int(await redis.xlen(place.name))
            calls = await redis.info("commandstats")
            return int(calls.get("cmdstat_publish", {}).get("calls", 0))

        before = await told()
        yield
        lost = number - (await told() - before)
        await redis.unlink(place.name)
        if lost:
            raise Failed(f"{lost:,} of {number:,} events did not reach the server")


class Crowd:
    """So many who listen, and what has arrived at all of them.

    Args:
        number: how many events there are.
        subscribers: how many listen.
        at_once: called with each ``token_id`` before anything else.
    """

    def __init__(self, number: int, subscribers: int = 1, at_once: Arrived | None = None) -> None:
        self._at_once = at_once
        self.tallies = [load.Counters(number) for _ in range(subscribers)]
        self._arrived = 0
        self._awaited = -1
        self._complete = asyncio.Event()

    def arrived(self, tally: load.Counters) -> Arrived:
        """Return what notes the arrivals at one of them."""

        def note(token: str) -> None:
            if self._at_once is not None:
                self._at_once(token)
            if tally.note(token):
                self._arrived += 1
                if self._arrived == self._awaited:
                    self._complete.set()

        return note

    async def have(self, number: int) -> None:
        """Wait until all of them have so many."""
        self._awaited = number * len(self.tallies)
        if self._arrived < self._awaited:
            self._complete.clear()
            await self._complete.wait()


@asynccontextmanager
async def listening(client: Client, place: Place, crowd: Crowd) -> AsyncIterator[None]:
    """Let them listen; entered means that the server knows."""
    async with AsyncExitStack() as stack:
        for tally in crowd.tallies:
            await stack.enter_async_context(client.listening(place.url, place.name, crowd.arrived(tally)))
        if client.transport == "Pub/Sub":
            await _subscribed(place, len(crowd.tallies))
        yield
    async with Redis.from_url(place.url) as redis:
        await redis.unlink(place.name)


async def _subscribed(place: Place, number: int) -> None:
    """Wait until the server knows of so many subscribers: some libraries return before."""
    async with Redis.from_url(place.url) as redis:
        for _ in range(200):
            if (await redis.pubsub_numsub(place.name))[0][1] >= number:
                return
            await asyncio.sleep(0.02)
    raise Failed("did not subscribe")
