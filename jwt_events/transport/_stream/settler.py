"""Settles deliveries at the server: acknowledges them, or keeps them as dead letters."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from loguru import logger

from jwt_events._internal.cancellation import end
from jwt_events._internal.notices import Notices
from jwt_events._internal.retry import backoff
from jwt_events.errors import ServerRefused, TransportError
from jwt_events.transport._redis.commands import Command
from jwt_events.transport._redis.multiplexer import Multiplexer
from jwt_events.transport._redis.replies import ReplyParser, number, position
from jwt_events.transport._stream.dead_letter import dead_letter_command
from jwt_events.transport._stream.keys import StreamKeys
from jwt_events.transport._stream.unwritten import UnwrittenLetters
from jwt_events.transport.base import Delivery, Failure

# Seconds that one attempt may take, and that all remaining attempts may take when the receiver closes.
_ATTEMPT_WITHIN = 5.0
_FLUSH_WITHIN = 2.0

# Deliveries that wait to be acknowledged by a server that refuses.
_MAX_FINISHED = 100_000

_INITIAL_DELAY = 0.05
_MAX_DELAY = 1.0


class Settler:
    """Settles deliveries in the background, many at once, and retries until the server has confirmed each.

    A delivery that was given up is first added to the dead letters and only then acknowledged: if the two steps are cut
    off in between, the event is in at least one of the two places. If the server refuses dead letters for good, the
    oldest of too many are dropped: where deliveries are acknowledged, they stay pending and are delivered again.

    Args:
        multiplexer: runs the commands.
        keys: the keys of the stream.
        consumer: the name of the consumer that settles.
        acknowledge: makes the command that acknowledges positions; ``None`` where there are no acknowledgements.
        keep_once_for: seconds for which bytes that are not an event are not kept a second time, by any reader; ``None``
            where each delivery has only one reader anyway.

    Attributes:
        on_settled: called with the positions of deliveries that the server has confirmed.
        on_dropped: called with the number of dead letters that were dropped, as the server did not take them.
    """

    def __init__(
        self,
        multiplexer: Multiplexer,
        *,
        keys: StreamKeys,
        consumer: str,
        acknowledge: Callable[[Sequence[str]], Command] | None = None,
        keep_once_for: float | None = None,
    ) -> None:
        self._multiplexer = multiplexer
        self._keys = keys
        self._consumer = consumer
        self._acknowledge = acknowledge
        self._keep_once_for = keep_once_for
        self._notices = Notices()
        self._given_up = UnwrittenLetters()
        self._finished: list[str] = []  # the positions of those to acknowledge
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._has_work = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_closing = False
        self._is_refused = False  # whether the server did not take the last ones
        self._task: asyncio.Task[None] | None = None
        self.on_settled: Callable[[Sequence[str]], None] = lambda _: None
        self.on_dropped: Callable[[int], None] = lambda _: None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._work(), name=f"jwt_events settler {self._keys.dead_letter}")
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
        finally:
            await end([self._task])
            if self._finished:
                logger.warning("deliveries remain unsettled, the server does not take it", count=len(self._finished))
            if dropped := self._given_up.drop_all():
                self._report_dropped(dropped)

    def settle(self, delivery: Delivery, failure: Failure | None) -> None:
        """Queue a delivery to be settled; see `Receiver.settle`."""
        if failure is not None:
            if dropped := self._given_up.add(delivery, failure):
                self._report_dropped(dropped)
            elif self._given_up.is_large and not self._is_refused:
                self._has_room.clear()
        elif self._acknowledge is not None:
            self._finished.append(delivery.position or "")
        else:
            return
        self._idle.clear()
        self._has_work.set()

    async def wait_for_room(self) -> None:
        """Wait while many bytes of dead letters are being written, unless the server does not take them."""
        await self._has_room.wait()

    async def _work(self) -> None:
        failures = 0
        while True:
            await self._has_work.wait()
            self._has_work.clear()
            while self._given_up or self._finished:
                try:
                    await self._acknowledge_finished()  # first, so that a refused dead letter does not delay them
                    await self._dead_letter()
                    failures, self._is_refused = 0, False
                except TransportError as error:
                    if self._is_closing and not error.retryable:
                        logger.warning("settling was refused", error=str(error))
                        break  # a lasting refusal must not delay closing
                    failures += 1
                    self._is_refused = True
                    self._has_room.set()
                    self._drop_finished()
                    self._tell_refused(error, failures)
                    await asyncio.sleep(backoff(failures, initial=_INITIAL_DELAY, maximum=_MAX_DELAY))
            self._idle.set()

    async def _dead_letter(self) -> None:
        while self._given_up:
            delivery, failure = self._given_up.oldest
            if await self._is_first(delivery, failure):
                command = dead_letter_command(
                    self._keys.dead_letter, delivery, failure, consumer=self._consumer, now=time.time()
                )
                await self._run(command, position)
            self._given_up.remove(delivery)
            if not self._given_up.is_large:
                self._has_room.set()
            self._finished.append(delivery.position or "")
            self._notices.tell(
                "ERROR",
                "dead letter",
                once=(failure.handler, failure.error.partition(" ")[0]),
                position=delivery.position,
                handler=failure.handler,
                error=failure.error,
                attempts=failure.attempts,
            )

    def _drop_finished(self) -> None:
        """Forget the oldest positions if the server acknowledges none any more: they stay pending there."""
        if (excess := len(self._finished) - _MAX_FINISHED) > 0:
            dropped, self._finished = self._finished[:excess], self._finished[excess:]
            logger.error("deliveries not acknowledged, they will be delivered again", count=excess)
            self.on_settled(dropped)

    def _tell_refused(self, error: TransportError, attempt: int) -> None:
        kind = error.code if isinstance(error, ServerRefused) else None
        if kind is None:  # the connection, which others tell of
            logger.warning("settling will be tried again", attempt=attempt, error=str(error))
        else:
            message = "settling will be tried again"
            self._notices.tell("WARNING", message, once=(message, kind), attempt=attempt, error=str(error))

    def _report_dropped(self, dropped: Sequence[Delivery]) -> None:
        positions = [delivery.position or "" for delivery in dropped]
        self._notices.tell(
            "ERROR",
            "dead letters dropped, the server does not take them",
            once="dropped",
            since=positions[0],
            count=self._given_up.dropped,
        )
        self.on_dropped(len(dropped))
        self.on_settled(positions)  # not at the server: without a lease they are delivered again

    async def _is_first(self, delivery: Delivery, failure: Failure) -> bool:
        """Return whether this reader is the first to keep these bytes; if so, no other reader will keep them."""
        if self._keep_once_for is None or failure.handler is not None:
            return True
        marker = self._keys.dead_letter_marker(delivery.position)
        owner = f"{self._consumer}:{id(self):x}"
        if await self._run(("SET", marker, owner, "NX", "PX", int(self._keep_once_for * 1000))) is not None:
            return True
        return await self._run(("GET", marker)) == owner.encode()  # set by an attempt whose reply was lost

    async def _acknowledge_finished(self) -> None:
        positions = self._finished.copy()
        if self._acknowledge is not None and positions:
            await self._run(self._acknowledge(positions), number)
        del self._finished[: len(positions)]
        self.on_settled(positions)

    async def _run(self, command: Command, parse: ReplyParser | None = None) -> object:
        commands = [command]
        (reply,) = await self._multiplexer.run(commands, within=_ATTEMPT_WITHIN, parse=parse)
        if isinstance(reply, TransportError):
            raise reply  # perhaps before the server has replied
        commands.clear()  # the request is kept until the next one, and with it the bytes of a dead letter
        return reply
