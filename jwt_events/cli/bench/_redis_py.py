"""The benchmark's operations with redis-py alone, which moves the same bytes and neither checks nor handles them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any, Self

from redis import exceptions
from redis.asyncio import Redis

from jwt_events.cli.bench._load import BATCH_SIZE, TASKS, Load, run_together
from jwt_events.transport.connection import Connector, canonical_url
from jwt_events.transport.stream import FIELD

_BLOCK = 60_000  # milliseconds: longer than a round may last


class RedisPySide:
    """The side of redis-py; an asynchronous context manager.

    Args:
        url: the server.
        name: the name of the stream and of the channel.
    """

    def __init__(self, url: str, name: str) -> None:
        self._connector = Connector(url, destination=name)
        self._url = canonical_url(url)
        self._name = name

    async def __aenter__(self) -> Self:
        # Any: annotations differ between the versions of redis-py. No timeout: a blocking read may last _BLOCK.
        self._writer: Any = Redis.from_url(self._url, socket_timeout=None)
        self._reader: Any = Redis.from_url(self._url, socket_timeout=None)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._writer.aclose()
        await self._reader.aclose()

    async def one_by_one(self, load: Load) -> Sequence[float]:
        """XADD, one after another."""
        async with self._timed() as seconds:
            for payload in load.payloads:
                await self._add(payload)
        return seconds

    async def from_tasks(self, load: Load) -> Sequence[float]:
        """XADD from many tasks at once; the client opens a connection for each."""
        rest = iter(load.payloads)

        async def work() -> None:
            for payload in rest:
                await self._add(payload)

        async with self._timed() as seconds:
            await run_together(*(work() for _ in range(TASKS)))
        return seconds

    async def many(self, load: Load) -> Sequence[float]:
        """XADD in pipelines."""
        async with self._timed() as seconds:
            await self._pipelines("xadd", [{FIELD: payload} for payload in load.payloads])
        return seconds

    async def drain(self, load: Load) -> Sequence[float]:
        """XREAD until all entries are read."""
        position, left = b"0-0", len(load.payloads)
        async with self._timed() as seconds:
            while left > 0:
                entries = await self._entries(position)
                position, left = entries[-1][0], left - len(entries)
        return seconds

    async def over_pubsub(self, load: Load) -> Sequence[float]:
        """PUBLISH in pipelines until a subscription of this process has received all messages."""
        async with self._translating(), self._reader.pubsub() as subscription:
            await subscription.subscribe(self._name)
            messages = subscription.listen()
            await anext(messages)  # the confirmation

            async def receive() -> None:
                for _ in load.payloads:
                    await anext(messages)

            async with self._timed() as seconds:
                await run_together(receive(), self._pipelines("publish", load.payloads))
            return seconds

    async def to_handler(self, load: Load) -> Sequence[float]:
        """XADD one entry and wait until a blocking XREAD returns it; then the next."""
        arrived = asyncio.Event()

        seconds = []

        async def read() -> None:
            position = b"0-0"
            for _ in load.payloads:
                position = (await self._entries(position))[-1][0]
                arrived.set()

        async def publish() -> None:
            for payload in load.payloads:
                began = perf_counter()
                await self._add(payload)
                await arrived.wait()
                seconds.append(perf_counter() - began)
                arrived.clear()

        async with self._translating():
            await run_together(read(), publish())
        return seconds

    async def _add(self, payload: bytes) -> None:
        await self._writer.xadd(self._name, {FIELD: payload})

    async def _entries(self, after: bytes) -> list[tuple[bytes, Any]]:
        ((_, entries),) = await self._reader.xread({self._name: after}, count=BATCH_SIZE, block=_BLOCK)
        return list(entries)

    async def _pipelines(self, command: str, contents: Sequence[Any]) -> None:
        for first in range(0, len(contents), BATCH_SIZE):
            pipeline = self._writer.pipeline(transaction=False)
            for content in contents[first : first + BATCH_SIZE]:
                getattr(pipeline, command)(self._name, content)
            await pipeline.execute()

    @asynccontextmanager
    async def _timed(self) -> AsyncIterator[list[float]]:
        """Yield a list that gets the seconds that the block took."""
        seconds: list[float] = []
        began = perf_counter()
        async with self._translating():
            yield seconds
        seconds.append(perf_counter() - began)

    @asynccontextmanager
    async def _translating(self) -> AsyncIterator[None]:
        try:
            yield
        except (exceptions.RedisError, OSError) as error:
            raise self._connector.decoder.failure(error, "measuring redis-py", maybe_done=True) from None
