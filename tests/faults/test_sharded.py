"""Faults of a cluster, as the subscribers of a sharded channel see them: each is told, and delivery goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from jwt_events import Publisher, RedisPubSub, TokenRevoked
from jwt_events.testing import Listener
from tests.support.cluster import Cluster
from tests.support.waiting import scaled, wait_until

MakeCluster = Callable[..., AbstractAsyncContextManager[Cluster]]

CHANNEL = "jwt:events"


class Scene:
    """A publisher and a subscriber, which find the cluster by different nodes.

    Attributes:
        cluster: the cluster.
        listener: the subscriber.
    """

    def __init__(self, cluster: Cluster, listener: Listener, publisher: Publisher) -> None:
        self.cluster = cluster
        self.listener = listener
        self._publisher = publisher
        self._count = 0

    async def is_told(self, before: int, *, within: float = 20.0) -> None:
        """Wait until the subscriber was told a gap more, and is subscribed again."""
        gaps = self.listener.gaps
        await wait_until(lambda: len(gaps) > before and gaps[-1].cause == "reconnected", within=within, what="a gap")
        assert {gap.cause for gap in gaps} <= {"disconnected", "reconnected"}

    async def delivers(self) -> None:
        """Publish until an event arrives: what is published while the owner changes may be lost, and is told."""
        arrived = len(self.listener.subjects)

        async def has_arrived() -> bool:
            self._count += 1
            event = TokenRevoked(token_id=f"t{self._count}")
            await self._publisher.publish(event, timeout=scaled(20))
            return len(self.listener.subjects) > arrived

        await wait_until(has_arrived, within=20.0, what="a delivery")

    async def loses_nothing(self, number: int = 50) -> None:
        """Publish events, each of which arrives."""
        gaps = len(self.listener.gaps)
        await self._publish(number)
        assert len(self.listener.gaps) == gaps

    async def loses_nothing_in_the_end(self, number: int = 50) -> None:
        """Publish events until each arrives: while the two have different owners some are lost, which is told."""
        gaps = -1
        while len(self.listener.gaps) > gaps:
            await self.delivers()
            gaps = len(self.listener.gaps)
            await self._publish(number)

    async def _publish(self, number: int) -> None:
        """Publish events, and wait until all have arrived or a gap is told."""
        gaps, heard = len(self.listener.gaps), len(self.listener.subjects)
        for _ in range(number):
            self._count += 1
            await self._publisher.publish(TokenRevoked(token_id=f"t{self._count}"), timeout=scaled(20))

        def is_over() -> bool:
            return len(self.listener.subjects) >= heard + number or len(self.listener.gaps) > gaps

        await wait_until(is_over, what=f"{number} deliveries")


@asynccontextmanager
async def scene(cluster: Cluster) -> AsyncIterator[Scene]:
    """Open a subscriber and a publisher."""
    others = await cluster.others(CHANNEL)
    subscribed, published = (RedisPubSub(cluster.url_of(other), CHANNEL) for other in others)
    async with Listener(subscribed) as listener, Publisher(published) as publisher:
        found = Scene(cluster, listener, publisher)
        await found.loses_nothing()
        yield found


async def failover(cluster: Cluster) -> None:
    """Have a replica take over, planned."""
    await cluster.agrees_on(CHANNEL, await cluster.failover(CHANNEL))


async def migrate(cluster: Cluster) -> None:
    """Move the slot at once."""
    await cluster.agrees_on(CHANNEL, await cluster.migrate(CHANNEL))


async def reshard(cluster: Cluster) -> None:
    """Move the slot as resharding does."""
    async with cluster.migrating(CHANNEL) as target:
        pass
    await cluster.agrees_on(CHANNEL, target)


async def kill(cluster: Cluster) -> None:
    """Kill the owner."""
    await (await cluster.owner_of(CHANNEL)).kill()


@pytest.mark.parametrize("change", [failover, migrate, reshard, kill])
async def test_the_owner_changes(own_cluster: MakeCluster, change: Callable[[Cluster], Awaitable[None]]) -> None:
    """However the slot gets another owner, the subscriber is told a gap, and then receives all again."""
    async with own_cluster() as cluster, scene(cluster) as found:
        await change(cluster)
        await found.is_told(0)
        await found.loses_nothing()


async def test_an_owner_that_is_cut_off(own_cluster: MakeCluster) -> None:
    """One that is cut off from the other nodes, and not from its clients, is left when it may have been replaced."""
    async with own_cluster() as cluster, scene(cluster) as found:
        owner, (replica, *_) = await cluster.owner_of(CHANNEL), await cluster.replicas_of(CHANNEL)
        await cluster.cut_off(owner)
        await wait_until(replica.is_primary, within=20.0)
        await found.is_told(0)
        await found.loses_nothing_in_the_end()


async def test_the_end_of_a_subscription(own_cluster: MakeCluster) -> None:
    """What the server ends by itself is a gap, although the connection is open and the server replies."""
    async with own_cluster(replicas=0) as cluster, scene(cluster) as found:
        await migrate(cluster)
        await found.is_told(0)
        assert [gap.cause for gap in found.listener.gaps][-1] == "reconnected"
        await found.loses_nothing()
