"""A consumer that is slower than the publisher, for a minute."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise

import pytest

from jwt_events import Publisher, RedisPubSub, RedisStream, Subscriber, TokenRevoked, Transport
from jwt_events.embedded import EmbeddedServer
from tests.stress.resident import Resident
from tests.support.waiting import scaled, wait_until

pytestmark = [pytest.mark.stress, pytest.mark.timeout(scaled(600))]

MINUTE = 60.0
SAMPLE_EVERY = 2.0  # seconds
BATCH = 500
WARM = 120_000  # events; the window in which duplicates are known, 100,000 ids, is full by then
MAX_EVENTS = 1_000_000  # more than are published in all


class Pace:
    """A handler that is slow on demand, and records which events it has handled.

    Args:
        pause: seconds that it waits while it is slow.
        behind: how many events the publisher then runs ahead.
    """

    def __init__(self, *, pause: float, behind: int) -> None:
        self.is_slow = False
        self.calls = bytearray(MAX_EVENTS)
        self.last = -1
        self.handled = 0
        self.published = 0
        self._pause = pause
        self._far = behind

    async def handle(self, event: TokenRevoked) -> None:
        """Record the number of an event."""
        if self.is_slow:
            await asyncio.sleep(self._pause)
        self.last = int(event.token_id or "", 16)
        self.calls[self.last] += 1
        self.handled += 1

    def is_within(self, number: int) -> bool:
        """Whether fewer than ``number`` events were published after the last one that was handled."""
        return self.published - 1 - self.last < number

    async def publish_batch(self, publisher: Publisher) -> None:
        """Publish the next batch."""
        numbers = range(self.published, self.published + BATCH)
        await publisher.publish_many([TokenRevoked(token_id=f"{number:x}") for number in numbers])
        self.published += BATCH

    async def have_a_slow_minute(self, transport: Transport, resident: Resident) -> None:
        """Warm up; then be slow for a minute, while events are published far ahead; sample the memory."""
        async with Publisher(transport, timeout=scaled(30.0)) as publisher:
            while self.published < WARM:
                await self.publish_batch(publisher)
                await wait_until(lambda: self.is_within(BATCH), within=30.0)
            self.is_slow = True
            while self.is_within(self._far):
                await self.publish_batch(publisher)
            began = time.monotonic()

            def is_time() -> bool:
                return time.monotonic() > began + len(resident.samples) * SAMPLE_EVERY

            while time.monotonic() < began + MINUTE:
                if is_time():
                    resident.sample()
                if self.is_within(self._far):
                    await self.publish_batch(publisher)
                else:
                    await wait_until(lambda: self.is_within(self._far) or is_time(), within=MINUTE)
            self.is_slow = False


async def test_a_stream_keeps_what_a_slow_consumer_has_not_reached() -> None:
    """For a minute a handler is 20,000 events behind. Memory stays flat, and at the end no event was lost.

    How it knows: waiting events stay on the server; the subscriber never holds more than two batches and what its
    handlers are at. Resident memory is sampled every two seconds, and no sample is more than 5 % above the first. After
    the minute the handler stops being slow, and a byte for each event says that it was handled once.
    """
    pace, resident, batch, max_held = Pace(pause=0.02, behind=20_000), Resident(), 500, 0
    async with EmbeddedServer(port=0) as server:
        transport = RedisStream(server.url, batch_size=batch)
        subscriber = Subscriber(transport, concurrency=8)

        @subscriber.on(TokenRevoked)
        async def handle(event: TokenRevoked) -> None:
            nonlocal max_held
            if pace.handled % BATCH == 0:
                max_held = max(max_held, subscriber.stats.received - pace.handled)
            await pace.handle(event)

        async with subscriber:
            await pace.have_a_slow_minute(transport, resident)
            assert not pace.is_within(20_000 - BATCH)
            await wait_until(lambda: pace.handled >= pace.published, within=120.0)
    assert pace.calls.count(1) == pace.published == pace.handled
    assert subscriber.stats.gaps == subscriber.stats.duplicates == subscriber.stats.failed == 0
    assert 0 < max_held <= 2 * batch + 8
    resident.assert_flat(at_least=20)


async def test_what_the_server_takes_from_a_slow_subscriber_is_a_gap() -> None:
    """For a minute a handler is up to 100,000 events behind a channel. Memory stays flat, and every loss is a `Gap`.

    How it knows: the server may keep one megabyte for a subscriber, and drops the connection of one who needs more,
    which is when the kernel's buffers are full too. With a concurrency of one, the handler sees its events in order.
    Wherever some are missing, the subscription was lost, so there are at least as many gaps as holes. After the minute,
    what is published arrives again.
    """
    pace, resident, gaps = Pace(pause=0.0025, behind=100_000), Resident(), 0
    limits = {"client-output-buffer-limit": "pubsub 1mb 512kb 1"}
    async with EmbeddedServer(port=0, config=limits) as server:
        transport = RedisPubSub(server.url)
        subscriber = Subscriber(transport, concurrency=1)
        subscriber.register_handler(TokenRevoked, pace.handle)

        @subscriber.on_gap
        async def note(_: object) -> None:
            nonlocal gaps
            gaps += 1

        async with subscriber:
            await pace.have_a_slow_minute(transport, resident)
            async with Publisher(transport) as publisher:
                until = pace.published

                async def arrives() -> bool:
                    await pace.publish_batch(publisher)
                    return pace.last >= until

                await wait_until(arrives, within=60.0)
    assert max(pace.calls) == 1
    seen = bytes(pace.calls[: pace.last + 1])
    holes = sum(before and not after for before, after in pairwise(seen))
    assert holes, "the server dropped nothing, so nothing was shown"
    assert gaps == subscriber.stats.gaps
    assert gaps >= holes
    resident.assert_flat(at_least=20)
