"""Events that the program takes one by one, instead of registering handlers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from jwt_events.events import Event
from jwt_events.subscriber._job import Job, Outcome


class PullQueue:
    """Events that were read and wait for ``events()`` to ask for them.

    Args:
        capacity: how many events may have been read ahead, or taken, and not settled.
        on_ended: called with each event that was settled, and with how.
    """

    def __init__(self, capacity: int, on_ended: Callable[[Job, Outcome], object]) -> None:
        self._on_ended = on_ended
        self._room = asyncio.Semaphore(capacity)
        self._queue: asyncio.Queue[Job | None] = asyncio.Queue()
        self.is_consumed: bool = False
        """Whether an iterator is taking the events now."""

    async def put(self, job: Job) -> None:
        """Add an event as soon as there is room. Cancelling this adds nothing."""
        await self._room.acquire()
        self._queue.put_nowait(job)

    async def get(self) -> Job | None:
        """Wait for the next event; ``None`` at the end. Cancelling this takes nothing."""
        return await self._queue.get()

    def settle(self, job: Job, *, finished: bool) -> None:
        """Take back an event: finished, or to be delivered again."""
        self._room.release()
        self._on_ended(job, job.hand_back(finished=finished))

    def close(self) -> None:
        """End the iteration behind the events that wait."""
        self._queue.put_nowait(None)

    def clear(self) -> list[Event]:
        """Remove and return the events that wait, and end the iteration."""
        events: list[Event] = []
        while not self._queue.empty():
            if (job := self._queue.get_nowait()) is not None:
                events.append(job.subject)
        self.close()
        return events
