"""Receive it: the subscriber listens to a transport and runs handlers, or hands out events one by one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Hashable
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from loguru import logger

from jwt_events._internal import options
from jwt_events._internal.retry import Retry
from jwt_events.errors import Closed, InvalidOption
from jwt_events.events import Event, EventHandler, EventType, Handler
from jwt_events.instrumentation import Instrumentation, instrumentation
from jwt_events.subscriber._dispatcher import Dispatcher
from jwt_events.subscriber._invoker import HandlerInvoker
from jwt_events.subscriber._subscription import SubscriberState, Subscription
from jwt_events.tracing import AnyTracing, Spans
from jwt_events.transport.base import Transport

_A = TypeVar("_A", bound=Event)
_B = TypeVar("_B", bound=Event)
_R = TypeVar("_R")
_F = TypeVar("_F", bound=Callable[..., object])


@dataclass(frozen=True, slots=True)
class SubscriberStats:
    """What a subscriber has done since it was made.

    Attributes:
        received: deliveries taken in, whatever became of them.
        handled: events all of whose handlers succeeded, or that nobody wanted.
        failed: events one of whose handlers failed for good, or was cancelled.
        dead_lettered: those of them that were given up; a durable transport keeps them as dead letters.
        duplicates: deliveries of an event that was there already; skipped.
        decode_errors: deliveries that were no events; skipped.
        dropped: deliveries that had been read when the subscriber was stopped, and were given to nobody.
        gaps: how often something may have been missed.
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


