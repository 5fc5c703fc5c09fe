"""jwt_events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, ClassVar

from bench.clients.base import OnEvent, Publish, PublishMany
from bench.load import RETENTION, SOURCE, event
from jwt_events import Publisher, RedisPubSub, RedisStream, Subscriber, TokenRevoked, Transport


class Ours:
    """jwt_events, with any options.

    Args:
        transport: ``stream`` or ``Pub/Sub``.
        suffix: names the options in the table.
        options: makes the options of publisher and subscriber, in the process that uses them.
    """

    package: ClassVar[str] = "jwt_events"

    def __init__(self, transport: str, suffix: str = "", options: Callable[[], Mapping[str, Any]] = dict) -> None:
        self.name = f"jwt_events {transport}{suffix}"
        self.transport = transport
        self._options = options

    def transport_at(self, url: str, to: str, group: str | None = None) -> Transport:
        """Return the transport."""
        if self.transport == "stream":
            return RedisStream(url, key=to, start="all", retention=RETENTION, group=group)
        return RedisPubSub(url, channel=to)

    def item(self, number: int, padding: int = 0) -> TokenRevoked:
        """Return an event."""
        return event(number, padding)

    @asynccontextmanager
    async def publisher(self, url: str, to: str) -> AsyncIterator[Publisher]:
        """Connect a publisher."""
        transport = self.transport_at(url, to)
        async with Publisher(transport, source=SOURCE, max_event_bytes=65_536, **self._options()) as publisher:
            yield publisher

    @asynccontextmanager
    async def publishing(self, url: str, to: str) -> AsyncIterator[Publish]:
        """``await publisher.publish(event)``."""
        async with self.publisher(url, to) as publisher:
            yield publisher.publish

    @asynccontextmanager
    async def publishing_many(self, url: str, to: str) -> AsyncIterator[PublishMany]:
        """``await publisher.publish_many(events)``."""
        async with self.publisher(url, to) as publisher:
            yield publisher.publish_many

    @asynccontextmanager
    async def listening(self, url: str, to: str, on_event: OnEvent, *, group: str | None = None) -> AsyncIterator[None]:
        """A subscriber with one asynchronous handler."""
        subscriber = Subscriber(self.transport_at(url, to, group), **self._options())

        @subscriber.on(TokenRevoked)
        async def handle(event: TokenRevoked) -> None:
            on_event(event.token_id or "")

        async with subscriber:
            yield
