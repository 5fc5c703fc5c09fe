"""The subscriber: receives events from a transport and runs handlers, or hands them out one by one."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Hashable
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from typing import Self

from loguru import logger

from jwt_events._internal import options
from jwt_events._internal.clock import boottime
from jwt_events._internal.functions import plain_function
from jwt_events._internal.loops import OwnLoop
from jwt_events._internal.retry import Retry
from jwt_events.envelope import Readership
from jwt_events.errors import Closed, InvalidOption
from jwt_events.events import Event
from jwt_events.instrumentation import Instrumentation, combine, instrumentation
from jwt_events.subscriber._dispatcher import Dispatcher
from jwt_events.subscriber._invoker import HandlerInvoker
from jwt_events.subscriber._registration import Registration
from jwt_events.subscriber._subscription import SubscriberRecord, SubscriberState, Subscription
from jwt_events.tracing import AnyTracing, Spans
from jwt_events.transport.base import Receiver, Transport


@dataclass(frozen=True, slots=True)
class SubscriberStats:
    """Counts of what a subscriber has done since it was made.

    Attributes:
        received: deliveries read, whatever became of them.
        handled: events all of whose handlers succeeded, or that have no handler.
        failed: events one of whose handlers failed for good, or was cancelled.
        dead_lettered: of those, the events that were given up; a durable transport keeps them as dead letters.
        duplicates: deliveries of an event that was received before; skipped.
        decode_errors: deliveries that are not events; skipped.
        dropped: deliveries that had been read when the subscriber was stopped, and were passed to no handler.
        gaps: how often events may have been missed.
        in_flight: handlers that are running now.
    """

    received: int
    handled: int
    failed: int
    dead_lettered: int
    duplicates: int
    decode_errors: int
    dropped: int
    gaps: int
    in_flight: int


class Subscriber(Registration):
    """Receives events and runs handlers as tasks. Start it in one of three ways.

    In the background of a program, ready when entered, drained when left::

        subscriber = Subscriber(RedisStream("redis://localhost"))

        @subscriber.on(TokenRevoked, SessionDestroyed)
        async def forget(event): ...

        async with subscriber:
            await serve()

    As a program of its own, until cancelled: ``await subscriber.run()``. Or without handlers, one event at a time:
    ``async for event in subscriber.events()``.

    Each call of a handler has a context (`contextvars`) of its own. Handlers that do not wait for anything may share
    a task with others; one that waits has a task for itself.

    If reading fails for good, the task inside ``async with`` is cancelled, again and again until the block ends, and
    the error is raised there: a service that no longer hears about revocations must not go on as if it did.

    Args:
        transport: where to listen.
        concurrency: how many handlers may run at once; when all are busy, reading pauses.
        drain_timeout: seconds that handlers may go on for when the subscriber ends, before they are cancelled.
        handler_timeout: seconds that one call of a handler may take, after which it is cancelled, again and again until
            it ends, and has failed whatever it returns; ``None`` for no limit. A plain function cannot be cancelled: it
            keeps its place, and its ordering key, until its thread ends.
        retry: when a handler that failed is called again.
        ordered_by: a function of the event that returns a key. Handlers of events with equal keys run in order and
            never at the same time; ``None`` as a key means that order does not matter.
        metrics: a `jwt_events.metrics.Metrics`; ``None`` counts nothing but `stats`.
        tracer_provider: an OpenTelemetry ``TracerProvider``, or a `jwt_events.tracing.Tracing` to choose more;
            ``None`` means the global one, as soon as there is one.

    Raises:
        InvalidOption: an option cannot work.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        concurrency: int = 64,
        drain_timeout: float = 10.0,
        handler_timeout: float | None = None,
        retry: Retry = Retry(),  # noqa: B008 - it is immutable
        ordered_by: Callable[[Event], Hashable] | None = None,
        metrics: Instrumentation | None = None,
        tracer_provider: AnyTracing | None = None,
    ) -> None:
        self._transport: Transport = options.transport("Subscriber", transport, "receiver")
        self._drain_timeout = options.seconds("drain_timeout", drain_timeout)
        self._concurrency = options.count("concurrency", concurrency)
        handler_timeout = options.optional_seconds("handler_timeout", handler_timeout)
        if not isinstance(retry, Retry):
            raise InvalidOption("retry", "must be a Retry")
        self._handler_timeout = handler_timeout
        self._retry = retry
        self._ordered_by: Callable[[Event], Hashable] | None = (
            None if ordered_by is None else plain_function("ordered_by", ordered_by)
        )
        lease = transport.claim_after
        if lease is not None and handler_timeout is not None and lease < handler_timeout:
            problem = (
                f"exceeds the transport's claim_after of {lease:g} s: others would take over what is still handled"
            )
            raise InvalidOption("handler_timeout", problem)
        spans = Spans(tracer_provider, transport)
        counting = None if (found := instrumentation(metrics)) is None else found.subscribing(transport.name)
        self._state = SubscriberRecord(combine(counting, spans.observer), spans, Readership(transport))
        self._subscription: Subscription | None = None
        self._entering = False
        self._failure: Exception | None = None
        self._loop = OwnLoop("the subscriber")

    def __repr__(self) -> str:
        return f"<Subscriber {'idle' if self._subscription is None else 'running'}, {self._transport!r}>"

    @property
    def state(self) -> SubscriberState:
        """Whether it receives events now."""
        if self._subscription is not None:
            return self._subscription.state
        if self._entering:
            return SubscriberState.CONNECTING
        return SubscriberState.CLOSED if self._failure is None else SubscriberState.FAILED

    @property
    def is_live(self) -> bool:
        """Whether it receives events now: the condition for a readiness check."""
        return self.state is SubscriberState.LIVE

    @property
    def staleness(self) -> float:
        """Seconds since the sending of the last read that the server answered; infinite if there is none.

        It grows while the connection is lost, and while all handlers are busy, as nothing is read then.
        """
        return math.inf if self._subscription is None else boottime() - self._subscription.proven_at

    @property
    def failure(self) -> Exception | None:
        """Why reading failed for good, until it is entered again; ``None`` if it did not."""
        return self._failure if self._subscription is None else self._subscription.failure

    @property
    def stats(self) -> SubscriberStats:
        """Counts of what it has done so far."""
        in_flight = 0 if self._subscription is None else self._subscription.dispatcher.in_flight
        return SubscriberStats(**asdict(self._state.counters), in_flight=in_flight)

    def _check_can_register(self) -> None:
        self._loop.check_thread()
        if self._subscription is not None and self._subscription.pull is not None:
            raise Closed("events() is handing out the events, so there can be no handlers")

    async def run(self) -> None:
        """Listen and run handlers until cancelled, or until `stop` or `drain` is called.

        Cancelling it stops reading, lets the running handlers finish within ``drain_timeout``, cancels the rest, closes
        the connection and raises ``CancelledError``. Cancelling it once more ends all that at once.

        Raises:
            TransportError: the subscription failed in a way that another try will not change.
            Closed: it is running already.
        """
        async with self:
            assert self._subscription is not None  # noqa: S101 - just entered
            self._subscription.host.disarm()  # waiting for the reader itself; nothing needs to be interrupted
            await asyncio.wait([self._subscription.reader])

    async def __aenter__(self) -> Self:
        self._loop.check()
        if self._subscription is not None or self._entering:
            raise Closed("the subscriber is running already")
        self._loop.bind()
        self._entering, self._failure = True, None
        try:
            async with AsyncExitStack() as stack:
                receiver = await stack.enter_async_context(self._transport.receiver())
                self._subscription = self._subscribe(receiver, stack.pop_all())
        finally:
            self._entering = False
            if self._subscription is None:
                self._loop.release()
        logger.info("subscribed", transport=self._transport.name, destination=self._transport.destination)
        return self

    def _subscribe(self, receiver: Receiver, resources: AsyncExitStack) -> Subscription:
        state, ending = self._state, asyncio.Event()
        state.begin(resources)
        invoker = HandlerInvoker(timeout=self._handler_timeout, retry=self._retry, ending=ending, notices=state.notices)
        dispatcher = Dispatcher(
            concurrency=self._concurrency,
            invoker=invoker,
            ordered_by=self._ordered_by,
            observer=state.observer,
            notices=state.notices,
        )
        return Subscription(
            receiver,
            dispatcher,
            state,
            resources,
            concurrency=self._concurrency,
            redelivers=self._transport.guarantees.redelivers,
            ending=ending,
        )

    async def __aexit__(self, exc_type: object, exc: BaseException | None, traceback: object) -> None:
        self._loop.check()
        if self._entering:
            raise Closed("the subscriber is being entered: leave it in the task that enters it, or cancel that")
        if (subscription := self._subscription) is None:
            return
        try:
            try:
                interrupted = await subscription.host.absorb(exc)
            finally:
                await subscription.end(discard=not self._state.has_consumer.is_set(), within=self._drain_timeout)
        finally:
            self._subscription, self._failure = None, subscription.failure
            self._loop.release()
            subscription.drop_abandoned()
            if not self._state.routes:
                self._state.has_consumer.clear()
        logger.info("unsubscribed", transport=self._transport.name, destination=self._transport.destination)
        if subscription.failure is not None and (exc is None or interrupted):
            raise subscription.failure

    async def stop(self) -> None:
        """Stop reading, drop what was not started, let the running handlers finish within ``drain_timeout``.

        Idempotent. From a handler, or from a task that a handler started, it returns at once, because the end waits for
        that handler too. Cancelling it cancels the handlers at once. Raises `WrongLoop` in another event loop.
        """
        self._loop.check()
        if self._subscription is not None:
            await self._subscription.end(discard=True, within=self._drain_timeout)

    async def drain(self, timeout: float | None = None) -> None:
        """Stop reading and finish everything that was read, then close the connection.

        Idempotent. From a handler, or from a task that a handler started, it returns at once, because the end waits for
        that handler too. Cancelling it cancels the handlers at once.

        Args:
            timeout: seconds after which the handlers that are left are cancelled; ``None`` means ``drain_timeout``.

        Raises:
            WrongLoop: the subscriber was opened in another event loop.
        """
        self._loop.check()
        within = self._drain_timeout if timeout is None else options.seconds("timeout", timeout)
        if self._subscription is not None:
            await self._subscription.end(discard=not self._state.has_consumer.is_set(), within=within)

    async def events(self) -> AsyncGenerator[Event, None]:
        """Hand out events one by one, instead of running handlers. Subscribes first, unless that was done already.

        An event counts as handled when the next one is asked for. To unsubscribe at once after leaving the loop early,
        wrap it in `contextlib.aclosing`.

        Raises:
            TransportError: the subscription failed in a way that another try will not change.
            Closed: handlers are registered.
            WrongLoop: the subscriber was opened in another event loop.
        """
        self._loop.check()
        if self._state.routes:
            raise Closed("handlers are registered, so the events go to them")
        async with AsyncExitStack() as stack:
            if self._subscription is None:
                await stack.enter_async_context(self)
            assert self._subscription is not None  # noqa: S101 - entered, here or before
            subscription = self._subscription
            with subscription.pulling() as queue:
                self._state.has_consumer.set()
                while (job := await queue.get()) is not None:
                    job.begin()
                    try:
                        yield job.subject
                    except BaseException:
                        queue.settle(job, finished=False)
                        raise
                    queue.settle(job, finished=True)
            if subscription.failure is not None:
                raise subscription.failure
