"""What Python allocates while an event is published."""

from __future__ import annotations

import gc
import statistics
import tracemalloc
from datetime import UTC, datetime, timedelta

import pytest

from jwt_events import Publisher, RedisPubSub, RedisStream, TokenRevoked
from jwt_events.transport.base import Transport

LIMIT = 2_400
"""Bytes: those of CPython 3.13, which has larger coroutines; 3.11 needs 1,800. The message itself is there twice."""


@pytest.mark.parametrize("transport", [RedisStream, RedisPubSub])
async def test_a_publish(transport: type[RedisStream | RedisPubSub], url: str, key: str) -> None:
    """A publish allocates little at once, whatever is kept of it."""
    destination: Transport = transport(url, key)
    expires_at = datetime.now(UTC) + timedelta(hours=1)
    events = [TokenRevoked(token_id=f"token {number}", expires_at=expires_at) for number in range(200)]
    peaks: list[int] = []
    async with Publisher(destination, source="tests") as publisher:
        for event in events:
            await publisher.publish(event)  # what is allocated once is allocated now
        gc.collect()
        tracemalloc.start()
        try:
            for event in events:
                tracemalloc.reset_peak()
                before, _ = tracemalloc.get_traced_memory()
                await publisher.publish(event)
                peaks.append(tracemalloc.get_traced_memory()[1] - before)
        finally:
            tracemalloc.stop()
    assert statistics.median(peaks) <= LIMIT