class Subscriber:
    """Listens to a transport and runs handlers as tasks. Start it in one of three ways.

    In the background of a program, ready when entered, drained when left::

        subscriber = Subscriber(RedisStream("redis://localhost"))

        @subscriber.on(TokenRevoked, SessionDestroyed)
        async def forget(event): ...

        async with subscriber:
            await serve()

    As a program of its own, until cancelled: ``await subscriber.run()``. Or without handlers, one event at a time:
    ``async for event in subscriber.events()``.

    Each call of a handler has a context (`contextvars`) of its own. Those that do not wait for anything may share
    a task with others; one that waits has a task for itself.

    If listening fails for good, the task inside ``async with`` is cancelled and the error is raised where the block
    ends: a service that no longer hears about revocations must not go on as if it did.

    Args:
        transport: where to listen.
        concurrency: how many handlers may run at once; when all are busy, reading pauses.
        drain_timeout: seconds that handlers may go on for when the subscriber ends, before they are cancelled.
        handler_timeout: seconds that one call of a handler may take; ``None`` for as long as it likes.
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
        self._transport = transport
        self._drain_timeout = options.seconds("drain_timeout", drain_timeout)
        self._concurrency = options.count("concurrency", concurrency)
        handler_timeout = options.optional_seconds("handler_timeout", handler_timeout)
        if not isinstance(retry, Retry):
            raise InvalidOption("retry", "must be a Retry")
        self._caller = HandlerInvoker(timeout=handler_timeout, retry=retry)
        if ordered_by is not None and not callable(ordered_by):
            raise InvalidOption("ordered_by", "must be a function of an event")
        self._ordered_by = ordered_by
        lease = transport.claim_after
        if lease is not None and handler_timeout is not None and lease < handler_timeout:
            problem = (
                f"exceeds the transport's claim_after of {lease:g} s: others would take over what is still handled"
            )
            raise InvalidOption("handler_timeout", problem)
        spans = Spans(tracer_provider, transport)
        counting = () if (found := instrumentation(metrics)) is None else (found.subscribing(transport.name),)
        self._audience = SubscriberState((*counting, *spans.observers), spans)
        self._life: Subscription | None = None
        self._entering = False

    def __repr__(self) -> str:
        return f"<Subscriber {'idle' if self._life is None else 'running'}, {self._transport!r}>"

    @property
    def stats(self) -> SubscriberStats:
        """What it has done so far."""
        in_flight = 0 if self._life is None else self._life.dispatcher.in_flight
        return SubscriberStats(**asdict(self._audience.tally), in_flight=in_flight)

    @overload
    def on(self) -> Callable[[Callable[[Event], _R]], Callable[[Event], _R]]: ...
    @overload
    def on(self, kind: type[_A], /) -> Callable[[Callable[[_A], _R]], Callable[[_A], _R]]: ...
    @overload
    def on(self, a: type[_A], b: type[_B], /) -> Callable[[Callable[[_A | _B], _R]], Callable[[_A | _B], _R]]: ...
    @overload
    def on(self, a: type[Event], b: type[Event], c: type[Event], /, *more: type[Event]) -> Callable[[_F], _F]: ...
    @overload
    def on(self, kind: EventType, /, *more: EventType) -> Callable[[_F], _F]: ...
    def on(self, *kinds: Any) -> Callable[[Any], Any]:
        """Register the decorated function for some kinds of events; with no arguments, for every event.

        Only handlers of every event see an `UnknownEvent`. An ``async`` function is awaited; a plain one is run in
        a thread. A function may be registered several times, and while the subscriber is running.

        Args:
            kinds: classes of events, or `EventType` values.

        Raises:
            InvalidOption: a kind is no event.
        """

        def register(function: Any) -> Any:
            self._register(function, kinds)
            return function

        return register

    def register_handler(self, kind: type[Event] | EventType | str, handler: EventHandler) -> None:
        """Register a handler for one kind of events, given as a class or an `EventType`; otherwise like `on`."""
        self._register(handler, (kind,))

    def on_gap(self, function: _F) -> _F:
        """Register the decorated function to be called with every `Gap`: when events may have been missed."""
        self._audience.gap_handlers.append(Handler.of(function))
        return function

    def _register(self, function: EventHandler, kinds: tuple[object, ...]) -> None:
        if self._life is not None and self._life.inbox is not None:
            raise Closed("events() is handing out the events, so there can be no handlers")
        self._audience.routes.add(function, kinds)
        self._audience.wanted.set()

    async def run(self) -> None:
        """Listen and run handlers until cancelled, or until `stop` or `drain` is called.

        Cancelling it stops reading, lets the running handlers finish within ``drain_timeout``, cancels the rest, closes
        the connection and raises ``CancelledError``. Cancelling it once more ends all that at once.

        Raises:
            TransportError: the subscription failed in a way that another try will not change.
            Closed: it is running already.
        """
        async with self:
            assert self._life is not None  # noqa: S101 - just entered
            self._life.interruption.call_off()  # waiting for the reader itself; nothing needs to be interrupted
            await asyncio.wait([self._life.reader])

    async def __aenter__(self) -> Self:
        if self._life is not None or self._entering:
            raise Closed("the subscriber is running already")
        self._entering = True
        try:
            async with AsyncExitStack() as stack:
                receiver = await stack.enter_async_context(self._transport.receiver())
                dispatcher = Dispatcher(
                    concurrency=self._concurrency,
                    caller=self._caller,
                    ordered_by=self._ordered_by,
                    observers=self._audience.observers,
                )
                self._life = Subscription(
                    receiver, dispatcher, self._audience, stack.pop_all(), concurrency=self._concurrency
                )
        finally:
            self._entering = False
        logger.info("subscribed", transport=self._transport.name, destination=self._transport.destination)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        life = self._life
        assert life is not None  # noqa: S101 - entered before
        try:
            try:
                interrupted = await life.interruption.take_back(exc)
            finally:
                await life.end(discard=not self._audience.wanted.is_set(), within=self._drain_timeout)
        finally:
            self._life = None
            life.drop_abandoned()
            if not self._audience.routes:
                self._audience.wanted.clear()
        logger.info("unsubscribed", transport=self._transport.name, destination=self._transport.destination)
        if life.failure is not None and (exc is None or interrupted):
            raise life.failure

    async def stop(self) -> None:
        """Stop reading, drop what was not started, let the running handlers finish within ``drain_timeout``.

        Idempotent. From a handler it returns at once, because the end waits for that handler too. Cancelling it cancels
        the handlers at once.
        """
        if self._life is not None:
            await self._life.end(discard=True, within=self._drain_timeout)

    async def drain(self, timeout: float | None = None) -> None:
        """Stop reading and finish everything that was read, then close the connection.

        Idempotent. From a handler it returns at once, because the end waits for that handler too. Cancelling it cancels
        the handlers at once.

        Args:
            timeout: seconds after which the handlers that are left are cancelled; ``None`` means ``drain_timeout``.
        """
        within = self._drain_timeout if timeout is None else options.seconds("timeout", timeout)
        if self._life is not None:
            await self._life.end(discard=not self._audience.wanted.is_set(), within=within)

    async def events(self) -> AsyncGenerator[Event, None]:
        """Hand out events one by one, instead of running handlers. Subscribes first, unless that was done already.

        An event counts as handled when the next one is asked for. To unsubscribe at once after leaving the loop early,
        wrap it in `contextlib.aclosing`.

        Raises:
            TransportError: the subscription failed in a way that another try will not change.
            Closed: handlers are registered.
        """
        if self._audience.routes:
            raise Closed("handlers are registered, so the events go to them")
        async with AsyncExitStack() as stack:
            if self._life is None:
                await stack.enter_async_context(self)
            assert self._life is not None  # noqa: S101 - entered, here or before
            life = self._life
            with life.handing_out() as inbox:
                self._audience.wanted.set()
                while (handout := await inbox.get()) is not None:
                    handout.work.begin()
                    try:
                        yield handout.event
                    except BaseException:
                        life.drop(handout)
                        raise
                    life.hand_back(handout)
            if life.failure is not None:
                raise life.failure
