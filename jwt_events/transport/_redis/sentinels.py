"""Connections to the Sentinels of a service, which are asked side by side.

redis-py believes the first Sentinel that replies. One that is cut off together with an old primary names that one, so
here all are asked, over connections that are kept, and `Survey` says what they agree on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from jwt_events._internal.cancellation import end
from jwt_events.errors import NotProven, ServerRefused, TransportError
from jwt_events.transport._redis.commands import Command
from jwt_events.transport._redis.proof import Doubt, few_sentinels
from jwt_events.transport._redis.protocol import Request
from jwt_events.transport._redis.survey import Address, SentinelReply, Survey, parse_priorities

if TYPE_CHECKING:
    from jwt_events.transport._redis.connection import Connection, Connector

REPLY_WITHIN = 1.0
"""Seconds within which a Sentinel must reply, connecting included. A minority that takes longer delays nothing."""

_RIGHTS = "readers and publishers need the rights +sentinel|master and +sentinel|get-master-addr-by-name"

_LOOK_WITHIN = 0.1
"""Seconds after which the replies are looked at that nothing waits for."""

_LOOK_AGAIN_AFTER = 0.1
"""Seconds between looks as long as a reply is overdue."""


class Sentinels:
    """All Sentinels of a service, as one reader or publisher asks them.

    Args:
        service: the name of the service.
        connectors: open the connections, by the address of each Sentinel.
    """

    def __init__(self, service: str, connectors: Mapping[str, Connector]) -> None:
        self._service = service
        self._members = {name: _Member(service, connector) for name, connector in connectors.items()}

    def request(self) -> None:
        """Ask all of them for the primary, without waiting; what they said before is forgotten."""
        for member in self._members.values():
            member.request()

    def survey(self) -> Survey:
        """Return what they have said since they were asked."""
        peers: dict[Address, str] = {}
        replies: dict[str, SentinelReply | None] = {}
        for name, member in self._members.items():
            reply = member.reply()
            peer = member.peer
            if peer is not None and reply is not None and (first := peers.setdefault(peer, name)) != name:
                reply = SentinelReply(problem=f"is the same as {first}")  # by two names it has one vote
            replies[name] = reply
        return Survey(self._service, replies)

    async def wait(self, address: Address | None = None) -> Survey:
        """Wait until enough of them have replied, and return what they said.

        Args:
            address: the server that they are asked about; ``None`` to wait for the address of the primary.
        """
        while True:
            survey = self.survey()
            decided = survey.primary is not None if address is None else survey.is_conclusive(address)
            if decided or not survey.outstanding:
                return survey
            waiting = [member.next_step for member in self._members.values() if member.next_step is not None]
            await asyncio.wait(waiting, timeout=REPLY_WITHIN / 10, return_when=asyncio.FIRST_COMPLETED)

    async def locate(self) -> Address:
        """Return the address of the primary.

        Raises:
            NotProven: no majority of them names one.
        """
        self.request()
        survey = await self.wait()
        if survey.primary is None:
            problem = f"no primary of the sentinel service {self._service!r} is known: {few_sentinels(survey, None)}"
            raise NotProven(problem, reason=Doubt.FEW_SENTINELS.value)
        return survey.primary

    async def priorities(self) -> Sequence[int] | None:
        """Return the priority of each replica, as the first of them says that may be asked; ``None`` if none may."""
        for member in self._members.values():
            if (found := await member.priorities()) is not None:
                return found
        return None

    async def aclose(self) -> None:
        """Close all connections; idempotent."""
        for member in self._members.values():
            await member.aclose()


class PrimaryWatch:
    """Asks the Sentinels now and then whether a connection still leads to the primary, and closes it if it does not.

    Args:
        sentinels: the Sentinels.
    """

    def __init__(self, sentinels: Sentinels) -> None:
        self._sentinels = sentinels
        self._judging: asyncio.TimerHandle | None = None
        self._waiting: asyncio.TimerHandle | None = None

    def look(self, connection: Connection) -> None:
        """Ask now, and judge the replies a little later; nothing waits for them."""
        if self._judging is None:
            self._sentinels.request()
            loop = asyncio.get_running_loop()
            self._judging = loop.call_later(_LOOK_WITHIN, self._judge, connection, loop.time() + REPLY_WITHIN)

    def watch(self, connection: Connection, overdue_after: float) -> None:
        """Look whenever a reply takes longer than so many seconds, until another connection is watched."""
        if self._waiting is not None:
            self._waiting.cancel()
        loop = asyncio.get_running_loop()
        self._waiting = loop.call_later(overdue_after, self._look_if_overdue, connection, overdue_after)

    def _look_if_overdue(self, connection: Connection, overdue_after: float) -> None:
        self._waiting = None
        if connection.is_closed:
            return
        left = overdue_after - _silence(connection)
        if left <= 0:
            self.look(connection)
        loop, left = asyncio.get_running_loop(), max(left, _LOOK_AGAIN_AFTER)
        self._waiting = loop.call_later(left, self._look_if_overdue, connection, overdue_after)

    def _judge(self, connection: Connection, until: float) -> None:
        self._judging = None
        survey = self._sentinels.survey()
        primary, loop = survey.primary, asyncio.get_running_loop()
        if connection.is_closed:
            return
        if primary is None and survey.outstanding and loop.time() < until:  # they are slow
            self._judging = loop.call_later(_LOOK_WITHIN, self._judge, connection, until)
        elif primary not in (None, connection.place):
            connection.protocol.is_out_of_sync = True  # what it has accepted, and not confirmed yet, may be lost
            connection.protocol.fail(ConnectionAbortedError("a majority of the Sentinels name another server"))

    async def aclose(self) -> None:
        """Ask no more, and close the connections; idempotent."""
        for timer in (self._judging, self._waiting):
            if timer is not None:
                timer.cancel()
        self._judging = self._waiting = None
        await self._sentinels.aclose()


def _not_asked(error: TransportError) -> SentinelReply:
    if isinstance(error, ServerRefused) and "unknown command" in str(error):
        return SentinelReply(problem="is no Sentinel")
    advice = f"; {_RIGHTS}" if isinstance(error, ServerRefused) and error.code == "NOPERM" else ""
    return SentinelReply(problem=f"cannot be asked: {error}{advice}")


def _silence(connection: Connection) -> float:
    """Return for how many seconds the oldest request has been waiting for its replies; 0 if none is."""
    oldest = connection.protocol.oldest
    return 0.0 if oldest is None else asyncio.get_running_loop().time() - oldest.sent_at


class _Member:
    """One Sentinel: a connection that is opened when it is asked."""

    def __init__(self, service: str, connector: Connector) -> None:
        self._service = service
        self._connector = connector
        self._commands: list[Command] = [
            ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", service),
            ("SENTINEL", "MASTER", service),
        ]
        self._connection: Connection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._request: Request | None = None
        self._asked_at = 0.0
        self._reply: SentinelReply | None = None

    @property
    def next_step(self) -> asyncio.Future[None] | None:
        """What is waited for before there can be a reply; ``None`` if there is one."""
        if self._reply is not None:
            return None
        return self._connecting if self._request is None else self._request.settled

    @property
    def peer(self) -> Address | None:
        """Where it is, as the system knows; ``None`` if that is not known."""
        return None if self._connection is None or self._connection.is_closed else self._connection.peer

    def request(self) -> None:
        self._reply = self._request = None
        self._asked_at = time.monotonic()
        connection = self._connection
        if connection is not None and _silence(connection) > REPLY_WITHIN:
            connection.abort()  # asked ever again, it would never be late
        if connection is not None and not connection.is_closed:
            self._send(connection)
        elif self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._connect(), name=f"jwt_events {self._connector.address}")

    def _send(self, connection: Connection) -> None:
        try:
            self._request = connection.send(self._commands)
        except TransportError as error:
            self._reply = _not_asked(error)

    async def _connect(self) -> None:
        try:
            self._connection = await self._connector.connect(within=REPLY_WITHIN)
        except TransportError as error:
            self._reply = _not_asked(error)
        else:
            self._send(self._connection)

    def reply(self) -> SentinelReply | None:
        """Return what it said; ``None`` while it may still reply."""
        if self._reply is not None:
            return self._reply
        request, connection = self._request, self._connection
        if request is not None and connection is not None and request.settled.done():
            self._reply = self._parse(connection.decode(request))
        elif time.monotonic() - self._asked_at > REPLY_WITHIN:
            self._reply = SentinelReply(problem="does not reply in time")
            if connection is not None:
                connection.abort()
        return self._reply

    def _parse(self, replies: list[object]) -> SentinelReply:
        for reply in replies:
            if isinstance(reply, TransportError):
                if "No such master" in str(reply):
                    return SentinelReply(problem=f"knows no service {self._service!r}")
                return _not_asked(reply)
        return SentinelReply.parse(self._service, *replies)

    async def priorities(self) -> Sequence[int] | None:
        if self._connection is None or self._connection.is_closed:
            return None
        try:
            return parse_priorities(
                await self._connection.call("SENTINEL", "REPLICAS", self._service, within=REPLY_WITHIN)
            )
        except (TransportError, ValueError):
            return None

    async def aclose(self) -> None:
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            await end([connecting])
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
            await connection.aclose()
