"""FastStream: publishes pydantic models, and validates against the annotations of its subscribers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from faststream.redis import RedisBroker, StreamSub
from redis.asyncio import Redis

from bench.clients.base import BATCH_SIZE, TASKS, ClientBase, OnEvent, Publish, PublishMany
from bench.load import Message, message


class FastStream(ClientBase):
    """FastStream on one transport."""

    package = "faststream"
    title = "FastStream"

    def item(self, number: int, padding: int = 0) -> Message:
        """Return a pydantic model."""
        return message(number, padding)

    def _broker(self, url: str) -> RedisBroker:
        silent: Any = None  # allowed by its documentation, though not by its annotations
        return RedisBroker(url, logger=silent, max_connections=2 * TASKS)  # the default is too few for the tasks

    def _target(self, to: str) -> dict[str, Any]:
        return {"stream": to} if self.transport == "stream" else {"channel": to}

    @asynccontextmanager
    async def publishing(self, url: str, to: str) -> AsyncIterator[Publish]:
        """``await broker.publish(model, stream=…)`` or ``channel=…``."""
        target = self._target(to)
        async with self._broker(url) as broker:
            await broker.start()
            yield lambda item: broker.publish(item, **target)

    @asynccontextmanager
    async def publishing_many(self, url: str, to: str) -> AsyncIterator[PublishMany]:
        """``broker.publish(…, pipeline=pipeline)`` for each, and one ``execute()``."""
        target = self._target(to)
        async with self._broker(url) as broker, Redis.from_url(url) as client:
            await broker.start()

            async def publish(items: Sequence[Message]) -> object:
                pipeline = client.pipeline(transaction=False)
                for item in items:
                    await broker.publish(item, pipeline=pipeline, **target)
                return await pipeline.execute()

            yield publish

    @asynccontextmanager
    async def listening(self, url: str, to: str, on_event: OnEvent, *, group: str | None = None) -> AsyncIterator[None]:
        """``@broker.subscriber(…)`` with a handler that takes the model."""
        broker = self._broker(url)
        where: dict[str, Any] = {"channel": to}
        if self.transport == "stream":
            shared: dict[str, Any] = {} if group is None else {"group": group, "consumer": "one"}
            where = {"stream": StreamSub(to, last_id="0" if group is None else ">", max_records=BATCH_SIZE, **shared)}

        @broker.subscriber(**where)  # type: ignore[untyped-decorator]  # with options that are chosen at run time
        async def handle(received: Message) -> None:
            on_event(received.data.token_id)

        async with broker:
            await broker.start()
            yield
