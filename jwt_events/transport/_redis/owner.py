"""Who owns a key now? One of three says so: a fixed address, the Sentinels of a service, or the nodes of a cluster.

Readers and publishers open their connections through an `Owner`, and ask it whether a connection still leads to the
owner. Which of the three it is concerns no other part.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from jwt_events._internal.cancellation import end
from jwt_events._internal.retry import pace
from jwt_events.errors import TransportError
from jwt_events.transport._redis.commands import Command
from jwt_events.transport._redis.membership import Membership
from jwt_events.transport._redis.protocol import Request
from jwt_events.transport._redis.sentinels import PrimaryWatch, Sentinels
from jwt_events.transport._redis.survey import Address, Survey

if TYPE_CHECKING:
    from jwt_events.transport._redis.connection import Connection, Connector
    from jwt_events.transport._redis.proof import Replication

# Seconds that are left for connecting, however long the Sentinels took.
_MIN_CONNECT = 0.5

# Seconds between questions to the Sentinels while the server that they name cannot be connected to.
_MIN_PACE = 0.2
_MAX_PACE = 1.0


class Owner:
    """The owner of a key where the servers themselves say who it is, as one reader or publisher asks for it.

    Args:
        connector: opens the connections, and knows where keys are.
    """

    asks_others: bool = False
    """Whether others than the server itself say if it is the owner."""

    may_be_replaced: bool = True
    """Whether `look` accepts an owner that has lost most other nodes; later it says itself that the cluster is down."""

    def __init__(self, connector: Connector) -> None:
        self._connector = connector

    async def connect(self, *, within: float) -> Connection:
        """Open a connection to the owner; see `Connector.connect`."""
        return await self._connector.topology.connect(self._connector, within=within)

    @property
    def commands(self) -> Sequence[Command]:
        """What a server is asked, beside its role, to know whether it is the owner."""
        return self._connector.topology.commands

    def membership(self, replies: Sequence[Any]) -> Membership | None:
        """Parse the replies to `commands`; see `Topology.membership`."""
        return self._connector.topology.membership(replies, self._connector.destination)

    async def replicas(self, connection: Connection, said: Replication) -> Sequence[Address]:
        """Return where the replicas of the owner are; see `Topology.replicas`."""
        return await self._connector.topology.replicas(connection, self._connector.destination, said)

    def request(self) -> None:
        """Ask the others, without waiting; what they said before is forgotten."""

    def survey(self) -> Survey | None:
        """Return what the others have said since they were asked; ``None`` if there are none."""
        return None

    async def wait(self, place: Address | None) -> None:
        """Wait until enough of the others have replied about the server at this place."""

    async def pause(self, seconds: float) -> None:
        """Wait before another attempt to connect, but no longer than until the others name another server."""
        await asyncio.sleep(seconds)

    def watch(self, connection: Connection, *, overdue_after: float) -> None:
        """Begin to use a connection: look where it leads whenever a reply takes longer than `overdue_after` seconds."""

    def look(self, connection: Connection) -> None:
        """Ask now whether a connection leads to the owner, and close it later if it does not; nothing waits for it."""
        if self.commands and not connection.is_closed:
            request = connection.send(self.commands)
            request.settled.add_done_callback(partial(self._judge, connection, request))

    def _judge(self, connection: Connection, request: Request, _: object) -> None:
        try:
            found = self.membership(connection.decode(request))
        except TransportError:  # a right is missing, or the connection is closed already
            return
        if found is None:
            return
        is_alone = not self.may_be_replaced and found.in_contact < found.majority
        if is_alone or not (found.is_owner and found.is_up):
            connection.protocol.is_out_of_sync = True  # what it has accepted, and not confirmed yet, may be lost
            connection.protocol.fail(ConnectionAbortedError("the server may not own the key any more"))

    async def aclose(self) -> None:
        """Close the connections to the others; idempotent."""


class SentinelService(Owner):
    """The Sentinels of a service, a majority of which names its primary.

    Args:
        connector: opens the connections.
        sentinels: the Sentinels.
    """

    asks_others = True

    def __init__(self, connector: Connector, sentinels: Sentinels) -> None:
        super().__init__(connector)
        self._sentinels = sentinels
        self._watch = PrimaryWatch(sentinels)
        self._named: Address | None = None  # the server that was connected to last
        self._out_since: float | None = None  # when an attempt to connect began that no connection came of that is used

    async def connect(self, *, within: float) -> Connection:
        """Open a connection to the primary that a majority names, or that it names meanwhile.

        A server that was powered off, or hangs, lets a connection wait until its time is up.
        """
        began = time.monotonic()
        if self._out_since is None:
            self._out_since = began
        while True:
            self._named = None
            self._named = place = await self._sentinels.locate()
            left = max(_MIN_CONNECT, within - (time.monotonic() - began))
            if (connection := await self._open(place, within=left)) is not None:
                return connection

    async def _open(self, place: Address, *, within: float) -> Connection | None:
        """Open a connection to a server; return ``None`` if another one is named before it is open."""
        name = f"jwt_events {self._connector.address}"
        opening = asyncio.create_task(self._connector.open(place, within=within), name=name)
        moving = asyncio.create_task(self._moved(), name=name)
        is_open = False
        try:
            await asyncio.wait([opening, moving], return_when=asyncio.FIRST_COMPLETED)
            is_open = opening.done()
            return await opening if is_open else None
        finally:
            await end([opening, moving])
            if not (is_open or opening.cancelled() or opening.exception()):  # it was opened at the same moment
                opening.result().abort()

    async def _moved(self) -> None:
        """Return when a majority names another server than the one that was connected to last."""
        while True:
            age = 0.0 if self._out_since is None else time.monotonic() - self._out_since
            await asyncio.sleep(pace(age, minimum=_MIN_PACE, maximum=_MAX_PACE))
            self._sentinels.request()
            survey = await self._sentinels.wait()
            if survey.primary not in (None, self._named):
                return

    async def pause(self, seconds: float) -> None:
        """See `Owner.pause`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._moved()

    def watch(self, connection: Connection, *, overdue_after: float) -> None:
        """See `Owner.watch`."""
        self._out_since = None
        self._watch.watch(connection, overdue_after)

    def request(self) -> None:
        """See `Owner.request`."""
        self._sentinels.request()

    def survey(self) -> Survey:
        """See `Owner.survey`."""
        return self._sentinels.survey()

    async def wait(self, place: Address | None) -> None:
        """See `Owner.wait`."""
        await self._sentinels.wait(place)

    def look(self, connection: Connection) -> None:
        """See `Owner.look`."""
        self._watch.look(connection)

    async def aclose(self) -> None:
        """See `Owner.aclose`."""
        await self._watch.aclose()
