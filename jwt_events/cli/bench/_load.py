"""The load of the benchmark, and the operations that both sides perform with it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import NamedTuple, Protocol, TypeVar

from jwt_events.envelope import Envelope, encode
from jwt_events.events import Event, TokenRevoked

_T = TypeVar("_T")

TASKS = 64
"""How many tasks publish at once."""

BATCH_SIZE = 500
"""How many events are published, or read, at a time."""


class Load(NamedTuple):
    """Events, and their bytes on the wire.

    Attributes:
        events: the events.
        payloads: their bytes.
    """

    events: Sequence[Event]
    payloads: Sequence[bytes]

    def first(self, count: int) -> Load:
        """Return the first ``count`` of them."""
        return Load(self.events[:count], self.payloads[:count])


class Side(Protocol):
    """One side of the comparison. Each operation returns the seconds that it took, for all events or for each."""

    async def one_by_one(self, load: Load) -> Sequence[float]:
        """Publish one after another."""

    async def from_tasks(self, load: Load) -> Sequence[float]:
        """Publish from many tasks at once."""

    async def many(self, load: Load) -> Sequence[float]:
        """Publish many at a time."""

    async def drain(self, load: Load) -> Sequence[float]:
        """Receive everything that the stream holds, which is this load."""

    async def over_pubsub(self, load: Load) -> Sequence[float]:
        """Publish over Pub/Sub, many at a time, and receive all."""

    async def to_handler(self, load: Load) -> Sequence[float]:
        """Publish one event and wait until it is received; then the next."""


def make_load(count: int) -> Load:
    """Make a load of ``count`` events, of about 300 bytes each."""
    events = [
        TokenRevoked(token_id=f"bench-{number:032}", user_id=f"bench-{number:08}", reason="jwt-events bench")
        for number in range(count)
    ]
    return Load(events, [encode(Envelope(event), source="jwt-events bench") for event in events])


async def run_together(*works: Coroutine[None, None, _T]) -> list[_T]:
    """Run coroutines at once and return their results; when one fails, cancel the others and raise its error."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]
