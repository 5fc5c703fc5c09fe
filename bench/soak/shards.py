"""A cluster of three primaries and three replicas, and what can happen to it.

The nodes are those of the tests of the library.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from redis.exceptions import RedisError

from bench.soak.plan import Fault
from bench.soak.processes import PERSISTENCE
from bench.soak.spec import KEY
from bench.soak.topology import Inject
from jwt_events.embedded import EmbeddedServer
from tests.support.cluster import Cluster, Node, cluster, slot_of

_INTERVAL = 0.1
_SETTLE_WITHIN = 60.0
_MANY = 500
"""How many slots move with that of the stream when slots are shared anew."""


class Shards:
    """A `Topology` of the nodes of a cluster.

    Args:
        directory: an empty directory.
        fsync: what each node keeps when it is killed.
    """

    def __init__(self, directory: Path, fsync: str) -> None:
        self._directory = directory / "nodes"
        self._config = PERSISTENCE[fsync]
        self._stack = AsyncExitStack()
        self._cluster = Cluster(())

    @property
    def url(self) -> str:
        """The URL of the cluster."""
        return self._cluster.url

    def url_of(self, worker: str) -> str:
        """Return the URL that a worker connects to."""
        del worker
        return self.url

    @property
    def faults(self) -> Mapping[str, Inject]:
        """What can happen to the nodes, by kind."""
        kinds: Mapping[str, Inject] = {
            "kill owner": self._kill_owner,
            "isolate owner": self._isolate_owner,
            "freeze owner": self._freeze_owner,
            "cluster failover": self._fail_over,
            "migrate slot": self._migrate,
            "migrate keys": self._migrate_keys,
            "reshard": self._reshard,
            "add and remove node": self._add_and_remove,
            "kill connections": self._kill_connections,
        }

        def settling(inject: Inject) -> Inject:
            async def inject_and_settle(fault: Fault) -> None:
                await inject(fault)
                await self._until(self._is_settled)

            return inject_and_settle

        return {kind: settling(inject) for kind, inject in kinds.items()}

    async def start(self) -> None:
        """Start the nodes."""
        self._directory.mkdir()
        self._cluster = await self._stack.enter_async_context(cluster(_make, self._directory, config=self._config))

    async def kill(self) -> None:
        """Kill all nodes."""
        for node in self._cluster.nodes:
            await node.kill()

    async def aclose(self) -> None:
        """Stop the nodes for good; idempotent."""
        await self._stack.aclose()

    def observe(self) -> None:
        """Note nothing: a node loses what it did not write when it is killed."""

    async def _until(self, reached: Callable[[], Awaitable[bool]]) -> None:
        deadline = time.monotonic() + _SETTLE_WITHIN
        while True:
            try:
                if await reached():
                    return
            except (RedisError, OSError):
                pass
            if time.monotonic() > deadline:
                raise TimeoutError("the cluster did not settle")
            await asyncio.sleep(_INTERVAL)

    async def _is_settled(self) -> bool:
        """Whether all nodes are up, agree on the owner, and every replica has a link to its primary."""
        owner = await self._cluster.owner_of(KEY)
        for node in self._cluster.nodes:
            named, replicas = await node.owner(slot_of(KEY))
            if named != owner.id or not replicas or not await node.is_ok():
                return False
            role = await node.call("ROLE")
            if role[0] != b"master" and role[3] != b"connected":
                return False
        return True

    async def _replaced(self, old: Node) -> None:
        async def is_replaced() -> bool:
            return await self._cluster.owner_of(KEY) is not old

        await self._until(is_replaced)

    async def _kill_owner(self, fault: Fault) -> None:
        owner = await self._cluster.owner_of(KEY)
        await owner.kill()
        await self._replaced(owner)
        await asyncio.sleep(fault.seconds / 2)
        await owner.start()

    async def _isolate_owner(self, fault: Fault) -> None:
        """Cut the owner off from all other nodes; clients reach it."""
        owner = await self._cluster.owner_of(KEY)
        await self._cluster.cut_off(owner)
        try:
            await self._replaced(owner)
            await asyncio.sleep(fault.seconds)
        finally:
            await self._cluster.reach_again(owner)

    async def _freeze_owner(self, fault: Fault) -> None:
        owner = await self._cluster.owner_of(KEY)
        with owner.frozen():
            await asyncio.sleep(fault.seconds)

    async def _fail_over(self, _: Fault) -> None:
        owner = await self._cluster.owner_of(KEY)
        await self._cluster.failover(KEY)
        await self._replaced(owner)

    async def _migrate(self, _: Fault) -> None:
        owner = await self._cluster.owner_of(KEY)
        await self._cluster.migrate(KEY)
        await self._replaced(owner)

    async def _migrate_keys(self, fault: Fault) -> None:
        """Move the keys first, and the slot later: the old owner replies ASK in between."""
        async with self._cluster.migrating(KEY):
            await asyncio.sleep(fault.seconds / 3)

    async def _reshard(self, _: Fault) -> None:
        """Move many slots, among them that of the stream."""
        owner, (target, *_) = await self._cluster.owner_of(KEY), await self._cluster.others(KEY)
        slot = slot_of(KEY)
        first = last = slot
        for start, end, node, *_ in await owner.call("CLUSTER", "SLOTS"):
            if start <= slot <= end and node[2].decode() == owner.id:
                first, last = max(start, slot - _MANY), min(end, slot + _MANY)
        await owner.call("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", first, last, "NODE", target.id)
        await self._replaced(owner)

    async def _add_and_remove(self, fault: Fault) -> None:
        """Add a primary, let it own the stream for a while, and remove it."""
        owner = await self._cluster.owner_of(KEY)
        added = Node(_make, self._directory, self._config)
        nodes = self._cluster.nodes
        try:
            await added.start()
            await added.call("CLUSTER", "MEET", "127.0.0.1", owner.port, owner.bus_port)
            self._cluster.nodes = [*nodes, added]
            await self._until(partial(_knows, added, len(nodes) + 1))
            await self._move(owner, added)
            await asyncio.sleep(fault.seconds)
            await self._move(added, owner)
        finally:
            self._cluster.nodes = nodes
            for node in nodes:
                await node.call("CLUSTER", "FORGET", added.id)
            await added.kill()

    async def _move(self, source: Node, target: Node) -> None:
        slot = slot_of(KEY)
        await source.call("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", target.id)

        async def is_moved() -> bool:
            return all([(await node.owner(slot))[0] == target.id for node in self._cluster.nodes])

        await self._until(is_moved)

    async def _kill_connections(self, _: Fault) -> None:
        owner = await self._cluster.owner_of(KEY)
        await owner.call("CLIENT", "KILL", "TYPE", "normal")


async def _knows(added: Node, count: int) -> bool:
    lines = await added.lines()
    return len(lines) == count and all("handshake" not in line[2] for line in lines) and await added.is_ok()


def _make(*, port: int, data_dir: Path, config: Mapping[str, str]) -> EmbeddedServer:
    return EmbeddedServer(port=port, data_dir=data_dir, config=config, start_timeout=60.0)
