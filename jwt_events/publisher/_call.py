"""One call of publish: its events, from the first attempt to the last."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import monotonic, perf_counter
from typing import TYPE_CHECKING

from jwt_events._internal.debugging import is_debugging
from jwt_events._internal.opaque import OpaqueStruct
from jwt_events._internal.receipt import Receipt
from jwt_events._internal.retry import backoff
from jwt_events.errors import (
    NotConfirmed,
    NotReplicated,
    PublishError,
    PublishFailed,
    PublishOutcomeUnknown,
    TransportError,
)
from jwt_events.events import Event
from jwt_events.instrumentation import UNOBSERVED, Observer, Published
from jwt_events.publisher._under_way import CallsUnderWay
from jwt_events.transport.base import Sender, Sent
from jwt_events.transport.optional import Keep

if TYPE_CHECKING:
    from loguru import Logger

_INITIAL_DELAY = 0.02
_MAX_DELAY = 0.2

# With less time left there is no new attempt: cut off in the middle, it would turn "surely not" into "perhaps".
_MIN_ATTEMPT_SECONDS = 0.1

_UNKNOWN, _FAILED = Published.UNKNOWN, Published.FAILED


class PublishCall(OpaqueStruct):
    """Sends the events of one call until they are accepted, refused for good, or out of time.

    There is one for each event that is published alone, and a struct takes a quarter of the time of another object to
    make.

    Attributes:
        sender: sends payloads.
        observer: is told the outcome.
        log: bound to the transport.
        events: what to send.
        payloads: the same, encoded.
        keep: called with the payloads that were accepted, and their receipts; ``None`` to keep nothing.
        calls: counts this one while it runs.
        outcomes: of the last attempt of each event.
        is_complete: whether all events were accepted.
        maybe_published: whether one that was not may have been published all the same.
    """

    sender: Sender
    observer: Observer
    log: Logger
    events: Sequence[Event]
    payloads: Sequence[bytes]
    keep: Keep | None
    calls: CallsUnderWay
    outcomes: Sequence[Sent | TransportError] = ()
    is_complete: bool = False
    maybe_published: bool = False

    async def run(self, deadline: float) -> list[Receipt]:
        """Return the receipts in the order of the events, or raise a `PublishError`.

        Args:
            deadline: when to give up, by `time.monotonic`.
        """
        began = perf_counter()
        self.calls.begin()
        try:
            if self.events:
                self.outcomes = await self.sender.send(self.payloads, within=deadline - monotonic())
            receipts = self._receipts()
            if len(receipts) < len(self.events):
                await self._send_rest(deadline, list(self.outcomes))
                receipts = self._receipts()
            self.is_complete = True
        except BaseException as error:
            self._end_incomplete(error)
            raise
        else:
            if (keep := self.keep) is not None:
                keep(self.payloads, receipts)
            return receipts
        finally:
            self.calls.end()
            if self.observer is not UNOBSERVED and self.events:
                self._tell(perf_counter() - began)
            if is_debugging(__name__):
                self._log_receipts()

    async def _send_rest(self, deadline: float, outcomes: list[Sent | TransportError]) -> None:
        """Send what was not accepted again, until it is, the deadline is near, or another attempt cannot help."""
        if len(outcomes) != len(self.events):
            raise ValueError(f"the transport told {len(outcomes)} outcomes of {len(self.events)} payloads")
        self.outcomes = outcomes
        failures = 0
        while errors := self._errors():
            failures += 1
            self.maybe_published |= any(error.maybe_done for error in errors)
            # A connection that died while idle is the most common failure: the second attempt is immediate.
            pause = 0.0 if failures == 1 else backoff(failures - 1, initial=_INITIAL_DELAY, maximum=_MAX_DELAY)
            if not errors[-1].retryable or monotonic() + pause + _MIN_ATTEMPT_SECONDS > deadline:
                raise self._failure()
            self.log.warning("publish will be tried again", attempt=failures, error=str(errors[-1]))
            await asyncio.sleep(pause)
            rest = self._rest()
            found = await self.sender.send([self.payloads[index] for index in rest], within=deadline - monotonic())
            for index, outcome in zip(rest, found, strict=True):
                outcomes[index] = outcome

    def _receipts(self) -> list[Receipt]:
        receipts: list[Receipt] = []
        index = 0
        for outcome in self.outcomes:  # for one, counting is quicker than enumerate(), and this than a comprehension
            if isinstance(outcome, Sent):
                event_id = self.events[index].id
                receipts.append(Receipt(event_id, outcome.position, outcome.receivers, outcome.replicas))
            index += 1  # noqa: SIM113 - see above
        return receipts

    def _errors(self) -> list[TransportError]:
        return [outcome for outcome in self.outcomes if isinstance(outcome, TransportError)]

    def _rest(self) -> list[int]:
        """Return the indices of the events that were not accepted."""
        accepted = {index for index, outcome in enumerate(self.outcomes) if isinstance(outcome, Sent)}
        return [index for index in range(len(self.events)) if index not in accepted]

    def _end_incomplete(self, error: BaseException) -> None:
        """Keep what was accepted all the same, and say in a cancellation what is not known of the rest."""
        if self.keep is not None and (receipts := self._receipts()):
            rest = set(self._rest())
            self.keep([payload for index, payload in enumerate(self.payloads) if index not in rest], receipts)
        if isinstance(error, asyncio.CancelledError) and (
            self.maybe_published or isinstance(error.__cause__, TransportError)
        ):
            self.maybe_published = True
            error.__cause__ = self._failure()

    def _tell(self, seconds: float) -> None:
        accepted: Sequence[Event] = self.events
        rest: Sequence[Event] = ()
        if not self.is_complete:
            indices = set(self._rest())
            rest = [event for index, event in enumerate(self.events) if index in indices]
            accepted = [event for index, event in enumerate(self.events) if index not in indices]
        outcome = _UNKNOWN if self.maybe_published else _FAILED
        self.observer.published(accepted, rest, outcome, seconds)

    def _log_receipts(self) -> None:
        kinds = {event.id: str(event.type) for event in self.events}
        for receipt in self._receipts():
            kind = kinds[receipt.event_id]
            self.log.debug("event published", event_id=receipt.event_id, event_type=kind, position=receipt.position)

    def _failure(self) -> PublishError:
        errors = self._errors()
        cls = PublishOutcomeUnknown if self.maybe_published else PublishFailed
        event_ids = [self.events[index].id for index in self._rest()]
        subject = "the event was" if len(self.events) == 1 else f"{len(event_ids)} of {len(self.events)} events were"
        verdict = "perhaps published" if self.maybe_published else "not published"
        reason = errors[-1] if errors else "cancelled"
        unconfirmed = [error for error in errors if isinstance(error, NotConfirmed)]
        if unconfirmed and len(unconfirmed) == len(errors):
            return NotReplicated(
                f"{subject} not replicated: {reason}",
                event_ids=event_ids,
                receipts=self._receipts(),
                positions=[error.position for error in unconfirmed],
                replicas=min(error.replicas for error in unconfirmed),
            )
        return cls(
            f"{subject} {verdict}: {reason}",
            event_ids=event_ids,
            receipts=self._receipts(),
        )
