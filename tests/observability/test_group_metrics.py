"""Metrics of consumer groups: how many events wait, and how many are in hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from jwt_events import RedisStream, Subscriber
from jwt_events.metrics import Metrics
from jwt_events.transport._stream.backlog import GroupBacklog
from jwt_events.transport._stream.consumer_group import ConsumerGroup
from jwt_events.transport._stream.position import StreamInfo
from jwt_events.transport.base import Backlog
from tests.observability.test_metrics import Scrape
from tests.support.examples import revoked
from tests.support.handling import Gate, publish
from tests.support.raw import counts_what_was_added
from tests.support.waiting import scaled, wait_until


async def test_while_handlers_are_busy_and_after(url: str, key: str, client: Redis) -> None:
    """What waits and what is in hand is told also while all handlers are busy, and no more when the subscriber ends."""
    registry, gate, labels = CollectorRegistry(), Gate(), tuple(sorted((key, "workers")))
    transport = RedisStream(url, key, group="workers", batch_size=1, claim_after=scaled(0.3))
    subscriber = Subscriber(transport, concurrency=1, metrics=Metrics(registry))
    subscriber.on()(gate)
    counts = await counts_what_was_added(client)

    def told() -> list[float | None]:
        found = Scrape(registry)
        return [found.samples.get(name, {}).get(labels) for name in ("group_lag", "group_pending")]

    def some_wait() -> bool:
        lag, pending = told()
        if not counts:
            return lag is not None and math.isnan(lag) and bool(pending)
        return lag is not None and pending is not None and lag > 0 < pending and lag + pending == 5

    async with subscriber:
        await publish(transport, *(revoked(number) for number in range(5)))
        await wait_until(some_wait, what=lambda: f"some that wait, not {told()}")
        gate.open()
        await wait_until(lambda: told() == [0, 0], what=lambda: f"none, not {told()}")
    assert told() == [None, None]


@pytest.mark.parametrize(
    ("fields", "last", "lag"),
    [
        ({b"lag": 3}, "9-0", 3),
        ({b"lag": None}, "9-0", None),
        ({b"lag": None}, "5-0", 0),
        ({}, "9-0", None),
        ({}, "5-0", 0),
    ],
)
def test_what_the_server_does_not_count(fields: dict[bytes, Any], last: str, lag: int | None) -> None:
    """A lag that the server does not know is unknown, except at the end of the stream, where nothing can wait."""
    backlog, told = GroupBacklog(ConsumerGroup("k", "workers", "one")), list[Backlog]()
    backlog.tell = told.append
    row = {b"name": b"workers", b"pending": 2, b"last-delivered-id": b"5-0", **fields}
    other = row | {b"name": b"other", b"pending": 7}
    backlog.note([[word for pair in group.items() for word in pair] for group in (other, row)], StreamInfo(last=last))
    assert told == [Backlog("k", "workers", lag, 2)]
