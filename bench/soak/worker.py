"""A process of a run: publishes events, handles them, or asks lists about them.

The first line on its standard input is a `WorkerSpec`. A publisher then reads numbers, one a line: the total of events
that it may have published by then. At the end of its input the process exits at once; SIGTERM asks it to shut down
gracefully. It appends to its history by a `HistoryWriter`.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path

from loguru import logger

from bench.soak.checkpoint import Checkpoint, CheckpointedTransport
from bench.soak.history import HistoryWriter
from bench.soak.inquiry import run_list, run_starter, token_id
from bench.soak.spec import GROUP, KEY, WorkerSpec
from jwt_events import Event, Publisher, RedisStream, Subscriber, TokenRevoked
from jwt_events.errors import JWTEventsError, PublishError, PublishFailed, TransportError
from jwt_events.transport.base import Gap, Transport

_TASKS = 50
"""The number of events that a publisher has in flight, each of a key of its own."""

_PUBLISH_WITHIN = 2.0
"""Shorter than the longest fault, so that some outcomes stay unknown."""

_BLOCK = 0.25
_BATCH_SIZE = 200
_CLAIM_AFTER = 1.5
"""Shorter than the longest fault, so that deliveries of a frozen subscriber are claimed by others."""

_SLOW, _SLOW_SECONDS = 16, 0.05
"""One event in 16 takes 0.05 s to handle, so that events are always in flight when a subscriber is killed."""


class Quota:
    """The total of events that may be published, and their rate."""

    def __init__(self, rate: float) -> None:
        self._interval = 1 / rate
        self._limit = 0
        self._taken = 0
        self._changed = asyncio.Event()
        self._turn = asyncio.Lock()
        self._due = 0.0

    def raise_to(self, limit: int) -> None:
        """Raise the total to `limit`."""
        self._limit = max(self._limit, limit)
        self._changed.set()

    def release(self) -> None:
        """Return one event to the quota, because it was not accepted."""
        self._taken -= 1
        self._changed.set()

    async def acquire(self) -> None:
        """Wait until the quota and the rate allow one more. After a stall, overdue events are sent as a burst."""
        async with self._turn:
            while self._taken >= self._limit:
                self._due = 0.0  # waiting for the quota is no stall to catch up with
                self._changed.clear()
                await self._changed.wait()
            self._taken += 1
            now = asyncio.get_running_loop().time()
            self._due = (self._due or now) + self._interval
            if self._due > now:
                await asyncio.sleep(self._due - now)


async def publish(spec: WorkerSpec, writer: HistoryWriter, quota: Quota, stop: asyncio.Event) -> None:
    """Publish what the quota allows until `stop` is set."""
    options = {} if spec.retention is None else {"retention": timedelta(seconds=spec.retention)}
    transport = RedisStream(spec.url, key=KEY, replicas=spec.replicas, **options)
    async with Publisher(transport, source=spec.name, timeout=_PUBLISH_WITHIN) as publisher, asyncio.TaskGroup() as go:
        tasks = [
            go.create_task(_publish_key(publisher, writer, quota, f"{spec.name}.{spec.incarnation}.{number}"))
            for number in range(_TASKS)
        ]
        writer.append("ready")
        await stop.wait()
        for task in tasks:
            task.cancel()


async def _publish_key(publisher: Publisher, writer: HistoryWriter, quota: Quota, key: str) -> None:
    """Publish the events of a key one after another, so that their order is known."""
    number = 0
    while True:
        await quota.acquire()
        event = TokenRevoked(token_id=token_id(key, number), session_id=key)
        writer.append("invoke", id=event.id, key=key, n=number)
        number += 1
        try:
            receipt = await publisher.publish(event)
        except PublishError as error:
            writer.append("fail" if isinstance(error, PublishFailed) else "unknown", id=event.id)
            quota.release()
        else:
            writer.append("ok", id=event.id, position=receipt.position)


class RecordingHandler:
    """The handler of a subscriber, which records what it handles."""

    def __init__(self, writer: HistoryWriter) -> None:
        self._writer = writer
        self._busy: set[str] = set()

    @staticmethod
    def key(event: Event) -> str:
        """Return the ordering key of an event."""
        return str(event.session_id) if isinstance(event, TokenRevoked) else event.id

    async def handle(self, event: Event) -> None:
        """Record that an event was handled, in most cases at once."""
        key = self.key(event)
        if key in self._busy:
            self._writer.append("overlap", id=event.id)
        self._busy.add(key)
        try:
            await asyncio.sleep(0 if hash(event.id) % _SLOW else _SLOW_SECONDS)
            self._writer.append("handled", id=event.id)
        finally:
            self._busy.discard(key)

    async def record_gap(self, gap: Gap) -> None:
        """Record a gap."""
        self._writer.append("gap", since=gap.since, cause=gap.cause, lost=gap.lost, at=int(time.time() * 1000))


async def subscribe(spec: WorkerSpec, writer: HistoryWriter, stop: asyncio.Event) -> None:
    """Handle events until `stop` is set; retry while the server is down."""
    checkpoint = Checkpoint(Path(spec.directory, f"{spec.name}.position"))
    while not stop.is_set():
        handler = RecordingHandler(writer)
        subscriber = Subscriber(_transport(spec, checkpoint), ordered_by=handler.key, drain_timeout=3.0)
        subscriber.on()(handler.handle)
        subscriber.on_gap(handler.record_gap)
        entered = False
        try:
            async with subscriber:
                entered = True
                writer.append("ready")
                await stop.wait()
        except TransportError as error:
            if entered or not error.retryable:
                raise


def _transport(spec: WorkerSpec, checkpoint: Checkpoint) -> Transport:
    """Return the transport of a subscriber: a member of the group, or a reader from its checkpoint."""
    stream = partial(RedisStream, spec.url, key=KEY, block=_BLOCK, batch_size=_BATCH_SIZE, replicas=spec.replicas)
    if spec.transport == "group":
        return stream(group=GROUP, consumer=spec.name, start="all", claim_after=_CLAIM_AFTER)
    return CheckpointedTransport(stream(start=checkpoint.read() or "all"), checkpoint)


_ROLES: dict[str, Callable[[WorkerSpec, HistoryWriter, Quota, asyncio.Event], Awaitable[None]]] = {
    "publisher": publish,
    "subscriber": lambda spec, writer, _, stop: subscribe(spec, writer, stop),
    "list": lambda spec, writer, _, stop: run_list(spec, writer, stop),
    "starter": lambda spec, writer, _, stop: run_starter(spec, writer, stop),
}


async def _read_quota(lines: asyncio.StreamReader, quota: Quota) -> None:
    while line := await lines.readline():
        quota.raise_to(int(line))
    os._exit(1)  # the parent has exited, so a graceful shutdown has no observer


async def main() -> None:
    """Run what the spec on standard input says."""
    lines = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    spec = WorkerSpec(**json.loads(await lines.readline() or "{}"))
    if spec.verbose:
        logger.enable("jwt_events")
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    quota = Quota(spec.rate)
    writer = HistoryWriter(Path(spec.directory), spec.name, spec.incarnation)
    reading = asyncio.create_task(_read_quota(lines, quota))
    try:
        await _ROLES[spec.role](spec, writer, quota, stop)
        writer.append("stopped")
    except* JWTEventsError as errors:
        for error in errors.exceptions:
            writer.append("broken", problem=f"{type(error).__name__}: {error}")
        raise
    finally:
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading


if __name__ == "__main__":
    asyncio.run(main())
