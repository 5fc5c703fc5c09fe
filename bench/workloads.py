"""The workloads that libraries are compared by. Each function returns the workload of one run."""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import AsyncExitStack
from dataclasses import asdict, replace

from redis.asyncio import Redis

from bench import load
from bench.clients.base import BATCH_SIZE, TASKS, Client
from bench.process import start_worker
from bench.run import Failed, Run, RunParams, Stopwatch, Workload, run_concurrently, time_limit
from bench.subscribers import Subscribers, all_published, listening

_EVENTS_PER_CALL = 1_000  # of publish_many
_OVERLAPPING = 50  # more publishes than are in flight at once at a steady rate
_SETTLED = 0.3  # seconds after which the other process has handled what was sent before


def publish(client: Client, *, count: int, tasks: int = 1) -> Workload:
    """Publish one event with each call, from one task or from many."""

    async def workload(params: RunParams) -> Run:
        items = [client.item(index) for index in range(params.scaled(count))]
        total = len(items) + tasks
        async with (
            all_published(client, params, total),
            client.publishing(params.url, params.name) as send,
            time_limit(params),
        ):
            # Each task opens its connection now, if the library gives it one of its own.
            await run_concurrently(send, [client.item(0) for _ in range(tasks)], tasks)
            with Stopwatch() as watch:
                await run_concurrently(send, items, tasks)
        return watch.run(len(items))

    return workload


def publish_many(client: Client, *, count: int) -> Workload:
    """Publish a thousand events with each call."""

    async def workload(params: RunParams) -> Run:
        items = [client.item(index) for index in range(params.scaled(count, minimum=_EVENTS_PER_CALL))]
        async with (
            all_published(client, params, len(items)),
            client.publishing_many(params.url, params.name) as send,
            time_limit(params),
        ):
            with Stopwatch() as watch:
                for first in range(0, len(items), _EVENTS_PER_CALL):
                    await send(items[first : first + _EVENTS_PER_CALL])
        return watch.run(len(items))

    return workload


async def prepare(client: Client, params: RunParams, count: int) -> None:
    """Fill a stream with `count` events: in the client's own format if it has one, else in that of jwt_events."""
    async with Redis.from_url(params.url) as redis:
        if client.package in {"faststream", "taskiq-redis"}:
            if await redis.xlen(params.shared) != count:
                await redis.unlink(params.shared)
                async with client.publishing(params.url, params.shared) as send:
                    await run_concurrently(send, [client.item(index) for index in range(count)], TASKS)
        else:
            await load.fill(redis, params.shared, count)


def drain(client: Client, *, count: int, group: bool = False) -> Workload:
    """Read a stream from its beginning and pass every event to a handler; in a group, acknowledge it too."""

    async def workload(params: RunParams) -> Run:
        events = params.scaled(count, minimum=2_000)
        params = replace(params, shared=f"{params.shared}:{client.package}:{events}")
        await prepare(client, params, events)
        name = params.name if group else None
        if name is not None:
            async with Redis.from_url(params.url) as redis:
                await redis.xgroup_create(params.shared, name, id="0")
        subscribers = Subscribers(events)
        (arrivals,) = subscribers.arrivals
        async with time_limit(params, arrivals), AsyncExitStack() as stack:
            with Stopwatch() as watch:
                listener = client.listening(params.url, params.shared, subscribers.callback(arrivals), group=name)
                await stack.enter_async_context(listener)
                await subscribers.wait_for(events)
            if name is not None:
                await _acknowledged(params, name)
        if name is not None:
            async with Redis.from_url(params.url) as redis:
                await redis.xgroup_destroy(params.shared, name)
        return watch.run(events)

    return workload


async def _acknowledged(params: RunParams, group: str) -> None:
    async with Redis.from_url(params.url) as redis:
        for _ in range(100):
            if not (pending := await redis.xpending(params.shared, group))["pending"]:
                return
            await asyncio.sleep(0.05)
    raise Failed(f"{pending['pending']:,} events were handled and not acknowledged")


