"""broadcaster: one connection for all subscribers of a process, and text as messages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from broadcaster import Broadcast

from bench.clients.base import TASKS, ClientBase, OnEvent, Publish
from bench.clients.raw import background
from bench.load import Message, payload


class Broadcaster(ClientBase):
    """broadcaster on one transport."""

    package = "broadcaster"
    title = "broadcaster"

    def item(self, number: int, padding: int = 0) -> str:
        """Return text, encoded beforehand."""
        return payload(number, padding).decode()

    def _broadcast(self, url: str) -> Broadcast:
        url = f"{url}?max_connections={2 * TASKS}"  # the default is too few for the tasks
        return Broadcast(url if self.transport == "Pub/Sub" else url.replace("redis://", "redis-stream://"))

    @asynccontextmanager
    async def publishing(self, url: str, to: str) -> AsyncIterator[Publish]:
        """``await broadcast.publish(channel, text)``."""
        async with self._broadcast(url) as broadcast:
            yield lambda item: broadcast.publish(to, item)

    def publishing_many(self, url: str, to: str) -> Any:
        """Not supported by broadcaster."""
        raise NotImplementedError

    @asynccontextmanager
    async def listening(self, url: str, to: str, on_event: OnEvent, *, group: str | None = None) -> AsyncIterator[None]:
        """``async for event in subscriber``, and validate each."""
        async with (
            self._broadcast(url) as broadcast,
            broadcast.subscribe(to) as subscriber,
            background(_listen(subscriber, on_event)),
        ):
            yield


async def _listen(subscriber: Any, on_event: OnEvent) -> None:
    async for received in subscriber:
        on_event(Message.model_validate_json(received.message).data.token_id)
