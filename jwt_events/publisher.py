"""Send it: the publisher turns events into bytes and sees to it that the server accepts them."""

from __future__ import annotations

import asyncio
import socket
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self, overload

from loguru import logger

from jwt_events import options
from jwt_events.envelope import MAX_WIRE_BYTES, Envelope, encode
from jwt_events.errors import (
    Closed,
    EventTooLarge,
    PublishError,
    PublishFailed,
    PublishOutcomeUnknown,
    TransportError,
)
from jwt_events.events import Event, EventType
from jwt_events.retry import backoff
from jwt_events.submission import check_retention, event_from
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


class Publisher:
    """Publishes events. Safe to use from many tasks; an async context manager around the life of a program.

    ::

        async with Publisher(RedisStream("redis://localhost")) as publisher:
            await publisher.publish(TokenRevoked.from_claims(claims, reason="logout"))

    It connects when it first publishes, and keeps that connection. An event may reach the server more than once when an
    answer is lost; its id stays the same, so a `Subscriber` handles it once.

    Args:
        transport: where to publish.
        source: who says so, for events that do not name their own source; ``None`` means the name of this host.
        timeout: seconds that a publish may take, everything included: connecting, waiting and trying again.
        max_event_bytes: the largest encoded event allowed, at most 1,048,576.

    Raises:
        InvalidOption: an option cannot work.
    """

    _stack: AsyncExitStack | None = None  # on the class, for one whose options were refused

    def __init__(
        self,
        transport: Transport,
        *,
        source: str | None = None,
        timeout: float = 5.0,
        max_event_bytes: int = 16_384,
    ) -> None:
        self._transport = transport
        self._source = socket.gethostname() or "unknown" if source is None else options.name("source", source)
        self._timeout = options.seconds("timeout", timeout)
        self._max_event_bytes = options.count("max_event_bytes", max_event_bytes, most=MAX_WIRE_BYTES)
        self._sender: Sender | None = None
        self._closed = False
        self._opening = asyncio.Lock()
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open" if self._sender is not None else "new"
        return f"<Publisher {state}, {self._transport!r}>"

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if self._stack is not None:
            warnings.warn(f"{self!r} was not closed", ResourceWarning, source=self, stacklevel=2)

    async def aclose(self) -> None:
        """Refuse further events, wait for those under way, and close the connection. Idempotent.

        Takes at most the ``timeout`` of those under way.
        """
        self._closed = True
        await self._idle.wait()
        stack, self._stack, self._sender = self._stack, None, None
        if stack is not None:
            await stack.aclose()
            logger.info("publisher closed", transport=self._transport.name, destination=self._transport.destination)

    @overload
    async def publish(self, event: Event, payload: None = None, *, timeout: float | None = None) -> Receipt: ...
    @overload
    async def publish(
        self, event: EventType | str, payload: Mapping[str, Any], *, timeout: float | None = None
    ) -> Receipt: ...
    async def publish(
        self,
        event: Event | EventType | str,
        payload: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
    ) -> Receipt:
        """Publish one event and return when the server has accepted it.

        Args:
            event: the event; or its type, with its fields in ``payload``.
            payload: the fields, if ``event`` is a type.
            timeout: seconds for all of it; ``None`` means the publisher's own.

        Raises:
            InvalidEvent: it cannot be published as given; nothing was sent. `EventTooLarge` and `OutlivesRetention`
                are kinds of it.
            PublishFailed: surely not published.
            PublishOutcomeUnknown: sent, but not answered in time. Publishing the same event again is safe.
            Closed: the publisher is closed.

        Cancelling is safe. If the event had been sent by then, the ``CancelledError`` has a `PublishOutcomeUnknown` as
        its cause.
        """
        (receipt,) = await self._publish([event_from(event, payload)], timeout)
        return receipt

    async def publish_many(self, events: Iterable[Event], *, timeout: float | None = None) -> list[Receipt]:
        """Publish events in order, many at a time, and return when the server has accepted all of them.

        All are checked before the first is sent.

        Args:
            events: the events; may be empty.
            timeout: seconds for all of them together; ``None`` means the publisher's own.

        Raises:
            The same as `publish`. A `PublishError` holds the receipts of those that were accepted and the ids of those
            that were not.
        """
        return await self._publish([event_from(event, None) for event in events], timeout)

    async def _publish(self, events: Sequence[Event], timeout: float | None) -> list[Receipt]:
        allowed = self._timeout if timeout is None else options.seconds("timeout", timeout)
        deadline = asyncio.get_running_loop().time() + allowed
        self._check_open()
        delivery = _Delivery(events, [self._encode(event) for event in events], self._transport)
        self._under_way += 1
        self._idle.clear()
        try:
            return await delivery.run(await self._open(), deadline)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    async def _open(self) -> Sender:
        async with self._opening:
            if self._sender is None:
                self._check_open()
                stack = AsyncExitStack()
                self._sender = await stack.enter_async_context(self._transport.sender())
                self._stack = stack
            return self._sender

    def _check_open(self) -> None:
        if self._closed:
            raise Closed("the publisher is closed")

    def _encode(self, event: Event) -> bytes:
        check_retention(event, self._transport.retention, datetime.now(UTC))
        payload = encode(Envelope(event), source=self._source)
        if len(payload) > self._max_event_bytes:
            raise EventTooLarge(len(payload), self._max_event_bytes)
        return payload


class _Delivery:
    """Events of one call on their way to the server, tried again until accepted, refused for good, or out of time."""

    def __init__(self, events: Sequence[Event], payloads: Sequence[bytes], transport: Transport) -> None:
        self._events = events
        self._payloads = payloads
        self._log = logger.bind(transport=transport.name, destination=transport.destination)
        self._pending = list(range(len(events)))
        self._receipts: dict[int, Receipt] = {}
        self._last_error: TransportError | None = None
        self._maybe_published = False

    async def run(self, sender: Sender, deadline: float) -> list[Receipt]:
        """Return the receipts in the order of the events, or raise a `PublishError`."""
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
