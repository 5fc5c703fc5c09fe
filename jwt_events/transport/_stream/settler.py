"""Tells the server what became of deliveries: acknowledged, or kept as dead letters."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from loguru import logger

from jwt_events._internal.retry import backoff
from jwt_events.errors import TransportError
from jwt_events.transport._redis.multiplexer import Multiplexer
from jwt_events.transport._redis.protocol import Command
from jwt_events.transport._redis.replies import ReplyParser, number, position, unchanged
from jwt_events.transport._stream.dead_letter import dead_letter_command
from jwt_events.transport.base import Delivery, Failure

# How long one try may take, and all tries that are left when the receiver closes.
_TRY_WITHIN = 5.0
_FLUSH_WITHIN = 2.0

_INITIAL_DELAY = 0.05
_MAX_DELAY = 1.0


class Settler:
    """Settles deliveries in the background, many in one go, until the server has confirmed each.

    What is given up is copied to the dead letters first and acknowledged only then: whatever is cut off in between, the
    event is in at least one of the two places.

    Args:
        pipeline: runs the commands.
        dead_key: the stream of dead letters.
        consumer: who settles.
        acknowledge: makes the command that acknowledges positions; ``None`` if nobody waits for that.
        once_for: seconds for which bytes that are no event are not kept a second time, by whatever reader; ``None``
            where each delivery has only one reader anyway.
    """

    def __init__(
        self,
        pipeline: Multiplexer,
        *,
        dead_key: str,
        consumer: str,
        acknowledge: Callable[[Sequence[str]], Command] | None = None,
        once_for: float | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._dead_key = dead_key
        self._consumer = consumer
        self._acknowledge = acknowledge
        self._once_for = once_for
        self._letters: list[tuple[Delivery, Failure]] = []
        self._finished: list[Delivery] = []
        self._something_to_do = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_closing = False
        self._task: asyncio.Task[None] | None = None
        self.on_settled: Callable[[Sequence[str]], None] = lambda _: None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._work(), name=f"jwt_events settler {self._dead_key}")
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._task is not None  # noqa: S101 - entered before
        self._is_closing = True
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(_FLUSH_WITHIN):
                    await self._idle.wait()
            if unsettled := len(self._letters) + len(self._finished):
                logger.warning("deliveries remain unsettled, the server does not take it", count=unsettled)
        finally:
            self._task.cancel()
            await asyncio.wait([self._task])

    def settle(self, delivery: Delivery, failure: Failure | None) -> None:
        """Take note; see `Receiver.settle`."""
        if failure is not None:
            self._letters.append((delivery, failure))
        elif self._acknowledge is not None:
            self._finished.append(delivery)
        else:
            return
        self._idle.clear()
        self._something_to_do.set()

    async def _work(self) -> None:
        failures = 0
        while True:
            await self._something_to_do.wait()
            self._something_to_do.clear()
            while self._letters or self._finished:
                try:
                    await self._finish()  # first, so that a refused burial does not hold up what succeeded
                    await self._dead_letter()
                    failures = 0
                except TransportError as error:
                    if self._is_closing and not error.retryable:
                        break  # a refusal for good must not hold up the end
                    failures += 1
                    logger.warning("settling will be tried again", attempt=failures, error=str(error))
                    await asyncio.sleep(backoff(failures, initial=_INITIAL_DELAY, maximum=_MAX_DELAY))
            self._idle.set()

    async def _dead_letter(self) -> None:
        while self._letters:
            delivery, failure = self._letters[0]
            if await self._is_first(delivery, failure):
                letter = dead_letter_command(
                    self._dead_key, delivery, failure, consumer=self._consumer, now=time.time()
                )
                await self._run(letter, position)
            self._letters.pop(0)
            self._finished.append(delivery)
            logger.error(
                "dead letter",
                position=delivery.position,
                handler=failure.handler,
                error=failure.error,
                attempts=failure.attempts,
            )

    async def _is_first(self, delivery: Delivery, failure: Failure) -> bool:
        """Return whether no other reader kept these bytes already, and that none will."""
        if self._once_for is None or failure.handler is not None:
            return True
        marker = f"{self._dead_key}:{delivery.position}"
        owner = f"{self._consumer}:{id(self):x}"
        if await self._run(("SET", marker, owner, "NX", "PX", int(self._once_for * 1000)), unchanged) is not None:
            return True
        return await self._run(("GET", marker), unchanged) == owner.encode()  # set by a try whose answer was lost

    async def _finish(self) -> None:
        positions = [delivery.position or "" for delivery in self._finished]
        if self._acknowledge is not None and positions:
            await self._run(self._acknowledge(positions), number)
        del self._finished[: len(positions)]
        self.on_settled(positions)

    async def _run(self, command: Command, reading: ReplyParser) -> object:
        (answer,) = await self._pipeline.run([command], within=_TRY_WITHIN, reading=reading)
        if isinstance(answer, TransportError):
            raise answer
        return answer
