"""What becomes of many lists that read from two replicas when one of these is frozen.

``python -m bench.fanout frozen:300x5`` lets 300 lists follow 5 events a second and freezes a replica once. It tells
what the primary spends apart from what is published, when the last list had left the replica, how stale a list became,
and how many lists let a token in that had been revoked for longer than they may be stale. Where their processes get too
little of a core, lists are stale whatever the replicas do: "looked late" says by how many seconds at worst.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from asyncio.subprocess import Process
from contextlib import AsyncExitStack

from redis.asyncio import Redis

from bench.fleet import processor_time
from bench.programs import ask, start_program, start_replica
from bench.worker import loop_factory
from jwt_events import Publisher, RedisStream, RevocationList, TokenRevoked, Verdict
from jwt_events.embedded import EmbeddedServer

KEY = "bench:frozen"
MAX_STALENESS = 3.0
PROCESSES = 3
SECONDS = 5.0

_EVERY = 0.05  # seconds between two looks at all lists
FROZEN = 3 * MAX_STALENESS  # seconds until the replica goes on at the latest


class Watched:
    """Lists of one process, and what was seen of them.

    Args:
        lists: the lists.
    """

    def __init__(self, lists: list[RevocationList]) -> None:
        self._lists = lists
        self._revoked: dict[str, float] = {}
        self._stale_since = [0.0] * len(lists)  # 0 for one that is not stale
        self._wrong: set[tuple[int, str]] = set()
        self.worst = self.longest = self.late = 0.0

    def revoke(self, token_id: str) -> None:
        """Note that the publish of this revocation has returned."""
        self._revoked[token_id] = time.monotonic()

    def look(self, since: float) -> float:
        """Look at all lists; return when."""
        now = time.monotonic()
        self.late = max(self.late, now - since - _EVERY)
        for number, one in enumerate(self._lists):
            self.worst = max(self.worst, one.staleness)
            if one.staleness <= MAX_STALENESS:
                self._stale_since[number] = 0.0
            else:
                self._stale_since[number] = self._stale_since[number] or now
                self.longest = max(self.longest, now - self._stale_since[number])
            for token_id, at in self._revoked.items():
                if now - at > MAX_STALENESS and one.check({"jti": token_id}) is Verdict.ALLOW:
                    self._wrong.add((number, token_id))
        return now

    def __str__(self) -> str:
        found = {
            "staleness": self.worst,
            "stale for": self.longest,
            "wrong": len(self._wrong),
            "looked late": self.late,
        }
        return json.dumps(found)


async def watch(url: str, count: int) -> None:
    """Run lists until the standard input ends, and look at them all the time."""
    async with AsyncExitStack() as stack:
        lists = [
            RevocationList(RedisStream(url, KEY, read_from="replica"), max_staleness=MAX_STALENESS)
            for _ in range(count)
        ]
        for one in lists:
            await stack.enter_async_context(one)
        watched = Watched(lists)

        async def look() -> None:
            at = time.monotonic()
            while True:
                at = watched.look(at)
                await asyncio.sleep(_EVERY)

        looking = asyncio.create_task(look())
        _say("ready")
        while (line := (await asyncio.to_thread(sys.stdin.readline)).strip()) != "end":
            watched.revoke(line)
        looking.cancel()
        _say(str(watched))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def _publish(url: str, rate: float, tell: list[Process]) -> None:
    """Publish revocations until cancelled, and tell of one in each second when it is in the stream."""
    async with Publisher(RedisStream(url, KEY)) as publisher:
        began, number, told = time.monotonic(), 0, 0.0
        while True:
            token_id = f"token-{number}"
            await publisher.publish(TokenRevoked(token_id=token_id))
            if time.monotonic() > told + 1.0:
                told = time.monotonic()
                for process in tell:
                    assert process.stdin is not None
                    process.stdin.write(f"{token_id}\n".encode())
            number += 1
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))


async def _readers(client: Redis) -> int:
    return sum("xread" in one["cmd"] for one in await client.client_list())


async def _core(server: EmbeddedServer) -> float:
    """Return the part of a core that a server spends."""
    began, before = time.monotonic(), processor_time(server.pid)
    await asyncio.sleep(SECONDS)
    return (processor_time(server.pid) - before) / (time.monotonic() - began)


async def _freeze(pid: int, other: Redis, count: int) -> float:
    """Freeze a replica for a while; return the seconds until all readers were at the other one."""
    began = time.monotonic()
    left = FROZEN
    os.kill(pid, signal.SIGSTOP)
    try:
        # Longer than a list may be stale, so that one that reads from it still becomes stale.
        while (passed := time.monotonic() - began) < FROZEN and passed < left + MAX_STALENESS:
            if left == FROZEN and await _readers(other) >= count:
                left = passed
            await asyncio.sleep(_EVERY)
    finally:
        os.kill(pid, signal.SIGCONT)
    return left


async def measure(count: int, rate: float) -> dict[str, float]:
    """Freeze one of two replicas that so many lists read, while events come at this rate."""
    async with EmbeddedServer(port=0) as primary, AsyncExitStack() as stack:
        replicas = [await start_replica(stack, primary) for _ in range(2)]
        clients = [await stack.enter_async_context(Redis.from_url(one.url)) for one in replicas]
        processes: list[Process] = []
        publishing = asyncio.create_task(_publish(primary.url, rate, processes))
        stack.callback(publishing.cancel)
        writes = await _core(primary)
        counts = [count // PROCESSES + (number < count % PROCESSES) for number in range(PROCESSES)]
        started = [await start_program(stack, __name__, "watch", primary.url, str(each)) for each in counts]
        for process in started:
            await ask(process)
        processes += started
        core = await _core(primary)
        left = await _freeze(replicas[0].pid, clients[1], count)
        found = [json.loads(await ask(process, "end\n")) for process in started]
    worst = {name: max(one[name] for one in found) for name in found[0]}
    told = {"writes": writes, "primary apart from writes": core - writes, "all have left after": left} | worst
    return {name: round(value, 3) for name, value in told.items()}


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory("uvloop")) as runner:
        runner.run(watch(sys.argv[2], int(sys.argv[3])))
