"""The publisher: encodes events and sends them until the server accepts them."""

from __future__ import annotations

import asyncio
import socket
import warnings
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from itertools import repeat
from time import monotonic
from types import TracebackType
from typing import Any, Self, TypeAlias, overload
from urllib.parse import quote

from loguru import logger

from jwt_events._internal import options
from jwt_events._internal.clock import boottime
from jwt_events._internal.loops import OwnLoop
from jwt_events._internal.positions import sort_key
from jwt_events._internal.receipt import Receipt
from jwt_events.envelope import MAX_WIRE_BYTES, ask_to_confirm, encode_event
from jwt_events.errors import Closed, EventTooLarge, InvalidEvent
from jwt_events.events import Event, EventType
from jwt_events.fleet import InForce, check_in_force
from jwt_events.instrumentation import Instrumentation, Observer, combine, instrumentation
from jwt_events.publisher._call import PublishCall
from jwt_events.publisher._reports import Reports
from jwt_events.publisher._under_way import CallsUnderWay
from jwt_events.publisher._validation import check_retention, event_from, events_from, source_from
from jwt_events.revocation import Folding
from jwt_events.tracing import AnyTracing, Publishing, Spans
from jwt_events.transport.base import Sender, Transport
from jwt_events.transport.optional import Keep, Ledgered, Registering, Republishing, has_ledger

_Trace: TypeAlias = tuple[str | None, str | None]  # traceparent and tracestate
_Sending: TypeAlias = Coroutine[Any, Any, list[Receipt]]
_UNTRACED: Iterator[_Trace] = repeat((None, None))  # for as many events as there are


