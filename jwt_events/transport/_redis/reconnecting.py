"""A connection that is opened again when it is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from loguru import logger

from jwt_events._internal.notices import Notices
from jwt_events._internal.retry import backoff
from jwt_events.errors import ConnectionFailed, NotProven, ServerRefused, TransportError
from jwt_events.transport._redis.connection import Connection
from jwt_events.transport._redis.owner import Owner
from jwt_events.transport._redis.topology import Topology

if TYPE_CHECKING:
    from loguru import Logger

# Seconds that opening a subscription may take, retries included; and one attempt of it.
OPEN_WITHIN = 5.0
ATTEMPT_WITHIN = 2.0

# Seconds before the second attempt; later ones are further apart. The maximum of the topology is small: a receiver
# without a connection gets no events, and one attempt a second is no load.
_INITIAL_DELAY = 0.05

# Seconds for which a connection that was lost must have lasted, for the next attempt to be at once.
_LASTED = 1.0

# Seconds by which a reply may be late before it is asked whether another server is the owner by now.
_GRACE = 0.25

# Error replies of a server that was the owner until then.
_NO_MORE = frozenset({"MOVED", "UNBLOCKED"})

# Seconds between log lines about failed attempts: after each line twice as many as before it.
_INITIAL_LOG_DISTANCE = 1.0
_MAX_LOG_DISTANCE = 60.0


_FAILED = "connection attempt failed"


class ConnectionState(StrEnum):
    """The state of a `ReconnectingConnection`."""

    CONNECTING = "connecting"
    LIVE = "live"
    LOST = "lost"
    CLOSED = "closed"


class _Outage:
    """Logs the time without a connection: its first failed attempt, later ones at growing distances, and what it cost.

    Args:
        log: bound to the transport.
        place: what it is bound to.
    """

    def __init__(self, log: Logger, **place: str) -> None:
        self._log = log
        self._place = place
        self._notices = Notices()
        self._has_lived = False
        self._began: float | None = None
        self._attempts = 0
        self._is_told = False
        self._distance = _INITIAL_LOG_DISTANCE
        self._next_line = 0.0

    def begin(self, error: TransportError, now: float) -> None:
        """Log that a connection was lost that had lasted."""
        self._log.warning("connection lost", error=str(error))
        self._began, self._attempts, self._is_told = now, 0, False
        self._distance, self._next_line = _INITIAL_LOG_DISTANCE, now

    def go_on(self, error: TransportError, now: float) -> None:
        """Count an attempt whose connection did not last; log it if a line is due."""
        if self._count(now):
            self._log.warning("connection lost", error=str(error))

    def fail(self, error: TransportError, now: float) -> None:
        """Count a failed attempt; log it if a line is due. Until the first connection, opening says what failed."""
        if not self._count(now):
            return
        told = {"attempt": self._attempts, "error": str(error)}
        if self._has_lived:
            self._notices.tell("WARNING", _FAILED, once=_FAILED, **told, **self._place)
        else:
            self._log.warning(_FAILED, **told)

    def end(self, now: float) -> None:
        """Log what it cost, if failed attempts were logged."""
        self._has_lived = True
        if self._is_told and self._began is not None:
            self._is_told = False
            self._log.info("connected again", attempts=self._attempts, seconds=round(now - self._began, 3))

    def _count(self, now: float) -> bool:
        """Count an attempt, and return whether a line is due."""
        if self._began is None:
            self._began = now
        self._attempts += 1
        if now < self._next_line:
            return False
        self._is_told = True
        self._next_line = now + self._distance
        self._distance = min(2 * self._distance, _MAX_LOG_DISTANCE)
        return True


class Connecting(Protocol):
    """Opens connections: a `Connector`, or what chooses where to connect."""

    @property
    def address(self) -> str:
        """Where it connects to, as messages name it."""

    @property
    def destination(self) -> str:
        """The channel or key that error messages name."""

    @property
    def topology(self) -> Topology:
        """Where keys are, as far as is known."""

    def owner(self) -> Owner:
        """Return what opens the connections, to be closed by the caller."""


class ReconnectingConnection:
    """Keeps a receiver connected to the server; an async context manager.

    Args:
        connector: opens the connections.
        transport: the transport's name, for the log.
        on_connect: called with every new connection before it counts as live: subscribes, compares positions.
        overdue_after: seconds that a reply may take as long as all is well.

    Attributes:
        owner: says where to connect.
    """

    def __init__(
        self,
        connector: Connecting,
        *,
        transport: str,
        on_connect: Callable[[Connection], Awaitable[None]],
        overdue_after: float = 0.0,
    ) -> None:
        self._connector = connector
        self.owner = connector.owner()
        self._on_connect = on_connect
        self._overdue_after = overdue_after + _GRACE
        place = {"transport": transport, "destination": connector.destination, "address": connector.address}
        self._log = logger.bind(**place)
        self._outage = _Outage(self._log, **place)
        self._failures = 0
        self._live_since = 0.0
        self._last_error: TransportError | None = None
        self.connection: Connection | None = None
        self.state: ConnectionState = ConnectionState.CONNECTING

    async def __aenter__(self) -> Self:
        """Connect for the first time.

        Raises:
            TransportError: it took longer than five seconds, or the server refused.
        """
        try:
            async with asyncio.timeout(OPEN_WITHIN) as limit:
                while not await self.reconnect():
                    pass
        except BaseException as error:
            await self.owner.aclose()
            if not isinstance(error, TimeoutError) or not limit.expired():
                raise
            raise self._last_error or ConnectionFailed(f"no answer in time from {self._connector.address}") from None
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def reconnect(self) -> bool:
        """Make one attempt to connect, after a pause that grows with the failures in a row; the first is at once.

        Returns:
            Whether the connection is live.

        Raises:
            TransportError: the server refused, and another attempt would not change that.
        """
        if self._failures:
            maximum = self._connector.topology.max_delay
            await self.owner.pause(backoff(self._failures, initial=_INITIAL_DELAY, maximum=maximum))
        connection = None
        try:
            connection = await self.owner.connect(within=ATTEMPT_WITHIN)
            await self._on_connect(connection)
        except BaseException as error:
            if connection is not None:
                await connection.aclose()
            if not isinstance(error, TransportError) or not error.retryable:
                raise
            self._failures += 1
            self._outage.fail(error, asyncio.get_running_loop().time())
            self._last_error = error
            return False
        self.connection, self._last_error = connection, None
        self._live_since = asyncio.get_running_loop().time()
        self._outage.end(self._live_since)
        self.owner.watch(connection, overdue_after=self._overdue_after)
        self._enter(ConnectionState.LIVE)
        return True

    def take_refusal(self) -> NotProven | None:
        """Return, once, why the last attempt found no primary; ``None`` if that is not what it failed of."""
        error, self._last_error = self._last_error, None
        return error if isinstance(error, NotProven) else None

    async def leave(self) -> None:
        """Close a connection that works, for another one; the next attempt is at once."""
        connection, self.connection = self.connection, None
        self._failures = 0
        self._enter(ConnectionState.LOST)
        if connection is not None:
            await connection.aclose()

    async def drop(self, error: TransportError) -> None:
        """Close a connection that failed.

        The next attempt is at once, unless this one lasted less than a second; or if its server was the owner, and says
        that it is no more.
        """
        connection, self.connection = self.connection, None
        now = asyncio.get_running_loop().time()
        has_moved = isinstance(error, ServerRefused) and error.code in _NO_MORE
        if has_moved or now - self._live_since > _LASTED:
            self._failures = 0
            self._outage.begin(error, now)
        else:
            self._failures += 1
            self._outage.go_on(error, now)
        self._enter(ConnectionState.LOST)
        if connection is not None:
            connection.abort()
            await connection.aclose()

    async def aclose(self) -> None:
        """Close the connection for good; idempotent."""
        connection, self.connection = self.connection, None
        self._enter(ConnectionState.CLOSED)
        try:
            if connection is not None:
                await connection.aclose()
        finally:
            await self.owner.aclose()

    def _enter(self, state: ConnectionState) -> None:
        self.state = state
        self._log.info("connection state changed", state=state.value)
