"""The registry of a stream's instances: a hash beside the stream, one field for each instance."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from jwt_events.errors import ConnectionFailed, ServerRefused, TransportError
from jwt_events.transport._redis.commands import Command
from jwt_events.transport._redis.multiplexer import MakeCommands, Multiplexer
from jwt_events.transport._redis.republishing import RepublishingSender
from jwt_events.transport._redis.role import parse_info
from jwt_events.transport._stream.keys import StreamKeys
from jwt_events.transport.base import Sent
from jwt_events.transport.optional import Reading, Registry, Stored

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
        self._is_closed = False

    def close(self) -> None:
        """Ask nothing any more: its connection is closed."""
        self._is_closed = True

    async def announce(self, name: str, entry: bytes, *, within: float) -> Stored:
        """Store an entry; see `Registry.announce`."""
        (added,), clock = await self._run([("HSET", self._keys.fleet, name, entry)], within)
        return Stored(clock, is_new=added == 1)

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
        if self._is_closed:
            raise ConnectionFailed("the connection to the registry of instances was closed")
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


class RegisteringSender(RepublishingSender):
    """Reads the registry on the connection on which it sends: of the server that has the events. A `Registering`.

    Args:
        multiplexer: runs the commands.
        keys: the keys of the stream.
        make_commands: as in `RepublishingSender`.
        lookup: as there.
        parse: as there.
    """

    def __init__(
        self,
        multiplexer: Multiplexer,
        keys: StreamKeys,
        *,
        make_commands: MakeCommands,
        lookup: Callable[[str], Command],
        parse: Callable[[Any], Sent],
    ) -> None:
        super().__init__(multiplexer, make_commands=make_commands, lookup=lookup, parse=parse)
        self._registry = StreamRegistry(multiplexer, keys)

    @asynccontextmanager
    async def registry(self) -> AsyncIterator[Registry]:
        """Return the registry, for as long as the sender is open; see `Registering`."""
        yield self._registry

    def close(self) -> None:
        """Keep nothing, and ask nothing, any more."""
        super().close()
        self._registry.close()
