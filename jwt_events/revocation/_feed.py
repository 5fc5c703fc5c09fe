"""Reader of a durable transport for a local replica: its whole history first, then every new event, until cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from enum import Enum
from typing import Protocol

from jwt_events._internal import options
from jwt_events._internal.describing import describe
from jwt_events._internal.notices import Notices
from jwt_events._internal.retry import backoff
from jwt_events.envelope import Readership
from jwt_events.errors import (
    Closed,
    ConnectionFailed,
    DecodeError,
    InvalidOption,
    NotProven,
    ServerRefused,
    TransportError,
)
from jwt_events.events import Event
from jwt_events.transport.base import Batch, Delivery, Gap, Receiver, Transport
from jwt_events.transport.optional import Ledgered

# Seconds without a new event after which catching up fails: longer than a server takes to come back.
_MAX_STALL = 10.0
_STALL_CAUSE = "the server does not reply"

# The reason why nothing is proven where the server sent an error reply: a right is missing, or a password.
_REFUSED = "refused"

# Seconds before a failed feed reads again, short at first: rights and passwords are corrected while services run.
_INITIAL_PAUSE = 0.5
_MAX_PAUSE = 5.0


# From so many events on it pays to look at them together.
_MANY = 16


class Opening(Enum):
    """What must have happened before a replica opens."""

    HISTORY = "the history was read"
    ATTEMPT = "reading it was attempted, and did not fail for good"
    NOTHING = "nothing"

    @classmethod
    def of(cls, *, wait: bool, allows_stale: bool) -> Opening:
        """Return what the options of a replica mean."""
        if not wait:
            return cls.NOTHING
        return cls.ATTEMPT if allows_stale else cls.HISTORY

    def tolerates(self, error: Exception) -> bool:
        """Whether reading is tried again after it failed with this error before the history was read."""
        is_temporary = isinstance(error, TransportError) and error.retryable
        return self is Opening.NOTHING or (self is Opening.ATTEMPT and is_temporary)


class FeedListener(Protocol):
    """Receives what a feed reads."""

    def apply_event(self, event: Event) -> None:
        """Apply an event; events come in order, with an occasional duplicate."""

    def apply_many(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Apply deliveries of which the events are not needed, and return the others."""

    def restore(self, entries: Sequence[tuple[bytes, float]]) -> int:
        """Put entries of a ledger in force, and return how many of them are no rules."""

    def count_decode_error(self, error: DecodeError) -> None:
        """Count a delivery that could not be decoded, and was skipped."""

    def report_gap(self, gap: Gap) -> None:
        """Report that events may have been missed."""

    def count_reconnect(self) -> None:
        """Count a lost connection that was replaced."""

    def record_position(self, position: str, *, history: str, confirm: bool) -> None:
        """Record up to where all events of a history have been applied, and whether a publisher waits to hear of it."""

    def record_proof(self, current_as_of: float) -> None:
        """Record that all events that existed at that time (`boottime`) have been applied."""

    def refuse_proof(self, reason: str) -> None:
        """Record that what the server said proves nothing; the reason is that of `NotProven`."""


