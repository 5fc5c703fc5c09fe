"""Fetch the signing keys: one fetch at a time, shared by all who need it, and in the background before they need it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from loguru import logger

from jwt_events._internal.cancellation import end, timeout
from jwt_events.errors import Closed
from jwt_events.keys import _jwks as jwks
from jwt_events.keys._schedule import FetchPlan, FetchRequest, Now

FetchFunction = Callable[[], Awaitable[Any]]
"""A coroutine function that fetches the issuer's JWK Set and returns it decoded, as a dictionary."""

_MAX_WAIT = 3600.0  # event loops do not take every number of seconds


def current_time() -> Now:
    """Read both clocks."""
    return Now(time.monotonic(), time.time())


@dataclass(eq=False, slots=True)
class Fetch:
    """A fetch that is on its way, or has come back.

    Attributes:
        departure: when and why it began.
        task: the fetch itself; ends without an exception, whatever happened.
        failure: what it failed with.
    """

    departure: FetchRequest
    task: asyncio.Task[None] = field(init=False)
    failure: BaseException | None = None

    async def land(self) -> None:
        """Wait until it is back. Cancelling this does not cancel the fetch.

        Raises:
            Closed: the fetch was ended by `Fetcher.stop`.
        """
        await asyncio.wait([self.task])
        if self.task.cancelled():
            raise Closed("the keys were closed while they were being fetched")


class Fetcher:
    """Runs fetches as tasks, when told to or when the plan says so.

    Args:
        fetch: fetches the JWK Set.
        timeout: seconds that this may take.
        plan: when to fetch.
        deliver: called with what a fetch brought.

    Attributes:
        flight: the fetch that is on its way; ``None`` if there is none.
        fetches: how many were begun.
        failures: how many of them failed.
    """

    def __init__(
        self, fetch: FetchFunction, *, timeout: float, plan: FetchPlan, deliver: Callable[[jwks.KeySet], None]
    ) -> None:
        self._fetch = fetch
        self._timeout = timeout
        self._plan = plan
        self._deliver = deliver
        self._pacer: asyncio.Task[None] | None = None
        self._news: asyncio.Event | None = None
        self.flight: Fetch | None = None
        self.fetches: int = 0
        self.failures: int = 0

    def begin(self, departure: FetchRequest) -> Fetch:
        """Begin a fetch; there must not be one on its way."""
        self._plan.begin(departure)
        self.fetches += 1
        self.flight = flight = Fetch(departure)
        flight.task = asyncio.create_task(self._fetch_now(flight), name="jwt_events key fetch")
        flight.task.add_done_callback(self._landed)
        return flight

    def begin_if_due(self, now: Now) -> None:
        """Begin a fetch if the plan says so and none is on its way."""
        at, reason = self._plan.due()
        if at <= now.monotonic and self.flight is None:
            self.begin(FetchRequest(reason, now))

    def _landed(self, _: asyncio.Task[None]) -> None:
        self.flight = None

    async def _fetch_now(self, flight: Fetch) -> None:
        try:
            async with timeout(self._timeout):
                document = await self._fetch()
            keys = jwks.read(document)
        except (Exception, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise
            flight.failure = error
            self.failures += 1
            self._plan.fail(flight.departure, current_time(), error)
            # Not its text, in which an HTTP library may quote the URL with what is secret in it.
            logger.warning("fetching the signing keys failed", error=type(error).__name__, failures=self.failures)
        else:
            self._plan.succeed(flight.departure, current_time(), keys.named)
            self._deliver(keys)

    def start(self) -> None:
        """Fetch without being asked from now on, whenever the plan says so.

        Raises:
            Closed: it does so already.
        """
        if self._pacer is not None:
            raise Closed("the keys are kept up to date already")
        self._news = asyncio.Event()
        self._pacer = asyncio.create_task(self._follow_plan(self._news), name="jwt_events key pacer")

    def tell_of_news(self) -> None:
        """Look at the plan again: it has changed."""
        if self._news is not None:
            self._news.set()

    async def stop(self) -> None:
        """End all tasks. Idempotent; when it is cancelled, they end all the same."""
        tasks = [] if self._pacer is None else [self._pacer]
        if self.flight is not None:
            tasks.append(self.flight.task)
        self._pacer = self._news = None
        await end(tasks)

    async def _follow_plan(self, news: asyncio.Event) -> None:
        while True:
            if self.flight is not None:
                await asyncio.wait([self.flight.task])
            news.clear()
            self.begin_if_due(now := current_time())
            if self.flight is None:
                pause = min(self._plan.due()[0] - now.monotonic, _MAX_WAIT)
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await news.wait()
