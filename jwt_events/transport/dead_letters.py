"""Look after what was given up: list, inspect, replay and purge dead letters."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

from jwt_events._internal import options
from jwt_events.errors import Closed, InvalidOption, TransportError
from jwt_events.transport._redis.multiplexer import Multiplexer
from jwt_events.transport._redis.protocol import Command
from jwt_events.transport._stream.dead_letter import DeadLetter, letters
from jwt_events.transport._stream.position import OLDEST, is_position
from jwt_events.transport.stream import FIELD, RedisStream

__all__ = ["DeadLetter", "DeadLetters"]

_MAX_AT_ONCE = 1_000


class DeadLetters:
    """The dead letters of a stream; an async context manager.

    ::

        async with DeadLetters(RedisStream("redis://localhost")) as dead:
            for letter in await dead.list():
                print(letter.dead_lettered_at, letter.handler, letter.error)
                await dead.replay(letter.id)

    Args:
        transport: the stream whose dead letters they are.
        timeout: seconds that each operation may take.

    Raises:
        InvalidOption: an option cannot work.
    """

    def __init__(self, transport: RedisStream, *, timeout: float = 5.0) -> None:
        if not isinstance(transport, RedisStream):
            raise InvalidOption("transport", "must be a RedisStream: only a stream keeps dead letters")
        self._transport = transport
        self._timeout = options.seconds("timeout", timeout)
        self._stack = AsyncExitStack()
        self._pipeline: Multiplexer | None = None

    async def __aenter__(self) -> Self:
        self._pipeline = await self._stack.enter_async_context(Multiplexer(self._transport.connector))
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pipeline = None
        await self._stack.aclose()

    async def count(self) -> int:
        """Return how many there are."""
        (answer,) = await self._run([("XLEN", self._transport.dead_letter)])
        return int(answer)

    async def list(self, *, after: str | None = None, limit: int = 100) -> list[DeadLetter]:
        """Return dead letters, oldest first.

        Args:
            after: the id of the last one that was listed already; ``None`` to begin with the oldest.
            limit: how many at most, up to 1,000.

        Raises:
            TransportError: the server did not answer or refused.
        """
        start = OLDEST if after is None else f"({_checked(after)}"
        count = options.count("limit", limit, most=_MAX_AT_ONCE)
        (answer,) = await self._run([("XRANGE", self._transport.dead_letter, start, "+", "COUNT", count)])
        return letters(answer)

    async def get(self, letter_id: str) -> DeadLetter | None:
        """Return one dead letter, or ``None`` if there is none with this id.

        Raises:
            TransportError: the server did not answer or refused.
        """
        position = _checked(letter_id)
        (answer,) = await self._run([("XRANGE", self._transport.dead_letter, position, position)])
        return next(iter(letters(answer)), None)

    async def replay(self, *letter_ids: str) -> Sequence[str]:
        """Append the exact bytes of dead letters to the stream again, then remove the letters.

        Subscribers that handled the event already skip it; those that failed on it get another chance. Cancelled in
        between, a letter may remain although it was replayed; replaying it again does no harm.

        Args:
            letter_ids: which ones; those that are gone are left out.

        Returns:
            The new positions in the stream.

        Raises:
            TransportError: the server did not answer or refused.
        """
        found = [letter for letter in [await self.get(letter_id) for letter_id in letter_ids] if letter is not None]
        appended = await self._run(
            [("XADD", self._transport.destination, "*", FIELD, letter.payload) for letter in found]
        )
        await self.purge(*(letter.id for letter in found))
        return [position.decode() for position in appended]

    async def purge(self, *letter_ids: str) -> int:
        """Remove dead letters for good and return how many there were.

        Raises:
            TransportError: the server did not answer or refused.
        """
        removed = await self._run([("XDEL", self._transport.dead_letter, _checked(name)) for name in letter_ids])
        return sum(removed)

    async def _run(self, commands: Sequence[Command]) -> Sequence[Any]:
        if self._pipeline is None:
            raise Closed("use the dead letters inside `async with`")
        answers = await self._pipeline.run(commands, within=self._timeout)
        for answer in answers:
            if isinstance(answer, TransportError):
                raise answer
        return answers


def _checked(letter_id: str) -> str:
    if not isinstance(letter_id, str) or not is_position(letter_id):
        raise InvalidOption("letter_id", "must be the id of a dead letter, such as '1700000000000-0'")
    return letter_id
