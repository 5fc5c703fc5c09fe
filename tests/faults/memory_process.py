"""A program that reads a stream to an event of its own at the end, and prints by how many bytes its memory peaked.

Usage: ``python -m tests.faults.memory_process URL KEY list|stream|group``
"""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

from jwt_events import RedisStream, RevocationList, Subscriber, TokenRevoked
from jwt_events.transport._redis import reconnecting
from tests.support.waiting import scaled


def peak() -> int:
    """Return the largest resident memory so far, in bytes, as the kernel counts it."""
    (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(kilobytes) * 1024


# A server that takes in what is large answers late.
reconnecting.OPEN_WITHIN += scaled(5.0)


async def main(url: str, key: str, kind: str) -> None:
    """Read everything."""
    before = peak()
    if kind == "list":
        async with RevocationList(RedisStream(url, key)) as revocations:
            assert revocations.stats.events == 1
            skipped = revocations.stats.decode_errors
    else:
        options = {"group": "workers"} if kind == "group" else {}
        subscriber, done = Subscriber(RedisStream(url, key, start="all", **options)), asyncio.Event()  # type: ignore[arg-type]  # the values are of different types in general

        @subscriber.on(TokenRevoked)
        async def handle(event: TokenRevoked) -> None:
            done.set()

        async with subscriber:
            await done.wait()
        skipped = subscriber.stats.decode_errors
    sys.stdout.write(f"{skipped} {peak() - before}\n")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
