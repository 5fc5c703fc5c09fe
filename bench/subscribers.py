"""The subscribers of a run: what each has received, and whether the server has received what was published."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from redis.asyncio import Redis

from bench import load
from bench.clients.base import Client, OnEvent
from bench.run import Failed, RunParams


@asynccontextmanager
async def all_published(client: Client, params: RunParams, count: int) -> AsyncIterator[None]:
    """Check that the server receives `count` events within the block, then delete them.

    Raises:
        Failed: some did not reach the server.
    """
    async with Redis.from_url(params.url) as redis:

        async def received() -> int:
            if client.transport == "stream":
                return int(await redis.xlen(params.name))
            calls = await redis.info("commandstats")
            return int(calls.get("cmdstat_publish", {}).get("calls", 0))

        before = await received()
        yield
        lost = count - (await received() - before)
        await redis.unlink(params.name)
        if lost:
            raise Failed(f"{lost:,} of {count:,} events did not reach the server")


class Subscribers:
    """The subscribers of a run, and what each has received.

    Args:
        events: how many events each subscriber is to receive.
        count: how many subscribers there are.
        on_arrival: called with the ``token_id`` of each event before it is counted.
    """

    def __init__(self, events: int, count: int = 1, on_arrival: OnEvent | None = None) -> None:
        self._on_arrival = on_arrival
        self.arrivals = [load.Arrivals(events) for _ in range(count)]
        self._total = 0
        self._target = -1
        self._complete = asyncio.Event()

    def callback(self, arrivals: load.Arrivals) -> OnEvent:
        """Return the callback that counts the events of one subscriber."""

        def note(token: str) -> None:
            if self._on_arrival is not None:
                self._on_arrival(token)
            if arrivals.add(token):
                self._total += 1
                if self._total == self._target:
                    self._complete.set()

        return note

    async def wait_for(self, count: int) -> None:
        """Wait until every subscriber has received `count` events."""
        self._target = count * len(self.arrivals)
        if self._total < self._target:
            self._complete.clear()
            await self._complete.wait()


@asynccontextmanager
async def listening(client: Client, params: RunParams, subscribers: Subscribers) -> AsyncIterator[None]:
    """Run the subscribers; on Pub/Sub the server knows all subscriptions when the block begins."""
    async with AsyncExitStack() as stack:
        for arrivals in subscribers.arrivals:
            await stack.enter_async_context(client.listening(params.url, params.name, subscribers.callback(arrivals)))
        if client.transport == "Pub/Sub":
            await _subscribed(params, len(subscribers.arrivals))
        yield
    async with Redis.from_url(params.url) as redis:
        await redis.unlink(params.name)


async def _subscribed(params: RunParams, count: int) -> None:
    """Wait until the server knows `count` subscriptions; some libraries return before that.

    Raises:
        Failed: it does not within four seconds.
    """
    async with Redis.from_url(params.url) as redis:
        for _ in range(200):
            if (await redis.pubsub_numsub(params.name))[0][1] >= count:
                return
            await asyncio.sleep(0.02)
    raise Failed("did not subscribe")
