"""Many events, many handlers, many publishers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
from redis.asyncio import Redis

from jwt_events import Event, Publisher, RedisStream, SessionCreated, Subscriber, TokenRevoked
from jwt_events.embedded import EmbeddedServer
from tests.stress.resident import Resident
from tests.support.raw import entries
from tests.support.waiting import scaled, wait_until

pytestmark = [pytest.mark.stress, pytest.mark.timeout(scaled(1_200))]


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """A server for this test alone, over TCP as in production."""
    async with EmbeddedServer(port=0) as server:
        yield server.url


async def test_a_million_events_need_no_more_memory_than_the_first_hundred_thousands(url: str) -> None:
    """A million events are published one by one from 200 tasks, and each is handled once; resident memory stays flat.

    How it knows: each event has a number, and a byte for each number counts its handlings. The first 200,000 warm up:
    the window in which duplicates are known, 100,000 ids, is full by then. After that, resident memory is sampled every
    50,000 events, and no sample is more than 5 % above the first.
    """
    number, warm, every, tasks, ahead = 1_000_000, 200_000, 50_000, 200, 20_000
    transport = RedisStream(url)
    subscriber, calls, resident = Subscriber(transport), bytearray(number), Resident()
    begun = handled = 0

    @subscriber.on(TokenRevoked)
    async def handle(event: TokenRevoked) -> None:
        nonlocal handled
        calls[int(event.token_id or "", 16)] += 1
        handled += 1

    def is_ahead() -> bool:
        return begun - handled > ahead

    async def publish() -> None:
        nonlocal begun
        while begun < number:
            index, begun = begun, begun + 1
            await publisher.publish(TokenRevoked(token_id=f"{index:x}"))
            if index >= warm and index % every == 0:
                resident.sample()
            if is_ahead():
                await wait_until(lambda: not is_ahead(), within=60.0)

    async with subscriber, Publisher(transport, timeout=scaled(30.0)) as publisher:
        async with asyncio.TaskGroup() as group:
            for _ in range(tasks):
                group.create_task(publish())
        await wait_until(lambda: handled == number, within=120.0)
        resident.sample()
    assert Counter(calls) == {1: number}
    assert subscriber.stats.gaps == subscriber.stats.duplicates == subscriber.stats.failed == 0
    resident.assert_flat(at_least=(number - warm) // every)


async def test_ten_thousand_handlers_are_each_called_once_for_each_of_their_events(url: str) -> None:
    """5,000 handlers of one type and 5,000 of another: each sees every event of its type once, and never the others.

    How it knows: each handler counts its own calls, and all count how many are running at a moment. That is never more
    than ``concurrency`` allows.
    """
    each, events, concurrency = 5_000, 20, 64
    calls: Counter[tuple[str, int]] = Counter()
    running = max_running = 0
    transport = RedisStream(url)
    subscriber = Subscriber(transport, concurrency=concurrency)

    def register(kind: type[Event], index: int) -> None:
        async def handle(event: Event) -> None:
            nonlocal running, max_running
            running += 1
            max_running = max(max_running, running)
            await asyncio.sleep(0)
            calls[event.type, index] += 1
            running -= 1

        subscriber.register_handler(kind, handle)

    for index in range(each):
        register(TokenRevoked, index)
        register(SessionCreated, index)
    async with subscriber, Publisher(transport) as publisher:
        for number in range(events):
            await publisher.publish(TokenRevoked(token_id=f"t{number}"))
            await publisher.publish(SessionCreated(session_id=f"s{number}", user_id="u"))
        await wait_until(lambda: subscriber.stats.handled == 2 * events, within=120.0)
    kinds = ("token_revoked", "session_created")
    assert calls == {(kind, index): events for kind in kinds for index in range(each)}
    assert 1 < max_running <= concurrency
    assert subscriber.stats.in_flight == 0


async def test_five_thousand_tasks_publish_at_once_over_one_connection(url: str) -> None:
    """5,000 tasks publish ten events each through one publisher: all are accepted once, and in the order of each task.

    How it knows: the stream itself is read with redis-py. It holds every event once, where its receipt says, and the
    positions of a task's events rise. The server counts the connections that it ever accepted.
    """
    tasks, each = 5_000, 10
    transport = RedisStream(url)
    receipts: dict[tuple[int, int], str] = {}

    async def publish(task: int) -> None:
        for number in range(each):
            receipt = await publisher.publish(TokenRevoked(token_id=f"{task}-{number}"))
            receipts[task, number] = receipt.position or ""

    async with Redis.from_url(url) as client, Publisher(transport, timeout=scaled(60.0)) as publisher:
        await client.ping()
        before = (await client.info("stats"))["total_connections_received"]
        async with asyncio.TaskGroup() as group:
            for task in range(tasks):
                group.create_task(publish(task))
        assert (await client.info("stats"))["total_connections_received"] - before <= 1
        stored = {position: fields[b"event"] for position, fields in await entries(client, transport.destination)}
    assert len(stored) == len(receipts) == tasks * each
    for (task, number), position in receipts.items():
        assert f'"token_id":"{task}-{number}"'.encode() in stored[position]
    order = {position: index for index, position in enumerate(stored)}
    for task in range(tasks):
        places = [order[receipts[task, number]] for number in range(each)]
        assert all(earlier < later for earlier, later in pairwise(places))
