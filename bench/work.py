"""The shapes of work that libraries are compared at. Each returns the work of one run."""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import AsyncExitStack
from dataclasses import asdict, replace

from redis.asyncio import Redis

from bench import load
from bench.clients.base import PAGE, TASKS, Client
from bench.crowd import Crowd, listening, published
from bench.process import child
from bench.run import Failed, Place, Run, Stopwatch, Work, limited, shared_out

_ONE_CALL = 1_000  # events of one call of publish_many
_OVERLAPPING = 50  # more publishes than are under way at once at a steady rate
_SETTLED = 0.3  # seconds after which what was sent before has been handled elsewhere


def publish(client: Client, *, number: int, tasks: int = 1) -> Work:
    """Publish one event with each call, from one task or from many."""

    async def work(place: Place) -> Run:
        items = [client.item(index) for index in range(place.many(number))]
        total = len(items) + tasks
        async with published(client, place, total), client.publishing(place.url, place.name) as send, limited(place):
            await shared_out(send, [client.item(0) for _ in range(tasks)], tasks)  # whoever wants a connection has it
            with Stopwatch() as watch:
                await shared_out(send, items, tasks)
        return watch.run(len(items))

    return work


def publish_many(client: Client, *, number: int) -> Work:
    """Publish a thousand events with each call."""

    async def work(place: Place) -> Run:
        items = [client.item(index) for index in range(place.many(number, least=_ONE_CALL))]
        async with (
            published(client, place, len(items)),
            client.publishing_many(place.url, place.name) as send,
            limited(place),
        ):
            with Stopwatch() as watch:
                for first in range(0, len(items), _ONE_CALL):
                    await send(items[first : first + _ONE_CALL])
        return watch.run(len(items))

    return work


async def prepare(client: Client, place: Place, number: int) -> None:
    """Fill a stream in the client's own format: everybody reads events that travel as ours do, or their own."""
    async with Redis.from_url(place.url) as redis:
        if client.package in {"faststream", "taskiq-redis"}:
            if await redis.xlen(place.shared) != number:
                await redis.unlink(place.shared)
                async with client.publishing(place.url, place.shared) as send:
                    await shared_out(send, [client.item(index) for index in range(number)], TASKS)
        else:
            await load.fill(redis, place.shared, number)


def drain(client: Client, *, number: int, group: bool = False) -> Work:
    """Read a stream from its beginning, and hand every event to a handler; in a group, acknowledge it too."""

    async def work(place: Place) -> Run:
        events = place.many(number, least=2_000)
        place = replace(place, shared=f"{place.shared}:{client.package}:{events}")
        await prepare(client, place, events)
        name = place.name if group else None
        if name is not None:
            async with Redis.from_url(place.url) as redis:
                await redis.xgroup_create(place.shared, name, id="0")
        crowd = Crowd(events)
        (tally,) = crowd.tallies
        async with limited(place, tally), AsyncExitStack() as stack:
            with Stopwatch() as watch:
                listener = client.listening(place.url, place.shared, crowd.arrived(tally), group=name)
                await stack.enter_async_context(listener)
                await crowd.have(events)
            if name is not None:
                await _acknowledged(place, name)
        if name is not None:
            async with Redis.from_url(place.url) as redis:
                await redis.xgroup_destroy(place.shared, name)
        return watch.run(events)

    return work


async def _acknowledged(place: Place, group: str) -> None:
    async with Redis.from_url(place.url) as redis:
        for _ in range(100):
            if not (pending := await redis.xpending(place.shared, group))["pending"]:
                return
            await asyncio.sleep(0.05)
    raise Failed(f"{pending['pending']:,} events were handled and not acknowledged")


