"""Handlers for tests of the subscriber, which record their calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from jwt_events import Event, Publisher, Transport
from jwt_events._internal.cancellation import end
from tests.support.waiting import scaled, wait_until

_T = TypeVar("_T")


async def soon(awaitable: Awaitable[_T], *, within: float = 10.0) -> _T:
    """Await with a deadline in seconds, before scaling."""
    async with asyncio.timeout(scaled(within)):
        return await awaitable


async def publish(transport: Transport, *events: Event) -> None:
    """Publish events with a publisher of its own."""
    async with Publisher(transport, source="tests", timeout=scaled(10)) as publisher:
        await publisher.publish_many(events)


class Recorder:
    """Handler that records its events."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    async def __call__(self, event: Any) -> None:
        """Handle an event."""
        self.seen.append(event)

    @property
    def subjects(self) -> list[str | None]:
        """Subjects of the events, in order."""
        return [event.subject for event in self.seen]

    async def has_seen(self, number: int, *, within: float = 10.0) -> None:
        """Wait until it was called exactly this number of times."""
        await wait_until(lambda: len(self.seen) >= number, within=within, what=lambda: f"{number}, got {self.seen}")
        assert len(self.seen) == number


class Gate(Recorder):
    """Handler that blocks until it is opened.

    Attributes:
        running: number of calls that are waiting.
        max_running: maximum of ``running`` so far.
        finished: events of the calls that returned.
        cancelled: events of the calls that were cancelled.
    """

    def __init__(self) -> None:
        super().__init__()
        self.running = 0
        self.max_running = 0
        self.finished: list[Any] = []
        self.cancelled: list[Any] = []
        self._open = asyncio.Event()

    def open(self) -> None:
        """Let all calls return, including later ones."""
        self._open.set()

    async def __call__(self, event: Any) -> None:
        """Handle an event."""
        self.seen.append(event)
        self.running += 1
        self.max_running = max(self.max_running, self.running)
        try:
            await self._open.wait()
        except asyncio.CancelledError:
            self.cancelled.append(event)
            raise
        else:
            self.finished.append(event)
        finally:
            self.running -= 1


@asynccontextmanager
async def running(work: Awaitable[_T]) -> AsyncIterator[asyncio.Task[_T]]:
    """Run an awaitable in a task beside the test; cancel it afterwards if it is still running."""

    async def run() -> _T:
        return await work

    task = asyncio.create_task(run())
    try:
        yield task
    finally:
        await end([task], grace=scaled(10))  # redis-py swallows some cancellations before Python 3.12
