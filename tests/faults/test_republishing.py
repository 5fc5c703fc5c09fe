"""Events that a server had accepted and lost: their publisher publishes them again when another one takes over."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from jwt_events import InvalidOption, Metrics, Publisher, RedisStream, TokenRevoked
from jwt_events.testing import Listener
from jwt_events.transport._redis import republishing
from jwt_events.transport._redis.republishing import Accepted, RepublishWindow
from tests.faults.failover import MakeServer, pair
from tests.faults.restarting import Restartable
from tests.support.raw import call, entries
from tests.support.topology import topology
from tests.support.waiting import scaled, wait_until


def event(name: str) -> TokenRevoked:
    """Make an event about the token of this name."""
    return TokenRevoked(token_id=name)


async def names(client: Redis) -> list[str]:
    """Return which tokens the events of a stream are about, in order."""
    payloads = [fields[b"event"].decode() for _, fields in await entries(client, "k")]
    return [payload.partition('"token_id":"')[2].partition('"')[0] for payload in payloads]


def accepted(*payloads: bytes) -> Accepted:
    """Make what is kept of payloads that were accepted."""
    return Accepted(payloads, [payload.decode() for payload in payloads])


def kept(window: RepublishWindow, now: float) -> list[bytes]:
    """Return the payloads that a window keeps; each has its own receipt."""
    found = window.kept(now)
    assert all(payload.decode() == position for payload, position in found)
    return [payload for payload, _ in found]


class TestReplaced:
    """The server that accepted the events is gone, and another one does not have them."""

    async def test_before_new_ones(self, own_server: MakeServer) -> None:
        """They come first, in order, with their ids, and are counted."""
        registry = CollectorRegistry()
        async with (
            pair(own_server) as both,
            Publisher(RedisStream(both.name.url, "k"), timeout=scaled(10), metrics=Metrics(registry)) as publisher,
        ):
            await call(both.new, "REPLICAOF", "NO", "ONE")
            lost = [event(f"lost {index}") for index in range(3)]
            await publisher.publish(lost[0])
            await publisher.publish_many(lost[1:])
            assert await names(both.new) == []
            both.switch()
            both.name.reset()
            async with Listener(RedisStream(both.new_url, "k")) as listener:
                await publisher.publish(event("new"))
                await listener.hears("lost 0", "lost 1", "lost 2", "new")
                assert [one.id for one in listener.events[:3]] == [one.id for one in lost]
            assert registry.get_sample_value("jwt_events_republished_total", {"transport": "stream"}) == 3

    async def test_idle(self, own_server: MakeServer) -> None:
        """A publisher that publishes nothing more publishes them again, too."""
        async with pair(own_server) as both, Publisher(RedisStream(both.name.url, "k")) as publisher:
            await call(both.new, "REPLICAOF", "NO", "ONE")
            await publisher.publish(event("lost"))
            both.switch()
            both.name.reset()
            await wait_until(lambda: both.new.xlen("k"), what="the event")
            assert await names(both.new) == ["lost"]

    async def test_sentinels(self, own_server: MakeServer, tmp_path: Path) -> None:
        """Nor need the old primary be gone: it is enough that the Sentinels name another one."""
        async with (
            topology(own_server, tmp_path) as servers,
            Publisher(RedisStream(servers.url, "k")) as publisher,
        ):
            await servers.cut_off()
            await publisher.publish(event("lost"))
            new = await servers.promoted()
            await wait_until(lambda: servers.clients[new].xlen("k"), what="the event")

    async def test_not_asked_for(self, own_server: MakeServer) -> None:
        """With 0 nothing is kept."""
        async with (
            pair(own_server) as both,
            Publisher(RedisStream(both.name.url, "k"), timeout=scaled(10), republish=0) as publisher,
        ):
            await call(both.new, "REPLICAOF", "NO", "ONE")
            await publisher.publish(event("lost"))
            both.switch()
            both.name.reset()
            await publisher.publish(event("new"))
            assert await names(both.new) == ["new"]


class TestSameServer:
    """The server that accepted the events still has them."""

    async def test_lost_connection(self, own_server: MakeServer) -> None:
        """Nothing is published again after a lost connection."""
        async with (
            pair(own_server) as both,
            Publisher(RedisStream(both.name.url, "k"), timeout=scaled(10)) as publisher,
        ):
            await publisher.publish(event("before"))
            await wait_until(lambda: publisher._sender._republisher._run_id, what="the identity of the server")  # type: ignore[union-attr]  # it is there
            both.name.reset()
            await publisher.publish(event("after"))
            assert await names(both.old) == ["before", "after"]

    async def test_restarted(self, restartable: Restartable) -> None:
        """A server that was started again is another one: it may have lost them."""
        server = await restartable.start({})
        async with Publisher(RedisStream(server.url, "k"), timeout=scaled(10)) as publisher:
            await publisher.publish(event("before"))
            await restartable.kill()
            server = await restartable.start({})
            await publisher.publish(event("after"))
            async with Redis.from_url(server.url) as client:
                assert await names(client) == ["before", "after"]


class TestNothingLost:
    """Another server took over, and has some of the events, or all."""

    async def test_only_what_is_missing(self, own_server: MakeServer) -> None:
        """What the new server has is not published again."""
        async with (
            pair(own_server) as both,
            Publisher(RedisStream(both.name.url, "k"), timeout=scaled(10)) as publisher,
        ):
            await publisher.publish_many([event("had 0"), event("had 1")])
            await wait_until(lambda: _has(both.new, 2), what="the replica")
            await call(both.new, "REPLICAOF", "NO", "ONE")
            await publisher.publish(event("lost"))
            both.switch()
            both.name.reset()
            await publisher.publish(event("new"))
            assert await names(both.new) == ["had 0", "had 1", "lost", "new"]

    async def test_another_at_its_position(self, own_server: MakeServer) -> None:
        """An entry of the new server that has the same position is not taken for the event."""
        async with (
            pair(own_server) as both,
            Publisher(RedisStream(both.name.url, "k"), timeout=scaled(10)) as publisher,
        ):
            await call(both.new, "REPLICAOF", "NO", "ONE")
            receipt = await publisher.publish(event("lost"))
            await call(both.new, "XADD", "k", str(receipt.position), "event", '{"token_id":"other"}')
            both.switch()
            both.name.reset()
            await publisher.publish(event("new"))
            assert await names(both.new) == ["other", "lost", "new"]

    async def test_it_may_not_be_asked(self, own_server: MakeServer) -> None:
        """Without the right to look, everything is published again."""
        async with (
            pair(own_server) as both,
            Publisher(RedisStream(both.name.url, "k"), timeout=scaled(10)) as publisher,
        ):
            await publisher.publish(event("had"))
            await wait_until(lambda: _has(both.new, 1), what="the replica")
            await call(both.new, "REPLICAOF", "NO", "ONE")
            await call(both.new, "ACL", "SETUSER", "default", "-xrange")
            both.switch()
            both.name.reset()
            await publisher.publish(event("new"))
            await call(both.new, "ACL", "SETUSER", "default", "+xrange")
            assert await names(both.new) == ["had", "had", "new"]


async def _has(client: Redis, count: int) -> bool:
    return bool(await client.xlen("k") == count)


class TestWindow:
    """What is kept, and for how long. Pure."""

    @given(steps=st.lists(st.tuples(st.floats(0, 3), st.integers(1, 4)), max_size=30))
    def test_bounded(self, steps: list[tuple[float, int]]) -> None:
        """The events of the last seconds are kept, in order, and no others."""
        window, now, added = RepublishWindow(5.0), 0.0, list[tuple[float, bytes]]()
        for pause, count in steps:
            now += pause
            payloads = [b"%d" % (len(added) + index) for index in range(count)]
            added += [(now, payload) for payload in payloads]
            window.add(accepted(*payloads), now)
        assert kept(window, now) == [payload for at, payload in added if at >= now - 5.0]
        assert len(window) == len(window.kept(now))

    def test_limits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Beyond a number, or a size, the oldest are forgotten."""
        monkeypatch.setattr(republishing, "MAX_EVENTS", 3)
        window = RepublishWindow(5.0)
        for number in range(5):
            window.add(accepted(b"%d" % number), 0.0)
        assert kept(window, 0.0) == [b"2", b"3", b"4"]
        monkeypatch.setattr(republishing, "MAX_BYTES", 10)
        window.add(accepted(b"123456789"), 0.0)
        assert kept(window, 0.0) == [b"4", b"123456789"]

    def test_together(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of what was accepted together the newest is kept, by number and by size, and not nothing."""
        monkeypatch.setattr(republishing, "_MAX_PART", 5)
        monkeypatch.setattr(republishing, "MAX_EVENTS", 30)
        window, payloads = RepublishWindow(5.0), [b"%03d" % number for number in range(100)]
        window.add(accepted(*payloads), 0.0)
        assert kept(window, 0.0) == payloads[-30:]
        window.add(accepted(b"new"), 0.0)  # nor does one more event cost all before it
        assert kept(window, 0.0) == [*payloads[-25:], b"new"]
        monkeypatch.setattr(republishing, "_MAX_PART_BYTES", 9)
        monkeypatch.setattr(republishing, "MAX_BYTES", 30)
        window.add(accepted(*payloads), 0.0)
        assert kept(window, 0.0) == payloads[-10:]
        assert len(window) == 10

    @pytest.mark.parametrize("value", [-1.0, float("nan"), True, "30"])
    def test_refused(self, value: object) -> None:
        """What is no number of seconds is refused."""
        with pytest.raises(InvalidOption, match="republish"):
            Publisher(RedisStream("redis://localhost"), republish=value)  # type: ignore[arg-type]  # that is tested