class Feed:
    """Reads a transport from its oldest event on, across lost connections, restarts and refusals of its server.

    It only reads: it neither acknowledges nor dead-letters, so a service needs no right to write for it.

    Args:
        transport: the transport to read; durable, and every receiver sees every event.
        listener: receives what is read.
        poll_timeout: seconds after which a read without new events returns, which proves that there are none.
        opening: what must have happened before the replica opens.
        region: the name of the region that it reads, for the log; empty where there are none.

    Attributes:
        opened: done when the replica may open; has the error if it may not.
        caught_up: done when the whole history has been applied; has the error if that failed.
        failure: the error of the last attempt to read; ``None`` while reading works.
    """

    def __init__(
        self,
        transport: Transport,
        listener: FeedListener,
        *,
        poll_timeout: float,
        opening: Opening = Opening.HISTORY,
        region: str = "",
    ) -> None:
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.caught_up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.failure: Exception | None = None
        self.cut_off: tuple[str, ...] = ()  # there is no region to go without
        self._transport = transport
        self._readership = Readership(transport)
        self._listener = listener
        self._poll_timeout = poll_timeout
        self._notices = Notices()
        self._opening = opening
        self._failures = 0
        self._place = {"transport": transport.name, "destination": transport.destination}
        if region:
            self._place["region"] = region

    async def run(self, *, after: Mapping[str, asyncio.Event]) -> None:
        """Read until cancelled. Returns by itself only if the replica could not open.

        Args:
            after: what must be set before the first read.
        """
        if self._opening is Opening.NOTHING:
            self._open_early()
        try:
            for event in after.values():
                await event.wait()
            while True:
                try:
                    with self._readership:
                        await self._read()
                except Exception as error:  # noqa: BLE001 - a feed that ends would miss revocations, whatever the error
                    if _is_cancelled():
                        return  # the error came while the cancelled task was ending
                    if not self.caught_up.done() and not self._opening.tolerates(error):
                        self.failure = error
                        self._fail_catch_up(error)
                        return
                    self._open_early()
                    await self._pause(error)
        finally:
            self.close()

    def close(self) -> None:
        """End the waiting for what was not read: also if `run` was cancelled before it began. Idempotent."""
        self._fail_catch_up(Closed("closed before the history was read"))

    async def _pause(self, error: Exception) -> None:
        """Tell of a failure, and wait before the next attempt."""
        self._failures = 1 if self.failure is None else self._failures + 1
        self.failure = error
        if isinstance(error, ServerRefused):
            self._listener.refuse_proof(_REFUSED)
        problem = str(error) if isinstance(error, TransportError) else describe(error)
        self._tell("ERROR", "following failed and will be tried again", error=problem, attempt=self._failures)
        await asyncio.sleep(backoff(self._failures, initial=_INITIAL_PAUSE, maximum=_MAX_PAUSE))

    def _fail_catch_up(self, error: Exception) -> None:
        """Fail `caught_up` and `opened`, unless they are done."""
        for future in (self.caught_up, self.opened):
            if not future.done():
                future.set_exception(error)
                future.exception()  # marks it as retrieved: its waiter may be gone

    def _open_early(self) -> None:
        """Let the replica open although its history was not read, unless it is open."""
        if not self.opened.done():
            self._tell("WARNING", "opened before the history was read: stale until then")
            self.opened.set_result(None)

    async def _read(self) -> None:
        now = asyncio.get_running_loop().time
        async with self._receiver() as receiver:
            moved_at = now()
            while True:
                try:
                    batch = await receiver.receive()
                except TransportError as error:
                    if not self.caught_up.done() or _is_cancelled():
                        raise
                    # Only this receiver knows what it has read, and from which run of the server: it tells what is lost
                    # until it may read again. Another one would begin with what is left.
                    await self._pause(error)
                    continue
                self._apply(batch)
                if batch.refusal is not None:
                    self._refuse_proof(batch.refusal)
                if batch.current_as_of is not None:
                    self._record_proof(batch.current_as_of)
                if batch.deliveries or batch.ledger:
                    moved_at = now()
                elif not self.caught_up.done() and now() - moved_at > _MAX_STALL:
                    cause = _STALL_CAUSE if self.failure is None else self.failure
                    raise ConnectionFailed(f"{self._transport.destination!r} cannot be proven current: {cause}")

    def _receiver(self) -> AbstractAsyncContextManager[Receiver]:
        if isinstance(self._transport, Ledgered):
            return self._transport.replica_receiver(poll_timeout=self._poll_timeout)
        return self._transport.receiver(from_oldest=True, poll_timeout=self._poll_timeout)

    def _apply(self, batch: Batch) -> None:
        if batch.reconnected:
            self._listener.count_reconnect()
        for gap in batch.gaps:
            self._report(gap)
        if batch.ledger and (foreign := self._listener.restore(batch.ledger)):
            self._report(Gap(None, "ledger", foreign))
        confirm = False
        deliveries = batch.deliveries
        if len(deliveries) >= _MANY:
            deliveries = self._listener.apply_many(deliveries)
        decode = self._readership.decoder()
        for delivery in deliveries:
            try:
                envelope = decode(delivery.payload)
            except DecodeError as error:
                self._skip(delivery, error)
            else:
                self._listener.apply_event(envelope.event)
                confirm = confirm or envelope.confirm
        position = batch.reached or (batch.deliveries[-1].position if batch.deliveries else None)
        if position is not None:
            self._listener.record_position(position, history=batch.history, confirm=confirm)

    def _report(self, gap: Gap) -> None:
        told = {"cause": gap.cause, "since": gap.since, "lost": gap.lost}
        if gap.cause == "ledger":
            self._tell("ERROR", "the ledger lacks entries, or holds what is no rule", **told)
        else:
            self._tell("WARNING", "events may have been missed", **told)
        self._listener.report_gap(gap)

    def _tell(self, level: str, message: str, **fields: object) -> None:
        kind = (message, fields.get("cause"), fields.get("reason"))
        self._notices.tell(level, message, once=kind, **fields, **self._place)

    def _skip(self, delivery: Delivery, error: DecodeError) -> None:
        self._tell(
            "ERROR",
            "delivery skipped: not an event",
            reason=error.reason,
            detail=error.detail,
            position=delivery.position,
            size=len(delivery.payload) + delivery.missing,
        )
        self._listener.count_decode_error(error)

    def _refuse_proof(self, refusal: NotProven) -> None:
        self.failure = refusal
        self._tell("WARNING", "not proven current", reason=refusal.reason, error=str(refusal))
        self._listener.refuse_proof(refusal.reason)

    def _record_proof(self, current_as_of: float) -> None:
        self.failure = None
        self._listener.record_proof(current_as_of)
        for future in (self.caught_up, self.opened):
            if not future.done():
                future.set_result(None)


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def require_replayable(transport: Transport) -> Transport:
    """Return the transport, if it is durable and every receiver sees every event.

    Raises:
        InvalidOption: it is not such a transport.
    """
    guarantees = options.transport("RevocationList", transport, "receiver").guarantees
    if not guarantees.durable:
        problem = (
            f"{transport.name} is not durable: an instance that starts, or was disconnected for a moment, would let"
            " revoked tokens in; use RedisStream"
        )
        raise InvalidOption("transport", problem)
    if not guarantees.fan_out:
        raise InvalidOption("transport", "shares events within a group, but each instance must see all: use no group")
    return transport