def through(client: Client, *, number: int, tasks: int = TASKS, subscribers: int = 1, padding: int = 0) -> Work:
    """Publish from many tasks and handle in the same process; the time is that of a delivery."""

    async def work(place: Place) -> Run:
        items = [client.item(index, padding) for index in range(tasks + place.many(number, least=20))]
        crowd = Crowd(len(items), subscribers)
        async with (
            listening(client, place, crowd),
            client.publishing(place.url, place.name) as send,
            limited(place, *crowd.tallies),
        ):
            await shared_out(send, items[:tasks], tasks)  # whoever wants a connection has it
            await crowd.have(tasks)
            with Stopwatch() as watch:
                await shared_out(send, items[tasks:], tasks)
                await crowd.have(len(items))
        return watch.run((len(items) - tasks) * subscribers)

    return work


def watched(client: Client, *, number: int) -> Work:
    """Publish five hundred with each call and handle in the same process; what counts is processor time per event."""

    async def work(place: Place) -> Run:
        items = [client.item(index) for index in range(place.many(number))]
        crowd = Crowd(len(items))
        async with (
            listening(client, place, crowd),
            client.publishing_many(place.url, place.name) as send,
            limited(place, *crowd.tallies),
        ):
            with Stopwatch() as watch:
                for first in range(0, len(items), PAGE):
                    await send(items[first : first + PAGE])
                await crowd.have(len(items))
        return Run(watch.run(len(items)).cpu or 0.0)

    return work


def send(client: Client, *, number: int) -> Work:
    """Publish from many tasks, and tell when it began: one half of `across`."""

    async def work(place: Place) -> Run:
        items = [client.item(index) for index in range(TASKS + place.many(number))]
        async with client.publishing(place.url, place.name) as send:
            await shared_out(send, items[:TASKS], TASKS)  # whoever wants a connection has it
            await asyncio.sleep(_SETTLED)
            began = time.perf_counter()
            await shared_out(send, items[TASKS:], TASKS)
        return Run(also={"began": began})

    return work


def across(client: Client, *, row: str, number: int) -> Work:
    """Publish from many tasks in one process and handle in another; the time is that of an event."""

    async def work(place: Place) -> Run:
        events = place.many(number)
        crowd = Crowd(TASKS + events)
        async with (
            child(row, client.name, "partner") as sender,
            listening(client, place, crowd),
            limited(place, *crowd.tallies),
        ):
            sent = asyncio.create_task(sender.ask(asdict(place), place.limit))
            await crowd.have(TASKS + events)
            ended = time.perf_counter()
            run = await sent
        if run["problem"]:
            raise Failed(f"publishing: {run['problem']}")
        return Run((ended - run["also"]["began"]) / events * 1e6)

    return work


def latency(client: Client, *, seconds: float, rate: int = 1_000) -> Work:
    """Publish at a steady rate; the time is from before the publish until the handler, the 99th percentile of it."""

    async def work(place: Place) -> Run:
        items = [client.item(index) for index in range(_OVERLAPPING + place.many(int(seconds * rate)))]
        sent = [0.0] * len(items)
        delays: list[float] = []
        crowd = Crowd(len(items), at_once=lambda token: delays.append(time.perf_counter() - sent[int(token, 16)]))
        async with (
            listening(client, place, crowd),
            client.publishing(place.url, place.name) as send,
            limited(place, *crowd.tallies),
            asyncio.TaskGroup() as group,
        ):

            async def one(index: int) -> None:
                sent[index] = time.perf_counter()
                await send(items[index])

            await shared_out(send, items[:_OVERLAPPING], _OVERLAPPING)  # whoever wants a connection has it
            await crowd.have(_OVERLAPPING)
            delays.clear()
            with Stopwatch():
                began = time.perf_counter()
                for index in range(_OVERLAPPING, len(items)):
                    await asyncio.sleep(began + (index - _OVERLAPPING) / rate - time.perf_counter())
                    group.create_task(one(index))
                await crowd.have(len(items))
        return percentiles(delays)

    return work


def percentiles(delays: list[float]) -> Run:
    """Sum up delays in seconds, in milliseconds."""
    ordered = sorted(delay * 1_000 for delay in delays)

    def percentile(part: float) -> float:
        return ordered[max(0, math.ceil(part * len(ordered)) - 1)]

    return Run(percentile(0.99), also={"p50": percentile(0.5), "p99.9": percentile(0.999)})
