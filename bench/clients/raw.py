"""redis-py, bare: without retries, ids, checks, metrics or traces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import Redis

from bench.clients.base import BATCH_SIZE, TASKS, ClientBase, OnEvent, Publish, PublishMany
from bench.load import Message


@asynccontextmanager
async def background(listen: Any) -> AsyncIterator[None]:
    """Run a loop beside the block, and end both if either fails.

    Cancels the loop repeatedly, because a library may swallow the first cancellation.
    """
    async with asyncio.TaskGroup() as group:
        task = group.create_task(listen)
        try:
            yield
        finally:
            while not task.done():
                task.cancel()
                await asyncio.wait([task], timeout=0.5)


def entries(reply: Any) -> list[Any]:
    """Return the entries of the one stream that was read; RESP2 and RESP3 shape them differently."""
    if not reply:
        return []
    found: list[Any] = reply[0][1] if isinstance(reply, list) else next(iter(reply.values()))[0]
    return found


class Raw(ClientBase):
    """redis-py with encoded bytes: ``xadd`` or ``publish``; ``xread`` or ``listen()``, and validate."""

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
    async def listening(self, url: str, to: str, on_event: OnEvent, *, group: str | None = None) -> AsyncIterator[None]:
        """A loop that reads, validates and acknowledges batch by batch."""
        async with Redis.from_url(url) as client:
            if self.transport == "stream":
                loop = (
                    self._read(client, to, on_event) if group is None else self._read_group(client, to, group, on_event)
                )
                async with background(loop):
                    yield
            else:
                async with client.pubsub() as pubsub:
                    await pubsub.subscribe(to)
                    await pubsub.get_message(timeout=5.0)
                    async with background(self._listen(pubsub, on_event)):
                        yield

    async def _listen(self, pubsub: Any, on_event: OnEvent) -> None:
        async for message in pubsub.listen():
            on_event(Message.model_validate_json(message["data"]).data.token_id)

    async def _read(self, client: Redis, key: str, on_event: OnEvent) -> None:
        cursor: Any = "0"
        while True:
            for position, fields in entries(await client.xread({key: cursor}, count=BATCH_SIZE, block=1_000)):
                on_event(Message.model_validate_json(fields[b"event"]).data.token_id)
                cursor = position

    async def _read_group(self, client: Redis, key: str, group: str, on_event: OnEvent) -> None:
        while True:
            batch = entries(await client.xreadgroup(group, "one", {key: ">"}, count=BATCH_SIZE, block=1_000))
            for _, fields in batch:
                on_event(Message.model_validate_json(fields[b"event"]).data.token_id)
            if batch:
                await client.xack(key, group, *(position for position, _ in batch))
