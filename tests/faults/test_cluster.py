"""Faults of a cluster: nothing stays with a node that owns the key no more, or relies on what it says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from jwt_events import Gap, NotProven, Publisher, RedisStream, RevocationList, TokenRevoked, Verdict
from jwt_events.testing import Listener
from jwt_events.transport._redis import nodes
from tests.support.cluster import SLOTS, Cluster, Node, slot_of
from tests.support.logs import everything_logged
from tests.support.waiting import scaled, wait_until

MakeCluster = Callable[..., AbstractAsyncContextManager[Cluster]]

KEY = "{jwt:events}"


def event(name: str) -> TokenRevoked:
    """Make an event about the token of this name."""
    return TokenRevoked(token_id=name)


class Service:
    """A list and a publisher, which find the cluster by different nodes.

    Attributes:
        cluster: the cluster.
        revocations: the list.
        publisher: the publisher.
    """

    def __init__(self, cluster: Cluster, revocations: RevocationList, publisher: Publisher) -> None:
        self.cluster = cluster
        self.revocations = revocations
        self.publisher = publisher
        self._count = 0

    async def is_served(self, *, within: float = 20.0) -> None:
        """Publish an event, which ends with a receipt, and wait until it is in force."""
        self._count += 1
        name = f"stolen {self._count}"
        await self.publisher.publish(event(name), timeout=scaled(within))
        await wait_until(lambda: self.revocations.check({"jti": name}) is Verdict.REVOKED, within=within)
        await wait_until(lambda: self.revocations.check({"jti": "good"}) is Verdict.ALLOW, within=within)
        for number in range(1, self._count):
            assert self.revocations.check({"jti": f"stolen {number}"}) is Verdict.REVOKED


@asynccontextmanager
async def service(cluster: Cluster, *, max_staleness: float = 2.0) -> AsyncIterator[Service]:
    """Open a list and a publisher."""
    others = await cluster.others(KEY)
    reads, writes = (RedisStream(cluster.url_of(other), KEY, block=0.2) for other in others)
    async with RevocationList(reads, max_staleness=max_staleness) as revocations, Publisher(writes) as publisher:
        yield Service(cluster, revocations, publisher)


class TestOwnerChanges:
    """Publishers and lists follow the slot; what was published is in force."""

    async def test_in_every_way(self, own_cluster: MakeCluster) -> None:
        """A planned failover, both kinds of migration, and a killed owner."""
        async with own_cluster() as cluster, service(cluster, max_staleness=scaled(5)) as served:
            await served.is_served()
            gaps: list[Gap] = []
            served.revocations.on_gap(gaps.append)
            replica = await cluster.failover(KEY)
            await served.is_served()
            await cluster.agrees_on(KEY, replica)
            target = await cluster.migrate(KEY)
            await served.is_served()
            await cluster.agrees_on(KEY, target)
            async with cluster.migrating(KEY) as target:
                sending = asyncio.create_task(served.publisher.publish(event("asked"), timeout=scaled(10)))
                await asyncio.wait([sending], timeout=0.2)
                assert not sending.done()
            await sending
            await served.is_served()
            await cluster.agrees_on(KEY, target)
            assert gaps == []  # each owner had all that the one before had, and said so
            await target.kill()
            await served.is_served()
            assert served.revocations.check({"jti": "asked"}) is Verdict.REVOKED

    async def test_a_group(self, own_cluster: MakeCluster) -> None:
        """Consumers of a group follow, too, and each event is handled."""
        async with own_cluster() as cluster:
            transport = RedisStream(cluster.url, KEY, group="g", start="all", block=0.2)
            async with Listener(transport) as listener, Publisher(transport) as publisher:
                await publisher.publish(event("one"), timeout=scaled(10))
                await listener.hears("one")
                await cluster.failover(KEY)
                await publisher.publish(event("two"), timeout=scaled(10))
                await listener.hears("one", "two")
                target = await cluster.migrate(KEY)
                await publisher.publish(event("three"), timeout=scaled(10))
                await listener.hears("one", "two", "three")
                await cluster.agrees_on(KEY, target)


class TestIsolatedOwner:
    """An owner that is cut off from the other nodes, and not from its clients."""

    async def test_it_proves_nothing_when_it_may_be_replaced(self, own_cluster: MakeCluster) -> None:
        """A list at the old owner lets no token in any more when another owner can take events."""
        async with (
            own_cluster(config={"cluster-node-timeout": "4000"}) as cluster,
            service(cluster, max_staleness=0.4) as served,
        ):
            await served.is_served()
            owner, (replica, *_) = await cluster.owner_of(KEY), await cluster.replicas_of(KEY)
            await cluster.cut_off(owner)
            allowed_at, reasons = time.monotonic(), set[str]()

            async def is_replaced() -> bool:
                nonlocal allowed_at
                if served.revocations.check({"jti": "good"}) is Verdict.ALLOW:
                    allowed_at = time.monotonic()
                if isinstance(served.revocations.failure, NotProven):
                    reasons.add(served.revocations.failure.reason)
                return await replica.is_primary()

            await wait_until(is_replaced, within=20)
            assert served.revocations.check({"jti": "good"}) is Verdict.STALE
            assert await owner.is_ok()  # it does not know yet
            assert allowed_at < time.monotonic()
            assert "few_primaries" in reasons
            await served.is_served()

    async def test_reads_when_down(self, own_cluster: MakeCluster) -> None:
        """A node that replies although its cluster is down is not relied on; when the others are back, it is."""
        config = {"cluster-allow-reads-when-down": "yes", "cluster-require-full-coverage": "no"}
        async with own_cluster(replicas=0, config=config) as cluster, service(cluster, max_staleness=0.5) as served:
            await served.is_served()
            owner = await cluster.owner_of(KEY)
            rest = [node for node in cluster.nodes if node is not owner]
            with rest[0].frozen(), rest[1].frozen():

                async def is_down() -> bool:
                    return not await owner.is_ok()

                await wait_until(is_down, within=20)
                assert await owner.call("XLEN", KEY) == 1
                assert served.revocations.check({"jti": "good"}) is Verdict.STALE
            await served.is_served()


class TestOtherCluster:
    """A node that is known belongs to another cluster by now: it was reset, and has slots of its own."""

    async def test_it_is_not_followed(self, own_cluster: MakeCluster) -> None:
        """However often clients look for the owner, they stay together where they were."""
        async with own_cluster(primaries=1, replicas=1) as cluster, together(cluster) as served:
            await served.is_served()
            old, owner = await leave(cluster)
            await served.is_served()
            for _ in range(4):
                await owner.call("CLIENT", "KILL", "TYPE", "normal")
                await served.is_served()
            assert await old.call("XLEN", KEY) == 0
            assert await owner.call("XLEN", KEY) >= 6

    async def test_it_is_if_no_other_replies(self, own_cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
        """When the nodes that were known have not replied for a while, it is, with a warning and a gap."""
        monkeypatch.setattr(nodes, "_REFUSE_STRANGERS", 0.0)
        async with own_cluster(primaries=1, replicas=1) as cluster, together(cluster) as served:
            await served.is_served()
            gaps: list[Gap] = []
            served.revocations.on_gap(gaps.append)
            _, owner = await leave(cluster)
            with everything_logged() as lines:
                await owner.kill()
                await served.is_served()
            assert any("the nodes of the cluster are others than before" in line for line in lines)
            assert gaps


class TestTaken:
    """A node takes the slot, and does not have the keys in it."""

    async def test_it_is_a_gap(self, own_cluster: MakeCluster) -> None:
        """The owner before is up and has other slots, as after a slot was moved: what the stream lacks tells it."""
        async with own_cluster(primaries=2, replicas=0) as cluster, together(cluster) as served:
            await served.is_served()
            gaps: list[Gap] = []
            served.revocations.on_gap(gaps.append)
            (other,) = await cluster.others(KEY)
            await other.call("CLUSTER", "SETSLOT", slot_of(KEY), "NODE", other.id)
            await other.call("CLUSTER", "BUMPEPOCH")
            await cluster.agrees_on(KEY, other)
            await served.is_served()
            await wait_until(lambda: "deleted" in {gap.cause for gap in gaps})


@asynccontextmanager
async def together(cluster: Cluster) -> AsyncIterator[Service]:
    """Open a list and a publisher that know all nodes."""
    reads, writes = RedisStream(cluster.url, KEY, block=0.2), RedisStream(cluster.url, KEY)
    async with RevocationList(reads, max_staleness=scaled(5)) as revocations, Publisher(writes) as publisher:
        yield Service(cluster, revocations, publisher)


async def leave(cluster: Cluster) -> tuple[Node, Node]:
    """Have the owner be replaced, and make it a cluster by itself; return it, and the new owner."""
    old, owner = await cluster.owner_of(KEY), await cluster.failover(KEY)
    await cluster.agrees_on(KEY, owner)
    await old.call("CLUSTER", "RESET", "HARD")
    await old.call("CLUSTER", "ADDSLOTSRANGE", 0, SLOTS - 1)
    await wait_until(old.is_ok)
    return old, owner
