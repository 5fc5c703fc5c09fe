"""A retention of two seconds under faults: every list that starts knows all that was ever acknowledged."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from redis.asyncio import Redis

from jwt_events import Publisher, PublishError, RedisStream, RevocationList, TokenRevoked, Verdict
from jwt_events._internal.cancellation import end
from jwt_events.embedded import EmbeddedServer
from jwt_events.errors import TransportError
from tests.faults.restarting import ALL, Restartable
from tests.support.raw import call
from tests.support.waiting import scaled, wait_until

pytestmark = [pytest.mark.stress, pytest.mark.timeout(scaled(1_200))]

EVENTS = 100_000
FAULTS = 200
BATCH = 40
RETENTION = timedelta(seconds=2)
UNTIL = datetime.now(UTC) + timedelta(days=1)


class Soak:
    """Two publishers with a short retention, faults, and lists that start in between.

    Attributes:
        acknowledged: the tokens whose revocation was accepted.
        starts: how many lists were started.
        told: how many of these reported a gap.
    """

    def __init__(self, server: Restartable, seed: int) -> None:
        self.server = server
        self.chance = random.Random(seed)
        self.acknowledged: list[str] = []
        self.starts = self.told = 0
        self._number = 0
        self._publishers = [self._new_publisher() for _ in range(2)]

    def _new_publisher(self) -> asyncio.Task[None]:
        return asyncio.create_task(self._publish())

    async def _publish(self) -> None:
        transport = RedisStream(self.server.url, "k", retention=RETENTION)
        async with Publisher(transport, source="soak", timeout=10) as publisher:
            while True:
                names = {}
                for _ in range(BATCH):
                    self._number += 1
                    event = TokenRevoked(token_id=f"{self._number:x}", expires_at=UNTIL)
                    names[event.id] = event
                try:
                    receipts = await publisher.publish_many(names.values())
                except PublishError as error:
                    receipts = list(error.receipts)
                self.acknowledged += [str(names[receipt.event_id].token_id) for receipt in receipts]
                await asyncio.sleep(0.1)

    async def end_publisher(self) -> None:
        """End a publisher wherever it is, folding or not, and start another one."""
        index = self.chance.randrange(2)
        await end([self._publishers[index]])
        self._publishers[index] = self._new_publisher()

    async def cut_connections(self) -> None:
        """Close every connection."""
        async with Redis.from_url(self.server.url) as client:
            await client.client_kill_filter(_type="normal", skipme=True)

    async def restart_server(self) -> None:
        """Kill the server, and start it again."""
        os.kill(self.server.running.pid, 9)
        await self.server.kill()
        await self.server.start(ALL)

    async def let_another_fold(self) -> None:
        """Take the lock away, so that two fold at once."""
        async with Redis.from_url(self.server.url) as client:
            await client.delete("k:ledger:lock")

    async def trim(self) -> None:
        """Remove the newest events before anybody has folded them."""
        async with Redis.from_url(self.server.url) as client:
            await call(client, "XTRIM", "k", "MAXLEN", self.chance.randrange(100))

    async def start_list(self) -> None:
        """Start a list, and look up everything that was acknowledged before."""
        known = len(self.acknowledged)
        revocations = RevocationList(RedisStream(self.server.url, "k"), max_staleness=scaled(30))
        while True:
            with suppress(TransportError):
                await revocations.__aenter__()
                break
        try:
            unknown = [
                name
                for name in self.acknowledged[:known]
                if revocations.check({"jti": name, "iat": 1}) is not Verdict.REVOKED
            ]
            assert not unknown or revocations.stats.gaps, f"{len(unknown)} of {known} lost without a gap"
        finally:
            gaps = revocations.stats.gaps
            await revocations.aclose()
        self.starts += 1
        self.told += gaps > 0

    async def aclose(self) -> None:
        """End the publishers."""
        await end(self._publishers)


async def test_nothing_is_lost_silently(own_server: Callable[..., EmbeddedServer], tmp_path: Path) -> None:
    """Without foreign hands no list reports a gap or lacks a rule; with them, none lacks one without a gap."""
    server = Restartable(own_server, tmp_path)
    await server.start(ALL)
    soak = Soak(server, seed=7)
    faults = [soak.end_publisher] * 4 + [soak.cut_connections] * 2 + [soak.let_another_fold] * 2 + [soak.restart_server]
    try:
        for _ in range(FAULTS):
            await soak.chance.choice(faults)()
            await soak.start_list()
        await wait_until(lambda: len(soak.acknowledged) >= EVENTS, within=scaled(300))
        await soak.start_list()
        assert soak.told == 0
        async with Redis.from_url(server.url) as client:
            assert await client.zcard("k:ledger") > EVENTS / 2
        for _ in range(20):
            await soak.chance.choice([*faults, soak.trim, soak.trim])()
            await soak.start_list()
        assert soak.told > 0
    finally:
        await soak.aclose()
        await server.kill()
