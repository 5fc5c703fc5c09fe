"""taskiq-redis: a task queue; an event is the argument of a task, as a pydantic model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from taskiq import AsyncBroker
from taskiq.api import run_receiver_task
from taskiq_redis import PubSubBroker, RedisStreamBroker

from bench.clients.base import BATCH_SIZE, TASKS, ClientBase, OnEvent, Publish
from bench.clients.raw import background
from bench.load import Message, message

_IDLE = 0.5  # seconds after which it only waits; cancelled while it looks for unacknowledged entries, it never ends


class Taskiq(ClientBase):
    """taskiq-redis on one transport."""

    package = "taskiq-redis"
    title = "taskiq-redis"

    def item(self, number: int, padding: int = 0) -> Message:
        """Return a pydantic model."""
        return message(number, padding)

    def _broker(self, url: str, to: str, group: str | None = None) -> AsyncBroker:
        connections: dict[str, Any] = {"max_connection_pool_size": 2 * TASKS}
        if self.transport == "Pub/Sub":
            return PubSubBroker(url, queue_name=to, **connections)
        # It always reads in a group; a new group starts at the beginning of the stream.
        name = f"new:{uuid4()}" if group is None else group
        return RedisStreamBroker(
            url, queue_name=to, consumer_group_name=name, consumer_id="0", xread_count=BATCH_SIZE, **connections
        )

    @asynccontextmanager
    async def publishing(self, url: str, to: str) -> AsyncIterator[Publish]:
        """``await task.kiq(model)``."""
        broker = self._broker(url, to)

        @broker.task(task_name="handle")
        async def handle(received: Message) -> None: ...

        await broker.startup()
        try:
            yield handle.kiq
        finally:
            await broker.shutdown()

    def publishing_many(self, url: str, to: str) -> Any:
        """Not supported by taskiq-redis."""
        raise NotImplementedError

    @asynccontextmanager
    async def listening(self, url: str, to: str, on_event: OnEvent, *, group: str | None = None) -> AsyncIterator[None]:
        """``run_receiver_task``, which validates the arguments of the task."""
        broker = self._broker(url, to, group)

        @broker.task(task_name="handle")
        async def handle(received: Message) -> None:
            on_event(received.data.token_id)

        broker.is_worker_process = True
        await broker.startup()
        try:
            async with background(run_receiver_task(broker, max_prefetch=BATCH_SIZE)):
                try:
                    yield
                finally:
                    await asyncio.sleep(_IDLE)
        finally:
            await broker.shutdown()
