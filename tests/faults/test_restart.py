"""A server is killed and restarted with all, some or none of its data: losses are reported."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from redis.asyncio import Redis

from jwt_events import Publisher, PublishFailed, RedisStream, ServerRefused, SubscriptionRefused, TokenRevoked
from jwt_events.testing import Listener
from tests.faults.restarting import ALL, MOST, NONE, MakeServer, Restartable
from tests.faults.scenes import STREAMS, TRANSPORTS, Source, ending, for_ever, some_gap, transport_of
from tests.support.faults import frozen
from tests.support.handling import soon
from tests.support.proxy import Proxy
from tests.support.waiting import scaled, wait_until


@asynccontextmanager
async def life_goes_on(
    server: Restartable, kind: str, config: dict[str, str]
) -> AsyncIterator[tuple[Listener, Source]]:
    """Kill the server under load, start it again, and wait until events flow."""
    await server.start(config)
    transport = transport_of(kind, server.url, "k")
    async with Listener(transport) as listener, Source(transport, timeout=20) as source:
        await listener.hears(await source.publish(20))
        async with source.flowing():
            await listener.hears(f"t{30}")
            await server.kill()
            await server.start(config)
            await source.publish(5)
        await source.is_heard_by(listener)
        yield listener, source


@pytest.mark.parametrize("kind", STREAMS)
class TestKilled:
    """A server that is killed by ``kill -9`` under load, and started again."""

    async def test_with_every_write_on_disk(self, restartable: Restartable, kind: str) -> None:
        """A server that confirms nothing before it is on disk loses nothing, and no gap is reported."""
        async with life_goes_on(restartable, kind, ALL) as (listener, source):
            await listener.hears(*source.confirmed)
        assert listener.gaps == []

    async def test_with_most_writes_on_disk(self, restartable: Restartable, kind: str) -> None:
        """A server that may have lost its last second is reported as restarted; that gap covers what is missing."""
        async with life_goes_on(restartable, kind, MOST) as (listener, source):
            await some_gap(listener)
            await listener.hears(source.confirmed[-1])
        assert "restarted" in listener.causes

    async def test_with_nothing_on_disk(self, restartable: Restartable, kind: str) -> None:
        """A server that restarts empty is reported, and read from its new beginning."""
        async with life_goes_on(restartable, kind, NONE) as (listener, source):
            await some_gap(listener)
            await listener.hears(*source.confirmed[-5:])
        assert "restarted" in listener.causes

    async def test_losing_its_tail(self, restartable: Restartable, own_server: MakeServer, kind: str) -> None:
        """A server that restarts without entries that were read is reported, and read on without a hole."""
        await restartable.start(MOST)
        transport = transport_of(kind, restartable.url, "k")
        (log,) = restartable.data_dir.rglob("*.incr.aof")
        async with Listener(transport) as listener, Source(transport, timeout=20) as source:
            await listener.hears(await source.publish(3))
            early = log.stat().st_size
            await listener.hears(await source.publish(10))
            await restartable.kill()
            os.truncate(log, early)
            await restartable.start(MOST)
            await source.publish(10)
            await listener.hears(*source.confirmed)
            await some_gap(listener)
        assert listener.causes[0] == "restarted"


class TestPublisherAndRestart:
    """A publisher learns the outcome of each event during a restart."""

    @pytest.mark.parametrize("kind", STREAMS)
    async def test_waits_for_the_server(self, restartable: Restartable, kind: str) -> None:
        """A publish without a server succeeds as soon as there is one again, if that is before its deadline."""
        await restartable.start(ALL)
        transport = transport_of(kind, restartable.url, "k")
        async with Listener(transport) as listener, Source(transport, timeout=20) as source:
            await source.publish()
            await restartable.kill()
            publishing = asyncio.create_task(source.publish(3))
            await restartable.start(ALL)
            await listener.hears(await soon(publishing))
            assert listener.subjects == ["t0", "t1", "t2", "t3"]

    async def test_gives_up_at_its_deadline(self, restartable: Restartable) -> None:
        """Without a server a publish fails at its deadline and tells that nothing was sent."""
        async with Publisher(RedisStream(restartable.url, "k"), timeout=0.3) as publisher:
            with pytest.raises(PublishFailed):
                await soon(publisher.publish(TokenRevoked(token_id="t")))


class TestReplaced:
    """A promoted replica, which has not got every entry, replaces the server."""

    @pytest.mark.parametrize("kind", TRANSPORTS)
    async def test_without_the_tail(self, own_server: MakeServer, kind: str) -> None:
        """Receivers of the old server report a possible loss, and go on with the new one."""
        async with (
            own_server() as old,
            own_server() as new,
            Redis.from_url(old.url) as on_old,
            Redis.from_url(new.url) as on_new,
            Proxy(old.url) as proxy,
            Source(transport_of(kind, proxy.url, "k"), timeout=20) as source,
            Listener(transport_of(kind, proxy.url, "k")) as listener,
        ):
            await listener.hears(await source.publish(3))
            if (copy := await on_old.dump("k")) is not None:
                await on_new.restore("k", 0, copy)
            await listener.hears(await source.publish(3))
            proxy.upstream = new.url
            proxy.reset()
            await some_gap(listener)
            await source.is_heard_by(listener)
            await listener.hears(source.confirmed[-1])
            if kind != "pubsub":
                assert listener.causes[0] == "restarted"


class TestFrozen:
    """The server is stopped for a while by SIGSTOP."""

    async def test_nothing_is_lost(self, own_server: MakeServer) -> None:
        """Events published to a stream before, during and after are read, without a gap."""
        async with own_server(port=0) as server, AsyncExitStack() as stack:
            scenes = []
            for kind in STREAMS:
                proxy = await stack.enter_async_context(Proxy(server.url))
                source = await stack.enter_async_context(Source(transport_of(kind, server.url, kind), timeout=20))
                listener = await stack.enter_async_context(Listener(transport_of(kind, proxy.url, kind)))
                await listener.hears(await source.publish(3))
                await stack.enter_async_context(source.flowing())
                scenes.append((proxy, source, listener, proxy.accepted))
            with frozen(server):
                for proxy, _, _, before in scenes:
                    await wait_until(lambda proxy=proxy, before=before: proxy.accepted > before)
            for _, source, listener, _ in scenes:
                await source.is_heard_by(listener)
                await listener.hears(*source.confirmed)
                assert listener.gaps == []


class TestChangedPassword:
    """A server that restarts with another password."""

    @pytest.mark.parametrize("kind", TRANSPORTS)
    async def test_ends_the_context(self, restartable: Restartable, kind: str) -> None:
        """Listeners and publishers with the old password get a typed error soon."""
        await restartable.start(ALL)
        transport = transport_of(kind, restartable.url, "k")
        async with Publisher(transport, timeout=scaled(10)) as publisher:
            async with ending(ServerRefused, SubscriptionRefused), Listener(transport):
                await publisher.publish(TokenRevoked(token_id="t"))
                await restartable.kill()
                # In a task of its own: the body of the listener's context is cancelled.
                restart = asyncio.create_task(restartable.start(ALL | {"requirepass": "other"}))
                await for_ever()
            await restart
            with pytest.raises(PublishFailed):
                await publisher.publish(TokenRevoked(token_id="t"))
