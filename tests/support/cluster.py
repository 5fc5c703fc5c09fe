"""A cluster of three primaries and three replicas: real processes on free ports, ended by their ids."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.crc import key_slot
from redis.exceptions import RedisError

from bench.ports import free_port
from jwt_events.embedded import EmbeddedServer
from tests.support.raw import call
from tests.support.waiting import wait_until

NODE_TIMEOUT = 2.0
"""Seconds without a reply after which the nodes call a node down."""

SLOTS = 16_384

MakeServer = Callable[..., EmbeddedServer]

# Clients are the default user. Replicas connect as this one, so that a primary can be cut off from its replicas, and
# not from its clients.
_PEER, _PASSWORD = "peer", "peers"

_CONFIG = {
    "cluster-enabled": "yes",
    "cluster-node-timeout": str(int(NODE_TIMEOUT * 1000)),
    "enable-debug-command": "local",
    "masteruser": _PEER,
    "masterauth": _PASSWORD,
    "repl-diskless-sync-delay": "0",
}


class Node:
    """A server of a cluster, which keeps its port, its id and its slots across restarts.

    Attributes:
        server: its process.
        port: its port on 127.0.0.1.
        bus_port: its port for the other nodes.
        id: its id, as the other nodes know it.
        is_up: whether its process runs and replies.
    """

    def __init__(self, make: MakeServer, directory: Path, config: Mapping[str, str]) -> None:
        self.port = free_port()
        data = directory / f"node-{self.port}"
        data.mkdir()
        self.bus_port = free_port()
        own = {"cluster-port": str(self.bus_port)}
        self.server = make(port=self.port, data_dir=data, config=_CONFIG | own | dict(config))
        self.id = ""
        self.is_up = False

    def __repr__(self) -> str:
        return f"<Node {self.address}>"

    @property
    def address(self) -> str:
        """Its host and port."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The URL of this node alone, as of a server that is in no cluster."""
        return f"redis://{self.address}"

    @property
    def client(self) -> Redis:
        """A client of it, to be closed by the caller."""
        return Redis(port=self.port, socket_timeout=5.0, socket_connect_timeout=5.0)

    async def call(self, *words: str | bytes | int) -> Any:
        """Send it a command on a connection of its own, and return the reply."""
        async with self.client as client:
            return await call(client, *words)

    async def start(self) -> None:
        """Start its process."""
        await self.server.__aenter__()
        await self.call("ACL", "SETUSER", _PEER, "on", f">{_PASSWORD}", "~*", "&*", "+@all")
        self.id = (await self.call("CLUSTER", "MYID")).decode()
        self.is_up = True

    async def kill(self) -> None:
        """Kill its process; idempotent."""
        self.is_up = False
        await self.server.aclose()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Suspend its process: it keeps its connections, accepts new ones, and sends no reply."""
        pid = self.server.pid
        os.kill(pid, signal.SIGSTOP)
        self.is_up = False
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)
            self.is_up = True

    async def is_ok(self) -> bool:
        """Whether it says that the cluster is up."""
        return b"cluster_state:ok" in await self.call("CLUSTER", "INFO")

    async def is_primary(self) -> bool:
        """Whether it says that it is a primary."""
        return bool((await self.call("ROLE"))[0] == b"master")

    async def lines(self) -> list[list[str]]:
        """Return what it knows of the nodes: id, address, flags, id of its primary, and more."""
        return [line.split() for line in (await self.call("CLUSTER", "NODES")).decode().splitlines()]

    async def owner(self, slot: int) -> tuple[str, Sequence[str]]:
        """Return the ids of a slot's owner and of its replicas, as this node knows; empty if there is no owner."""
        for first, last, *nodes in await self.call("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                owner, *replicas = [node[2].decode() for node in nodes]
                return owner, replicas
        return "", ()


class Cluster:
    """Nodes that share the keys among them.

    Attributes:
        nodes: the nodes; at first each of the later half is a replica of the one as far from the middle.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = nodes

    @property
    def url(self) -> str:
        """The URL of the cluster."""
        return self.url_of(*self.nodes)

    def url_of(self, *seeds: Node) -> str:
        """Return the URL of the cluster that names these nodes only."""
        return f"redis+cluster://{','.join(node.address for node in seeds)}"

    def node(self, name: str) -> Node:
        """Return a node by its id."""
        return next(node for node in self.nodes if node.id == name)

    async def owner_of(self, key: str) -> Node:
        """Wait until most nodes that reply name the same owner of a key's slot, and return it."""
        return (await self._owner_and_replicas(key))[0]

    async def replicas_of(self, key: str) -> list[Node]:
        """Wait until most nodes that reply name the same owner of a key's slot, and return its replicas."""
        return (await self._owner_and_replicas(key))[1]

    async def others(self, key: str) -> list[Node]:
        """Return the primaries that do not own a key's slot."""
        owner = await self.owner_of(key)
        known = {line[0]: line[2] for line in await owner.lines()}
        return [node for node in self.nodes if node is not owner and "master" in known[node.id] and node.is_up]

    async def failover(self, key: str) -> Node:
        """Have a replica take over from the owner of a key's slot, and return it; it takes some milliseconds yet."""
        replica = (await self.replicas_of(key))[0]
        await replica.call("CLUSTER", "FAILOVER")
        return replica

    async def migrate(self, key: str) -> Node:
        """Move a key's slot at once to another primary, and return that; it takes some milliseconds yet."""
        owner, target = await self.owner_of(key), (await self.others(key))[0]
        slot = slot_of(key)
        await owner.call("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", target.id)
        return target

    @asynccontextmanager
    async def migrating(self, key: str) -> AsyncIterator[Node]:
        """Move a key's slot to another primary key by key, as resharding does; yield that.

        Inside, the keys have moved and the slot has not: the old owner replies ASK.
        """
        owner, target = await self.owner_of(key), (await self.others(key))[0]
        slot = slot_of(key)
        await target.call("CLUSTER", "SETSLOT", slot, "IMPORTING", owner.id)
        await owner.call("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
        for name in await owner.call("CLUSTER", "GETKEYSINSLOT", slot, 1_000):
            await owner.call("MIGRATE", "127.0.0.1", target.port, name, 0, 5_000)
        yield target
        for node in (target, owner, *(node for node in self.nodes if node not in (target, owner) and node.is_up)):
            if await node.is_primary():
                await node.call("CLUSTER", "SETSLOT", slot, "NODE", target.id)

    async def cut_off(self, node: Node) -> None:
        """Cut a node off from all other nodes, and not from its clients."""
        await node.call("DEBUG", "CLOSE-CLUSTER-LINK-ON-PACKET-DROP", 1)
        await node.call("DEBUG", "DROP-CLUSTER-PACKET-FILTER", -2)
        await node.call("DEBUG", "DISABLE-CLUSTER-RECONNECTION", 1)
        for other in self.nodes:
            if other is not node:
                await node.call("DEBUG", "CLUSTERLINK", "KILL", "ALL", other.id)
        await node.call("ACL", "DELUSER", _PEER)

    async def reach_again(self, node: Node) -> None:
        """End what `cut_off` began."""
        await node.call("ACL", "SETUSER", _PEER, "on", f">{_PASSWORD}", "~*", "&*", "+@all")
        await node.call("DEBUG", "DROP-CLUSTER-PACKET-FILTER", -1)
        await node.call("DEBUG", "DISABLE-CLUSTER-RECONNECTION", 0)

    async def agrees_on(self, key: str, owner: Node, *, within: float = 20.0) -> None:
        """Wait until all nodes that run name this owner of a key's slot, have replicas of it, and are up."""

        async def do() -> bool:
            for node in self.nodes:
                if node.is_up and not ((await node.owner(slot_of(key)))[0] == owner.id and await node.is_ok()):
                    return False
            return True

        await wait_until(do, within=within, what=f"all nodes to name {owner.address}")

    async def delete(self, prefix: str) -> None:
        """Delete every key whose name begins with ``prefix``, or with it in braces."""
        for node in self.nodes:
            if not node.is_up or not await node.is_primary():
                continue
            async with node.client as client:
                for pattern in (f"{prefix}*", f"{{{prefix}}}*"):
                    async for name in client.scan_iter(match=pattern):
                        await client.delete(name)

    async def connections(self) -> list[dict[str, str]]:
        """Return the connections of clients at all nodes, without those that ask for this."""
        found: list[dict[str, str]] = []
        for node in self.nodes:
            async with node.client as client:
                for kind in ("normal", "pubsub"):
                    found += [one for one in await client.client_list(_type=kind) if one["cmd"] != "client|list"]
        return found

    async def _owner_and_replicas(self, key: str) -> tuple[Node, list[Node]]:
        found: list[tuple[Node, list[Node]]] = []

        async def is_known() -> bool:
            views: list[tuple[str, Sequence[str]]] = []
            for node in self.nodes:
                if node.is_up:
                    try:
                        views.append(await node.owner(slot_of(key)))
                    except (RedisError, OSError):
                        continue
            (owner, count), *_ = Counter(view[0] for view in views).most_common(1)
            if not owner or count <= len(views) // 2:
                return False
            replicas = {name for view in views if view[0] == owner for name in view[1]}
            found[:] = [(self.node(owner), [node for node in self.nodes if node.id in replicas and node.is_up])]
            return True

        await wait_until(is_known, what=f"an owner of {key}")
        return found[0]


def slot_of(key: str) -> int:
    """Return the slot of a key."""
    return key_slot(key.encode())


def key_in(node_number: int, name: str, *, of: int = 3) -> str:
    """Return a key whose slot belongs to a primary at first.

    Args:
        node_number: which primary, from 0.
        name: how the key begins.
        of: how many primaries there are.
    """
    first, last = _range(node_number, of)
    return next(key for number in range(SLOTS) if first <= slot_of(key := f"{name}:{number}") <= last)


def _range(number: int, of: int) -> tuple[int, int]:
    share = SLOTS // of
    return number * share, SLOTS - 1 if number == of - 1 else (number + 1) * share - 1


@asynccontextmanager
async def cluster(
    make: MakeServer,
    directory: Path,
    *,
    primaries: int = 3,
    replicas: int = 3,
    config: Mapping[str, str] | None = None,
    own_configs: Sequence[Mapping[str, str]] = (),
) -> AsyncIterator[Cluster]:
    """Start a cluster.

    Args:
        make: makes a server, as `embedded` does.
        directory: where the nodes keep their files.
        primaries: how many primaries share the slots.
        replicas: how many replicas there are; the first is one of the first primary, and so on.
        config: more options of every node.
        own_configs: more options of the first node, of the second, and so on.
    """
    number_of_nodes = primaries + replicas
    own = (*own_configs, *[{}] * (number_of_nodes - len(own_configs)))
    nodes = [Node(make, directory, {**(config or {}), **own[number]}) for number in range(number_of_nodes)]
    async with AsyncExitStack() as stack:
        for node in nodes:
            stack.push_async_callback(node.kill)
        await asyncio.gather(*(node.start() for node in nodes))
        for number, node in enumerate(nodes):
            await node.call("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if number < primaries:
                await node.call("CLUSTER", "ADDSLOTSRANGE", *_range(number, primaries))
        for node in nodes:
            for other in nodes:
                if other is not node:  # each to all: gossip alone would take seconds
                    await node.call("CLUSTER", "MEET", "127.0.0.1", other.port, other.bus_port)
        await wait_until(lambda: _all(nodes, _knows(nodes)), within=20.0, what="the nodes to know each other")
        for number, replica in enumerate(nodes[primaries:]):
            await replica.call("CLUSTER", "REPLICATE", nodes[number % primaries].id)
        await wait_until(lambda: _all(nodes, _is_ready(primaries, replicas)), within=30.0, what="the cluster")
        yield Cluster(nodes)


async def _all(nodes: Sequence[Node], check: Callable[[Node], Any]) -> bool:
    for node in nodes:
        if not await check(node):
            return False
    return True


def _knows(nodes: Sequence[Node]) -> Callable[[Node], Any]:
    async def check(node: Node) -> bool:
        lines = await node.lines()
        return len(lines) == len(nodes) and not any("handshake" in line[2] for line in lines)

    return check


def _is_ready(primaries: int, replicas: int) -> Callable[[Node], Any]:
    async def check(node: Node) -> bool:
        shards = await node.call("CLUSTER", "SLOTS")
        has_all = len(shards) == primaries and sum(len(shard) - 3 for shard in shards) == replicas
        role = await node.call("ROLE")
        return has_all and (role[0] == b"master" or role[3] == b"connected") and await node.is_ok()

    return check
