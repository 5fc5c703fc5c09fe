"""The registry of a stream's instances: a hash beside the stream, one field for each instance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jwt_events.errors import ServerRefused, TransportError
from jwt_events.transport._redis.multiplexer import Multiplexer
from jwt_events.transport._redis.protocol import Command
from jwt_events.transport._redis.role import parse_info
from jwt_events.transport._stream.keys import StreamKeys
from jwt_events.transport.optional import Reading

_CLOCK: Command = ("TIME",)
_HISTORY: Command = ("INFO", "replication")


class StreamRegistry:
    """What the instances say about themselves, in ``<key>:fleet``. A `Registry`.

    Announcing needs the right ``+hset`` on that key, reading ``+hgetall +info``, removing ``+hdel``. The clock needs
    ``+time``, and is left out without it.

    Args:
        multiplexer: runs the commands.
        keys: the keys of the stream.
    """

    def __init__(self, multiplexer: Multiplexer, keys: StreamKeys) -> None:
        self._multiplexer = multiplexer
        self._keys = keys

    async def announce(self, name: str, entry: bytes, *, within: float) -> float | None:
        """Store an entry; see `Registry.announce`."""
        _, clock = await self._run([("HSET", self._keys.fleet, name, entry)], within)
        return clock

    async def entries(self, *, within: float) -> Reading:
        """Return all entries; see `Registry.entries`."""
        (fields, replication), clock = await self._run([("HGETALL", self._keys.fleet), _HISTORY], within)
        if not (history := parse_info(replication).get("master_replid", "")):
            raise TransportError(
                f"{self._multiplexer.address} does not say which history of writes it has (master_replid), so positions"
                " cannot be compared",
                retryable=False,
            )
        pairs = zip(fields[::2], fields[1::2], strict=True)
        return Reading({name.decode("utf-8", "replace"): entry for name, entry in pairs}, clock, history)

    async def forget(self, names: Sequence[str], *, within: float) -> None:
        """Remove entries; see `Registry.forget`."""
        if names:
            await self._run([("HDEL", self._keys.fleet, *names)], within)

    async def _run(self, commands: Sequence[Command], within: float) -> tuple[Sequence[Any], float | None]:
        *replies, clock = await self._multiplexer.run([*commands, _CLOCK], within=within)
        for command, reply in zip(commands, replies, strict=True):
            if isinstance(reply, ServerRefused) and not reply.retryable:
                name = str(command[0]).lower()
                right = "+info" if command is _HISTORY else f"+{name} on {self._keys.fleet!r}"
                problem = f"{reply}; the registry of instances needs the right {right}"
                raise ServerRefused(problem, code=reply.code)
            if isinstance(reply, TransportError):
                raise reply
        return replies, None if isinstance(clock, TransportError) else int(clock[0]) + int(clock[1]) / 1e6