class Publisher:
    """Publishes events. Safe to use from many tasks; an async context manager around the life of a program.

    ::

        async with Publisher(RedisStream("redis://localhost")) as publisher:
            await publisher.publish(TokenRevoked.from_claims(claims, reason="logout"))

    It connects when it first publishes, and keeps that connection. An event may reach the server more than once when an
    answer is lost; its id stays the same, so a `Subscriber` handles it once.

    Args:
        transport: where to publish.
        source: who says so, for events that do not name their own source: a URI-reference; ``None`` means the name of
            this host.
        timeout: seconds that a publish may take, everything included: connecting, waiting and trying again.
        max_event_bytes: the largest encoded event allowed, at most 1,048,576.
        republish: seconds for which events that a stream accepted are kept, at most 10,000 and 8 MB. Of these, the ones
            that are missing when another server has taken over are published again, with the same ids, before new ones.
            0 for none.
        metrics: a `jwt_events.metrics.Metrics`; ``None`` counts nothing.
        tracer_provider: an OpenTelemetry ``TracerProvider``, or a `jwt_events.tracing.Tracing` to choose more;
            ``None`` means the global one, as soon as there is one.

    Raises:
        InvalidOption: an option cannot work.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        source: str | None = None,
        timeout: float = 5.0,
        max_event_bytes: int = 16_384,
        republish: float = 30.0,
        metrics: Instrumentation | None = None,
        tracer_provider: AnyTracing | None = None,
    ) -> None:
        self._transport: Transport = options.transport("Publisher", transport, "sender")
        self._source = quote(socket.gethostname()) or "unknown" if source is None else source_from(source)
        self._timeout = options.seconds("timeout", timeout)
        self._max_event_bytes = options.count("max_event_bytes", max_event_bytes, maximum=MAX_WIRE_BYTES)
        self._republish = options.leeway("republish", republish)
        self._keep: Keep | None = None
        self._spans = Spans(tracer_provider, transport)
        counting = None if (found := instrumentation(metrics)) is None else found.publishing(transport.name)
        self._observer: Observer = combine(counting, self._spans.observer)
        self._log = logger.bind(transport=transport.name, destination=transport.destination)
        self._kept_for = None if has_ledger(transport) else transport.retention
        self._sender: Sender | None = None
        self._resources: AsyncExitStack | None = None  # of the sender
        self._opening = asyncio.Lock()
        self._loop = OwnLoop("the publisher")
        self._calls = CallsUnderWay()
        self._is_closed = False

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else "new" if self._resources is None else "open"
        return f"<Publisher {state}, {self._transport!r}>"

    @property
    def transport(self) -> Transport:
        """Where it publishes."""
        return self._transport

    async def __aenter__(self) -> Self:
        if self._is_closed and not self._calls and self._resources is None:
            self._is_closed, self._opening = False, asyncio.Lock()
        self._check_open()
        await self._open()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if getattr(self, "_resources", None) is not None:  # there are none if the options were refused
            warnings.warn(f"{self!r} was not closed", ResourceWarning, source=self, stacklevel=2)

    async def aclose(self) -> None:
        """Refuse further events until it is entered again, wait for the calls under way, and close the connection.

        Idempotent. Takes at most the ``timeout`` of those calls. Cancelling it closes the connection at once.

        Raises:
            WrongLoop: it was opened in another event loop.
        """
        if self._resources is not None:
            self._loop.check()
        self._is_closed = True
        try:
            await self._calls.wait()
        finally:
            resources, self._resources, self._sender = self._resources, None, None
            if resources is not None:
                await resources.aclose()
                self._loop.release()
                self._log.info("publisher closed")

    async def _open(self) -> Sender:
        """Return the sender that all calls share; the first call opens it."""
        self._loop.bind()
        async with self._opening:
            if self._sender is None:
                self._check_open()
                resources, reports = AsyncExitStack(), Reports(self._observer, self._log)
                self._sender = await resources.enter_async_context(self._transport.sender())
                if isinstance(self._transport, Ledgered):
                    folding = self._transport.folding(Folding(), reports.ledger)
                    await resources.enter_async_context(folding)
                if self._republish and isinstance(self._sender, Republishing):
                    self._keep = self._sender.keep(self._republish, reports.republished)
                self._resources = resources
            return self._sender

    def _check_open(self) -> None:
        if self._is_closed:
            raise Closed("the publisher is closed")
        self._loop.check()

    @overload
    async def publish(
        self, event: Event, payload: None = None, *, timeout: float | None = None, in_force: InForce | None = None
    ) -> Receipt: ...
    @overload
    async def publish(
        self,
        event: EventType | str,
        payload: Mapping[str, Any],
        *,
        timeout: float | None = None,
        in_force: InForce | None = None,
    ) -> Receipt: ...
    async def publish(
        self,
        event: Event | EventType | str,
        payload: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        in_force: InForce | None = None,
    ) -> Receipt:
        """Publish one event and return when the server has accepted it.

        Args:
            event: the event; or its type, with its fields in ``payload``.
            payload: the fields, if ``event`` is a type.
            timeout: seconds until it is accepted; ``None`` means the publisher's own.
            in_force: `Lease` or `Fleet`: return when the event is in force everywhere, as `Receipt.propagation` says.
                Cancelled in the meantime, the event is published all the same.

        Raises:
            InvalidEvent: it cannot be published as given; nothing was sent. `EventTooLarge` and `OutlivesRetention`
                are kinds of it.
            PublishFailed: surely not published.
            PublishOutcomeUnknown: sent, but not answered in time. Publishing the same event again is safe.
            NotReplicated: accepted, but not in time by as many replicas as the transport asks for; a kind of it.
            Closed: the publisher is closed.
            WrongLoop: it was opened in another event loop; nothing was sent.

        Cancelling is safe. If the event had been sent by then, the ``CancelledError`` has a `PublishOutcomeUnknown` as
        its cause.
        """
        if in_force is not None:
            return (await self._publish_in_force([event_from(event, payload)], timeout, in_force))[0]
        return (await self._publish([event_from(event, payload)], timeout))[0]

    async def publish_many(
        self, events: Iterable[Event], *, timeout: float | None = None, in_force: InForce | None = None
    ) -> list[Receipt]:
        """Publish events in order, many at a time, and return when the server has accepted all of them.

        All are checked before the first is sent.

        Args:
            events: the events; may be empty.
            timeout: seconds for all of them together; ``None`` means the publisher's own.
            in_force: as in `publish`; waited for once, when all are accepted.

        Raises:
            The same as `publish`. A `PublishError` holds the receipts of those that were accepted and the ids of those
            that were not.
        """
        accepted = events_from(events)
        if in_force is not None:
            return await self._publish_in_force(accepted, timeout, in_force)
        return await self._publish(accepted, timeout)

    async def _publish_in_force(
        self, events: Sequence[Event], timeout: float | None, in_force: InForce
    ) -> list[Receipt]:
        check_in_force(in_force, self._transport)
        receipts = await self._publish(events, timeout, confirm=True)
        accepted_at = boottime()
        if not receipts:
            return receipts
        positions = [receipt.position for receipt in receipts if receipt.position is not None]
        last = max(positions, key=sort_key, default=None)
        at_hand = self._sender if isinstance(self._sender, Registering) else self._transport
        propagation = await in_force.wait(at_hand, last, accepted_at)
        return [replace(receipt, propagation=propagation) for receipt in receipts]

    def _publish(self, events: Sequence[Event], timeout: float | None, *, confirm: bool = False) -> _Sending:
        deadline = monotonic() + (self._timeout if timeout is None else options.seconds("timeout", timeout))
        if self._is_closed or not self._loop.is_current():
            self._check_open()
        asking = events[-1] if confirm and events else None  # who has applied the last one has applied all
        if (publishing := self._spans.publishing(events)) is not None:
            return self._send_in_span(events, publishing, asking, deadline)
        return self._send(events, self._encode(events, _UNTRACED, asking), deadline)

    async def _send_in_span(
        self, events: Sequence[Event], publishing: Publishing, asking: Event | None, deadline: float
    ) -> list[Receipt]:
        with publishing as traces:
            return await self._send(events, self._encode(events, iter(traces), asking), deadline)

    def _send(self, events: Sequence[Event], payloads: Sequence[bytes], deadline: float) -> _Sending:
        if (sender := self._sender) is None:
            return self._open_and_send(events, payloads, deadline)
        call = PublishCall(sender, self._observer, self._log, events, payloads, self._keep, self._calls)
        return call.run(deadline)

    async def _open_and_send(self, events: Sequence[Event], payloads: Sequence[bytes], by: float) -> list[Receipt]:
        self._calls.begin()
        try:
            await self._open()
            return await self._send(events, payloads, by)
        finally:
            self._calls.end()

    def _encode(self, events: Sequence[Event], traces: Iterator[_Trace], asking: Event | None) -> list[bytes]:
        payloads = []
        for event in events:
            parent, state = next(traces)
            try:
                if self._kept_for is not None and event.needed_until is not None:
                    check_retention(event, self._kept_for, datetime.now(UTC))
                payload = encode_event(event, self._source, parent, state)
                if event is asking:
                    payload = ask_to_confirm(payload)
                if len(payload) > self._max_event_bytes:
                    raise EventTooLarge(len(payload), self._max_event_bytes)
            except InvalidEvent:
                self._observer.refused(event)
                raise
            payloads.append(payload)
        return payloads
