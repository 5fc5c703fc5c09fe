"""Where the keys are: all at one server, or spread over the nodes of a cluster.

What differs between the two is said here and in `Nodes`, once; no other part asks which of them it is to choose how it
connects, what it asks or how long it waits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from jwt_events.errors import ConnectionFailed
from jwt_events.transport._redis.commands import Command
from jwt_events.transport._redis.membership import Membership
from jwt_events.transport._redis.survey import Address

if TYPE_CHECKING:
    from jwt_events.transport._redis.connection import Connection, Connector
    from jwt_events.transport._redis.proof import Replication


class Topology(Protocol):
    """Where the keys are, as all connections of a client or URL know it.

    Attributes:
        is_cluster: whether they are spread over the nodes of a cluster.
        commands: what a server is asked, beside its role, to know whether it owns a key.
        max_block: seconds for which a read may wait at a server.
        max_delay: seconds between two attempts to connect at most.
        announced: where the nodes of a cluster are, as one of them said last.
    """

    is_cluster: bool
    commands: Sequence[Command]
    max_block: float
    max_delay: float
    announced: Sequence[Address]

    async def connect(self, connector: Connector, *, within: float) -> Connection:
        """Open a connection to the owner of the connector's key; see `Connector.connect`."""

    def membership(self, replies: Sequence[Any], key: str) -> Membership | None:
        """Parse the replies to `commands`; ``None`` if there are none, as nothing was asked.

        Raises:
            TransportError: no replies, or error replies.
        """

    async def replicas(self, connection: Connection, key: str, said: Replication) -> Sequence[Address]:
        """Return where the replicas of a key's owner are.

        Args:
            connection: leads to the owner.
            key: the key.
            said: what the owner said of its replicas.

        Raises:
            TransportError: those that were asked did not reply, or refused.
        """

    async def contradicting(self, connector: Connector, owner: Connection) -> Sequence[str]:
        """Return the addresses of nodes that name another owner of the connector's key.

        Args:
            connector: opens the connections.
            owner: leads to the owner that is taken for it.
        """

    def timed_out(self, connector: Connector) -> ConnectionFailed:
        """Return the error of what waited for a connection for too long, while one is being opened."""


class OneServer:
    """All keys are at one server, whether its address is fixed or Sentinels name it. A `Topology`."""

    is_cluster = False
    commands: Sequence[Command] = ()
    max_block = math.inf
    max_delay = 1.0
    announced: Sequence[Address] = ()

    async def connect(self, connector: Connector, *, within: float) -> Connection:
        """Open a connection to the server; see `Topology`."""
        return await connector.open(within=within)

    def membership(self, replies: Sequence[Any], key: str) -> None:
        """Return ``None``: the server is not asked; see `Topology`."""

    async def replicas(self, connection: Connection, key: str, said: Replication) -> Sequence[Address]:
        """Return those that the server named; see `Topology`."""
        return said.near

    async def contradicting(self, connector: Connector, owner: Connection) -> Sequence[str]:
        """Return none: there are no others; see `Topology`."""
        return ()

    def timed_out(self, connector: Connector) -> ConnectionFailed:
        """Return that the server did not reply; see `Topology`."""
        return ConnectionFailed(f"no answer in time from {connector.address}")
