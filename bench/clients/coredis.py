"""coredis: a client; the caller encodes and validates."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import coredis
from coredis.patterns.streams import Consumer, GroupConsumer

from bench.clients.base import BATCH_SIZE, TASKS, ClientBase, OnEvent, Publish, PublishMany
from bench.clients.raw import background
from bench.load import Message


class CoRedis(ClientBase):
    """coredis on one transport."""

    package = "coredis"
    title = "coredis"

    @asynccontextmanager
    async def publishing(self, url: str, to: str) -> AsyncIterator[Publish]:
        """``await client.xadd(…)`` or ``await client.publish(…)``."""
        async with coredis.Redis.from_url(url, max_connections=2 * TASKS) as client:

            async def add(item: bytes) -> object:
                return await client.xadd(to, {b"event": item})

            async def publish(item: bytes) -> object:
                return await client.publish(to, item)

            yield add if self.transport == "stream" else publish

    @asynccontextmanager
    async def publishing_many(self, url: str, to: str) -> AsyncIterator[PublishMany]:
        """A pipeline without a transaction."""
        async with coredis.Redis.from_url(url) as client:

            async def publish(items: Sequence[bytes]) -> None:
                async with client.pipeline(transaction=False) as pipeline:
                    for item in items:
                        pipeline.xadd(to, {b"event": item})

            yield publish

    @asynccontextmanager
    async def listening(self, url: str, to: str, on_event: OnEvent, *, group: str | None = None) -> AsyncIterator[None]:
        """Its ``Consumer``, its ``GroupConsumer`` with XACK for each entry, or ``pubsub()``."""
        async with coredis.Redis.from_url(url) as client:
            if self.transport == "Pub/Sub":
                async with client.pubsub(channels=[to]) as pubsub, background(_listen(pubsub, on_event)):
                    yield
                return
            options: dict[str, Any] = {"buffer_size": BATCH_SIZE - 1, "timeout": 1_000}
            consumer = (
                Consumer(client, [to], **options | {to: {"identifier": "0-0"}})
                if group is None
                else GroupConsumer(client, [to], group, "one", **options)
            )
            async with consumer, background(_read(client, consumer, to, group, on_event)):
                yield


async def _listen(pubsub: Any, on_event: OnEvent) -> None:
    async for received in pubsub:
        if received["type"] == "message":
            on_event(Message.model_validate_json(received["data"]).data.token_id)


async def _read(client: Any, consumer: Any, key: str, group: str | None, on_event: OnEvent) -> None:
    while True:
        _, entry = await consumer.get_entry()
        if entry is not None:
            on_event(Message.model_validate_json(entry.field_values[b"event"]).data.token_id)
            if group is not None:
                await client.xack(key, group, [entry.identifier])
