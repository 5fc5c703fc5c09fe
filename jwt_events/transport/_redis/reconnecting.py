"""A connection that is opened again when it is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum
from types import TracebackType
from typing import Self

from loguru import logger

from jwt_events._internal.retry import backoff
from jwt_events.errors import ConnectionFailed, TransportError
from jwt_events.transport._redis.connection import Connection, Connector

# Seconds that opening a subscription may take, retries included; and one attempt of it.
OPEN_WITHIN = 5.0
ATTEMPT_WITHIN = 2.0

# Seconds between attempts. The maximum is small: a receiver without a connection gets no events, and one attempt
# a second is no load.
_INITIAL_DELAY = 0.05
_MAX_DELAY = 1.0


class ConnectionState(StrEnum):
    """The state of a `ReconnectingConnection`."""

    CONNECTING = "connecting"
    LIVE = "live"
    LOST = "lost"
    CLOSED = "closed"


class ReconnectingConnection:
    """Keeps a receiver connected to the server; an async context manager.

    Args:
        connector: opens the connections.
        transport: the transport's name, for the log.
        on_connect: called with every new connection before it counts as live: subscribes, compares positions.
    """

    def __init__(
        self, connector: Connector, *, transport: str, on_connect: Callable[[Connection], Awaitable[None]]
    ) -> None:
        self._connector = connector
        self._on_connect = on_connect
        self._log = logger.bind(transport=transport, destination=connector.destination, address=connector.address)
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
        except TimeoutError:
            if not limit.expired():
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
            await asyncio.sleep(backoff(self._failures, initial=_INITIAL_DELAY, maximum=_MAX_DELAY))
        connection = None
        try:
            connection = await self._connector.connect(within=ATTEMPT_WITHIN)
            await self._on_connect(connection)
        except BaseException as error:
            if connection is not None:
                await connection.aclose()
            if not isinstance(error, TransportError) or not error.retryable:
                raise
            self._failures += 1
            self._log.warning("connection attempt failed", attempt=self._failures, error=str(error))
            self._last_error = error
            return False
        self.connection = connection
        self._live_since = asyncio.get_running_loop().time()
        self._enter(ConnectionState.LIVE)
        return True

    async def drop(self, error: TransportError) -> None:
        """Close a connection that failed. The next attempt is at once, unless this one lasted less than a second."""
        connection, self.connection = self.connection, None
        lasted = asyncio.get_running_loop().time() - self._live_since
        self._failures = 0 if lasted > _MAX_DELAY else self._failures + 1
        self._log.warning("connection lost", error=str(error))
        self._enter(ConnectionState.LOST)
        if connection is not None:
            connection.abort()
            await connection.aclose()

    async def aclose(self) -> None:
        """Close the connection for good; idempotent."""
        connection, self.connection = self.connection, None
        self._enter(ConnectionState.CLOSED)
        if connection is not None:
            await connection.aclose()

    def _enter(self, state: ConnectionState) -> None:
        self.state = state
        self._log.info("connection state changed", state=state.value)
