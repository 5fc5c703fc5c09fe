"""A program with open connections that forks, for tests: the child ends in some way, then the parent goes on.

It prints, as one line of JSON, what is different at the server after the child, and what the parent does then.

Usage: ``python -m tests.faults.forking_process URL KEY exit|raise|publish``
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from typing import Any

import redis

from jwt_events import (
    Gap,
    JWTEventsError,
    Publisher,
    RedisPubSub,
    RedisStream,
    RevocationList,
    Subscriber,
    TokenRevoked,
    Verdict,
)
from tests.support.handling import Recorder
from tests.support.waiting import wait_until


def at_server(url: str, key: str) -> dict[str, Any]:
    """Return what the server knows of this program."""
    with redis.Redis.from_url(url) as client:
        return {
            "consumers": [one["name"].decode() for one in client.xinfo_consumers(key, "workers")],
            "fleet": sorted(map(str, client.hkeys(f"{key}:fleet"))),
        }


async def end_child(how: str, publisher: Publisher) -> None:
    """End this process, which is a child, as programs do that do not know better."""
    if how == "publish":
        with suppress(JWTEventsError):
            await publisher.publish(TokenRevoked(token_id="of the child"))
    if how == "raise":
        raise ValueError
    sys.exit()


async def ended(pid: int) -> None:
    """Wait until a child has ended."""
    await wait_until(lambda: os.waitpid(pid, os.WNOHANG)[0] == pid, within=30, what="the end of the child")


async def main(url: str, key: str, how: str) -> None:
    """Fork, wait for the child, and go on."""
    stream, channel, gaps = RedisStream(url, key), RedisPubSub(url, key), list[str]()
    subscribers = [Subscriber(stream), Subscriber(RedisStream(url, key, group="workers")), Subscriber(channel)]
    recorders = [Recorder() for _ in subscribers]
    revocations = RevocationList(stream, service="a", instance="1")
    publishers = [Publisher(stream), Publisher(channel)]
    for subscriber, recorder in zip(subscribers, recorders, strict=True):
        subscriber.on()(recorder)
    for subscriber in subscribers[:2]:  # of the channel, one would be right after a long pause of this process

        @subscriber.on_gap
        def note(gap: Gap) -> None:
            gaps.append(gap.cause)

    async with AsyncExitStack() as stack:
        opened: list[AbstractAsyncContextManager[Any]] = [*publishers, *subscribers, revocations]
        for one in opened:
            await stack.enter_async_context(one)
        for publisher in publishers:
            await publisher.publish(TokenRevoked(token_id="before"))
        for recorder in recorders:
            await recorder.has_seen(1)
        before = at_server(url, key)
        pid = os.fork()
        if not pid:
            await end_child(how, publishers[0])
        await ended(pid)
        after = at_server(url, key)
        receipts = [await publisher.publish(TokenRevoked(token_id="after")) for publisher in publishers]
        for recorder in recorders:
            await recorder.has_seen(2)
        await revocations.wait_for(receipts[0].position or "")
        verdict = revocations.check({"jti": "after", "iat": 1})
        different = [name for name in before if before[name] != after[name]]
        seen = [len(recorder.seen) for recorder in recorders]
        told = {"different": different, "seen": seen, "gaps": gaps, "revoked": verdict is Verdict.REVOKED}
        sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
