"""Clusters: where connections lead, which options they have, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar

import pytest
from redis.asyncio import RedisCluster
from redis.cluster import LoadBalancingStrategy

from bench.ports import free_port
from jwt_events import (
    Publisher,
    PublishFailed,
    RedisStream,
    RegionalStreams,
    RevocationList,
    ServerRefused,
    TokenRevoked,
    TransportError,
    Verdict,
)
from jwt_events.testing import Listener
from jwt_events.transport._redis.connection import Connector
from jwt_events.transport._redis.slots import SlotMap, slot_of
from tests.support.cluster import Cluster, Node, key_in
from tests.support.handling import publish
from tests.support.logs import everything_logged
from tests.support.waiting import scaled, wait_until

SPREAD = LoadBalancingStrategy.ROUND_ROBIN

MakeCluster = Callable[..., AbstractAsyncContextManager[Cluster]]

STOLEN, GOOD = {"jti": "stolen"}, {"jti": "good"}


@pytest.fixture
def tagged(key: str) -> str:
    """A key whose companions share its slot."""
    return f"{{{key}}}"


async def is_in_force(reads: RedisStream, writes: RedisStream) -> None:
    """Publish an event and wait until a list has it."""
    async with RevocationList(reads, max_staleness=scaled(5)) as revocations:
        await publish(writes, TokenRevoked(token_id="stolen"))
        await wait_until(lambda: revocations.check(STOLEN) is Verdict.REVOKED)
        assert revocations.check(GOOD) is Verdict.ALLOW


async def refused(client_or_url: Any, key: str, problem: str, *, timeout: float = 0.3) -> None:
    """Check that an event cannot be published, and what is said of it."""
    async with Publisher(RedisStream(client_or_url, key, ledger=False)) as publisher:
        with pytest.raises(PublishFailed, match=problem):
            await publisher.publish(TokenRevoked(token_id="stolen"), timeout=scaled(timeout))


class TestUrl:
    """The URL of a cluster."""

    async def test_the_seeds_need_not_be_the_owner(self, cluster: Cluster, tagged: str) -> None:
        """Any node says who owns the key; all that follows is done there."""
        others = await cluster.others(tagged)
        transport = RedisStream(cluster.url_of(*others), tagged)
        await is_in_force(transport, transport)
        assert await (await cluster.owner_of(tagged)).call("XLEN", tagged) == 1
        assert str(others[0].port) in repr(transport)

    async def test_a_seed_may_be_down(self, cluster: Cluster, tagged: str) -> None:
        """The next one is asked."""
        (other, *_) = await cluster.others(tagged)
        url = f"redis+cluster://127.0.0.1:{free_port()},127.0.0.1:{free_port()},{other.address}"
        await is_in_force(RedisStream(url, tagged), RedisStream(url, tagged))

    async def test_a_frozen_seed_delays_little(self, own_cluster: MakeCluster) -> None:
        """A node that does not reply is not waited for: another one is asked meanwhile."""
        async with own_cluster() as cluster:
            *others, _ = await cluster.others("k")
            connector = Connector(cluster.url_of(*others, *await cluster.replicas_of("k")), destination="k")
            with others[0].frozen():
                for _ in range(4):
                    connection = await connector.connect(within=scaled(1.5))
                    assert connection.place == ("127.0.0.1", (await cluster.owner_of("k")).port)
                    await connection.aclose()

    async def test_a_single_server(self, url: str, own_server: Any, key: str) -> None:
        """A server that is in no cluster is told from a node, with the URL to use."""
        async with own_server(port=0) as server:
            single = server.url.replace("redis://", "redis+cluster://")
            await refused(single, key, "is a single server, no node of a cluster: use a URL without")
            with pytest.raises(ServerRefused, match="is a single server"):
                async with RevocationList(RedisStream(single, key)):
                    raise AssertionError

    async def test_all_seeds_are_down(self, key: str) -> None:
        """The error names a seed."""
        port = free_port()
        await refused(f"redis+cluster://127.0.0.1:{port}", key, f"connecting to 127.0.0.1:{port} .*failed")

    async def test_several_seeds_are_down(self, key: str) -> None:
        """The error says that none of them can be used."""
        seeds = ",".join(f"127.0.0.1:{free_port()}" for _ in range(2))
        await refused(f"redis+cluster://{seeds}", key, "no other of 2 nodes that are known can be used")

    async def test_no_node_has_the_slot(self, own_cluster: MakeCluster, key: str) -> None:
        """The error names the slot; when a node takes it, publishing goes on."""
        config = {"cluster-require-full-coverage": "no"}
        async with own_cluster(primaries=1, replicas=0, config=config) as cluster:
            await cluster.nodes[0].call("CLUSTER", "DELSLOTS", slot_of(key))
            await refused(cluster.url, key, f"no node owns slot {slot_of(key)} of '{key}'")
            await cluster.nodes[0].call("CLUSTER", "ADDSLOTS", slot_of(key))
            await publish(RedisStream(cluster.url, key, ledger=False), TokenRevoked(token_id="stolen"))

    async def test_the_cluster_is_down(self, own_cluster: MakeCluster, key: str) -> None:
        """A node that says so is not used, although it would reply."""
        async with own_cluster(primaries=1, replicas=0, config={"cluster-allow-reads-when-down": "yes"}) as cluster:
            await cluster.nodes[0].call("CLUSTER", "DELSLOTS", slot_of("other"))
            await wait_until(lambda: _is_down(cluster.nodes[0]))
            await refused(cluster.url, key, "says that the cluster is down")


async def _is_down(node: Node) -> bool:
    return not await node.is_ok()


class TestUnreachable:
    """Nodes announce addresses at which clients do not reach them."""

    async def test_url(self, own_cluster: MakeCluster, key: str) -> None:
        """The error names the address and says what leads to the nodes; a client with an address_remap does."""
        announced = [free_port(), free_port()]
        own = [{"cluster-announce-port": str(port)} for port in announced]
        async with own_cluster(primaries=2, replicas=0, own_configs=own) as cluster:
            (other,) = await cluster.others(key)
            where = f"127.0.0.1:({announced[0]}|{announced[1]}) as the owner.*RedisCluster with an address_remap"
            await refused(cluster.url_of(other), key, where, timeout=1)

            def remap(address: tuple[str, int]) -> tuple[str, int]:
                return address[0], cluster.nodes[announced.index(address[1])].port

            client = RedisCluster(host="127.0.0.1", port=other.port, address_remap=remap)
            await is_in_force(RedisStream(client, f"{{{key}}}"), RedisStream(client, f"{{{key}}}"))
            await client.aclose()


class TestHostnames:
    """Nodes that announce hostnames, or are to, and have none."""

    async def test_without_one(self, own_cluster: MakeCluster, key: str) -> None:
        """They are reached at their addresses, and not at the host of the node that was asked."""
        config = {"cluster-preferred-endpoint-type": "hostname"}
        async with own_cluster(primaries=2, replicas=0, config=config) as cluster:
            owner, (other,) = await cluster.owner_of(key), await cluster.others(key)
            url = f"redis+cluster://localhost:{other.port}"
            connection = await Connector(url, destination=key).connect(within=scaled(5))
            assert connection.place == ("127.0.0.1", owner.port)
            await connection.aclose()

    async def test_with_one(self, own_cluster: MakeCluster, key: str) -> None:
        """They are reached at it."""
        config = {"cluster-preferred-endpoint-type": "hostname", "cluster-announce-hostname": "localhost"}
        async with own_cluster(primaries=2, replicas=0, config=config) as cluster:
            owner, (other,) = await cluster.owner_of(key), await cluster.others(key)
            connector = Connector(cluster.url_of(other), destination=key)
            connection = await connector.connect(within=scaled(5))
            assert connection.place == ("localhost", owner.port)
            await connection.aclose()


class TestClient:
    """A ``RedisCluster`` client."""

    async def test_it_is_left_alone(self, cluster: Cluster, tagged: str) -> None:
        """It is never connected, used, changed or closed; its options are used."""
        (other, *_) = await cluster.others(tagged)
        client = RedisCluster(host="127.0.0.1", port=other.port, client_name="given", load_balancing_strategy=SPREAD)
        nodes = client.nodes_manager
        before = dict(client.get_connection_kwargs()), dict(nodes.startup_nodes), dict(nodes.nodes_cache)
        transport = RedisStream(client, tagged)
        async with RevocationList(transport):
            await publish(transport, TokenRevoked(token_id="stolen"))
            assert "given" in {one["name"] for one in await cluster.connections()}
        assert (dict(client.get_connection_kwargs()), dict(nodes.startup_nodes), dict(nodes.nodes_cache)) == before
        assert not any(node._connections for node in nodes.startup_nodes.values())
        await client.initialize()
        assert await client.xlen(tagged) == 1
        await client.aclose()
        await is_in_force(transport, transport)

    async def test_credentials(self, own_cluster: MakeCluster, key: str) -> None:
        """A user and password are sent to each node; the wrong ones are refused, and not quoted."""
        async with own_cluster(primaries=2, replicas=0) as cluster:
            for node in cluster.nodes:
                await node.call("ACL", "SETUSER", "app", "on", ">secret-pw", "~*", "&*", "+@all")
            (other,) = await cluster.others(key)
            client = RedisCluster(host="127.0.0.1", port=other.port, username="app", password="secret-pw")
            url = cluster.url_of(other).replace("://", "://app:secret-pw@")
            await is_in_force(RedisStream(client, f"{{{key}}}"), RedisStream(url, f"{{{key}}}"))
            await client.aclose()
            with pytest.raises(PublishFailed) as caught:
                await publish(RedisStream(url.replace("secret-pw", "wrong-pw"), key), TokenRevoked(token_id="x"))
            assert "WRONGPASS" in str(caught.value)
            assert "wrong-pw" not in str(caught.value)


class TestPlainUrl:
    """The URL of one node, as of a server that is in no cluster."""

    async def test_it_is_followed(self, cluster: Cluster, tagged: str) -> None:
        """It leads to the owner, and the log says once what to write instead."""
        (other, *_) = await cluster.others(tagged)
        transport = RedisStream(other.url, tagged)
        with everything_logged() as lines:
            await is_in_force(transport, transport)
        assert transport.connector.is_cluster
        assert sum("use a redis+cluster:// URL" in line for line in lines) == 1

    async def test_at_the_owner(self, cluster: Cluster, tagged: str) -> None:
        """It is used as it is, and counts as a node of a cluster, for a reader and for a publisher."""
        url = (await cluster.owner_of(tagged)).url
        reads, writes = RedisStream(url, tagged), RedisStream(url, tagged)
        with everything_logged() as lines:
            await is_in_force(reads, writes)
        assert reads.connector.is_cluster
        assert writes.connector.is_cluster
        assert sum("use a redis+cluster:// URL" in line for line in lines) == 2

    async def test_rights_that_are_missing(self, own_cluster: MakeCluster, key: str) -> None:
        """The error names them."""
        async with own_cluster(primaries=1, replicas=0) as cluster:
            (node,) = cluster.nodes
            await node.call("ACL", "SETUSER", "app", "on", "nopass", "~*", "&*", "+@all", "-cluster")
            await refused(cluster.url.replace("://", "://app:x@"), key, r"\+cluster\|slots and \+cluster\|info")


class TestKeysInTwoSlots:
    """Keys given by hand that a cluster keeps in another slot than the stream, where the URL does not say cluster."""

    @pytest.mark.parametrize(
        ("field", "advice"), [("ledger", "give it the hash tag"), ("dead_letter", "give it the hash tag"), ("key", "}")]
    )
    @pytest.mark.parametrize("at_owner", [True, False])
    async def test_they_are_refused(
        self, cluster: Cluster, key: str, *, at_owner: bool, field: str, advice: str
    ) -> None:
        """All programs refuse them when they find a cluster, naming the option, as they do with the URL of one."""
        name = f"{key}}}" if field == "key" else key
        given: dict[str, Any] = {} if field == "key" else {field: f"{key}:elsewhere"}
        url = (await cluster.owner_of(name) if at_owner else (await cluster.others(name))[0]).url
        for transport in (RedisStream(url, name, **given), RedisStream(url, name, group="g", **given)):
            with pytest.raises(TransportError, match=f"{field}: .*{advice}"):
                async with Listener(transport):
                    raise AssertionError
        with pytest.raises(TransportError, match=f"{field}: .*{advice}"):
            async with RevocationList(RedisStream(url, name, **given)):
                raise AssertionError
        with pytest.raises(TransportError, match=f"{field}: .*{advice}"):
            async with RevocationList(RegionalStreams(RedisStream(url, name, **given))):
                raise AssertionError
        with pytest.raises(PublishFailed, match=f"{field}: .*{advice}"):
            await publish(RedisStream(url, name, **given), TokenRevoked(token_id="x"))
        assert await (await cluster.owner_of(name)).call("EXISTS", name) == 0


class TestBeside:
    """Connectors for other keys."""

    async def test_it_leads_to_the_owner_of_the_key(self, cluster: Cluster, key: str) -> None:
        """Each key has an owner of its own."""
        connector = Connector(cluster.url, destination=key)
        for number in range(3):
            beside = connector.beside(key_in(number, key))
            connection = await beside.connect(within=scaled(5))
            assert connection.place == ("127.0.0.1", (await cluster.owner_of(beside.destination)).port)
            await connection.aclose()
        assert connector.destination == key


class TestSlotMap:
    """What CLUSTER SLOTS replies."""

    REPLY: ClassVar = [
        [0, 99, [b"10.0.0.1", 1, b"id"], [b"", 2, b"id", []]],
        [100, 16383, [None, 3, b"id", [b"hostname", b"h"]]],
        [50, 50, [b"::1", 4]],
        [60, 60, [b"?", 5, b"id", [b"ip", b"10.0.0.5"]], [b"?", 6, b"id", []]],
    ]

    def test_parse(self) -> None:
        """A node may leave out its host, which is then the one that was asked."""
        slots = SlotMap.parse(self.REPLY, ("asked", 9))
        assert slots.owner_of(0) == ("10.0.0.1", 1)
        assert slots.owner_of(16383) == ("asked", 3)
        assert slots.nodes == [("10.0.0.1", 1), ("asked", 3), ("::1", 4), ("10.0.0.5", 5), ("asked", 2), ("asked", 6)]
        assert SlotMap.parse([], ("asked", 9)).owner_of(0) is None

    @pytest.mark.parametrize(
        "reply",
        [
            None,
            5,
            [1],
            [[0, 1]],
            [[0, b"x", [b"h", 1]]],
            [[0, 1, [b"h"]]],
            [[0, 1, None]],
            [[0, 1, [b"?", 1, b"i", 5]]],
        ],
    )
    def test_other_replies(self, reply: Any) -> None:
        """What is no such reply is none."""
        with pytest.raises((TypeError, ValueError, IndexError)):
            SlotMap.parse(reply, ("asked", 9)).nodes  # noqa: B018 - asking for them fails at the latest
