"""Pub/Sub: every interruption of a subscription is a gap, or ends it with an error."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial

import pytest
from redis.asyncio import Redis

from bench.ports import free_port
from jwt_events import ConnectionFailed, Gap, Publisher, RedisPubSub, Subscriber, SubscriptionRefused, TokenRevoked
from jwt_events.embedded import EmbeddedServer
from jwt_events.testing import Listener
from tests.support.fake_server import HANG_UP, PRIMARY, SILENCE, FakeServer, array, push, text
from tests.support.faults import frozen, kill_reader
from tests.support.raw import call
from tests.support.waiting import scaled, wait_until

CHANNEL = "the channel"
CONFIRMATION = push(text(b"subscribe"), text(CHANNEL.encode()), b":1\r\n")


async def listen(transport: RedisPubSub, meanwhile: Callable[[], Awaitable[object]]) -> None:
    """Run a listener until it ends."""
    async with asyncio.timeout(scaled(20)), Listener(transport):
        await meanwhile()
        await asyncio.Event().wait()


@pytest.fixture
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the time for opening a subscription."""
    monkeypatch.setattr("jwt_events.transport._redis.reconnecting.OPEN_WITHIN", scaled(1.0))
    monkeypatch.setattr("jwt_events.transport._redis.reconnecting.ATTEMPT_WITHIN", 0.2)
    monkeypatch.setattr("jwt_events.transport.pubsub.ATTEMPT_WITHIN", 0.2)


class TestReceipts:
    """Receipts of published events."""

    async def test_the_server_says_how_many_connections_there_were(self, url: str, key: str) -> None:
        """A receipt has the count of subscribers, which may be zero, and no position."""
        transport = RedisPubSub(url, key)
        async with Publisher(transport) as publisher:
            assert (await publisher.publish(TokenRevoked(token_id="t"))).receivers == 0
            async with Listener(transport), Listener(transport):
                receipt = await publisher.publish(TokenRevoked(token_id="t"))
        assert (receipt.receivers, receipt.position) == (2, None)

    async def test_a_channel_may_have_any_printable_name(self, url: str, key: str) -> None:
        """Blanks, pattern characters and other alphabets in a channel's name are taken literally."""
        transport, other = RedisPubSub(url, f"{key} *[ä]"), RedisPubSub(url, f"{key} x[ä]")
        async with Listener(transport) as listener, Publisher(transport) as publisher, Publisher(other) as to_other:
            await to_other.publish(TokenRevoked(token_id="1"))
            await publisher.publish(TokenRevoked(token_id="2"))
            await listener.hears("2")
        assert listener.subjects == ["2"]


