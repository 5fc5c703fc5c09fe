"""Twenty partitions of the primary, and Sentinels and replicas that come and go: no stale allow, and no false alarm."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from jwt_events import RedisStream, RevocationList, TokenRevoked, Verdict
from tests.faults.failover import MakeServer
from tests.support.handling import publish, running
from tests.support.raw import call
from tests.support.topology import Topology, topology
from tests.support.waiting import scaled, wait_until

pytestmark = [pytest.mark.stress, pytest.mark.timeout(scaled(600))]

MAX_STALENESS = 2.0
PARTITIONS = 20
RESTARTS = 20


async def primary_of(servers: Topology) -> int:
    """Wait until one server is the primary by all accounts, and return which."""
    found: list[int] = []

    async def is_settled() -> bool:
        told = [await client.info("replication") for client in servers.clients]
        primaries = [index for index, fields in enumerate(told) if fields["role"] == "master"]
        linked = sum(fields.get("master_link_status") == "up" for fields in told)
        named = {await one.primary() for one in servers.sentinels}
        found[:] = primaries
        return len(primaries) == 1 and linked == len(told) - 1 and named == {servers.addresses[primaries[0]]}

    await wait_until(is_settled, within=60.0, what="one primary")
    return found[0]


async def test_partitions(own_server: MakeServer, tmp_path: Path) -> None:
    """No list lets a token in that was revoked at the new primary longer ago than it allows."""
    async with (
        topology(own_server, tmp_path) as servers,
        RevocationList(RedisStream(servers.url, "k"), max_staleness=MAX_STALENESS) as revocations,
    ):
        for number in range(PARTITIONS):
            old, claims = await primary_of(servers), {"jti": f"stolen {number}"}
            await wait_until(lambda: revocations.is_fresh)
            await servers.cut_off(old)
            new = await servers.promoted(after=old)
            await publish(RedisStream(servers.url_of(new), "k"), TokenRevoked(token_id=claims["jti"]))
            confirmed_at = time.monotonic()

            def is_known(claims: dict[str, str] = claims, confirmed_at: float = confirmed_at) -> bool:
                verdict = revocations.check(claims)
                assert verdict is not Verdict.ALLOW or time.monotonic() - confirmed_at < MAX_STALENESS
                return verdict is Verdict.REVOKED

            await wait_until(is_known)
            await servers.reach_again(old)


async def test_no_false_alarm(own_server: MakeServer, tmp_path: Path) -> None:
    """While a Sentinel is started again and again, and the replicas connect again, a list stays fresh under load."""
    async with topology(own_server, tmp_path, down_after=5.0) as servers:
        transport = RedisStream(servers.url, "k", replicas=1)
        stale: list[float] = []
        async with RevocationList(transport, max_staleness=scaled(2.0)) as revocations:

            async def watch() -> None:
                while True:
                    if not revocations.is_fresh:
                        stale.append(revocations.staleness)
                    await asyncio.sleep(0.01)

            async def load() -> None:
                while True:
                    await publish(transport, *(TokenRevoked(token_id="t") for _ in range(50)))
                    await asyncio.sleep(0.05)

            async with running(watch()), running(load()):
                for number in range(RESTARTS):
                    one = servers.sentinels[number % 3]
                    await one.kill()
                    await call(servers.clients[0], "CLIENT", "KILL", "TYPE", "replica")
                    until = time.monotonic() + number / RESTARTS
                    await wait_until(lambda until=until: time.monotonic() > until)
                    await one.start()
                    await wait_until(lambda: _all_reply(servers), within=30.0, what="the Sentinels")
        assert stale == []


async def _all_reply(servers: Topology) -> bool:
    return None not in [await one.primary() for one in servers.sentinels]
