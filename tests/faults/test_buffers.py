"""The server drops, kills or pauses its clients: a client that may have missed events reports a gap."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from redis.asyncio import Redis

from jwt_events import Event, Gap, Publisher, RedisPubSub, Subscriber, TokenRevoked
from jwt_events.embedded import EmbeddedServer
from jwt_events.testing import Listener
from tests.faults.scenes import TRANSPORTS, Source, transport_of
from tests.support.proxy import Proxy
from tests.support.raw import call
from tests.support.waiting import scaled, wait_until

MakeServer = Callable[..., EmbeddedServer]


async def number_subscribed(client: Redis, channel: str) -> int:
    """Return how many connections subscribe to a channel."""
    ((_, number),) = await client.pubsub_numsub(channel)
    return int(number)


class TestDropped:
    """The server drops a subscriber whose output buffer exceeds the limit."""

    async def test_a_reader_that_is_too_slow(self, own_server: MakeServer) -> None:
        """A subscriber whose handlers are busy until the server drops it reports a gap."""
        gate, gaps, handled = asyncio.Event(), list[Gap](), list[Event]()
        async with own_server() as server, Redis.from_url(server.url) as client:
            await client.config_set("client-output-buffer-limit", "pubsub 1mb 0 0")
            subscriber = Subscriber(RedisPubSub(server.url), concurrency=1)

            @subscriber.on()
            async def handle(event: Event) -> None:
                handled.append(event)
                await gate.wait()

            @subscriber.on_gap
            async def keep(gap: Gap) -> None:
                gaps.append(gap)

            async with subscriber, Publisher(RedisPubSub(server.url), timeout=scaled(20)) as publisher:
                big = [TokenRevoked(token_id=f"t{n}", metadata={"m": "x" * 15_000}) for n in range(50)]
                published = 0

                async def is_dropped() -> bool:
                    nonlocal published
                    published += len(
                        await publisher.publish_many(TokenRevoked(**e.model_dump() | fresh()) for e in big)
                    )
                    return await number_subscribed(client, "jwt:events") == 0

                def fresh() -> dict[str, str]:
                    return {"id": TokenRevoked(token_id="t").id}

                await wait_until(is_dropped, what="the server to drop the subscriber")
                gate.set()
                await wait_until(lambda: "reconnected" in [gap.cause for gap in gaps], what="a gap")
                last = TokenRevoked(token_id="last")
                await publisher.publish(last)
                await wait_until(lambda: last.id in [event.id for event in handled], what="the last event")
            assert len(handled) < published

    async def test_33_megabytes(self, own_server: MakeServer) -> None:
        """A message beyond the server's limit reaches the subscriber, or drops it and is a gap; events flow again."""
        async with own_server() as server, Redis.from_url(server.url) as client:
            transport = RedisPubSub(server.url)
            async with Listener(transport) as one, Listener(transport) as other, Source(transport) as source:
                subject = await source.publish()
                await one.hears(subject)
                await other.hears(subject)
                await client.publish("jwt:events", bytes(33 * 1024 * 1024))
                for listener in (one, other):
                    # A server that sends a large message without copying it may not count it, and drops no client.
                    await wait_until(
                        lambda listener=listener: (
                            "reconnected" in listener.causes or listener.subscriber.stats.decode_errors == 1
                        ),
                        what="a gap, or the message itself",
                    )
                    await source.is_heard_by(listener)

    @pytest.mark.parametrize("kind", TRANSPORTS)
    async def test_a_megabyte_that_is_no_event(self, own_server: MakeServer, kind: str) -> None:
        """A large message that is not an event is counted as a decode error, and later events are handled."""
        async with own_server() as server, Redis.from_url(server.url) as client:
            transport = transport_of(kind, server.url, "k")
            async with Listener(transport) as listener, Source(transport) as source:
                await listener.hears(await source.publish())
                large = b"x" * 4_000_000
                await (client.publish("k", large) if kind == "pubsub" else client.xadd("k", {"event": large}))
                await listener.hears(await source.publish())
                assert listener.subscriber.stats.decode_errors == 1
                assert listener.gaps == []


class TestKilled:
    """An administrator kills connections."""

    @pytest.mark.parametrize("kind", TRANSPORTS)
    async def test_client_kill(self, own_server: MakeServer, kind: str) -> None:
        """After CLIENT KILL, three times over, events flow: all of them on a stream, with gaps on Pub/Sub."""
        async with own_server() as server, Redis.from_url(server.url) as client:
            transport = transport_of(kind, server.url, "k")
            async with Listener(transport) as listener, Source(transport) as source:
                for _ in range(3):
                    await source.is_heard_by(listener)
                    async with source.flowing():
                        await source.publish(5)
                        await client.client_kill_filter(_type="pubsub" if kind == "pubsub" else "normal", skipme=True)
                        await source.publish(5)
                    await source.is_heard_by(listener)
                if kind != "pubsub":
                    await listener.hears(*source.confirmed)
            assert set(listener.causes) <= ({"disconnected", "reconnected"} if kind == "pubsub" else set())
            assert bool(listener.gaps) == (kind == "pubsub")


class TestPaused:
    """An administrator pauses the server."""

    @pytest.mark.parametrize("mode", ["ALL", "WRITE"])
    async def test_a_short_pause(self, own_server: MakeServer, mode: str) -> None:
        """A pause shorter than any deadline loses nothing: no gap is reported, and no client reconnects."""
        async with on_every_transport(own_server) as (client, scenes):
            before = [proxy.accepted for proxy, _, _ in scenes]
            await call(client, "CLIENT", "PAUSE", 200, mode)
            await asyncio.gather(*(source.publish(5) for _, source, _ in scenes))
            for _, source, listener in scenes:
                await listener.hears(*source.confirmed)
                assert listener.gaps == []
            assert [proxy.accepted for proxy, _, _ in scenes] == before

    async def test_a_long_pause(self, own_server: MakeServer) -> None:
        """A pause longer than any deadline loses nothing on a stream; Pub/Sub reports a gap."""
        async with on_every_transport(own_server) as (client, scenes):
            await call(client, "CLIENT", "PAUSE", 4000, "ALL")
            await asyncio.gather(*(source.publish(5) for _, source, _ in scenes))
            for _, source, listener in scenes:
                await source.is_heard_by(listener)
            (_, _, on_pubsub), *on_streams = scenes
            assert on_pubsub.causes == ["disconnected", "reconnected"]
            for _, source, listener in on_streams:
                await listener.hears(*source.confirmed)
                assert listener.gaps == []


@asynccontextmanager
async def on_every_transport(
    own_server: MakeServer,
) -> AsyncIterator[tuple[Redis, list[tuple[Proxy, Source, Listener]]]]:
    """Run a listener on every transport, on one server."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(own_server())
        client = await stack.enter_async_context(Redis.from_url(server.url))
        scenes = []
        for kind in TRANSPORTS:
            proxy = await stack.enter_async_context(Proxy(server.url))
            source = await stack.enter_async_context(Source(transport_of(kind, server.url, kind), timeout=20))
            listener = await stack.enter_async_context(Listener(transport_of(kind, proxy.url, kind)))
            await listener.hears(await source.publish(3))
            if kind == "group":
                await wait_until(lambda proxy=proxy: proxy.accepted == 2, what="the connection that acknowledges")
            scenes.append((proxy, source, listener))
        yield client, scenes
