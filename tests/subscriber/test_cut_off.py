"""The last seconds of a subscriber: what handlers use was closed before it, or it is cancelled again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest
from redis.asyncio import Redis

from jwt_events import Event, MemoryTransport, Publisher, RedisStream, Retry, Subscriber, TokenRevoked
from tests.support.examples import revoked
from tests.support.groups import RawGroup
from tests.support.handling import Gate, publish, running, soon
from tests.support.records import recorded
from tests.support.waiting import wait_until

_CUT_OFF = "handler cut off, what it uses was closed before the subscriber: open that first"
_NOT_DRAINED = "not drained: cancelled again while handlers were running, which are cut off"


class TestClosedPublisher:
    """A publisher that was opened inside of the subscriber's block is closed before the handlers have ended."""

    @pytest.mark.parametrize("attempts", [1, 3])
    async def test_group(self, url: str, key: str, client: Redis, attempts: int) -> None:
        """An event of a group is no dead letter for that: it stays with the group, and is handled by another."""
        stream = RedisStream(url, key, group="g", start="all", claim_after=0.2)
        subscriber, publisher = Subscriber(stream, retry=Retry(attempts=attempts)), Publisher(stream)
        gate = Gate()

        @subscriber.on()
        async def republish(event: Event) -> None:
            await gate(event)
            try:
                await publisher.publish(revoked(2))
            except Exception as error:
                raise ValueError("as programs do") from error

        with recorded() as records:
            async with subscriber:
                await publish(stream, revoked(1))
                await wait_until(lambda: gate.running == 1)
                await publisher.aclose()
                gate.open()
                await wait_until(lambda: gate.running == 0)
        assert len(records.of(_CUT_OFF, "ERROR")) == 1
        assert (subscriber.stats.failed, subscriber.stats.dead_lettered) == (1, 0)
        assert not await client.exists(f"{key}:dead")
        other = Subscriber(stream)
        other.on()(seen := Gate())
        seen.open()
        async with other:
            await wait_until(lambda: other.stats.handled == 1)
        await RawGroup(client, key).all_acknowledged()

    async def test_no_group(self) -> None:
        """Where nothing is delivered again, the event is kept as a dead letter, after one attempt."""
        transport = MemoryTransport()
        subscriber, publisher, gate = Subscriber(transport), Publisher(transport), Gate()

        @subscriber.on()
        async def republish(event: Event) -> None:
            await gate(event)
            await publisher.publish(revoked(2))

        async with subscriber:
            await publish(transport, revoked(1))
            await wait_until(lambda: gate.running == 1)
            await publisher.aclose()
            async with running(subscriber.drain()) as draining:
                gate.open()
                await soon(draining)
        ((_, failure),) = transport.dead_letters
        assert (failure.attempts, failure.error.partition(" ")[0]) == (1, "Closed")


async def _move_on(work: Callable[[], Coroutine[Any, Any, None]], begun: Callable[[], bool]) -> None:
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(work)
            await wait_until(begun)
            scope.cancel()


class TestAnyio:
    """Scopes of anyio cancel again at each turn of the loop, so that nothing can be drained in one."""

    @pytest.mark.parametrize("runs", [True, False], ids=["run", "async with"])
    async def test_group(self, url: str, key: str, client: Redis, runs: bool) -> None:
        """It is said that handlers were cut off; the group keeps their events, and no connection is left."""
        stream = RedisStream(url, key, group="g", start="all", claim_after=0.2)
        subscriber, gate = Subscriber(stream), Gate()
        subscriber.on(TokenRevoked)(gate)

        async def serve() -> None:
            if runs:
                await subscriber.run()
            async with subscriber:
                await asyncio.Event().wait()

        await publish(stream, *map(revoked, range(3)))
        before = len(await client.client_list())
        with recorded() as records:
            await soon(_move_on(serve, lambda: gate.running == 3))
        assert records.of(_NOT_DRAINED, "WARNING") == [{"count": 3}]
        await wait_until(lambda: len(gate.cancelled) == 3)
        assert len(await RawGroup(client, key).pending()) == 3

        async def none_left() -> bool:
            return len(await client.client_list()) <= before

        await wait_until(none_left)
        other = Subscriber(stream)
        other.on()(seen := Gate())
        seen.open()
        async with other:
            await wait_until(lambda: other.stats.handled == 3)
        await RawGroup(client, key).all_acknowledged()

    async def test_shielded(self) -> None:
        """A drain in a shielded scope, at the end of the block, finishes what was begun."""
        transport, gate = MemoryTransport(start="all"), Gate()
        subscriber = Subscriber(transport)
        subscriber.on()(gate)
        await publish(transport, revoked(1))

        async def serve() -> None:
            async with subscriber:
                try:
                    await asyncio.Event().wait()
                finally:
                    gate.open()
                    with anyio.CancelScope(shield=True):
                        await subscriber.drain()

        await soon(_move_on(serve, lambda: gate.running == 1))
        assert (len(gate.finished), gate.cancelled, subscriber.stats.failed) == (1, [], 0)
