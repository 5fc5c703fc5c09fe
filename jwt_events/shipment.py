"""On its way: the events of one call of publish, from the first try to the last."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic, perf_counter
from typing import TYPE_CHECKING

from jwt_events.debugging import is_debugging
from jwt_events.errors import PublishError, PublishFailed, PublishOutcomeUnknown, TransportError
from jwt_events.events import Event
from jwt_events.observe import Observers, Published
from jwt_events.retry import backoff
from jwt_events.transport.base import Sender, Sent

if TYPE_CHECKING:
    from loguru import Logger

_INITIAL_DELAY = 0.02
_MAXIMUM_DELAY = 1.0

# With less time left there is no new try: cut off in the middle, it would only turn "surely not" into "perhaps".
_LEAST_FOR_A_TRY = 0.1

_UNKNOWN, _FAILED = Published.UNKNOWN, Published.FAILED


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
        observers: whom to tell what became of them.
        log: knows the transport.
    """

    __slots__ = (
        "_events",
        "_last_error",
        "_log",
        "_maybe_published",
        "_observers",
        "_payloads",
        "_pending",
        "_receipts",
    )

    def __init__(
        self, events: Sequence[Event], payloads: Sequence[bytes], *, observers: Observers, log: Logger
    ) -> None:
        self._events = events
        self._payloads = payloads
        self._observers = observers
        self._log = log
        self._pending: Sequence[int] = range(len(events))
        self._receipts: list[Receipt | None] = [None] * len(events)
        self._last_error: TransportError | None = None
        self._maybe_published = False

    async def run(self, sender: Sender, deadline: float) -> list[Receipt]:
        """Return the receipts in the order of the events, or raise a `PublishError`.

        Args:
            sender: where to send them.
            deadline: when to give up, by `time.monotonic`.
        """
        began = perf_counter()
        failures = 0
        try:
            while not await self._try(sender, deadline):
                failures += 1
                # A connection that died while idle is the most common failure: the first new try is at once.
                pause = 0.0 if failures == 1 else backoff(failures - 1, initial=_INITIAL_DELAY, maximum=_MAXIMUM_DELAY)
                if not self._worth_another_try() or monotonic() + pause + _LEAST_FOR_A_TRY > deadline:
                    raise self._failure()
                self._log.warning("publish will be tried again", attempt=failures, error=str(self._last_error))
                await asyncio.sleep(pause)
            return self._accepted()
        except asyncio.CancelledError as cancelled:
            if self._maybe_published or isinstance(cancelled.__cause__, TransportError):
                self._maybe_published = True
                cancelled.__cause__ = self._failure()
            raise
        finally:
            if self._observers and self._events:
                self._tell(perf_counter() - began)

    async def _try(self, sender: Sender, deadline: float) -> bool:
        """Send what is left, and return whether all of it was accepted."""
        if not self._pending:
            return True
        self._take(await sender.send(self._payloads_left(), within=deadline - monotonic()))
        return not self._pending

    def _tell(self, seconds: float) -> None:
        accepted: Sequence[Event] = self._events
        rest: Sequence[Event] = ()
        outcome = _UNKNOWN if self._maybe_published else _FAILED
        if self._pending:
            rest = [self._events[index] for index in self._pending]
            accepted = [event for event, receipt in zip(self._events, self._receipts, strict=True) if receipt]
        for observer in self._observers:
            observer.published(accepted, rest, outcome, seconds)

    def _payloads_left(self) -> Sequence[bytes]:
        if len(self._pending) == len(self._payloads):
            return self._payloads
        return [self._payloads[index] for index in self._pending]

    def _take(self, outcomes: Sequence[Sent | TransportError]) -> None:
        attempted, pending = self._pending, []
        for index, outcome in zip(attempted, outcomes, strict=True):
            if isinstance(outcome, Sent):
                self._receipts[index] = Receipt(self._events[index].id, outcome.position, outcome.receivers)
            else:
                pending.append(index)
                self._last_error = outcome
                self._maybe_published |= outcome.maybe_done
        self._pending = pending
        if is_debugging(__name__):
            self._note(attempted)

    def _note(self, attempted: Sequence[int]) -> None:
        for index in attempted:
            if (receipt := self._receipts[index]) is not None:
                kind = str(self._events[index].type)
                self._log.debug(
                    "event published", event_id=receipt.event_id, event_type=kind, position=receipt.position
                )

    def _accepted(self) -> list[Receipt]:
        return [receipt for receipt in self._receipts if receipt is not None]

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
            receipts=self._accepted(),
        )
