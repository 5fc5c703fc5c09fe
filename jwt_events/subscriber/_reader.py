"""Take it in: reads deliveries, turns them into events, and passes on each event once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from loguru import logger

from jwt_events.envelope import Envelope, decode
from jwt_events.errors import DecodeError
from jwt_events.events import Event
from jwt_events.instrumentation import Observers
from jwt_events.subscriber._dedup import SeenIds
from jwt_events.transport.base import Batch, Delivery, Failure, Gap, Receiver


class _Stopped(Exception):
    """Reading was interrupted on request."""


@dataclass(slots=True)
class Counters:
    """What a subscriber counted so far."""

    received: int = 0
    handled: int = 0
    failed: int = 0
    dead_lettered: int = 0
    duplicates: int = 0
    decode_errors: int = 0
    dropped: int = 0
    gaps: int = 0


class Reader:
    """One reading of a subscription, from its first delivery to its last.

    Args:
        receiver: where deliveries come from.
        accept: called with every event, in its envelope; reading goes on when what it returns, if anything, is done.
        report: called with every gap.
        seen: which events were there already.
        tally: where to count.
        observers: whom to tell.
    """

    def __init__(
        self,
        receiver: Receiver,
        *,
        accept: Callable[[Envelope, Delivery], Awaitable[None] | None],
        report: Callable[[Gap], None],
        seen: SeenIds,
        tally: Counters,
        observers: Observers = (),
    ) -> None:
        self._receiver = receiver
        self._accept = accept
        self._report = report
        self._seen = seen
        self._tally = tally
        self._observers = observers
        self._task: asyncio.Task[None] | None = None
        self._is_waiting = False
        self._stopped = False

    async def run(self) -> None:
        """Read until told to stop.

        Raises:
            TransportError: it is of no use to go on.
        """
        self._task = asyncio.current_task()
        with suppress(_Stopped):
            while not self._stopped:
                await self._take_page(await self._next_page())

    def stop(self, *, discard: bool) -> None:
        """Read nothing more; idempotent.

        Args:
            discard: also drop what was read and not yet accepted.
        """
        self._stopped = True
        if self._task is not None and (self._is_waiting or discard):
            self._task.cancel()

    async def _next_page(self) -> Batch:
        self._is_waiting = True
        try:
            return await self._receiver.receive()
        except asyncio.CancelledError:
            if self._stopped:
                raise _Stopped from None
            raise
        finally:
            self._is_waiting = False

    async def _take_page(self, page: Batch) -> None:
        if page.reconnected:
            for observer in self._observers:
                observer.reconnected()
        for gap in page.gaps:
            self._tally.gaps += 1
            for observer in self._observers:
                observer.gap(gap.cause)
            logger.warning("events may have been missed", cause=gap.cause, since=gap.since, lost=gap.lost)
            self._report(gap)
        taken = 0
        news: list[Event] = []
        try:
            for delivery in page.deliveries:
                envelope = self._open(delivery)
                if envelope is not None:
                    event = envelope.event
                    news.append(event)
                    if not self._seen.is_new(event.id):
                        self._skip(event, delivery)
                    elif (waiting := self._accept(envelope, delivery)) is not None:
                        self._tell(news)
                        await self._wait(waiting, event)
                taken += 1
        finally:
            self._tell(news)
            if dropped := len(page.deliveries) - taken:
                self._tally.dropped += dropped
                logger.warning("deliveries dropped, the subscriber was stopped", count=dropped)

    def _tell(self, events: list[Event]) -> None:
        """Say what was received, many at once, and forget it."""
        if events:
            for observer in self._observers:
                observer.received(events)
            events.clear()

    async def _wait(self, waiting: Awaitable[None], event: Event) -> None:
        try:
            await waiting
        except asyncio.CancelledError:
            self._seen.forget(event.id)  # dropped: when it is delivered again, it is no duplicate
            raise

    def _open(self, delivery: Delivery) -> Envelope | None:
        self._tally.received += 1
        try:
            return decode(delivery.payload)
        except DecodeError as error:
            self._tally.decode_errors += 1
            for observer in self._observers:
                observer.decode_error(error.reason)
            logger.error(
                "delivery skipped, it is no event",
                reason=error.reason,
                detail=error.detail,
                position=delivery.position,
                size=len(delivery.payload),
            )
            self._receiver.settle(delivery, Failure(f"DecodeError: {error.reason}"))
            return None

    def _skip(self, event: Event, delivery: Delivery) -> None:
        self._tally.duplicates += 1
        for observer in self._observers:
            observer.duplicate(event)
        logger.debug("duplicate skipped", event_id=event.id, position=delivery.position)
        self._receiver.settle(delivery)
