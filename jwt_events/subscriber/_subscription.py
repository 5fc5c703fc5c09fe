"""One subscription of a subscriber: from subscribed to unsubscribed, whatever ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from loguru import logger

from jwt_events._internal.cancellation import HostCancellation, cancel_until_done
from jwt_events._internal.notices import Notices
from jwt_events.envelope import Decoder, Envelope, Readership
from jwt_events.errors import Closed
from jwt_events.events import Handler, Routes
from jwt_events.instrumentation import Observer
from jwt_events.subscriber._dispatcher import Dispatcher
from jwt_events.subscriber._job import HANDLED, CutOff, Job, Outcome
from jwt_events.subscriber._pull import PullQueue
from jwt_events.subscriber._reader import Counters, Reader, SeenIds
from jwt_events.tracing import Spans
from jwt_events.transport.base import Delivery, Gap, Receiver

# How long a host whose subscriber failed may clean up: as long as frameworks take to let requests end.
_HOST_GRACE = 30.0

# Scopes of anyio cancel again at each turn of the loop, so inside of one that is cancelled nothing can be drained.
_NOT_DRAINED = "not drained: cancelled again while handlers were running, which are cut off"


class SubscriberState(StrEnum):
    """The state of a subscriber.

    Attributes:
        CONNECTING: it is being entered, or it has lost its connection and opens a new one.
        LIVE: it receives events.
        FAILED: reading failed for good; `Subscriber.failure` says why.
        CLOSED: it is not open, or was told to end and reads no more.
    """

    CONNECTING = "connecting"
    LIVE = "live"
    FAILED = "failed"
    CLOSED = "closed"


@dataclass(slots=True)
class SubscriberRecord:
    """What a subscriber keeps from one subscription to the next: its handlers, and what it knows of past events.

    Attributes:
        observer: is told what happens.
        spans: makes the spans.
        readership: decodes events, with the other readers of the same destination.
        routes: which handlers want which events.
        gap_handlers: the handlers of gaps.
        has_consumer: set as soon as there are handlers or ``events()``; until then events wait.
        seen: the ids of events that came already.
        counters: what was counted.
        notices: where problems are told.
    """

    observer: Observer
    spans: Spans
    readership: Readership
    routes: Routes = field(default_factory=Routes)
    gap_handlers: list[Handler] = field(default_factory=list)
    has_consumer: asyncio.Event = field(default_factory=asyncio.Event)
    seen: SeenIds = field(default_factory=SeenIds)
    counters: Counters = field(default_factory=Counters)
    notices: Notices = field(default_factory=Notices)

    def begin(self, resources: AsyncExitStack) -> None:
        """Begin a subscription, which ends when these resources are closed."""
        resources.enter_context(self.readership)
        # That of an earlier subscription may belong to another event loop.
        self.has_consumer = asyncio.Event()
        if self.routes:
            self.has_consumer.set()


class Subscription:
    """Reads events and passes them on to handlers or to ``events()``, until it is ended or reading fails for good.

    Args:
        receiver: where deliveries come from.
        dispatcher: runs the handlers.
        state: what outlives this subscription.
        resources: what to close in the end.
        concurrency: how many events ``events()`` may have outstanding.
        redelivers: whether an event that is left unsettled is delivered again.
        ending: set when the end begins.

    Attributes:
        dispatcher: runs the handlers.
        failure: what ended the reading for good, if something did.
        host: cancels the task inside ``async with``.
        pull: the events for ``events()``; ``None`` while handlers take them.
        reader: the task that reads.
    """

    def __init__(
        self,
        receiver: Receiver,
        dispatcher: Dispatcher,
        state: SubscriberRecord,
        resources: AsyncExitStack,
        *,
        concurrency: int,
        redelivers: bool,
        ending: asyncio.Event,
    ) -> None:
        self.dispatcher = dispatcher
        dispatcher.on_ended = self._ended
        self.failure: Exception | None = None
        self.host: HostCancellation = HostCancellation(grace=_HOST_GRACE)
        self.pull: PullQueue | None = None
        self._concurrency = concurrency
        self._redelivers = redelivers
        self._is_ending = ending
        self._receiver = receiver
        self._state = state
        self._resources = resources
        self._reading = Reader(
            receiver,
            accept=self._accept,
            report=self._report,
            prepare=self._prepare,
            seen=state.seen,
            counters=state.counters,
            observer=state.observer,
            notices=state.notices,
        )
        _observe(receiver, state.observer, resources)
        self._closing = asyncio.Lock()
        self._ending: asyncio.Task[None] | None = None
        self.reader: asyncio.Task[None] = asyncio.create_task(self._reading.run(), name="jwt_events reader")
        self.reader.add_done_callback(self._reader_ended)

    @property
    def state(self) -> SubscriberState:
        """Whether it receives events now."""
        if self.failure is not None:
            return SubscriberState.FAILED
        if self.reader.done():
            return SubscriberState.CLOSED
        return SubscriberState.LIVE if self._reading.is_live else SubscriberState.CONNECTING

    @property
    def proven_at(self) -> float:
        """When the last read that the server answered was sent, by `boottime`."""
        return self._reading.proven_at

    def _prepare(self) -> Decoder:
        """Look for a tracer, and return how to decode events: once for a batch of them."""
        self._state.spans.find_tracer()
        return self._state.readership.decoder()

    def _accept(self, envelope: Envelope, delivery: Delivery) -> Awaitable[None] | None:
        """Pass an event on; return what to wait for, if there is no room or no consumer."""
        state = self._state
        handlers = state.routes.by_class[type(envelope.event)]
        trace = None if state.spans.tracer is None else state.spans.processing(envelope)
        job = Job(envelope.event, len(handlers), delivery, state.observer, trace, delivery.attempt)
        if handlers and self.pull is None:
            return self.dispatcher.submit(job, handlers)
        if self.pull is not None or not state.has_consumer.is_set():
            return self._accept_later(job)
        self._ended(job, HANDLED)
        return None

    async def _accept_later(self, job: Job) -> None:
        await self._state.has_consumer.wait()
        if self.pull is not None:
            await self.pull.put(job)
            return
        handlers = self._state.routes.by_class[type(job.subject)]
        job.left = len(handlers)
        if not handlers:
            self._ended(job, HANDLED)
        elif (waiting := self.dispatcher.submit(job, handlers)) is not None:
            await waiting

    def _ended(self, job: Job, outcome: Outcome) -> None:
        """Settle an event whose handlers have ended; one that was cut off is left for its next delivery."""
        counters = self._state.counters
        if (delivery := job.delivery) is None:  # a gap
            return
        if outcome is HANDLED:
            counters.handled += 1
            self._receiver.settle(delivery)
            return
        self._state.seen.forget(job.subject.id, job.subject.source)
        counters.failed += 1
        if outcome.incomplete:
            self._reading.mark_begun()
        if outcome.finished and not (self._redelivers and isinstance(outcome.failure, CutOff)):
            counters.dead_lettered += 1
            self._state.observer.dead_lettered(job.subject)
            self._receiver.settle(delivery, outcome.failure)

    def _report(self, gap: Gap) -> None:
        handlers = self._state.gap_handlers
        self.dispatcher.submit_gap(Job(gap, len(handlers)), handlers)

    @contextmanager
    def pulling(self) -> Iterator[PullQueue]:
        """Switch from handlers to a pull queue, which ends when the reading does."""
        if self.pull is None:
            self.pull = PullQueue(self._concurrency, self._ended)
            if self.reader.done():
                self.pull.close()
        elif self.pull.is_consumed:
            raise Closed("events() is running already")
        self.pull.is_consumed = True  # the iterator raises a failure
        try:
            yield self.pull
        except GeneratorExit:  # the loop was left early, perhaps before the failure was raised
            asyncio.get_running_loop().call_soon(self._cancel_host)
            raise
        finally:
            self.pull.is_consumed = False

    def drop_abandoned(self) -> None:
        """Drop the events that were read ahead for an iterator that has ended."""
        if self.pull is None or self.pull.is_consumed:
            return
        if dropped := self.pull.clear():
            for event in dropped:
                self._state.seen.forget(event.id, event.source)
            self._state.counters.dropped += len(dropped)
            logger.warning("deliveries dropped, the subscriber was stopped", count=len(dropped))

    def _reader_ended(self, reader: asyncio.Task[None]) -> None:
        if not reader.cancelled() and isinstance(error := reader.exception(), Exception):
            self.failure = error
            self._state.notices.tell("ERROR", "listening failed", once="listening failed", error=str(error))
            if self.pull is None or not self.pull.is_consumed:
                self._cancel_host()
        if self.pull is not None:
            self.pull.close()

    def _cancel_host(self) -> None:
        if self.failure is not None:
            self.host.cancel("the subscriber failed")

    async def end(self, *, discard: bool, within: float) -> None:
        """Stop reading, finish or drop what was read, wait for handlers, cancel the rest, close. Idempotent.

        Called by a handler, or by what a handler started, it returns at once and leaves the work to a task: ending
        waits for that handler, too.

        Args:
            discard: drop what was read and not started.
            within: seconds after which handlers are cancelled.
        """
        deadline = asyncio.get_running_loop().time() + within
        self._is_ending.set()
        self._reading.stop(discard=discard or self.pull is not None)
        if self.dispatcher.is_calling():
            if self._ending is None:
                self._ending = asyncio.create_task(self._end(deadline), name="jwt_events ending")
        else:
            await self._end(deadline)

    async def _end(self, deadline: float) -> None:
        """End by a deadline. Several calls may be under way, each with its own: the earliest counts."""
        loop = asyncio.get_running_loop()
        try:
            await asyncio.wait([self.reader], timeout=max(0.0, deadline - loop.time()))
            cancel_until_done(self.reader)
            await self.dispatcher.finish(max(0.0, deadline - loop.time()))
        except asyncio.CancelledError:
            if count := self.dispatcher.in_flight:
                self._state.notices.tell("WARNING", _NOT_DRAINED, once=_NOT_DRAINED, count=count)
            cancel_until_done(self.reader)
            await self.dispatcher.finish(0.0)
            raise
        finally:
            try:
                await asyncio.wait([self.reader])
            finally:  # even if the cancellation arrives only there
                async with self._closing:
                    await self._resources.aclose()


def _observe(receiver: Receiver, observer: Observer, resources: AsyncExitStack) -> None:
    """Let a receiver tell the observer what it finds itself, until these resources are closed."""
    if (backlog := getattr(receiver, "backlog", None)) is not None:
        backlog.tell = observer.backlog
        resources.callback(_stop_telling, backlog, observer)  # the first thing that closing does
    if (settler := getattr(receiver, "settler", None)) is not None:
        settler.on_dropped = observer.dead_letters_dropped


def _stop_telling(backlog: Any, observer: Observer) -> None:
    backlog.tell = None
    observer.unsubscribed()
