"""A failover behind one name: nothing stays with a server that was demoted, and nothing that it says is relied on."""

from __future__ import annotations

import asyncio
import time

import pytest
from redis.asyncio import Redis

from jwt_events import (
    ConnectionFailed,
    Publisher,
    PublishError,
    PublishFailed,
    RedisPubSub,
    RedisStream,
    RevocationList,
    SubscriptionRefused,
    TokenRevoked,
    Verdict,
)
from jwt_events.testing import Listener
from jwt_events.transport._redis import multiplexer, reconnecting
from jwt_events.transport._stream.cursor import CursorReceiver
from tests.faults.failover import MakeServer, pair
from tests.faults.scenes import TRANSPORTS, transport_of
from tests.support.fake_server import FakeServer, text
from tests.support.handling import publish, running
from tests.support.raw import call
from tests.support.waiting import scaled, wait_until

BOTH = pytest.mark.parametrize("kind", ["pubsub", "stream"])
EACH = pytest.mark.parametrize("kind", TRANSPORTS)


def event(name: str) -> TokenRevoked:
    """Make an event about the token of this name."""
    return TokenRevoked(token_id=name)


class TestReaders:
    """Readers leave a server that was demoted, and ask the name again until it leads to the new primary."""

    async def test_list(self, own_server: MakeServer) -> None:
        """A list is stale while the name points to the old server, and then knows what the new one was told."""
        async with pair(own_server) as both:
            transport = RedisStream(both.name.url, "k")
            async with RevocationList(transport, max_staleness=scaled(0.5)) as revocations:
                await both.cut_off()
                await both.is_left()
                await publish(RedisStream(both.new_url, "k"), event("stolen"))
                await wait_until(lambda: revocations.check({"jti": "stolen"}) is Verdict.STALE)
                both.switch()
                await wait_until(lambda: revocations.check({"jti": "stolen"}) is Verdict.REVOKED)
                await wait_until(lambda: revocations.check({"jti": "good"}) is Verdict.ALLOW)

    @EACH
    async def test_subscriber(self, own_server: MakeServer, kind: str) -> None:
        """A subscriber hears what is published at the new server, although the old one never closed its connection."""
        async with pair(own_server) as both, Listener(transport_of(kind, both.name.url, "k")) as listener:
            await both.cut_off()
            await both.is_left()
            if kind == "pubsub":
                await listener.hears_of_gap("disconnected")
            both.switch()
            if kind == "pubsub":
                await listener.hears_of_gap("disconnected", "reconnected")
            await publish(transport_of(kind, both.new_url, "k"), event("after"))
            await listener.hears("after")

    async def test_last_read(self, url: str, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """What was read together with the news that the server is to be left is delivered, once."""
        async with RedisStream(url, key).receiver() as receiver:
            assert isinstance(receiver, CursorReceiver)
            await publish(RedisStream(url, key), event("read"))
            news = [ConnectionFailed("the Sentinels name another server")]

            def conclude() -> None:
                if news:
                    raise news.pop()

            monkeypatch.setattr(receiver._proof, "conclude", conclude)
            payloads: list[bytes] = []
            while not payloads:
                batch = await receiver.receive()
                payloads += [delivery.payload for delivery in batch.deliveries]
            assert not news
            assert len(payloads) == 1
            assert batch.gaps == []

    @pytest.mark.parametrize("kind", ["stream", "group"])
    async def test_replica_that_may_be_written_to(self, own_server: MakeServer, kind: str) -> None:
        """A replica that accepts writes, which no error betrays, is left as well."""
        async with (
            pair(own_server, replica_read_only="no") as both,
            Listener(transport_of(kind, both.name.url, "k")) as listener,
        ):
            await both.cut_off()
            await both.is_left()
            both.switch()
            await publish(transport_of(kind, both.new_url, "k"), event("after"))
            await listener.hears("after")

    async def test_busy_pubsub(self, own_server: MakeServer) -> None:
        """A Pub/Sub subscriber that always hears something, from others who stayed behind, leaves as well."""
        async with pair(own_server) as both, Listener(RedisPubSub(both.name.url, "k")) as listener:

            async def chatter() -> None:
                while True:
                    await call(both.old, "PUBLISH", "k", "noise")
                    await asyncio.sleep(0.01)

            async with running(chatter()):
                await both.cut_off()
                await listener.hears_of_gap("disconnected")

    @EACH
    async def test_growing_pauses(self, own_server: MakeServer, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """The first attempt is made at once, and the pauses between later ones grow up to a second."""
        pauses: list[float] = []

        def pause(failures: int, *, initial: float, maximum: float) -> float:
            pauses.append(min(maximum, initial * 2 ** (failures - 1)))
            return 0.0

        monkeypatch.setattr(reconnecting, "backoff", pause)
        async with pair(own_server) as both, Listener(transport_of(kind, both.name.url, "k")):
            lasted_at = time.monotonic() + 1.1
            await wait_until(lambda: time.monotonic() > lasted_at)
            await both.cut_off()
            await wait_until(lambda: len(pauses) > 8)
        assert pauses[:7] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]

    @EACH
    async def test_never_a_primary(self, own_server: MakeServer, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """A replica is refused on entering, and the error says what it is."""
        monkeypatch.setattr(reconnecting, "OPEN_WITHIN", scaled(0.5))
        async with pair(own_server) as both:
            with pytest.raises(ConnectionFailed, match="is a replica, not the primary"):
                await Listener(transport_of(kind, both.new_url, "k")).__aenter__()


class TestPublishers:
    """Publishers leave a server that was demoted, and rely on nothing that it says."""

    @BOTH
    async def test_next_publish(self, own_server: MakeServer, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """The next publish that asks for the role gets no receipt from the old server, but one from the new one."""
        monkeypatch.setattr(multiplexer, "ROLE_INTERVAL", 0.0)
        async with (
            pair(own_server) as both,
            Publisher(transport_of(kind, both.name.url, "k"), timeout=scaled(10)) as publisher,
        ):
            await publisher.publish(event("before"))
            await both.cut_off()
            async with (
                Listener(transport_of(kind, both.new_url, "k")) as listener,
                running(publisher.publish(event("during"))) as publishing,
            ):
                await both.is_left()
                both.switch()
                await publishing
                await listener.hears("during")

    @BOTH
    async def test_within_a_second(self, own_server: MakeServer, kind: str) -> None:
        """A publisher that is busy gets receipts from the old server for a second at most."""
        async with (
            pair(own_server, replica_read_only="no") as both,
            Publisher(transport_of(kind, both.name.url, "k"), timeout=scaled(0.2)) as publisher,
        ):
            await publisher.publish(event("before"))
            await both.cut_off()
            demoted_at = confirmed_at = time.monotonic()

            async def publish_on() -> None:
                nonlocal confirmed_at
                while True:
                    await publisher.publish(event("during"))
                    confirmed_at = time.monotonic()

            with pytest.raises(PublishError, match="replica"):
                await publish_on()
            assert confirmed_at - demoted_at < scaled(1.1)

    async def test_surely_not_published(self, own_server: MakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
        """What a replica refused to write was certainly not published, and the error says so."""
        monkeypatch.setattr(multiplexer, "ROLE_INTERVAL", 0.0)
        async with (
            pair(own_server) as both,
            Publisher(RedisStream(both.name.url, "k"), timeout=scaled(0.2)) as publisher,
        ):
            await publisher.publish(event("before"))
            await both.cut_off()
            with pytest.raises(PublishFailed, match=r"replica|READONLY"):
                await publisher.publish(event("during"))

    @BOTH
    async def test_never_a_primary(self, own_server: MakeServer, kind: str) -> None:
        """Nothing is sent to a replica, even if it accepts it, and the error says what it is."""
        async with (
            pair(own_server, replica_read_only="no") as both,
            Publisher(transport_of(kind, both.new_url, "k"), timeout=scaled(0.5)) as publisher,
        ):
            with pytest.raises(PublishFailed, match="is a replica, not the primary"):
                await publisher.publish(event("lost"))
            assert await both.new.exists("k") == 0

    @BOTH
    async def test_cost(self, own_server: MakeServer, kind: str) -> None:
        """The role is asked for once per connection and once a second, not with each publish."""
        async with own_server(port=0) as server, Redis.from_url(server.url) as client:
            await call(client, "CONFIG", "RESETSTAT")  # the client of the test has said HELLO, too
            began = time.monotonic()
            async with Publisher(transport_of(kind, server.url, "k")) as publisher:
                for number in range(500):
                    await publisher.publish(event(str(number)))
            seconds = time.monotonic() - began
            calls = (await client.info("commandstats"))["cmdstat_hello"]["calls"]
            assert 1 <= calls <= 1 + seconds

    async def test_role_that_is_not_told(self, key: str) -> None:
        """A stream refuses writes as a replica, a channel does not: so only a stream does without the role."""

        def reply(words: list[bytes]) -> bytes:
            return {b"XADD": text(b"1-1"), b"PUBLISH": b":1\r\n"}.get(words[0], b"-ERR unknown command\r\n")

        async with FakeServer(reply, hello=lambda _: b"-ERR unknown command 'HELLO'\r\n") as server:
            async with Publisher(RedisStream(server.url, key)) as publisher:
                assert (await publisher.publish(event("t"))).position == "1-1"
            async with Publisher(RedisPubSub(server.url, key)) as publisher:
                with pytest.raises(PublishFailed, match="HELLO"):
                    await publisher.publish(event("t"))
            with pytest.raises(SubscriptionRefused, match="HELLO"):
                await Listener(RedisPubSub(server.url, key)).__aenter__()
