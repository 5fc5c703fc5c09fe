"""The lock that says which program folds a stream now.

It spares work and protects nothing: programs that fold at the same time do each other no harm. So it may be taken from
one that holds it and does not fold, whatever the reason: a key that a tool restored without its TTL, a server's clock
that was set back, a publisher that lacks a right.

Source: https://redis.io/docs/latest/commands/set/ (``NX``, ``XX``, ``PX``; it replaces a key of any type)
"""

from __future__ import annotations

import math
from typing import Literal
from uuid import uuid4

from jwt_events._internal.clock import boottime
from jwt_events._internal.positions import sort_key
from jwt_events.errors import ServerRefused
from jwt_events.transport._redis.commands import Command
from jwt_events.transport._redis.connection import Connection
from jwt_events.transport._stream.keys import StreamKeys

LEASE = 30.0
"""Seconds for which the one that folds keeps others from it."""

# The last seconds of these, in which it renews the lease before it goes on.
_MARGIN = 10.0

# The reply of ``PTTL`` for a key that is not there.
_NOT_THERE = -2

# Seconds that a reply may take.
_REPLY_WITHIN = 5.0


class FoldLock:
    """The lock, as one program holds it or waits for it. It holds no connection.

    Args:
        keys: the keys of the stream.
    """

    def __init__(self, keys: StreamKeys) -> None:
        self._keys = keys
        self._owner = uuid4().hex
        self._held_until = -math.inf
        self._due: str | None = None  # the oldest entry that was due when another one held it
        self._due_since = 0.0

    @property
    def key(self) -> str:
        """Its key."""
        return self._keys.ledger_lock

    @property
    def is_held(self) -> bool:
        """Whether this program holds it for long enough to fold a batch."""
        return boottime() < self._held_until

    async def acquire(self, connection: Connection) -> bool:
        """Return whether this program is the one to fold now. One that ends without a word is replaced in `LEASE`."""
        condition = "XX" if boottime() < self._held_until + _MARGIN else "NX"
        return await self._set(connection, condition)

    async def take(self, connection: Connection) -> None:
        """Hold it from now on, whatever is there."""
        await self._set(connection)

    async def release(self, connection: Connection) -> None:
        """Let another one fold, if this one may."""
        if self._held_until != -math.inf:
            self._held_until = -math.inf
            await connection.call("DEL", self.key, within=_REPLY_WITHIN)

    async def holder(self, connection: Connection) -> Literal["publisher", "other"] | None:
        """Return who holds it: a publisher, or another, as no publisher gives it this TTL; ``None`` if it is free.

        Raises:
            TransportError: the server does not tell.
        """
        try:
            left = await connection.call("PTTL", self.key, within=_REPLY_WITHIN)
        except ServerRefused:  # without the right, whether it is there has to do
            left = 1 if await connection.call("EXISTS", self.key, within=_REPLY_WITHIN) else _NOT_THERE
        if left == _NOT_THERE:
            return None
        return "publisher" if 0 <= left <= LEASE * 1000 else "other"

    def is_stuck(self, oldest: str | None, *, before: int, now: float) -> bool:
        """Return whether the one that holds it has folded nothing for longer than its lease, although there was work.

        Args:
            oldest: the position of the oldest entry of the stream; ``None`` if there is none.
            before: what was added before this is due, in milliseconds since 1970.
            now: the time, by a clock that only goes forward.
        """
        if oldest is None or sort_key(oldest)[0] >= before:
            self._due = None
        elif oldest != self._due:
            self._due, self._due_since = oldest, now
        return self._due is not None and now - self._due_since > LEASE

    async def _set(self, connection: Connection, *condition: str) -> bool:
        asked_at = boottime()
        command: Command = ("SET", self.key, self._owner, *condition, "PX", int(LEASE * 1000))
        is_held = await connection.call(*command, within=_REPLY_WITHIN) is not None
        self._held_until = asked_at + LEASE - _MARGIN if is_held else -math.inf
        self._due = None if is_held else self._due
        return is_held
