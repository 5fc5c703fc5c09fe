"""What one process does: publish events, or handle them.

The first line on its standard input is an `Order`. A publisher then reads numbers, one a line: how many events it may
have published by then. The end of the input means that nobody wants it any more, and it leaves at once; SIGTERM asks it
to leave in good order. What happens goes into its `Diary`.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from loguru import logger

from bench.soak.bookmark import Bookmark, Bookmarked
from bench.soak.history import Diary
from jwt_events import Event, Publisher, RedisStream, Subscriber, TokenRevoked
from jwt_events.errors import JWTEventsError, PublishError, PublishFailed, TransportError
from jwt_events.transport.base import Gap, Transport

KEY = "soak"
GROUP = "soak"

_TASKS = 50
"""How many events a publisher has under way, each of a key of its own."""

_PUBLISH_WITHIN = 2.0
"""Shorter than the longest fault, so that some outcomes stay unknown."""

_BLOCK = 0.25
_BATCH_SIZE = 200
_CLAIM_AFTER = 1.5
"""Shorter than the longest fault, so that a subscriber that was frozen finds its work taken over."""

_SLOW, _SLOW_SECONDS = 16, 0.05
"""One event in so many takes its handler so long, so that something is always in hand when a subscriber is killed."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a process is to do.

    Attributes:
        role: ``publisher`` or ``subscriber``.
        name: what it is called; a subscriber that shares is the consumer of that name.
        run: which life of it this is.
        directory: where the diaries and bookmarks are.
        url: the server.
        transport: ``stream`` or ``group``.
        rate: how many events a publisher sends per second, at most.
        verbose: whether to log what the library says.
    """

    role: str
    name: str
    run: int
    directory: str
    url: str = field(repr=False)
    transport: str
    rate: float
    verbose: bool = False


class Quota:
    """How many events may be published, and how fast."""

    def __init__(self, rate: float) -> None:
        self._interval = 1 / rate
        self._limit = 0
        self._taken = 0
        self._changed = asyncio.Event()
        self._turn = asyncio.Lock()
        self._due = 0.0

    def raise_to(self, limit: int) -> None:
        """Allow so many in all."""
        self._limit = max(self._limit, limit)
        self._changed.set()

    def give_back(self) -> None:
        """Allow one more, because one that was taken was not accepted."""
        self._taken -= 1
        self._changed.set()

    async def take(self) -> None:
        """Wait until one more is allowed and due. After a standstill those that are overdue go out as a burst."""
        async with self._turn:
            while self._taken >= self._limit:
                self._due = 0.0  # a pause that was ordered is nothing to make up for
                self._changed.clear()
                await self._changed.wait()
            self._taken += 1
            now = asyncio.get_running_loop().time()
            self._due = (self._due or now) + self._interval
            if self._due > now:
                await asyncio.sleep(self._due - now)


async def publish(order: Order, diary: Diary, quota: Quota, leave: asyncio.Event) -> None:
    """Publish what the quota allows until told to leave."""
    transport = RedisStream(order.url, key=KEY)
    async with Publisher(transport, source=order.name, timeout=_PUBLISH_WITHIN) as publisher, asyncio.TaskGroup() as go:
        tasks = [
            go.create_task(_publish_key(publisher, diary, quota, f"{order.name}.{order.run}.{number}"))
            for number in range(_TASKS)
        ]
        diary.note("ready")
        await leave.wait()
        for task in tasks:
            task.cancel()


async def _publish_key(publisher: Publisher, diary: Diary, quota: Quota, key: str) -> None:
    """Publish the events of a key one after another, so that their order is known."""
    number = 0
    while True:
        await quota.take()
        event = TokenRevoked(token_id=f"{key}:{number}", session_id=key)
        diary.note("invoke", id=event.id, key=key, n=number)
        number += 1
        try:
            receipt = await publisher.publish(event)
        except PublishError as error:
            diary.note("fail" if isinstance(error, PublishFailed) else "unknown", id=event.id)
            quota.give_back()
        else:
            diary.note("ok", id=event.id, position=receipt.position)


class Handling:
    """The handlers of a subscriber, and what they note."""

    def __init__(self, diary: Diary) -> None:
        self._diary = diary
        self._busy: set[str] = set()

    @staticmethod
    def key(event: Event) -> str:
        """Return what the order of events is kept by."""
        return str(event.session_id) if isinstance(event, TokenRevoked) else event.id

    async def handle(self, event: Event) -> None:
        """Note that an event was handled, in most cases at once."""
        key = self.key(event)
        if key in self._busy:
            self._diary.note("overlap", id=event.id)
        self._busy.add(key)
        try:
            await asyncio.sleep(0 if hash(event.id) % _SLOW else _SLOW_SECONDS)
            self._diary.note("handled", id=event.id)
        finally:
            self._busy.discard(key)

    async def note_gap(self, gap: Gap) -> None:
        """Note a gap."""
        self._diary.note("gap", since=gap.since, cause=gap.cause, lost=gap.lost, at=int(time.time() * 1000))


async def subscribe(order: Order, diary: Diary, leave: asyncio.Event) -> None:
    """Handle events until told to leave. A server that is away just now is waited for."""
    bookmark = Bookmark(Path(order.directory, f"{order.name}.position"))
    while not leave.is_set():
        handling = Handling(diary)
        subscriber = Subscriber(_listening_place(order, bookmark), ordered_by=handling.key, drain_timeout=3.0)
        subscriber.on()(handling.handle)
        subscriber.on_gap(handling.note_gap)
        entered = False
        try:
            async with subscriber:
                entered = True
                diary.note("ready")
                await leave.wait()
        except TransportError as error:
            if entered or not error.retryable:
                raise


def _listening_place(order: Order, bookmark: Bookmark) -> Transport:
    """Describe where to listen: with the others of the group, or from the bookmark."""
    place = partial(RedisStream, order.url, key=KEY, block=_BLOCK, batch_size=_BATCH_SIZE)
    if order.transport == "group":
        return place(group=GROUP, consumer=order.name, start="all", claim_after=_CLAIM_AFTER)
    return Bookmarked(place(start=bookmark.read() or "all"), bookmark)


async def _listen_to_parent(lines: asyncio.StreamReader, quota: Quota) -> None:
    while line := await lines.readline():
        quota.raise_to(int(line))
    os._exit(1)  # whoever started this is gone, and nobody is left to whom a good order would matter


async def main() -> None:
    """Do what the order on standard input says."""
    lines = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    order = Order(**json.loads(await lines.readline() or "{}"))
    if order.verbose:
        logger.enable("jwt_events")
    leave = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, leave.set)
    quota = Quota(order.rate)
    diary = Diary(Path(order.directory), order.name, order.run)
    listening = asyncio.create_task(_listen_to_parent(lines, quota))
    try:
        await (publish(order, diary, quota, leave) if order.role == "publisher" else subscribe(order, diary, leave))
        diary.note("left")
    except* JWTEventsError as errors:
        for error in errors.exceptions:
            diary.note("broken", problem=f"{type(error).__name__}: {error}")
        raise
    finally:
        listening.cancel()
        with suppress(asyncio.CancelledError):
            await listening


if __name__ == "__main__":
    asyncio.run(main())
