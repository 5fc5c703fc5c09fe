"""One life of a subscriber: from subscribed to unsubscribed, whatever ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field

from loguru import logger

from jwt_events._internal.cancellation import HostCancellation
from jwt_events.envelope import Envelope
from jwt_events.errors import Closed
from jwt_events.events import Event, Handler, Routes
from jwt_events.instrumentation import Observers
from jwt_events.subscriber._dedup import SeenIds
from jwt_events.subscriber._dispatcher import Dispatcher
from jwt_events.subscriber._job import Job, Outcome
from jwt_events.subscriber._reader import Counters, Reader
from jwt_events.tracing import Spans
from jwt_events.transport.base import Delivery, Gap, Receiver


@dataclass(frozen=True, slots=True)
class PulledEvent:
    """An event that the program takes itself, and the work that this is."""

    event: Event
    work: Job


@dataclass(slots=True)
class SubscriberState:
    """Who takes the events, who looks on, and what is known of those that came. Outlives the lives of a subscriber.

    Attributes:
        observers: whom to tell what happens.
        spans: makes the spans.
        routes: which handlers want which events.
        gap_handlers: whom to tell of gaps.
        wanted: set as soon as somebody is there to take events; until then they wait.
        seen: which events came already.
        tally: what was counted.
    """

    observers: Observers
    spans: Spans
    routes: Routes = field(default_factory=Routes)
    gap_handlers: list[Handler] = field(default_factory=list)
    wanted: asyncio.Event = field(default_factory=asyncio.Event)
    seen: SeenIds = field(default_factory=SeenIds)
    tally: Counters = field(default_factory=Counters)


class Subscription:
    """One life of a subscriber, from subscribed to unsubscribed.

    Args:
        receiver: where deliveries come from.
        dispatcher: runs the handlers.
        audience: who takes the events.
        resources: what to close in the end.
        concurrency: how many events may have been handed out and not come back.
    """

    def __init__(
        self,
        receiver: Receiver,
        dispatcher: Dispatcher,
        audience: SubscriberState,
        resources: AsyncExitStack,
        *,
        concurrency: int,
    ) -> None:
        self.dispatcher = dispatcher
        self.failure: Exception | None = None
        self.interruption: HostCancellation = HostCancellation()
        self.inbox: asyncio.Queue[PulledEvent | None] | None = None
        self._room = asyncio.Semaphore(concurrency)
        self._receiver = receiver
        self._audience = audience
        self._resources = resources
        self._intake = Reader(
            receiver,
            accept=self._accept,
            report=self._report,
            seen=audience.seen,
            tally=audience.tally,
            observers=audience.observers,
        )
        self._closing = asyncio.Lock()
        self._is_handing_out = False
        self._helper: asyncio.Task[None] | None = None
        self.reader: asyncio.Task[None] = asyncio.create_task(self._intake.run(), name="jwt_events reader")
        self.reader.add_done_callback(self._reader_ended)

    def _accept(self, envelope: Envelope, delivery: Delivery) -> Awaitable[None] | None:
        """Pass an event on; returns what to wait for, if there is no room or nobody there."""
        if self.inbox is not None or not self._audience.wanted.is_set():
            return self._accept_later(envelope, delivery)
        handlers = self._audience.routes.to(envelope.event)
        work = self._work(envelope, delivery, len(handlers))
        if not handlers:
            self._come_back(work, Outcome())
            return None
        return self.dispatcher.submit(envelope.event, work, handlers)

    async def _accept_later(self, envelope: Envelope, delivery: Delivery) -> None:
        await self._audience.wanted.wait()
        if self.inbox is not None:
            await self._room.acquire()
            self.inbox.put_nowait(PulledEvent(envelope.event, self._work(envelope, delivery, 1)))
        elif (waiting := self._accept(envelope, delivery)) is not None:
            await waiting

    def _work(self, envelope: Envelope, delivery: Delivery, handlers: int) -> Job:
        audience = self._audience
        return Job(
            envelope.event,
            handlers,
            self._come_back,
            delivery=delivery,
            observers=audience.observers,
            trace=audience.spans.processing(envelope),
        )

    def _come_back(self, work: Job, outcome: Outcome) -> None:
        """Settle an event whose handlers have ended; one that was cut off is left for its next delivery."""
        delivery, tally = work.delivery, self._audience.tally
        assert delivery is not None  # noqa: S101 - every event came with one
        if outcome.finished and outcome.failure is None:
            tally.handled += 1
            self._receiver.settle(delivery)
            return
        tally.failed += 1
        self._audience.seen.forget(work.subject.id)
        if outcome.finished:
            tally.dead_lettered += 1
            for observer in self._audience.observers:
                observer.dead_lettered(work.subject)
            self._receiver.settle(delivery, outcome.failure)

    def _report(self, gap: Gap) -> None:
        self.dispatcher.submit_gap(Job(gap), self._audience.gap_handlers)

    def hand_back(self, handout: PulledEvent) -> None:
        """Take back an event that was handed out."""
        self._room.release()
        handout.work.hand_back(finished=True)

    def drop(self, handout: PulledEvent) -> None:
        """Take back an event that was handed out and not finished."""
        self._room.release()
        handout.work.hand_back(finished=False)

    @contextmanager
    def handing_out(self) -> Iterator[asyncio.Queue[PulledEvent | None]]:
        """Switch from handlers to an inbox, which ends with ``None`` when the reader does."""
        if self._is_handing_out:
            raise Closed("events() is running already")
        if self.inbox is None:
            self.inbox = asyncio.Queue()
            if self.reader.done():
                self.inbox.put_nowait(None)
        self._is_handing_out = True  # a failure is told by the iterator
        try:
            yield self.inbox
        except GeneratorExit:  # the loop was left early, perhaps before it was told
            asyncio.get_running_loop().call_soon(self._interrupt_host)
            raise
        finally:
            self._is_handing_out = False

    def drop_abandoned(self) -> None:
        """Drop what was read ahead and will not be asked for any more."""
        if self.inbox is None or self._is_handing_out:
            return
        dropped = 0
        while not self.inbox.empty():
            if (handout := self.inbox.get_nowait()) is not None:
                self._audience.seen.forget(handout.event.id)
                dropped += 1
        self.inbox.put_nowait(None)
        if dropped:
            self._audience.tally.dropped += dropped
            logger.warning("deliveries dropped, the subscriber was stopped", count=dropped)

    def _reader_ended(self, reader: asyncio.Task[None]) -> None:
        if not reader.cancelled() and isinstance(error := reader.exception(), Exception):
            self.failure = error
            logger.error("listening failed", error=str(error))
            if not self._is_handing_out:
                self._interrupt_host()
        if self.inbox is not None:
            self.inbox.put_nowait(None)

    def _interrupt_host(self) -> None:
        if self.failure is not None:
            self.interruption.send("the subscriber failed")

    async def end(self, *, discard: bool, within: float) -> None:
        """Stop reading, finish or drop what was read, wait for handlers, cancel the rest, close. Idempotent.

        From a handler it returns at once and leaves the ending to a task: the ending waits for the handlers.
        """
        deadline = asyncio.get_running_loop().time() + within
        self._intake.stop(discard=discard or self.inbox is not None)
        if self.dispatcher.is_running(asyncio.current_task()):
            if self._helper is None:
                self._helper = asyncio.create_task(self._end(deadline), name="jwt_events ending")
        else:
            await self._end(deadline)

    async def _end(self, deadline: float) -> None:
        """End within a deadline of its own, whoever else is ending this life at the same time: the earliest counts."""
        loop = asyncio.get_running_loop()
        try:
            await asyncio.wait([self.reader], timeout=max(0.0, deadline - loop.time()))
            self.reader.cancel()
            await self.dispatcher.finish(max(0.0, deadline - loop.time()))
        except asyncio.CancelledError:
            self.reader.cancel()
            await self.dispatcher.finish(0.0)
            raise
        finally:
            try:
                await asyncio.wait([self.reader])
            finally:  # even if the cancellation arrives only there
                async with self._closing:
                    await self._resources.aclose()
