"""On its way: the events of one call of publish, from the first try to the last."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import monotonic, perf_counter
from typing import NamedTuple

from jwt_events.debugging import is_debugging
from jwt_events.dock import Dock
from jwt_events.errors import PublishError, PublishFailed, PublishOutcomeUnknown, TransportError
from jwt_events.events import Event
from jwt_events.observe import Published
from jwt_events.retry import backoff
from jwt_events.transport.base import Sender, Sent

_INITIAL_DELAY = 0.02
_MAXIMUM_DELAY = 1.0

# With less time left there is no new try: cut off in the middle, it would only turn "surely not" into "perhaps".
_LEAST_FOR_A_TRY = 0.1

_UNKNOWN, _FAILED = Published.UNKNOWN, Published.FAILED


class Receipt(NamedTuple):
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
        dock: where it leaves from.
        events: what travels.
        payloads: the same, encoded.
    """

    # On the class, as most shipments arrive at the first try.
    _outcomes: Sequence[Sent | TransportError] = ()  # of the last try of each event; none before the first has ended
    _is_complete = False
    _maybe_published = False

    def __init__(self, dock: Dock, events: Sequence[Event], payloads: Sequence[bytes]) -> None:
        self._dock = dock
        self._events = events
        self._payloads = payloads

    async def run(self, deadline: float) -> list[Receipt]:
        """Return the receipts in the order of the events, or raise a `PublishError`.

        Args:
            deadline: when to give up, by `time.monotonic`.
        """
        dock = self._dock
        dock.under_way += 1
        began = None
        try:
            sender = dock.sender or await dock.open()
            began = perf_counter()
            self._outcomes = await sender.send(self._payloads, within=deadline - monotonic())
            receipts = self._receipts()
            if len(receipts) < len(self._events):
                await self._send_rest(sender, deadline)
                receipts = self._receipts()
            self._is_complete = True
        except asyncio.CancelledError as cancelled:
            if self._maybe_published or isinstance(cancelled.__cause__, TransportError):
                self._maybe_published = True
                cancelled.__cause__ = self._failure(None)
            raise
        finally:
            if began is not None and dock.observers and self._events:
                self._tell(perf_counter() - began)
            if is_debugging(__name__):
                self._note()
            dock.left()
        return receipts

    async def _send_rest(self, sender: Sender, deadline: float) -> None:
        """Send what was not accepted again and again, as long as that is of any use."""
        outcomes = self._outcomes = list(self._outcomes)
        failures = 0
        while errors := [outcome for outcome in outcomes if isinstance(outcome, TransportError)]:
            failures += 1
            self._maybe_published |= any(error.maybe_done for error in errors)
            # A connection that died while idle is the most common failure: the first new try is at once.
            pause = 0.0 if failures == 1 else backoff(failures - 1, initial=_INITIAL_DELAY, maximum=_MAXIMUM_DELAY)
            if not errors[-1].retryable or monotonic() + pause + _LEAST_FOR_A_TRY > deadline:
                raise self._failure(errors[-1])
            self._dock.log.warning("publish will be tried again", attempt=failures, error=str(errors[-1]))
            await asyncio.sleep(pause)
            rest = self._rest()
            found = await sender.send([self._payloads[index] for index in rest], within=deadline - monotonic())
            for index, outcome in zip(rest, found, strict=True):
                outcomes[index] = outcome

    def _receipts(self) -> list[Receipt]:
        return [
            Receipt(event.id, outcome.position, outcome.receivers)
            for event, outcome in zip(self._events, self._outcomes, strict=bool(self._outcomes))
            if isinstance(outcome, Sent)
        ]

    def _rest(self) -> list[int]:
        """Return the indices of the events that were not accepted."""
        accepted = {index for index, outcome in enumerate(self._outcomes) if isinstance(outcome, Sent)}
        return [index for index in range(len(self._events)) if index not in accepted]

    def _tell(self, seconds: float) -> None:
        accepted: Sequence[Event] = self._events
        rest: Sequence[Event] = ()
        if not self._is_complete:
            indices = set(self._rest())
            rest = [event for index, event in enumerate(self._events) if index in indices]
            accepted = [event for index, event in enumerate(self._events) if index not in indices]
        outcome = _UNKNOWN if self._maybe_published else _FAILED
        for observer in self._dock.observers:
            observer.published(accepted, rest, outcome, seconds)

    def _note(self) -> None:
        kinds = {event.id: str(event.type) for event in self._events}
        for event_id, position, _ in self._receipts():
            self._dock.log.debug("event published", event_id=event_id, event_type=kinds[event_id], position=position)

    def _failure(self, error: TransportError | None) -> PublishError:
        cls = PublishOutcomeUnknown if self._maybe_published else PublishFailed
        event_ids = [self._events[index].id for index in self._rest()]
        subject = "the event was" if len(self._events) == 1 else f"{len(event_ids)} of {len(self._events)} events were"
        verdict = "perhaps published" if self._maybe_published else "not published"
        return cls(f"{subject} {verdict}: {error or 'cancelled'}", event_ids=event_ids, receipts=self._receipts())
