"""`SetPoller`: fetches security event tokens from their transmitter (RFC 8936), one process of a fleet at a time."""

from __future__ import annotations

import asyncio
import hashlib
import random
import secrets
import ssl
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from enum import StrEnum
from types import TracebackType
from typing import Self

from loguru import logger

from jwt_events._internal import options
from jwt_events._internal.cancellation import end
from jwt_events._internal.clock import boottime
from jwt_events._internal.describing import describe
from jwt_events._internal.loops import OwnLoop
from jwt_events._internal.notices import Notices
from jwt_events._internal.retry import backoff
from jwt_events.errors import Closed, InvalidOption, JWTEventsError, TransportError
from jwt_events.instrumentation import Instrumentation, SignalObserver, instrumentation
from jwt_events.publisher import Publisher
from jwt_events.signals._acceptance import Acceptance
from jwt_events.signals._http import HttpClient, SentAuthorization
from jwt_events.signals._liveness import Liveness
from jwt_events.signals._rounds import PollOptions, Rounds
from jwt_events.signals._security import SecurityEvents
from jwt_events.signals._stream import SetStream
from jwt_events.transport.lease import ServerLease
from jwt_events.transport.pubsub import RedisPubSub
from jwt_events.transport.stream import RedisStream

_TICK = 1.0


class PollerState(StrEnum):
    """The state of a poller.

    Attributes:
        POLLING: this process polls, and the stream is alive.
        STANDBY: another process polls, and the stream is alive.
        STALE: there is no proof that the stream is alive, or none that is recent enough.
        CLOSED: it is not open.
    """

    POLLING = "polling"
    STANDBY = "standby"
    STALE = "stale"
    CLOSED = "closed"


_LIVE = (PollerState.POLLING, PollerState.STANDBY)


