"""The benchmark's operations with this library, from an event to its handler."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from time import perf_counter
from typing import Self

from jwt_events.cli.bench._load import BATCH_SIZE, TASKS, Load, run_together
from jwt_events.events import Event
from jwt_events.publisher import Publisher
from jwt_events.subscriber import Subscriber
from jwt_events.transport.pubsub import RedisPubSub
from jwt_events.transport.stream import RedisStream


class LibrarySide:
    """The side of this library; an asynchronous context manager.

    Args:
        url: the server.
        name: the name of the stream and of the channel.
    """

    def __init__(self, url: str, name: str) -> None:
        self._stream = RedisStream(url, name, start="all", batch_size=BATCH_SIZE)
        self._stream.trims = False
        self._channel = RedisPubSub(url, name)

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            self._to_stream = await stack.enter_async_context(Publisher(self._stream))
            self._to_channel = await stack.enter_async_context(Publisher(self._channel))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def one_by_one(self, load: Load) -> Sequence[float]:
        """Publish one after another."""
        began = perf_counter()
        for event in load.events:
            await self._to_stream.publish(event)
        return [perf_counter() - began]

    async def from_tasks(self, load: Load) -> Sequence[float]:
        """Publish from many tasks at once."""
        rest = iter(load.events)

        async def work() -> None:
            for event in rest:
                await self._to_stream.publish(event)

        began = perf_counter()
        await run_together(*(work() for _ in range(TASKS)))
        return [perf_counter() - began]

    async def many(self, load: Load) -> Sequence[float]:
        """Publish many at a time."""
        began = perf_counter()
        await _publish_many(self._to_stream, load)
        return [perf_counter() - began]

    async def drain(self, load: Load) -> Sequence[float]:
        """Handle all events of the stream."""
        subscriber = Subscriber(self._stream)
        all_handled = _all_handled(subscriber, len(load.events))
        began = perf_counter()
        async with subscriber:
            await all_handled.wait()
            return [perf_counter() - began]

    async def over_pubsub(self, load: Load) -> Sequence[float]:
        """Publish over Pub/Sub until a subscriber of this process has handled everything."""
        subscriber = Subscriber(self._channel)
        all_handled = _all_handled(subscriber, len(load.events))
        async with subscriber:
            began = perf_counter()
            await _publish_many(self._to_channel, load)
            await all_handled.wait()
            return [perf_counter() - began]

    async def to_handler(self, load: Load) -> Sequence[float]:
        """Publish one event and wait until its handler has begun; then the next."""
        subscriber, handled = Subscriber(self._stream), asyncio.Event()

        @subscriber.on()
        async def handle(_: Event) -> None:
            handled.set()

        seconds = []
        async with subscriber:
            for event in load.events:
                began = perf_counter()
                await self._to_stream.publish(event)
                await handled.wait()
                seconds.append(perf_counter() - began)
                handled.clear()
        return seconds


async def _publish_many(publisher: Publisher, load: Load) -> None:
    for first in range(0, len(load.events), BATCH_SIZE):
        await publisher.publish_many(load.events[first : first + BATCH_SIZE])


def _all_handled(subscriber: Subscriber, count: int) -> asyncio.Event:
    """Register a handler; return an `asyncio.Event` that it sets after ``count`` events."""
    done, left = asyncio.Event(), count

    @subscriber.on()
    async def handle(_: Event) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            done.set()

    return done