def through(client: Client, *, count: int, tasks: int = TASKS, subscriber_count: int = 1, padding: int = 0) -> Workload:
    """Publish from many tasks and handle in the same process; the value is the time per delivery."""

    async def workload(params: RunParams) -> Run:
        items = [client.item(index, padding) for index in range(tasks + params.scaled(count, minimum=20))]
        subscribers = Subscribers(len(items), subscriber_count)
        async with (
            listening(client, params, subscribers),
            client.publishing(params.url, params.name) as send,
            time_limit(params, *subscribers.arrivals),
        ):
            await run_concurrently(send, items[:tasks], tasks)  # opens connections
            await subscribers.wait_for(tasks)
            with Stopwatch() as watch:
                await run_concurrently(send, items[tasks:], tasks)
                await subscribers.wait_for(len(items))
        return watch.run((len(items) - tasks) * subscriber_count)

    return workload


def processor_time(client: Client, *, count: int) -> Workload:
    """Publish 500 events with each call and handle them in the same process; the value is CPU time per event."""

    async def workload(params: RunParams) -> Run:
        items = [client.item(index) for index in range(params.scaled(count))]
        subscribers = Subscribers(len(items))
        async with (
            listening(client, params, subscribers),
            client.publishing_many(params.url, params.name) as send,
            time_limit(params, *subscribers.arrivals),
        ):
            with Stopwatch() as watch:
                for first in range(0, len(items), BATCH_SIZE):
                    await send(items[first : first + BATCH_SIZE])
                await subscribers.wait_for(len(items))
        return Run(watch.run(len(items)).cpu or 0.0)

    return workload


def send(client: Client, *, count: int) -> Workload:
    """Publish from many tasks and report when that began: the second process of `across`."""

    async def workload(params: RunParams) -> Run:
        items = [client.item(index) for index in range(TASKS + params.scaled(count))]
        async with client.publishing(params.url, params.name) as send:
            await run_concurrently(send, items[:TASKS], TASKS)  # opens connections
            await asyncio.sleep(_SETTLED)
            began = time.perf_counter()
            await run_concurrently(send, items[TASKS:], TASKS)
        return Run(also={"began": began})

    return workload


def across(client: Client, *, row: str, count: int) -> Workload:
    """Publish from many tasks in one process and handle in another; the value is the time per event."""

    async def workload(params: RunParams) -> Run:
        events = params.scaled(count)
        subscribers = Subscribers(TASKS + events)
        async with (
            start_worker(row, client.name, "second") as sender,
            listening(client, params, subscribers),
            time_limit(params, *subscribers.arrivals),
        ):
            sent = asyncio.create_task(sender.request(asdict(params), params.limit))
            await subscribers.wait_for(TASKS + events)
            ended = time.perf_counter()
            run = await sent
        if run["problem"]:
            raise Failed(f"publishing: {run['problem']}")
        return Run((ended - run["also"]["began"]) / events * 1e6)

    return workload


def latency(client: Client, *, seconds: float, rate: int = 1_000) -> Workload:
    """Publish at a steady rate; the value is the 99th percentile of the time from before the publish to the handler."""

    async def workload(params: RunParams) -> Run:
        items = [client.item(index) for index in range(_OVERLAPPING + params.scaled(int(seconds * rate)))]
        sent = [0.0] * len(items)
        delays: list[float] = []
        subscribers = Subscribers(
            len(items), on_arrival=lambda token: delays.append(time.perf_counter() - sent[int(token, 16)])
        )
        async with (
            listening(client, params, subscribers),
            client.publishing(params.url, params.name) as send,
            time_limit(params, *subscribers.arrivals),
            asyncio.TaskGroup() as group,
        ):

            async def one(index: int) -> None:
                sent[index] = time.perf_counter()
                await send(items[index])

            await run_concurrently(send, items[:_OVERLAPPING], _OVERLAPPING)  # opens connections
            await subscribers.wait_for(_OVERLAPPING)
            delays.clear()
            with Stopwatch():
                began = time.perf_counter()
                for index in range(_OVERLAPPING, len(items)):
                    await asyncio.sleep(began + (index - _OVERLAPPING) / rate - time.perf_counter())
                    group.create_task(one(index))
                await subscribers.wait_for(len(items))
        return percentiles(delays)

    return workload


def percentiles(delays: list[float]) -> Run:
    """Summarise delays in seconds as percentiles in milliseconds."""
    ordered = sorted(delay * 1_000 for delay in delays)

    def percentile(part: float) -> float:
        return ordered[max(0, math.ceil(part * len(ordered)) - 1)]

    return Run(percentile(0.99), also={"p50": percentile(0.5), "p99.9": percentile(0.999)})