class SetPoller:
    """Polls a transmitter for security event tokens and publishes their events; an async context manager.

    ::

        poller = SetPoller(publisher, events, "https://id.example/poll", authorization=token)
        app = FastAPI(lifespan=lifespan(publisher, poller))

    Every instance of a service may have one: they share a lease on the server of the publisher, whose holder polls.
    A token is acknowledged when the server has its events. Failures are logged, and tried again after growing pauses,
    until it is left; leaving sends the last acknowledgements.

    Args:
        publisher: publishes the events; open it before.
        events: verifies the tokens.
        url: the address to poll: the ``endpoint_url`` of the stream.
        authorization: the value of the ``Authorization`` header, such as ``"Bearer …"``, or a function, plain or async,
            that returns it and is asked for each request.
        stream: manages the stream: verification events are then the proof that it is alive. Opened if it is not open.
        interval: seconds between two polls; ``None`` for long polls, to which the transmitter replies when it has
            something.
        max_events: how many tokens a reply may have, at most 1,000.
        timeout: seconds that a reply may take.
        max_staleness: seconds without proof after which the stream counts as dead.
        verify_every: seconds between two verification events that are asked for, if there is a ``stream``.
        on_status: called with the new status when the transmitter pauses, disables or enables the stream.
        lease: seconds after which another instance takes over from one that died.
        ssl_context: verifies the server; ``None`` for the authorities of this machine.
        metrics: a `jwt_events.metrics.Metrics`; ``None`` counts nothing.

    Raises:
        InvalidOption: an option cannot work.
        ImportError: the extra ``signals`` is not installed.
    """

    def __init__(
        self,
        publisher: Publisher,
        events: SecurityEvents,
        url: str,
        *,
        authorization: SentAuthorization | None = None,
        stream: SetStream | None = None,
        interval: float | None = None,
        max_events: int = 100,
        timeout: float = 90.0,
        max_staleness: float = 900.0,
        verify_every: float = 300.0,
        on_status: Callable[[str], object] | None = None,
        lease: float = 30.0,
        ssl_context: ssl.SSLContext | None = None,
        metrics: Instrumentation | None = None,
    ) -> None:
        _check_parts(publisher, events, stream)
        how = PollOptions(url, interval, max_events, timeout)
        self._verify_every = options.seconds("verify_every", verify_every)
        self._max_staleness = how.check_staleness(max_staleness, None if stream is None else verify_every)
        self._stream = stream
        self._http = HttpClient("SetPoller", authorization, ssl_context)
        self._instrumentation = instrumentation(metrics)
        self._liveness = Liveness(by_verification=stream is not None)
        observer = _signals(self._instrumentation, events)
        self._acceptance = Acceptance(publisher, events, self._liveness, on_status, observer)
        self._rounds = Rounds(self._http, how, self._acceptance, self._liveness)
        self._lease = _lease(publisher, f"{events.issuer}\n{url}", lease, self._own_staleness)
        self.issuer: str = events.issuer
        self._tasks: list[asyncio.Task[None]] = []
        self._resources: AsyncExitStack | None = None
        self._loop = OwnLoop("the poller")
        self._unverified: Exception | None = None
        self._notices = Notices()
        self._state = PollerState.CLOSED

    def __repr__(self) -> str:
        return f"<SetPoller {self.state} of {self.issuer}>"

    async def __aenter__(self) -> Self:
        if self._resources is not None:
            raise Closed("the poller is open already")
        self._loop.bind()
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._http)
            if self._stream is not None and not self._stream.is_open:
                await stack.enter_async_context(self._stream)
            if self._lease is not None:
                await stack.enter_async_context(self._lease)
            if self._instrumentation is not None:
                self._rounds.observer = self._instrumentation.polling(self.issuer, staleness=lambda: self.staleness)
            self._resources = stack.pop_all()
        work = [self._poll(), self._watch(), *([] if self._stream is None else [self._verify(self._stream)])]
        self._rounds.begin()
        self._tasks = [asyncio.create_task(one, name=f"jwt_events poller {self.issuer}") for one in work]
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._resources is None:
            return
        self._loop.check()
        tasks, self._tasks = self._tasks, []
        resources, self._resources = self._resources, None
        try:
            await end(tasks)
            if self.is_holder:
                await self._rounds.send_last()
        finally:
            self._rounds.observer.close()
            self._state = PollerState.CLOSED
            await resources.aclose()
            self._loop.release()

    @property
    def is_holder(self) -> bool:
        """Whether this process polls; of the instances that share a stream, one does."""
        return self._lease is None or self._lease.is_held

    @property
    def staleness(self) -> float:
        """The seconds since the last proof that the stream is alive; infinite if there is none, or if it is paused.

        Without a ``stream``, an answered poll is the proof, as of when it was sent; with one, a verification event that
        was asked for and came, as of when it was asked for. Where another instance polls, as that one has told.
        """
        if self._resources is None:
            return float("inf")
        return self._own_staleness() if self._lease is None or self._lease.is_held else self._lease.reported

    @property
    def is_live(self) -> bool:
        """Whether it is open, and the last proof is not older than ``max_staleness``."""
        return self.staleness <= self._max_staleness

    @property
    def state(self) -> PollerState:
        """The state of the poller."""
        if self._resources is None:
            return PollerState.CLOSED
        if not self.is_live:
            return PollerState.STALE
        return PollerState.POLLING if self.is_holder else PollerState.STANDBY

    @property
    def failure(self) -> Exception | None:
        """Why the last poll, publish, request for verification or renewal of the lease failed; ``None`` if none did."""
        return self._rounds.failure or self._unverified or (None if self._lease is None else self._lease.failure)

    def _own_staleness(self) -> float:
        return self._liveness.staleness(boottime())

    async def _until_holder(self) -> None:
        """Wait until this process holds the lease; then go on from where the last holder was."""
        lease = self._lease
        if lease is None or lease.is_held:
            return
        self._rounds.forget()
        await lease.wait()
        self._liveness.proven(boottime() - lease.reported)
        with suppress(TransportError):
            self._liveness.adopt(await lease.recall())

    async def _poll(self) -> None:
        while True:
            await self._until_holder()
            await asyncio.sleep(await self._rounds.once())

    async def _verify(self, stream: SetStream) -> None:
        """Ask for verification events."""
        failures = 0
        while True:
            await self._until_holder()
            try:
                await self._ask(stream)
            except Exception as error:  # noqa: BLE001 - of the transmitter, or of the function that authorizes
                failures, self._unverified = failures + 1, error
                problem = str(error) if isinstance(error, JWTEventsError) else describe(error)
                logger.warning("verification not asked for", error=problem, failures=failures)
                pause = backoff(failures, initial=_TICK, maximum=self._verify_every)
                pause = max(pause, getattr(error, "retry_after", None) or 0.0)
            else:
                failures, self._unverified = 0, None
                pause = self._verify_every * (1 - random.random() / 10)  # noqa: S311 - spreads the load, no secret
            await asyncio.sleep(pause)

    async def _ask(self, stream: SetStream) -> None:
        if (await stream.discover()).status_endpoint is not None:
            await self._acceptance.note_status((await stream.status()).status)
        state = secrets.token_urlsafe(16)
        if self._lease is not None:
            with suppress(TransportError):  # then the next holder refuses it, and asks itself
                await self._lease.remember(state)
        self._liveness.ask(state, boottime())
        await stream.verify(state)

    async def _watch(self) -> None:
        """Tell what changes with time, and that there was no proof from the beginning."""
        opened, is_told = boottime(), False
        while True:
            self._rounds.observer.refresh()
            before, self._state = self._state, self.state
            if self._state is not PollerState.STALE:
                is_told = False
            elif not is_told and (before in _LIVE or boottime() - opened > self._max_staleness):
                is_told = True
                self._notices.tell("WARNING", "signals are stale", once="stale", state=self._state.value)
            if self._state is not before:
                logger.info("state of the poller changed", state=self._state.value)
            await asyncio.sleep(_TICK)


def _check_parts(publisher: object, events: object, stream: object) -> None:
    if not hasattr(publisher, "publish_many"):
        raise InvalidOption("publisher", f"must be a Publisher, not {type(publisher).__name__}")
    if not isinstance(events, SecurityEvents):
        raise InvalidOption("events", f"must be SecurityEvents, not {type(events).__name__}")
    if stream is not None and not isinstance(stream, SetStream):
        raise InvalidOption("stream", f"must be a SetStream, not {type(stream).__name__}")


def _signals(metrics: Instrumentation | None, events: SecurityEvents) -> SignalObserver:
    return SignalObserver() if metrics is None else metrics.signals(events.issuer)


def _lease(publisher: Publisher, what: str, seconds: float, report: Callable[[], float]) -> ServerLease | None:
    """Return the lease on polling this address; ``None`` if the publisher has no server, so that there is no fleet."""
    transport = getattr(publisher, "transport", None)
    if not isinstance(transport, RedisStream | RedisPubSub):
        return None
    digest = hashlib.sha256(what.encode()).hexdigest()[:16]
    return ServerLease(transport, f"poller:{digest}", seconds=seconds, report=report)
