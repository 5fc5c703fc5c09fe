"""The nodes of a cluster that are known, which are asked where the slots are.

They are asked on sockets of this library, and at every connect. redis-py would ask only when a command had failed, and
repeat that command, although the server may have carried it out.

Source: https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from loguru import logger

from jwt_events._internal.cancellation import end
from jwt_events.errors import ConnectionFailed, ServerRefused, TransportError
from jwt_events.transport._redis.client_options import address_of
from jwt_events.transport._redis.commands import Command
from jwt_events.transport._redis.membership import MEMBERSHIP, Membership
from jwt_events.transport._redis.role import parse_info
from jwt_events.transport._redis.slots import Remap, SlotMap, slot_of
from jwt_events.transport._redis.survey import Address

if TYPE_CHECKING:
    from jwt_events.transport._redis.connection import Connection, Connector
    from jwt_events.transport._redis.proof import Replication

# Seconds after which the next node is asked, too, while the one before may still reply.
_NEXT_AFTER = 0.25

# Seconds after which the nodes are asked again for the owner, if it does not reply. Each time twice as many.
_ASK_AGAIN_AFTER = 1.0

# Seconds for which a node is refused whose map names few of the nodes that were known, while these may still reply.
_REFUSE_STRANGERS = 10.0

# Seconds that a node may take to say where the slots are.
_REPLY_WITHIN = 2.0

_WHERE: Sequence[Command] = (("CLUSTER", "SLOTS"), ("CLUSTER", "INFO"))

_REMAP = "if clients reach the nodes at other addresses, pass a redis.asyncio.RedisCluster with an address_remap"

_RIGHTS = "a cluster needs the rights +cluster|slots and +cluster|info"


class Nodes:
    """The seeds of a cluster, and all nodes that were named since: keys are where these say. A `Topology`.

    Args:
        seeds: the nodes to ask first; ``None`` stands for the address that the connector has without a place.
        remap: leads to a node, given the address that it announces; ``None`` if that does.

    Attributes:
        announced: where the nodes are, as one of them said last.
    """

    is_cluster = True
    commands = MEMBERSHIP
    max_block = 0.15  # a node may take a second to tell a reader that waits that it has handed over the slot
    max_delay = 0.25  # the nodes agree on a new owner by themselves, so it is looked for more often

    def __init__(self, seeds: Sequence[Address | None], remap: Remap | None = None) -> None:
        self._seeds = seeds
        self._remap = remap
        self._order = random.sample(list(seeds), len(seeds))  # so that not all programs ask the same one
        self._reached: set[Address] = set()
        self._known = SlotMap(())  # as it was used last
        self._refused_at: float | None = None  # when the first node was refused since then
        self._awaited: dict[str, Address] = {}  # by key, the owner to which a connection is being opened
        self.announced: Sequence[Address] = ()

    async def connect(self, connector: Connector, *, within: float) -> Connection:
        """Open a connection to the owner of the connector's key; see `Topology`."""
        connector.require_slot()
        deadline, timeout = time.monotonic() + within, _ASK_AGAIN_AFTER
        while True:
            asked, slots = await self._locate(connector, deadline=deadline)
            began, is_owner = time.monotonic(), False
            try:
                place = _owner(slots, connector)
                is_owner = place in (asked.place, asked.peer)
            finally:
                if not is_owner:
                    asked.abort()
            try:
                found = asked if is_owner else await self._open(connector, place, min(timeout, deadline - began))
            except ConnectionFailed as error:
                now = time.monotonic()
                if now < began + timeout or now >= deadline:
                    raise ConnectionFailed(self._about(place, str(error))) from None
                timeout *= 2
                continue
            self._reached.add(place)
            self._put_last(place)  # when the connection is lost, another one is asked for the owner first
            return found

    async def _open(self, connector: Connector, place: Address, within: float) -> Connection:
        self._awaited[connector.destination] = place
        try:
            return await connector.open(place, within=within)
        finally:
            self._awaited.pop(connector.destination, None)

    def _about(self, place: Address, said: str) -> str:
        """Return what is said of an owner, with advice if no connection to it was ever opened."""
        return said if place in self._reached else f"{said}; the nodes name {address_of(place)} as the owner: {_REMAP}"

    def timed_out(self, connector: Connector) -> ConnectionFailed:
        """Return that nodes, or the owner that they name, did not reply; see `Topology`."""
        if (place := self._awaited.get(connector.destination)) is None:
            return ConnectionFailed(f"no answer in time from {connector.address}")
        return ConnectionFailed(self._about(place, f"no answer in time from {address_of(place)}"))

    def membership(self, replies: Sequence[Any], key: str) -> Membership | None:
        """Parse what a node says of its place in the cluster; see `Topology`."""
        return Membership.parse(replies, key) if replies else None

    async def _locate(self, connector: Connector, *, deadline: float) -> tuple[Connection, SlotMap]:
        """Ask one node after the other until one says where the slots are, and return the connection to it, too.

        Args:
            connector: opens the connections.
            deadline: when to give up, by `time.monotonic`.

        Raises:
            TransportError: none of them does; one that may do a moment later counts more than one that never will.
        """
        waiting, failures = list(self._order), list[TransportError]()
        asked: list[asyncio.Task[tuple[Connection, SlotMap]]] = []
        try:
            while waiting or asked:
                if waiting:
                    ask = self._ask_one(connector, waiting.pop(0), deadline)
                    asked.append(asyncio.create_task(ask, name=f"jwt_events {connector.address}"))
                within = _NEXT_AFTER if waiting else None
                done, _ = await asyncio.wait(asked, timeout=within, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    asked.remove(task)
                    try:
                        return task.result()
                    except TransportError as error:
                        failures.append(error)
        finally:
            await end(asked)
            for task in asked:  # one may have replied at the same moment
                if not task.cancelled() and task.exception() is None:
                    task.result()[0].abort()
        found = next((failure for failure in failures if failure.retryable), failures[0])
        if len(failures) > 1 and isinstance(found, ConnectionFailed):
            raise ConnectionFailed(f"{found}; no other of {len(failures)} nodes that are known can be used")
        raise found

    async def _ask_one(
        self, connector: Connector, place: Address | None, deadline: float
    ) -> tuple[Connection, SlotMap]:
        self._put_last(place)  # the next time another one is asked: this one may be cut off from the others
        connection = await connector.open(place, within=deadline - time.monotonic())
        try:
            slots, info = await connection.execute_many(_WHERE, within=max(0.0, deadline - time.monotonic()))
            found = self._read(slots, info, connection)
            self._require_known(found, connection)
        except BaseException:
            connection.abort()
            await connection.aclose()
            raise
        self._learn(found)
        return connection, found

    async def replicas(self, connection: Connection, key: str, said: Replication) -> Sequence[Address]:
        """Ask the owner of a key where its replicas are; see `Topology`."""
        slots, info = await connection.execute_many(_WHERE, within=_REPLY_WITHIN)
        return self._read(slots, info, connection).replicas_of(slot_of(key))

    async def contradicting(self, connector: Connector, owner: Connection) -> Sequence[str]:
        """Ask all seeds and nodes that were named for the owner of the connector's key; see `Topology`."""
        own = owner.place or owner.peer
        places = [place for place in self._order if place not in (None, own)]
        found = await asyncio.gather(*(self._owner_by(connector, place) for place in places))
        return [place for place, named in found if named not in (None, own)]

    async def _owner_by(self, connector: Connector, place: Address | None) -> tuple[str, Address | None]:
        """Return which node was asked, and the owner that it names; ``None`` for those that name none."""
        try:
            connection = await connector.open(place, within=_REPLY_WITHIN)
        except TransportError:
            return "", None
        try:
            slots, info = await connection.execute_many(_WHERE, within=_REPLY_WITHIN)
            return connection.address, self._read(slots, info, connection).owner_of(slot_of(connector.destination))
        except TransportError:
            return "", None
        finally:
            await connection.aclose()

    def _read(self, slots: Any, info: Any, connection: Connection) -> SlotMap:
        for reply in (slots, info):
            if isinstance(reply, ServerRefused) and "cluster support disabled" in str(reply):
                problem = f"{connection.address} is a single server, no node of a cluster: use a URL without +cluster"
                raise ServerRefused(problem, code=reply.code)
            if isinstance(reply, ServerRefused) and not reply.retryable:
                raise ServerRefused(f"{reply}; {_RIGHTS}", code=reply.code)
            if isinstance(reply, TransportError):
                raise reply
        if parse_info(info).get("cluster_state") != "ok":
            problem = f"{connection.address} says that the cluster is down"
            raise ServerRefused(problem, code="CLUSTERDOWN", retryable=True)
        try:
            return SlotMap.parse(slots, connection.place or connection.peer or ("127.0.0.1", 0), self._remap)
        except Exception:  # noqa: BLE001 - the server, or what stands for it, may answer anything
            raise ConnectionFailed(f"{connection.address} sent no map of the slots of a cluster") from None

    def _require_known(self, slots: SlotMap, connection: Connection) -> None:
        """Refuse a map of another cluster for as long as nodes of the one before may reply.

        A node that was reset, or the address of a node that was removed, can be in another cluster by now. A publisher
        that follows it there, and a list that does not, would both be without an error.

        Raises:
            ConnectionFailed: it names few of the nodes that were known.
        """
        if slots.may_follow(self._known):
            self._refused_at = None
            return
        now = time.monotonic()
        self._refused_at = now if self._refused_at is None else self._refused_at
        if now < self._refused_at + _REFUSE_STRANGERS:
            raise ConnectionFailed(f"{connection.address} is in another cluster than the nodes that were known")
        logger.warning("the nodes of the cluster are others than before", address=connection.address)
        self._refused_at = None

    def _learn(self, slots: SlotMap) -> None:
        """Remember the nodes that were named, and forget those that were not, except the seeds."""
        self.announced, self._known = slots.nodes, slots
        known = {*self._seeds, *slots.nodes}
        self._order = [place for place in self._order if place in known]
        new = [place for place in slots.nodes if place not in self._order]
        self._order[:0] = random.sample(new, len(new))

    def _put_last(self, place: Address | None) -> None:
        if place in self._order:
            self._order.remove(place)
            self._order.append(place)


def _owner(slots: SlotMap, connector: Connector) -> Address:
    slot = slot_of(connector.destination)
    if (place := slots.owner_of(slot)) is None:
        problem = f"in the {connector.address} no node owns slot {slot} of {connector.destination!r}"
        raise ServerRefused(problem, code="CLUSTERDOWN", retryable=True)
    return place
