"""What ``jwt-events bench`` publishes, and what is done with it: once by this library, once by redis-py alone."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import NamedTuple, Protocol, TypeVar

from jwt_events.envelope import Envelope, encode
from jwt_events.events import Event, TokenRevoked

_T = TypeVar("_T")

TASKS = 64
BATCH = 500
"""How many are published, or asked for, at a time."""


class Load(NamedTuple):
    """Events, and the bytes that they are on the wire.

    Attributes:
        events: the events.
        payloads: their bytes.
    """

    events: Sequence[Event]
    payloads: Sequence[bytes]

    def first(self, number: int) -> Load:
        """Return the first so many of them."""
        return Load(self.events[:number], self.payloads[:number])


class Side(Protocol):
    """What can be done with a load. Each returns the seconds that it took, of all or of each event."""

    async def one_by_one(self, load: Load) -> Sequence[float]:
        """Publish one after another."""

    async def from_tasks(self, load: Load) -> Sequence[float]:
        """Publish from many tasks at once."""

    async def many(self, load: Load) -> Sequence[float]:
        """Publish many at a time."""

    async def drain(self, load: Load) -> Sequence[float]:
        """Take all that the stream holds, which is this load."""

    async def over_pubsub(self, load: Load) -> Sequence[float]:
        """Publish over Pub/Sub, many at a time, and take all."""

    async def there(self, load: Load) -> Sequence[float]:
        """Publish one, and wait until it was taken; then the next."""


def made(number: int) -> Load:
    """Make a load of so many events, of about 300 bytes each."""
    events = [
        TokenRevoked(token_id=f"bench-{one:032}", user_id=f"bench-{one:08}", reason="jwt-events bench")
        for one in range(number)
    ]
    return Load(events, [encode(Envelope(event), source="jwt-events bench") for event in events])


async def together(*works: Coroutine[None, None, _T]) -> list[_T]:
    """Do several things at once; when one fails, the others are cancelled, and it is what is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]
