"""Fifty primaries behind Sentinels are killed: how soon an event is published, and in force, once there is another."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bench.soak.service import Service
from jwt_events import Publisher, RedisStream, RevocationList, TokenRevoked, Verdict
from tests.support.handling import running
from tests.support.waiting import scaled, wait_until

pytestmark = [pytest.mark.stress, pytest.mark.timeout(scaled(900))]

KILLS = 50
LIMIT = 0.5
"""Seconds after the Sentinels name another primary. They take two to three, as each waits for a random time to ask."""


@asynccontextmanager
async def service(directory: Path) -> AsyncIterator[Service]:
    """Run a primary, two replicas and three Sentinels."""
    servers = Service(directory, "always", has_name=False, seed=1)
    try:
        await servers.start()
        yield servers
    finally:
        await servers.aclose()


@pytest.mark.parametrize("replicas", [0, 1])
async def test_in_force_again(tmp_path: Path, replicas: int) -> None:
    """An event is published and in force within the limit; none that was published before is forgotten."""
    took: list[float] = []
    async with service(tmp_path) as servers:
        transport = RedisStream(servers.url, "k", replicas=replicas)
        async with RevocationList(transport, max_staleness=2.0) as revocations, Publisher(transport) as publisher:
            for number in range(KILLS):
                claims, primary = {"jti": f"stolen {number}"}, await servers.primary()
                await primary.kill()
                publishing = publisher.publish(TokenRevoked(token_id=claims["jti"]), timeout=scaled(20))
                async with running(publishing) as published:
                    await servers.promoted(primary)
                    named_at = time.monotonic()
                    await published
                    await wait_until(lambda claims=claims: revocations.check(claims) is Verdict.REVOKED)
                    await wait_until(lambda: revocations.is_fresh)
                took.append(round(time.monotonic() - named_at, 3))
                await primary.start()
                await servers.settle()
            assert all(revocations.check({"jti": f"stolen {number}"}) is Verdict.REVOKED for number in range(KILLS))
    took.sort()
    assert took[-1] <= scaled(LIMIT), took
