"""Events that the program takes one by one, instead of registering handlers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from jwt_events.events import Event
from jwt_events.subscriber._job import Job, Outcome


@dataclass(frozen=True, slots=True)
class PulledEvent:
    """An event that waits in a `PullQueue`, or that the program has taken and not returned.

    Attributes:
        event: the event.
        job: what becomes of it.
    """

    event: Event
    job: Job


class PullQueue:
    """Events that were read and wait for ``events()`` to ask for them.

    Args:
        capacity: how many events may have been read ahead, or taken, and not settled.
        on_ended: called with each event that was settled, and with how.
    """

    def __init__(self, capacity: int, on_ended: Callable[[Job, Outcome], object]) -> None:
        self._on_ended = on_ended
        self._room = asyncio.Semaphore(capacity)
        self._queue: asyncio.Queue[PulledEvent | None] = asyncio.Queue()
        self.is_consumed: bool = False
        """Whether an iterator is taking the events now."""

    async def put(self, event: Event, job: Job) -> None:
        """Add an event as soon as there is room. Cancelling this adds nothing."""
        await self._room.acquire()
        self._queue.put_nowait(PulledEvent(event, job))

    async def get(self) -> PulledEvent | None:
        """Wait for the next event; ``None`` at the end. Cancelling this takes nothing."""
        return await self._queue.get()

    def settle(self, pulled: PulledEvent, *, finished: bool) -> None:
        """Take back an event: finished, or to be delivered again."""
        self._room.release()
        self._on_ended(pulled.job, pulled.job.hand_back(finished=finished))

    def close(self) -> None:
        """End the iteration behind the events that wait."""
        self._queue.put_nowait(None)

    def clear(self) -> list[Event]:
        """Remove and return the events that wait, and end the iteration."""
        events = []
        while not self._queue.empty():
            if (pulled := self._queue.get_nowait()) is not None:
                events.append(pulled.event)
        self.close()
        return events
