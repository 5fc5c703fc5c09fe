"""valkey-glide: a client with its own event loop in Rust, which batches what many tasks send at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from glide import (
    Batch,
    GlideClient,
    GlideClientConfiguration,
    NodeAddress,
    StreamReadGroupOptions,
    StreamReadOptions,
)

from bench.clients.base import BATCH_SIZE, ClientBase, OnEvent, Publish, PublishMany
from bench.clients.raw import background
from bench.load import Message

_TIMEOUT = 10_000  # ms; the default of 250 is less than a batch of a thousand may take here


@asynccontextmanager
async def _connected(url: str, **options: Any) -> AsyncIterator[GlideClient]:
    parts = urlsplit(url)
    address = NodeAddress(parts.hostname or "127.0.0.1", parts.port or 6379)
    client = await GlideClient.create(GlideClientConfiguration([address], request_timeout=_TIMEOUT, **options))
    try:
        yield client
    finally:
        await client.close()


class Glide(ClientBase):
    """valkey-glide on one transport."""

    package = "valkey-glide"
    title = "valkey-glide"

    @asynccontextmanager
    async def publishing(self, url: str, to: str) -> AsyncIterator[Publish]:
        """``await client.xadd(…)`` or ``await client.publish(…)``."""
        async with _connected(url) as client:
            if self.transport == "stream":
                yield lambda item: client.xadd(to, [(b"event", item)])
            else:
                yield lambda item: client.publish(item, to)

    @asynccontextmanager
    async def publishing_many(self, url: str, to: str) -> AsyncIterator[PublishMany]:
        """A batch that is not atomic."""
        async with _connected(url) as client:

            async def publish(items: Sequence[bytes]) -> object:
                batch = Batch(is_atomic=False)
                for item in items:
                    batch.xadd(to, [(b"event", item)])
                return await client.exec(batch, raise_on_error=True)

            yield publish

    @asynccontextmanager
    async def listening(self, url: str, to: str, on_event: OnEvent, *, group: str | None = None) -> AsyncIterator[None]:
        """``get_pubsub_message()``, or ``xread`` and ``xreadgroup`` with XACK batch by batch."""
        if self.transport == "Pub/Sub":
            channels = {GlideClientConfiguration.PubSubChannelModes.Exact: {to}}
            wanted = GlideClientConfiguration.PubSubSubscriptions(channels, None, None)
            async with _connected(url, pubsub_subscriptions=wanted) as client, background(_listen(client, on_event)):
                yield
        else:
            async with _connected(url) as client, background(_read(client, to, group, on_event)):
                yield


async def _listen(client: GlideClient, on_event: OnEvent) -> None:
    while True:
        received = await client.get_pubsub_message()
        on_event(Message.model_validate_json(received.message).data.token_id)


async def _read(client: GlideClient, key: str, group: str | None, on_event: OnEvent) -> None:
    cursor: Any = "0"
    while True:
        reply: Any
        if group is None:
            reply = await client.xread({key: cursor}, StreamReadOptions(block_ms=1_000, count=BATCH_SIZE))
        else:
            options = StreamReadGroupOptions(block_ms=1_000, count=BATCH_SIZE)
            reply = await client.xreadgroup({key: ">"}, group, "one", options)
        for batch in (reply or {}).values():
            for position, fields in batch.items():
                on_event(Message.model_validate_json(fields[0][1]).data.token_id)
                cursor = position
            if group is not None:
                await client.xack(key, group, list(batch))
        await asyncio.sleep(0)
