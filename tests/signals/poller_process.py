"""A process with a poller, for tests that kill one: ``python -m tests.signals.poller_process URL KEY POLL_URL LEASE``.

The issuer's key comes on standard input. It prints a line when it holds the lease, and ends on SIGTERM.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys

from jwt import PyJWK

from jwt_events import Publisher, RedisStream
from jwt_events.signals import SecurityEvents, SetPoller
from jwt_events.testing import eventually


async def main(url: str, key: str, poll_url: str, lease: str) -> None:
    """Poll until SIGTERM."""
    about = json.loads(await asyncio.to_thread(sys.stdin.readline))
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    events = SecurityEvents(about["issuer"], about["audience"], lambda _: PyJWK(about["key"]))
    async with (
        Publisher(RedisStream(url, key)) as publisher,
        SetPoller(publisher, events, poll_url, lease=float(lease), timeout=5) as poller,
    ):
        await eventually(lambda: poller.is_holder, within=60)
        sys.stdout.write("holds\n")
        sys.stdout.flush()
        await ended.wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
