"""Random sequences of what others do to a stream, read from a replica that lags, against the model of a primary.

The reader is told the same as at the primary: that a change arrives late at the replica hides no loss and makes no gap.
Its connections are cut in between, and so it moves between the replica and the primary.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from redis.asyncio import Redis

from jwt_events import RedisStream
from jwt_events.transport._redis import replicas
from jwt_events.transport._stream import replica_proof
from jwt_events.transport._stream.cursor import CursorReceiver
from tests.faults.replicated import Replicated, replicated
from tests.support.proxy import Proxy
from tests.support.raw import call, counts_what_was_added
from tests.support.servers import OWN_KINDS, embedded
from tests.transport.test_removed_model import Receiving, Stream, histories, sequences

LAG = 0.005


class Running(NamedTuple):
    """A primary, and a replica that follows it through a proxy.

    Attributes:
        runner: the event loop that they run in.
        servers: both.
    """

    runner: asyncio.Runner
    servers: Replicated


@pytest.fixture(scope="module", params=OWN_KINDS)
def running(request: pytest.FixtureRequest) -> Iterator[Running]:
    """Start both."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        both = replicated(partial(embedded, request.param), replicas=1)
        servers = runner.run(both.__aenter__())
        way = Proxy(servers.url)
        runner.run(way.__aenter__())
        try:
            runner.run(_lag(servers, way))
            yield Running(runner, servers)
        finally:
            runner.run(way.__aexit__())
            runner.run(both.__aexit__(None, None, None))


async def _lag(servers: Replicated, way: Proxy) -> None:
    await call(servers.clients[1], "REPLICAOF", "127.0.0.1", urlsplit(way.url).port or 0)
    await servers.are_linked()
    way.to_client.latency = LAG


async def run(servers: Replicated, before: list[tuple[str, int]], then: list[tuple[str, int]]) -> set[bool]:
    """Make a stream with a history, run a sequence, and return at which of both it was read: the replica or not."""
    read_at = set[bool]()
    async with Redis.from_url(servers.url) as client:
        try:
            stream = Stream(client, "model")
            for name, number in before:
                await getattr(stream, name)(number)
            await stream.begin()
            transport = RedisStream(
                servers.url, "model", batch_size=2, block=0.002, start="all", read_from=servers.servers[1].url
            )
            async with transport.receiver() as receiver:
                assert isinstance(receiver, CursorReceiver)
                counts, unread = await counts_what_was_added(client), set((await stream.entries()).values())
                reading = Receiving(receiver, stream, counts=counts, unread=unread)
                for name, number in then:
                    if (connection := receiver.reconnecting.connection) is not None:
                        read_at.add(connection.peer is not None and connection.peer[1] == servers.port(1))
                    await reading.step(name, number)
                await reading.catch_up()
        finally:
            await client.delete("model", "model:other", "model:away")
    return read_at


def check(running: Running, *, number: int) -> None:
    """Run so many random sequences; the replica is read in some of them."""
    read_at = set[bool]()

    @settings(max_examples=number, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(histories, sequences)
    def holds(before: list[tuple[str, int]], then: list[tuple[str, int]]) -> None:
        read_at.update(running.runner.run(run(running.servers, before, then)))

    holds()
    assert True in read_at


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let readers return at once to a replica that they left, and look for it all the time."""
    monkeypatch.setattr(replicas, "_INITIAL_AVOIDANCE", 0.001)
    monkeypatch.setattr(replicas, "_MAX_AVOIDANCE", 0.001)
    monkeypatch.setattr(replicas, "_SETTLE", 0.0)
    monkeypatch.setattr(replica_proof, "_LOOK_INTERVAL", 0.005)


def test_some_sequences(running: Running) -> None:
    """No loss without a gap, no gap without a possible loss."""
    check(running, number=40)


@pytest.mark.stress
@pytest.mark.timeout(1800)
def test_five_hundred_sequences(running: Running) -> None:
    """The same, five hundred times."""
    check(running, number=500)