class TestGaps:
    """Every interruption is reported as a gap."""

    async def test_a_killed_connection_is_one_gap(self, url: str, key: str, client: Redis) -> None:
        """After each loss of the connection there is exactly one gap, and events flow again."""
        transport = RedisPubSub(url, key)
        async with Listener(transport) as listener, Publisher(transport) as publisher:
            for number in range(3):
                await publisher.publish(TokenRevoked(token_id=f"t{number}"))
                await listener.hears(f"t{number}")
                await kill_reader(client)
                await listener.hears_of_gap(*["reconnected"] * (number + 1))
            await publisher.publish(TokenRevoked(token_id="last"))
            await listener.hears("last")
            stats = listener.subscriber.stats
        assert listener.gaps == [Gap(None, "reconnected")] * 3
        assert stats.gaps == 3
        assert listener.subjects == ["t0", "t1", "t2", "last"]

    async def test_a_server_that_is_gone_is_reported_and_its_return(
        self, own_server: Callable[..., EmbeddedServer]
    ) -> None:
        """While the server is gone there is one gap, when it is back another, and events flow again."""
        port = free_port()
        make = partial(own_server, port=port)
        transport = RedisPubSub(f"redis://127.0.0.1:{port}", CHANNEL)
        async with AsyncExitStack() as stack:
            async with make():
                listener = await stack.enter_async_context(Listener(transport))
                publisher = await stack.enter_async_context(Publisher(transport, timeout=scaled(10)))
                await publisher.publish(TokenRevoked(token_id="before"))
                await listener.hears("before")
            # Leaving the block is kill -9.
            await listener.hears_of_gap("disconnected")
            await stack.enter_async_context(make())
            await listener.hears_of_gap("disconnected", "reconnected")
            await publisher.publish(TokenRevoked(token_id="after"))
            await listener.hears("after")
            await listener.subscriber.drain()
        assert listener.causes == ["disconnected", "reconnected"]

    async def test_a_frozen_server_is_reported_and_its_thaw(self, own_server: Callable[..., EmbeddedServer]) -> None:
        """A server that keeps the connection open and sends nothing is a gap within three seconds."""
        async with own_server() as server:
            transport = RedisPubSub(server.url, CHANNEL)
            async with Listener(transport) as listener, Publisher(transport) as publisher:
                with frozen(server):
                    await listener.hears_of_gap("disconnected", within=3.0)
                await listener.hears_of_gap("disconnected", "reconnected")
                await publisher.publish(TokenRevoked(token_id="after"))
                await listener.hears("after")

    async def test_a_quiet_channel_is_no_gap(self, url: str, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """A server that replies is alive, even if no event arrives."""
        monkeypatch.setattr("jwt_events.transport.pubsub._ASK_AFTER", 0.2)
        async with RedisPubSub(url, key).receiver() as receiver:
            batches = [await receiver.receive() for _ in range(12)]
        assert all(list(batch.gaps) == [] and list(batch.deliveries) == [] for batch in batches)

    async def test_a_subscription_that_the_server_ends_is_a_gap(self) -> None:
        """An `unsubscribe` that the server sends by itself leads to a new connection and a gap."""
        ended = push(text(b"unsubscribe"), text(CHANNEL.encode()), b":0\r\n")
        replies = iter([CONFIRMATION + ended, CONFIRMATION])
        async with FakeServer(lambda words: next(replies) if words[0] == b"SUBSCRIBE" else SILENCE) as server:
            async with Listener(RedisPubSub(server.url, CHANNEL)) as listener:
                await listener.hears_of_gap("reconnected")
            assert server.connections == 2

    async def test_a_server_that_hangs_up_is_a_gap(self) -> None:
        """A server that closes the connection when it is asked for the role is a gap."""
        hellos = iter([PRIMARY, HANG_UP, PRIMARY])

        def hello(_: list[bytes]) -> bytes | None:
            return next(hellos, PRIMARY)

        async with FakeServer(lambda words: CONFIRMATION, hello=hello) as server:
            async with Listener(RedisPubSub(server.url, CHANNEL)) as listener:
                await wait_until(lambda: listener.gaps)
            assert listener.causes == ["reconnected"]
            assert server.connections == 2

    @pytest.mark.parametrize(
        "nonsense",
        [
            array(text(b"message"), text(CHANNEL.encode()), text(b"x")),
            push(text(b"message"), text(CHANNEL.encode())),
            push(text(b"message"), text(CHANNEL.encode()), b":1\r\n"),
            push(text(b"massage"), text(CHANNEL.encode()), text(b"x")),
            text(b"message"),
            b":1\r\n",
        ],
    )
    async def test_nonsense_is_a_gap(self, nonsense: bytes) -> None:
        """What has not the shape of a message is not delivered: there is a new connection, and a gap."""
        replies = iter([CONFIRMATION + nonsense, CONFIRMATION])
        async with FakeServer(lambda words: next(replies)) as server:
            async with Listener(RedisPubSub(server.url, CHANNEL)) as listener:
                await listener.hears_of_gap("reconnected")
                assert listener.subscriber.stats.decode_errors == 0
            assert server.connections == 2


class TestRefused:
    """A subscription that cannot be made raises an error."""

    async def test_by_permission(self, own_server: Callable[..., EmbeddedServer]) -> None:
        """A user without the right to the channel is refused on entering, by every way to subscribe."""
        async with own_server() as server, Redis.from_url(server.url) as admin:
            await call(admin, "ACL", "SETUSER", "reader", "on", ">pw", "~*", "+@all", "resetchannels")
            transport = RedisPubSub(server.url.replace("unix://", "unix://reader:pw@"), CHANNEL)
            async with asyncio.timeout(scaled(2)):
                with pytest.raises(SubscriptionRefused, match=r"NOPERM.*channel") as caught:
                    await Subscriber(transport).__aenter__()
                with pytest.raises(SubscriptionRefused):
                    await Subscriber(transport).run()
                with pytest.raises(SubscriptionRefused):
                    await anext(Subscriber(transport).events())
        assert CHANNEL in str(caught.value)
        assert not caught.value.retryable

    async def test_later(self, own_server: Callable[..., EmbeddedServer]) -> None:
        """A user who loses the right, and then the connection, gets the reason where the block ends."""
        async with own_server() as server, Redis.from_url(server.url) as admin:
            await call(admin, "ACL", "SETUSER", "reader", "on", ">pw", "~*", "+@all", "allchannels")
            transport = RedisPubSub(server.url.replace("unix://", "unix://reader:pw@"), CHANNEL)

            async def revoke() -> None:
                await call(admin, "ACL", "SETUSER", "reader", "resetchannels")
                await admin.client_kill_filter(_type="pubsub")

            with pytest.raises(SubscriptionRefused, match="NOPERM"):
                await listen(transport, revoke)

    async def test_by_another_reply(self) -> None:
        """A reply that is no confirmation is not taken for one."""
        other = push(text(b"subscribe"), text(b"another"), b":1\r\n")
        async with FakeServer(lambda _: other) as server:
            with pytest.raises(SubscriptionRefused, match="did not confirm"):
                await Listener(RedisPubSub(server.url, CHANNEL)).__aenter__()

    async def test_by_silence(self, in_a_hurry: None) -> None:
        """A server that never confirms is tried again, and then an error names its address."""
        async with FakeServer(lambda _: SILENCE) as server:
            with pytest.raises(ConnectionFailed, match="no answer in time") as caught:
                await Listener(RedisPubSub(server.url, CHANNEL)).__aenter__()
            assert server.connections > 1
        assert server.address in str(caught.value)
        assert CHANNEL in str(caught.value)

    async def test_by_silence_of_one_attempt(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A first attempt that takes longer than the time for entering raises an error with the address."""
        monkeypatch.setattr("jwt_events.transport._redis.reconnecting.OPEN_WITHIN", 0.1)
        async with FakeServer(lambda _: SILENCE) as server:
            with pytest.raises(ConnectionFailed, match=f"no answer in time from {server.address}"):
                await Listener(RedisPubSub(server.url, CHANNEL)).__aenter__()

    async def test_by_closed_port(self, in_a_hurry: None) -> None:
        """A closed port raises an error with the address."""
        port = free_port()
        with pytest.raises(ConnectionFailed, match=f"127.0.0.1:{port}.*Connection refused"):
            await Listener(RedisPubSub(f"redis://127.0.0.1:{port}", CHANNEL)).__aenter__()
