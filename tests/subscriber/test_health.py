"""The health of a subscriber: its state, and the age of the last read that the server answered."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import pytest

from jwt_events import MemoryTransport, RedisPubSub, RedisStream, Subscriber, SubscriberState, TransportError
from jwt_events.embedded import EmbeddedServer
from tests.support.faults import frozen
from tests.support.handling import Recorder
from tests.support.scripted import ScriptedTransport
from tests.support.waiting import wait_until


def _transport(kind: str, url: str) -> RedisStream | RedisPubSub:
    if kind == "pubsub":
        return RedisPubSub(url, "c")
    return RedisStream(url, "k", group="g" if kind == "group" else None, block=0.1)


@pytest.mark.parametrize("kind", ["stream", "group", "pubsub"])
async def test_server(own_server: Callable[..., EmbeddedServer], kind: str) -> None:
    """It is live while the server answers, not live while it does not, and live again afterwards."""
    async with own_server() as server:
        subscriber = Subscriber(_transport(kind, server.url))
        subscriber.on()(Recorder())
        assert (subscriber.state, subscriber.staleness) == (SubscriberState.CLOSED, math.inf)
        async with subscriber:
            await wait_until(lambda: subscriber.is_live and subscriber.staleness < 5)
            with frozen(server):
                await wait_until(lambda: subscriber.state is SubscriberState.CONNECTING)
                assert not subscriber.is_live
                before = subscriber.staleness
                await wait_until(lambda: subscriber.staleness > before)
            await wait_until(lambda: subscriber.is_live and subscriber.staleness < before)
            assert subscriber.failure is None
        assert (subscriber.state, subscriber.staleness) == (SubscriberState.CLOSED, math.inf)


async def test_stopped() -> None:
    """A subscriber that was stopped inside of its block is closed, and not on the way to be live again."""
    subscriber = Subscriber(MemoryTransport())
    subscriber.on()(Recorder())
    async with subscriber:
        assert subscriber.is_live
        await subscriber.stop()
        assert subscriber.state is SubscriberState.CLOSED


async def test_failed() -> None:
    """A subscriber that failed for good says so, with the error, until it is entered again."""
    transport = ScriptedTransport()
    subscriber = Subscriber(transport)

    async def serve() -> None:
        async with subscriber:
            error = transport.fail()
            await wait_until(lambda: subscriber.failure is error)
            assert subscriber.state is SubscriberState.FAILED
            await asyncio.Event().wait()

    with pytest.raises(TransportError, match="the script says so"):
        await serve()
    assert subscriber.state is SubscriberState.FAILED
    assert "the script says so" in str(subscriber.failure)
    async with subscriber:
        assert subscriber.is_live
    assert repr(subscriber.state) == repr(SubscriberState.CLOSED)
