"""On its way: the events of one call of publish, from the first try to the last."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

from loguru import logger

from jwt_events.errors import PublishError, PublishFailed, PublishOutcomeUnknown, TransportError
from jwt_events.events import Event
from jwt_events.observe import Observers, Published
from jwt_events.retry import backoff
from jwt_events.transport.base import Sender, Sent, Transport

_INITIAL_DELAY = 0.02
_MAXIMUM_DELAY = 1.0

# With less time left there is no new try: cut off in the middle, it would only turn "surely not" into "perhaps".
_LEAST_FOR_A_TRY = 0.1


@dataclass(frozen=True, slots=True)
class Receipt:
    """The server accepted an event.

    Attributes:
        event_id: the event's id.
        position: where in the stream; ``None`` on a transport without positions.
        receivers: how many connections the server handed it to; ``None`` where nobody counts. It is no acknowledgement.
    """

    event_id: str
    position: str | None = None
    receivers: int | None = None


class Shipment:
    """Events of one call on their way to the server, tried again until accepted, refused for good, or out of time.

    Args:
        events: what travels.
        payloads: the same, encoded.
        transport: where, for the log.
        observers: whom to tell what became of them.
    """

    def __init__(
        self, events: Sequence[Event], payloads: Sequence[bytes], transport: Transport, observers: Observers
    ) -> None:
        self._events = events
        self._payloads = payloads
        self._observers = observers
        self._log = logger.bind(transport=transport.name, destination=transport.destination)
        self._pending = list(range(len(events)))
        self._receipts: dict[int, Receipt] = {}
        self._last_error: TransportError | None = None
        self._maybe_published = False

    async def run(self, sender: Sender, deadline: float) -> list[Receipt]:
        """Return the receipts in the order of the events, or raise a `PublishError`."""
        began = perf_counter()
        try:
            return await self._run(sender, deadline)
        finally:
            if self._observers and self._events:
                self._tell(perf_counter() - began)

    def _tell(self, seconds: float) -> None:
        accepted = [self._events[index] for index in self._receipts]
        rest = [self._events[index] for index in self._pending]
        outcome = Published.UNKNOWN if self._maybe_published else Published.FAILED
        for observer in self._observers:
            observer.published(accepted, rest, outcome, seconds)

    async def _run(self, sender: Sender, deadline: float) -> list[Receipt]:
        loop = asyncio.get_running_loop()
        failures = 0
        while self._pending:
            await self._attempt(sender, deadline - loop.time())
            if not self._pending:
                break
            failures += 1
            # A connection that died while idle is the most common failure: the first new try is at once.
            pause = 0.0 if failures == 1 else backoff(failures - 1, initial=_INITIAL_DELAY, maximum=_MAXIMUM_DELAY)
            if not self._worth_another_try() or loop.time() + pause + _LEAST_FOR_A_TRY > deadline:
                raise self._failure()
            self._log.warning("publish will be tried again", attempt=failures, error=str(self._last_error))
            await asyncio.sleep(pause)
        return [self._receipts[index] for index in range(len(self._events))]

    async def _attempt(self, sender: Sender, within: float) -> None:
        try:
            outcomes = await sender.send([self._payloads[index] for index in self._pending], within=within)
        except asyncio.CancelledError as cancelled:
            if self._maybe_published or isinstance(cancelled.__cause__, TransportError):
                self._maybe_published = True
                cancelled.__cause__ = self._failure()
            raise
        attempted, self._pending = self._pending, []
        for index, outcome in zip(attempted, outcomes, strict=True):
            if isinstance(outcome, Sent):
                self._accept(index, outcome)
            else:
                self._pending.append(index)
                self._last_error = outcome
                self._maybe_published |= outcome.maybe_done

    def _accept(self, index: int, sent: Sent) -> None:
        event = self._events[index]
        self._receipts[index] = Receipt(event.id, sent.position, sent.receivers)
        self._log.debug("event published", event_id=event.id, event_type=str(event.type), position=sent.position)

    def _worth_another_try(self) -> bool:
        return self._last_error is not None and self._last_error.retryable

    def _failure(self) -> PublishError:
        cls = PublishOutcomeUnknown if self._maybe_published else PublishFailed
        subject = (
            "the event was" if len(self._events) == 1 else f"{len(self._pending)} of {len(self._events)} events were"
        )
        verdict = "perhaps published" if self._maybe_published else "not published"
        return cls(
            f"{subject} {verdict}: {self._last_error or 'cancelled'}",
            event_ids=[self._events[index].id for index in self._pending],
            receipts=[self._receipts[index] for index in sorted(self._receipts)],
        )
