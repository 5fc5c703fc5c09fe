"""redis-py, bare: what is left when nobody retries, numbers, checks or watches anything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import Redis

from bench.clients.base import PAGE, TASKS, Arrived, Peer, Publish, PublishMany
from bench.load import Message


@asynccontextmanager
async def background(listen: Any) -> AsyncIterator[None]:
    """Run a loop beside the block, and end both if either fails. Cancels it again if a library overheard it once."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(listen)
        try:
            yield
        finally:
            while not task.done():
                task.cancel()
                await asyncio.wait([task], timeout=0.5)


def entries(answer: Any) -> list[Any]:
    """Return the entries of the one stream that was read; RESP2 and RESP3 shape them differently."""
    if not answer:
        return []
    found: list[Any] = answer[0][1] if isinstance(answer, list) else next(iter(answer.values()))[0]
    return found


class Raw(Peer):
    """redis-py with the bytes ready: ``xadd`` or ``publish``; ``xread`` or ``listen()``, and validate."""

    package = "redis"
    title = "redis-py"

    @asynccontextmanager
    async def publishing(self, url: str, to: str) -> AsyncIterator[Publish]:
        """``await client.xadd(…)`` or ``await client.publish(…)``."""
        async with Redis.from_url(url, max_connections=2 * TASKS) as client:
            await client.ping()
            if self.transport == "stream":
                yield lambda item: client.xadd(to, {b"event": item})
            else:
                yield lambda item: client.publish(to, item)

    @asynccontextmanager
    async def publishing_many(self, url: str, to: str) -> AsyncIterator[PublishMany]:
        """A pipeline without a transaction."""
        async with Redis.from_url(url) as client:

            async def publish(items: Sequence[bytes]) -> object:
                pipeline = client.pipeline(transaction=False)
                for item in items:
                    if self.transport == "stream":
                        pipeline.xadd(to, {b"event": item})
                    else:
                        pipeline.publish(to, item)
                return await pipeline.execute()

            yield publish

    @asynccontextmanager
    async def listening(self, url: str, to: str, arrived: Arrived, *, group: str | None = None) -> AsyncIterator[None]:
        """A loop that reads, validates and acknowledges page by page."""
        async with Redis.from_url(url) as client:
            if self.transport == "stream":
                loop = self._read(client, to, arrived) if group is None else self._share(client, to, group, arrived)
                async with background(loop):
                    yield
            else:
                async with client.pubsub() as pubsub:
                    await pubsub.subscribe(to)
                    await pubsub.get_message(timeout=5.0)
                    async with background(self._listen(pubsub, arrived)):
                        yield

    async def _listen(self, pubsub: Any, arrived: Arrived) -> None:
        async for message in pubsub.listen():
            arrived(Message.model_validate_json(message["data"]).data.token_id)

    async def _read(self, client: Redis, key: str, arrived: Arrived) -> None:
        cursor: Any = "0"
        while True:
            for position, fields in entries(await client.xread({key: cursor}, count=PAGE, block=1_000)):
                arrived(Message.model_validate_json(fields[b"event"]).data.token_id)
                cursor = position

    async def _share(self, client: Redis, key: str, group: str, arrived: Arrived) -> None:
        while True:
            page = entries(await client.xreadgroup(group, "one", {key: ">"}, count=PAGE, block=1_000))
            for _, fields in page:
                arrived(Message.model_validate_json(fields[b"event"]).data.token_id)
            if page:
                await client.xack(key, group, *(position for position, _ in page))
