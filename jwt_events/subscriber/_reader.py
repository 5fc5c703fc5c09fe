"""The reader: reads deliveries, decodes them, and passes each event on once."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from loguru import logger

from jwt_events._internal.cancellation import cancel_until_done
from jwt_events._internal.clock import boottime
from jwt_events._internal.notices import Notices
from jwt_events.envelope import Decoder, Envelope
from jwt_events.errors import DecodeError
from jwt_events.events import Event
from jwt_events.instrumentation import UNOBSERVED, Observer
from jwt_events.transport.base import Batch, Delivery, Failure, Gap, Receiver

WINDOW = 100_000

_FORGOTTEN = object()  # in the place of a source


class _Stopped(Exception):
    """Reading was cancelled by `Reader.stop`."""


@dataclass(slots=True)
class Counters:
    """What a subscriber has counted; see `SubscriberStats`."""

    received: int = 0
    handled: int = 0
    failed: int = 0
    dead_lettered: int = 0
    duplicates: int = 0
    decode_errors: int = 0
    dropped: int = 0
    gaps: int = 0


class SeenIds:
    """Remembers at least the last 100,000 ids that were new, and at most twice as many.

    A publish that is tried again after a lost answer reuses the event's id; this is what makes it one event again. An
    id is unique within its source (CloudEvents 1.0, ``source``): equal ids of two sources are two events.
    """

    def __init__(self, window: int = WINDOW) -> None:
        self._window = window
        # The source of each id. What does not fit, as a second source uses the id, too, has the pair as its key.
        self._recent: dict[object, object] = {}
        self._older: dict[object, object] = {}

    def is_new(self, event_id: str, source: str | None = None) -> bool:
        """Return whether this id was not seen from this source in the window, and remember it."""
        if event_id in self._recent or event_id in self._older:
            return self._is_new_of_source(event_id, source)
        if len(self._recent) >= self._window:
            self._forget_half()
        self._recent[event_id] = source
        return True

    def _is_new_of_source(self, event_id: str, source: str | None) -> bool:
        recent, older = self._recent, self._older
        known = recent[event_id] if event_id in recent else older[event_id]
        if known == source or (event_id, source) in recent or (event_id, source) in older:
            return False
        if len(recent) >= self._window:
            self._forget_half()
        self._recent[event_id] = known
        self._recent[event_id, source] = source
        return True

    def _forget_half(self) -> None:
        # Two generations forget in one step what a queue would forget one by one.
        self._older, self._recent = self._recent, {}

    def forget(self, event_id: str, source: str | None = None) -> None:
        """Count this id as new when it comes again from this source."""
        for generation in (self._recent, self._older):
            generation.pop((event_id, source), None)
            if event_id in generation and generation[event_id] == source:
                generation[event_id] = _FORGOTTEN


class Reader:
    """Reads a subscription from its first delivery to its last.

    Args:
        receiver: where deliveries come from.
        accept: called with every event, in its envelope; the reader waits for what it returns, if anything.
        report: called with every gap.
        prepare: called before the events of a batch; returns how to decode them.
        seen: the ids of events that came already.
        counters: where to count.
        observer: is told what is received.
        notices: where gaps are told, and bytes that are no event.
    """

    def __init__(
        self,
        receiver: Receiver,
        *,
        accept: Callable[[Envelope, Delivery], Awaitable[None] | None],
        report: Callable[[Gap], None],
        prepare: Callable[[], Decoder],
        seen: SeenIds,
        counters: Counters,
        observer: Observer = UNOBSERVED,
        notices: Notices | None = None,
    ) -> None:
        self._receiver = receiver
        self._accept = accept
        self._report = report
        self._prepare = prepare
        self._seen = seen
        self._counters = counters
        self._observer = observer
        self._notices = notices or Notices()
        self.proven_at: float = -math.inf
        """When the last read that the server answered was sent, by `boottime`."""
        self._task: asyncio.Task[None] | None = None
        self._is_waiting = False
        self._is_begun = False
        self._stopped = False

    async def run(self) -> None:
        """Read until stopped.

        Raises:
            TransportError: the subscription failed in a way that another attempt will not change.
        """
        self._task = asyncio.current_task()
        with suppress(_Stopped):
            while not self._stopped:
                await self._take_batch(await self._next_batch())

    def stop(self, *, discard: bool) -> None:
        """Read nothing more; idempotent.

        Args:
            discard: also drop what was read and not yet accepted.
        """
        self._stopped = True
        if self._task is None:
            return
        if discard:
            cancel_until_done(self._task)
        elif self._is_waiting:
            self._task.cancel()

    @property
    def is_live(self) -> bool:
        """Whether the receiver is connected, as far as it knows."""
        return bool(getattr(self._receiver, "is_live", True))

    def mark_begun(self) -> None:
        """Count the event that is waited for as begun, and not as dropped: one of its handlers was started."""
        self._is_begun = True

    async def _next_batch(self) -> Batch:
        self._is_waiting = True
        asked_at = boottime()
        try:
            batch = await self._receiver.receive()
        except asyncio.CancelledError:
            if self._stopped:
                raise _Stopped from None
            raise
        finally:
            self._is_waiting = False
        if self.is_live:
            self.proven_at = asked_at
        return batch

    def _report_news(self, batch: Batch) -> None:
        """Tell what is said of the connection and of what may be missing."""
        if batch.reconnected:
            self._observer.reconnected()
        if (refusal := batch.refusal) is not None:
            self._observer.proof_refused(refusal.reason)
        for gap in batch.gaps:
            self._counters.gaps += 1
            self._observer.gap(gap.cause)
            fields = {"cause": gap.cause, "since": gap.since, "lost": gap.lost}
            self._notices.tell("WARNING", "events may have been missed", once=gap.cause, **fields)
            self._report(gap)

    async def _take_batch(self, batch: Batch) -> None:
        self._report_news(batch)
        if not batch.deliveries:
            return
        taken = 0
        received: list[Event] = []
        decode, is_new, accept = self._prepare(), self._seen.is_new, self._accept
        try:
            for delivery in batch.deliveries:
                try:
                    envelope = decode(delivery.payload)
                except DecodeError as error:
                    self._reject(delivery, error)
                else:
                    event = envelope.event
                    received.append(event)
                    fields = event.__dict__  # an attribute of a pydantic model takes twenty times as long
                    if not is_new(fields["id"], fields["source"]):
                        self._skip(event, delivery)
                    elif (waiting := accept(envelope, delivery)) is not None:
                        self._tell_received(received)
                        await self._wait(waiting, event)
                taken += 1
        finally:
            self._tell_received(received)
            if dropped := len(batch.deliveries) - taken - self._is_begun:
                self._counters.dropped += dropped
                logger.warning("deliveries dropped, the subscriber was stopped", count=dropped)

    def _tell_received(self, events: list[Event]) -> None:
        """Count the events and tell the observer of them, all at once, and clear the list."""
        if events:
            self._counters.received += len(events)
            self._observer.received(events)
            events.clear()

    async def _wait(self, waiting: Awaitable[None], event: Event) -> None:
        try:
            await waiting
        except asyncio.CancelledError:
            self._seen.forget(event.id, event.source)  # dropped: when it is delivered again, it is no duplicate
            raise

    def _reject(self, delivery: Delivery, error: DecodeError) -> None:
        self._counters.received += 1
        self._counters.decode_errors += 1
        self._observer.decode_error(error.reason)
        self._notices.tell(
            "ERROR",
            "delivery skipped: not an event",
            once=error.reason,
            reason=error.reason,
            detail=error.detail,
            position=delivery.position,
            size=len(delivery.payload) + delivery.missing,
        )
        self._receiver.settle(delivery, Failure(f"DecodeError: {error.reason}"))

    def _skip(self, event: Event, delivery: Delivery) -> None:
        self._counters.duplicates += 1
        self._observer.duplicate(event)
        logger.debug("duplicate skipped", event_id=event.id, position=delivery.position)
        self._receiver.settle(delivery)
