"""A lease on the server: one process of a fleet holds it at a time, and another takes over when that one dies.

It is for work that may be done twice, and should not be: a process that hangs, or a failover that loses the lease, can
leave two holders for a moment.

Source: https://redis.io/docs/latest/develop/clients/patterns/distributed-locks/
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

from loguru import logger

from jwt_events._internal import options
from jwt_events._internal.cancellation import end
from jwt_events._internal.clock import boottime
from jwt_events.errors import TransportError
from jwt_events.transport._redis.commands import Command
from jwt_events.transport._redis.multiplexer import Multiplexer
from jwt_events.transport._redis.role import RoleRule
from jwt_events.transport._stream.keys import StreamKeys
from jwt_events.transport.pubsub import RedisPubSub
from jwt_events.transport.stream import RedisStream

__all__ = ["ServerLease"]

# Sets the lease unless another holds it; replies with what the other wrote and how long ago it did, in milliseconds.
_TAKE = """
local held = redis.call('GET', KEYS[1])
if held and string.sub(held, 1, #ARGV[1]) ~= ARGV[1] then
  return {0, held, tonumber(ARGV[3]) - redis.call('PTTL', KEYS[1])}
end
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. ARGV[2], 'PX', ARGV[3])
return {1, '', 0}
"""

_RELEASE = """
local held = redis.call('GET', KEYS[1])
if held and string.sub(held, 1, #ARGV[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""

_TRIES = 3  # within the time of a lease
_NOTE_FOR = 3_600_000  # milliseconds


class ServerLease:
    """A lease that at most one process holds; an async context manager that tries to get it, and keeps it.

    It is renewed every third of its time. The holder counts from when it *sent* the last renewal, so that it stops
    before the server lets another have it. Leaving gives it back.

    Args:
        transport: whose server keeps it, in the key ``{<key>}:<name>`` beside the stream.
        name: what it is a lease on.
        seconds: for how long it is held without renewal: how long it takes until another takes over.
        report: returns a number of seconds, may be infinite, that the holder tells the others.

    Attributes:
        failure: why the server could not be asked; ``None`` if it answered the last time.
    """

    def __init__(
        self, transport: RedisStream | RedisPubSub, name: str, *, seconds: float, report: Callable[[], float]
    ) -> None:
        self._connector = transport.connector
        self.key: str = StreamKeys(transport.destination, in_cluster=self._connector.is_cluster).lease(name)
        self._seconds = options.seconds("lease", seconds)
        self._report = report
        self._token = secrets.token_hex(16)
        self._held_until = -math.inf
        self._others: tuple[float, float] = (math.inf, -math.inf)  # what the holder told, and when that was
        self._acquired: asyncio.Event
        self._multiplexer: Multiplexer | None = None
        self._resources = AsyncExitStack()
        self._task: asyncio.Task[None] | None = None
        self.failure: TransportError | None = None

    async def __aenter__(self) -> Self:
        self._acquired = asyncio.Event()  # of this event loop
        role = RoleRule(self._connector.address, is_needed=False)
        self._multiplexer = await self._resources.enter_async_context(Multiplexer(self._connector, role=role))
        self._task = asyncio.create_task(self._keep(), name=f"jwt_events lease {self.key}")
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if self._task is not None:
                await end([self._task])
            if self._multiplexer is not None and self._held_until > -math.inf:
                await self._multiplexer.run([self._command(_RELEASE)], within=self._seconds / _TRIES)
        finally:
            self._held_until, self._task, self._multiplexer = -math.inf, None, None
            await self._resources.aclose()

    @property
    def is_held(self) -> bool:
        """Whether this process holds it, surely."""
        return boottime() < self._held_until

    @property
    def reported(self) -> float:
        """The seconds that the last other holder told, counted on; infinite if none has told any."""
        told, at = self._others
        return told + max(0.0, boottime() - at)

    async def wait(self) -> None:
        """Wait until this process holds it."""
        while not self.is_held:
            self._acquired.clear()
            await self._acquired.wait()

    async def remember(self, note: str) -> None:
        """Keep a short text for the next holder, for up to an hour.

        Raises:
            TransportError: the server did not answer or refused.
        """
        await self._call(("SET", f"{self.key}:note", note, "PX", _NOTE_FOR))

    async def recall(self) -> str | None:
        """Return what was kept last; ``None`` if there is nothing.

        Raises:
            TransportError: the server did not answer or refused.
        """
        reply = await self._call(("GET", f"{self.key}:note"))
        return reply.decode(errors="replace") if isinstance(reply, bytes) else None

    async def renew(self) -> None:
        """Try to get or renew it now.

        Raises:
            TransportError: the server did not answer or refused.
        """
        sent_at = boottime()
        told = self._report()
        number = -1 if math.isinf(told) else round(told * 1000)
        reply = await self._call(self._command(_TAKE, number, round(self._seconds * 1000)))
        if reply[0] == 1:
            was_held, self._held_until = self.is_held, sent_at + self._seconds
            self._acquired.set()
            if not was_held:
                logger.info("lease acquired", destination=self.key)
            return
        if self._held_until > -math.inf:
            logger.warning("lease lost", destination=self.key)
        self._held_until = -math.inf
        _, _, text = bytes(reply[1]).partition(b" ")
        seconds = float(text) / 1000
        self._others = (seconds if seconds >= 0 else math.inf), sent_at - max(0, int(reply[2])) / 1000

    async def _keep(self) -> None:
        while True:
            try:
                await self.renew()
            except TransportError as error:
                if self.failure is None:
                    logger.warning("lease not renewed", destination=self.key, error=str(error))
                self.failure = error
            except (TypeError, ValueError, IndexError):  # of a key that another program wrote
                self.failure = TransportError(f"{self.key} does not hold a lease")
            else:
                self.failure = None
            await asyncio.sleep(self._seconds / _TRIES)

    async def _call(self, command: Command) -> Any:
        if self._multiplexer is None:
            raise TransportError("the lease is closed")
        (reply,) = await self._multiplexer.run([command], within=self._seconds / _TRIES)
        if isinstance(reply, TransportError):
            raise reply
        return reply

    def _command(self, script: str, *arguments: str | int) -> Command:
        return ("EVAL", script, 1, self.key, self._token, *arguments)
