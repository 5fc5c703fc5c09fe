"""Management of dead letters: count, list, inspect, replay and purge."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

from jwt_events._internal import options
from jwt_events._internal.loops import OwnLoop
from jwt_events._internal.positions import OLDEST, is_position
from jwt_events.errors import Closed, InvalidOption, TransportError
from jwt_events.transport._redis.commands import Command
from jwt_events.transport._redis.connection import Connection
from jwt_events.transport._redis.multiplexer import Multiplexer
from jwt_events.transport._redis.protocol import Bounds
from jwt_events.transport._stream.batch_size import MAX_BATCH_BYTES, BatchSize
from jwt_events.transport._stream.dead_letter import DeadLetter, parse_dead_letters, replayed_fields
from jwt_events.transport._stream.plain import PlainKeys
from jwt_events.transport.stream import RedisStream

__all__ = ["DeadLetter", "DeadLetters"]

_MAX_LIMIT = 1_000

# Bytes of dead letters that are held at once; and how many are read at once, as each may have 2 MB and more.
_MAX_BYTES = 16 * 1_048_576
_READ_AT_ONCE = 16

# Dead letters that are moved at once, at most.
_TAKEN_OVER = 20


class DeadLetters:
    """Access to the dead letters of a stream; an async context manager.

    ::

        async with DeadLetters(RedisStream("redis://localhost")) as dead:
            for letter in await dead.list():
                print(letter.dead_lettered_at, letter.handler, letter.error)
                await dead.replay(letter.id)

    Args:
        transport: the stream.
        timeout: seconds that each operation may take.

    Raises:
        InvalidOption: an option is invalid.
    """

    def __init__(self, transport: RedisStream, *, timeout: float = 5.0) -> None:
        if not isinstance(transport, RedisStream):
            raise InvalidOption("transport", "must be a RedisStream: only a stream keeps dead letters")
        self._transport = transport
        self._plain = PlainKeys(transport.connector, transport.keys)
        self._timeout = options.seconds("timeout", timeout)
        self._stack = AsyncExitStack()
        self._multiplexer: Multiplexer | None = None
        self._loop = OwnLoop("the access to dead letters")

    async def __aenter__(self) -> Self:
        self._loop.bind()
        self._multiplexer = await self._stack.enter_async_context(Multiplexer(self._transport.connector))
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.check()
        self._multiplexer = None
        await self._stack.aclose()
        self._loop.release()

    async def count(self) -> int:
        """Return how many dead letters there are."""
        (length,) = await self._run([("XLEN", self._transport.dead_letter)])
        return int(length)

    async def list(self, *, after: str | None = None, limit: int = 100) -> list[DeadLetter]:
        """Return dead letters, oldest first; none if there are no more.

        Args:
            after: list those after the dead letter with this id; ``None`` to begin with the oldest.
            limit: how many to return at most, up to 1,000; they are fewer, and at least one, if they are large.

        Raises:
            TransportError: the server did not answer or refused.
        """
        start = OLDEST if after is None else f"({checked_id(after)}"
        left = options.count("limit", limit, maximum=_MAX_LIMIT)
        found: list[DeadLetter] = []
        size = 0
        while left and size < _MAX_BYTES:
            asked = min(_READ_AT_ONCE, left)
            (entries,) = await self._run([("XRANGE", self._transport.dead_letter, start, "+", "COUNT", asked)])
            found += parse_dead_letters(entries)
            if len(entries) < asked:
                break
            start, left = f"({found[-1].id}", left - asked
            size += sum(len(part) for _, fields in entries for part in fields)
        return found

    async def get(self, letter_id: str) -> DeadLetter | None:
        """Return the dead letter with this id; ``None`` if there is none.

        Raises:
            TransportError: the server did not answer or refused.
        """
        position = checked_id(letter_id)
        (entries,) = await self._run([("XRANGE", self._transport.dead_letter, position, position)])
        return next(iter(parse_dead_letters(entries)), None)

    async def replay(self, *letter_ids: str) -> Sequence[str]:
        """Append the entries that dead letters came from to the stream again, exactly, then remove the dead letters.

        Subscribers that handled the event already skip it; those that failed on it get it again. If it is cancelled in
        between, a dead letter may remain although it was replayed; replaying it again does no harm. At most 16 MB of
        them, and one more, are held in memory: with more, they are replayed in parts.

        Args:
            letter_ids: their ids; ids of dead letters that no longer exist are skipped, and so are repeated ones.

        Returns:
            The new positions in the stream.

        Raises:
            InvalidOption: nothing was replayed, as one of them is of an entry that was too large to be kept whole.
            TransportError: the server did not answer or refused.
        """
        names, held, size = list(dict.fromkeys(letter_ids)), list[DeadLetter](), 0
        for name in names:  # all of them first: nothing is replayed if one cannot be
            letter = await self.get(name)
            if letter is not None and letter.missing:
                problem = "is of an entry that was too large for an event, and is not kept whole"
                raise InvalidOption("letter_id", problem)
            if letter is not None and size <= _MAX_BYTES:
                held.append(letter)
                size += sum(map(len, replayed_fields(letter)))
        appended = await self._replay(held)
        if size > _MAX_BYTES:  # those that were not held are read again, one by one
            for name in names[names.index(held[-1].id) + 1 :]:
                letter = await self.get(name)
                appended += await self._replay([letter]) if letter is not None else []
        return appended

    async def _replay(self, letters: Sequence[DeadLetter]) -> builtins.list[str]:
        key = self._transport.destination
        appended = await self._run([("XADD", key, "*", *replayed_fields(letter)) for letter in letters])
        await self.purge(*(letter.id for letter in letters))
        return [position.decode() for position in appended]

    async def purge(self, *letter_ids: str) -> int:
        """Remove dead letters for good and return how many were removed.

        Raises:
            TransportError: the server did not answer or refused.
        """
        removed = await self._run([("XDEL", self._transport.dead_letter, checked_id(name)) for name in letter_ids])
        return sum(removed)

    @property
    def left_behind_key(self) -> str | None:
        """The key of dead letters that may have been copied to a cluster under the name they had on one server.

        ``None`` where they have that name anyway.
        """
        return self._plain.dead_letter if self._plain.are_apart else None

    async def left_behind(self) -> int:
        """Return how many dead letters lie under the name they had on one server. `take_over` brings them here.

        Raises:
            TransportError: the server did not answer or refused.
        """
        if not self._plain.are_apart:
            return 0
        async with self._plain.connected(self._plain.dead_letter) as plain:
            return int(await plain.call("XLEN", self._plain.dead_letter, within=self._timeout))

    async def take_over(self) -> int:
        """Bring here the dead letters that lie under the name they had on one server, and return how many.

        They get new ids. If it is cancelled or fails in between, one of them may be here and there; taking over again,
        or replaying twice, does no harm.

        Raises:
            TransportError: the server did not answer or refused.
        """
        if not self._plain.are_apart:
            return 0
        count, size = 0, BatchSize(_TAKEN_OVER)
        while True:
            async with self._plain.connected(self._plain.dead_letter) as plain:
                try:
                    while taken := await self._take_over_some(plain, size):
                        count += taken
                except TransportError:
                    if not plain.was_cut_off or size.count == 1:
                        raise
                    size.cut_off()
                else:
                    return count

    async def _take_over_some(self, plain: Connection, size: BatchSize) -> int:
        """Bring here some dead letters, not more than may be held at once, and return how many."""
        key, received = self._plain.dead_letter, plain.protocol.received
        bounds = Bounds(reply=MAX_BATCH_BYTES if size.count > 1 else None)
        asked = "XRANGE", key, "-", "+", "COUNT", size.count
        entries = await plain.call(*asked, within=self._timeout, bounds=bounds)
        await self._run([("XADD", self._transport.dead_letter, "*", *fields) for _, fields in entries])
        if entries:
            await plain.call("XDEL", key, *(position for position, _ in entries), within=self._timeout)
        size.read(len(entries), plain.protocol.received - received)
        return len(entries)

    async def _run(self, commands: Sequence[Command]) -> Sequence[Any]:
        if self._multiplexer is None:
            raise Closed("use the dead letters inside `async with`")
        self._loop.check()
        replies = await self._multiplexer.run(commands, within=self._timeout)
        for reply in replies:
            if isinstance(reply, TransportError):
                raise reply
        return replies


def checked_id(letter_id: str) -> str:
    """Return the id of a dead letter.

    Raises:
        InvalidOption: it cannot be one.
    """
    if not isinstance(letter_id, str) or not is_position(letter_id):
        raise InvalidOption("letter_id", "must be the id of a dead letter, such as '1700000000000-0'")
    return letter_id
