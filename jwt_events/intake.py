"""Take it in: reads deliveries, turns them into events, and passes on each event once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from loguru import logger

from jwt_events.envelope import decode
from jwt_events.errors import DecodeError
from jwt_events.events import Event
from jwt_events.seen import SeenIds
from jwt_events.transport.base import Delivery, Gap, Receiver


@dataclass(slots=True)
class Tally:
    """What a subscriber counted so far."""

    received: int = 0
    handled: int = 0
    failed: int = 0
    duplicates: int = 0
    decode_errors: int = 0
    dropped: int = 0
    gaps: int = 0


class Intake:
    """One reading of a subscription, from its first delivery to its last.

    Args:
        receiver: where deliveries come from.
        accept: called with every event; reading goes on when it returns.
        report: called with every gap.
        seen: which events were there already.
        tally: where to count.
    """

    def __init__(
        self,
        receiver: Receiver,
        *,
        accept: Callable[[Event], Awaitable[None]],
        report: Callable[[Gap], None],
        seen: SeenIds,
        tally: Tally,
    ) -> None:
        self._receiver = receiver
        self._accept = accept
        self._report = report
        self._seen = seen
        self._tally = tally
        self._waiting: asyncio.Task[None] | None = None
        self._stopped = False
        self._discarding = False

    async def run(self) -> None:
        """Read until told to stop.

        Raises:
            TransportError: it is of no use to go on.
        """
        while not self._stopped:
            self._waiting = asyncio.current_task()
            try:
                page = await self._receiver.receive()
            except asyncio.CancelledError:
                if self._stopped:
                    return
                raise
            finally:
                self._waiting = None
            for gap in page.gaps:
                self._tally.gaps += 1
                logger.warning("events may have been missed", cause=gap.cause, since=gap.since, lost=gap.lost)
                self._report(gap)
            for index, delivery in enumerate(page.deliveries):
                if self._discarding:
                    self._tally.dropped += len(page.deliveries) - index
                    return
                await self._take(delivery)

    def stop(self, *, discard: bool) -> None:
        """Read nothing more; idempotent.

        Args:
            discard: also drop what was read and not yet accepted.
        """
        self._stopped = True
        self._discarding |= discard
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    async def _take(self, delivery: Delivery) -> None:
        self._tally.received += 1
        try:
            event = decode(delivery.payload).event
        except DecodeError as error:
            self._tally.decode_errors += 1
            logger.error(
                "delivery skipped, it is no event",
                reason=error.reason,
                detail=error.detail,
                position=delivery.position,
                size=len(delivery.payload),
            )
            return
        if not self._seen.is_new(event.id):
            self._tally.duplicates += 1
            logger.debug("duplicate skipped", event_id=event.id, position=delivery.position)
            return
        await self._accept(event)
