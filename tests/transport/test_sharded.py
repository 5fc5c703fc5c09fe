"""Sharded Pub/Sub: which channels a server has, and where messages go in a cluster."""

from __future__ import annotations

import re
from typing import Any

import pytest

from jwt_events import Publisher, PublishFailed, RedisPubSub, SubscriptionRefused, TokenRevoked
from jwt_events.cli.doctor._rights import lacking, needed_for_pubsub
from jwt_events.testing import Listener
from jwt_events.testing.conformance import MakeTransport
from jwt_events.transport._redis.channels import PLAIN, SHARDED, Channels, channels_of
from tests.support.cluster import Cluster
from tests.support.documents import DOCS
from tests.support.handling import publish
from tests.support.transports import Start
from tests.support.waiting import scaled
from tests.transport.test_cluster import MakeCluster
from tests.transport.test_conformance import Conformance

OPERATIONS = (DOCS / "operations.md").read_text()


def hello(**fields: Any) -> list[Any]:
    """Make a reply to HELLO."""
    return [part for name, value in fields.items() for part in (name.encode(), value)]


class TestChoice:
    """The kind of channels follows from what a server says of itself."""

    @pytest.mark.parametrize(
        ("reply", "channels"),
        [
            (hello(version=b"7.0.15", mode=b"cluster"), SHARDED),
            (hello(version=b"10.1", mode=b"cluster"), SHARDED),
            ({b"version": b"9.1.2", b"mode": b"cluster"}, SHARDED),
            (hello(version=b"6.2.14", mode=b"cluster"), PLAIN),
            (hello(version=b"9.1.2", mode=b"standalone"), PLAIN),
            (hello(version=b"9.1.2"), PLAIN),
            (hello(version=b"x", mode=b"cluster"), PLAIN),
            (hello(version=9, mode=b"cluster"), PLAIN),
            (hello(mode=b"cluster"), PLAIN),
            ([], PLAIN),
            (None, PLAIN),
        ],
    )
    def test_choice(self, reply: Any, channels: Channels) -> None:
        """Sharded on a node of a cluster from version 7 on, plain on all others."""
        assert channels_of(reply) is channels


class TestConformance(Conformance):
    """The conformance suite on a cluster."""

    @pytest.fixture
    def make_transport(self, cluster: Cluster, key: str) -> MakeTransport:
        """Makes the transport."""

        def make(name: str = "", *, start: Start = "new") -> RedisPubSub:
            return RedisPubSub(cluster.url, key + name)

        return make


class TestWhere:
    """Messages stay with the owner of the channel's slot."""

    async def test_owner_only(self, cluster: Cluster, key: str) -> None:
        """The owner alone has the subscriber, and no node has one of the plain channel."""
        others = await cluster.others(key)
        async with Listener(RedisPubSub(cluster.url_of(others[0]), key)) as listener:
            owner = await cluster.owner_of(key)
            assert await owner.call("PUBSUB", "SHARDNUMSUB", key) == [key.encode(), 1]
            for node in others:
                assert await node.call("PUBSUB", "SHARDCHANNELS", key) == []
            for node in cluster.nodes:
                assert await node.call("PUBSUB", "NUMSUB", key) == [key.encode(), 0]
            async with Publisher(RedisPubSub(cluster.url_of(others[1]), key)) as publisher:
                receipt = await publisher.publish(TokenRevoked(token_id="t"), timeout=scaled(5))
                assert receipt.receivers == 1
                await listener.hears("t")

    async def test_plain_url(self, cluster: Cluster, key: str) -> None:
        """The URL of any node leads to the same channel, for who publishes and who listens."""
        for node in (*await cluster.others(key), await cluster.owner_of(key)):
            plain, clustered = RedisPubSub(node.url, key), RedisPubSub(cluster.url, key)
            async with Listener(plain) as one, Listener(clustered) as other:
                await publish(RedisPubSub(node.url, key), TokenRevoked(token_id="a"))
                await publish(RedisPubSub(cluster.url, key), TokenRevoked(token_id="b"))
                await one.hears("a", "b")
                await other.hears("a", "b")
                assert (one.gaps, other.gaps) == ([], [])

    async def test_many_at_once(self, cluster: Cluster, key: str) -> None:
        """The first events of many tasks wait for what the server says, and keep their order."""
        async with Listener(RedisPubSub(cluster.url, key)) as listener:
            events = [TokenRevoked(token_id=str(number)) for number in range(2_500)]
            async with Publisher(RedisPubSub(cluster.url, key)) as publisher:
                await publisher.publish_many(events, timeout=scaled(20))
            await listener.hears(*(str(number) for number in range(2_500)))

    async def test_rights(self, own_cluster: MakeCluster, key: str) -> None:
        """The rights on the page suffice; one that is missing is named, by the error and by the doctor."""
        (page,) = re.findall(r"^In a cluster all roles need .*?\n\n", OPERATIONS, re.MULTILINE | re.DOTALL)
        *both, publishes, _, subscribes, _ = re.findall(r"\+[a-z|]+", page)
        async with own_cluster(primaries=1, replicas=0) as cluster:
            (node,) = cluster.nodes
            transports = []
            for name, right in (("writer", publishes), ("reader", subscribes)):
                await node.call("ACL", "SETUSER", name, "reset", "on", ">pw", f"&{key}", right, *both)
                transports.append(RedisPubSub(cluster.url.replace("://", f"://{name}:pw@"), key))
            writes, reads = transports
            async with Listener(reads) as listener:
                await publish(writes, TokenRevoked(token_id="t"))
                await listener.hears("t")
            with pytest.raises(SubscriptionRefused, match="'ssubscribe'"):
                async with Listener(writes):
                    raise AssertionError
            with pytest.raises(PublishFailed, match="'spublish'"):
                await publish(reads, TokenRevoked(token_id="t"))
            await node.call("ACL", "SETUSER", "writer", "+acl|dryrun", "+acl|whoami")
            connection = await writes.connector.connect(within=scaled(5))
            needed = needed_for_pubsub(key, in_cluster=writes.connector.is_cluster)
            assert {role: await lacking(connection, commands) for role, commands in needed.items()} == {
                "publisher": [],
                "subscriber": ["SSUBSCRIBE"],
            }
            await connection.aclose()
