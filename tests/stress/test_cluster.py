"""Fifty changes of a slot's owner of each kind: how long until an event is published, and in force, again."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import pytest

from jwt_events import Publisher, RedisStream, RevocationList, TokenRevoked, Verdict
from tests.support.cluster import NODE_TIMEOUT, Cluster, Node
from tests.support.waiting import scaled, wait_until

pytestmark = [pytest.mark.stress, pytest.mark.timeout(scaled(600))]

KEY = "{jwt:events}"
TIMES = 50

MakeCluster = Callable[..., AbstractAsyncContextManager[Cluster]]


async def kill(cluster: Cluster) -> Node:
    """Kill the owner, and return the node that can replace it."""
    owner, (replica, *_) = await cluster.owner_of(KEY), await cluster.replicas_of(KEY)
    await owner.kill()
    return replica


@pytest.mark.parametrize(
    ("change", "limit"),
    [
        (lambda cluster: cluster.failover(KEY), 0.5),
        (lambda cluster: cluster.migrate(KEY), 0.2),
        (kill, NODE_TIMEOUT + 2.0),
    ],
    ids=["failover", "migration", "killed"],
)
async def test_in_force_again(
    own_cluster: MakeCluster, change: Callable[[Cluster], Awaitable[Node]], limit: float
) -> None:
    """An event is published, and in force, within the limit; none that was published before is forgotten."""
    took: list[float] = []
    async with own_cluster() as cluster:
        transport = RedisStream(cluster.url, KEY)
        async with RevocationList(transport, max_staleness=5.0) as revocations, Publisher(transport) as publisher:
            for number in range(TIMES):
                claims = {"jti": f"stolen {number}"}
                replaced, began = await change(cluster), time.monotonic()
                await publisher.publish(TokenRevoked(token_id=claims["jti"]), timeout=scaled(10))
                await wait_until(lambda claims=claims: revocations.check(claims) is Verdict.REVOKED)
                await wait_until(lambda: revocations.is_fresh)
                took.append(round(time.monotonic() - began, 3))
                for node in cluster.nodes:
                    if not node.is_up:
                        await node.start()
                await cluster.agrees_on(KEY, replaced)
                await wait_until(lambda: _has_replica(cluster), within=30.0, what="a replica")
            assert all(revocations.check({"jti": f"stolen {number}"}) is Verdict.REVOKED for number in range(TIMES))
    took.sort()
    assert took[-1] <= scaled(limit), took


async def _has_replica(cluster: Cluster) -> bool:
    for replica in await cluster.replicas_of(KEY):
        role = await replica.call("ROLE")
        if role[0] == b"slave" and role[3] == b"connected":
            return True
    return False
