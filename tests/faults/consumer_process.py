"""A program that runs a consumer of a group, for tests that kill it.

It appends the subject of each event to a list when a handler starts, and to another one just before the handler ends.
SIGTERM ends it as a supervisor would: the subscriber is cancelled and drains.

Usage: ``python -m tests.faults.consumer_process URL KEY CONSUMER CLAIM_AFTER SECONDS_PER_EVENT``
"""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import suppress

from redis.asyncio import Redis

from jwt_events import Event, RedisStream, Subscriber


async def main(url: str, key: str, consumer: str, claim_after: float, seconds: float) -> None:
    """Handle events until SIGTERM."""
    transport = RedisStream(url, key, group="workers", consumer=consumer, claim_after=claim_after, start="all")
    subscriber = Subscriber(transport, concurrency=8, drain_timeout=max(seconds * 2, 0.5))
    async with Redis.from_url(url) as client:

        @subscriber.on()
        async def handle(event: Event) -> None:
            await client.execute_command("RPUSH", f"{key}:started", str(event.subject))  # type: ignore[no-untyped-call]  # redis-py does not annotate it
            await asyncio.sleep(seconds)
            await client.execute_command("RPUSH", f"{key}:handled", str(event.subject))  # type: ignore[no-untyped-call]  # the same

        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        with suppress(asyncio.CancelledError):
            await subscriber.run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4], *map(float, sys.argv[4:6])))  # type: ignore[arg-type]  # counted in the usage above
