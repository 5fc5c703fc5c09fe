"""A failover in which nothing was lost, and that can be proven, is no gap; any other one is."""

from __future__ import annotations

import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from jwt_events import RedisStream, RevocationList, TokenRevoked, Transport
from jwt_events.testing import Listener
from jwt_events.transport._redis.proof import Replication
from jwt_events.transport._stream.epoch import Epoch
from tests.faults.failover import MakeServer, Pair, pair
from tests.faults.scenes import transport_of
from tests.support.handling import publish
from tests.support.raw import call
from tests.support.topology import topology
from tests.support.waiting import wait_until

STREAMS = pytest.mark.parametrize("kind", ["stream", "group"])
histories = st.sampled_from(["a", "b", "c", ""])
replications = st.builds(
    Replication,
    role=st.sampled_from(["master", "slave", ""]),
    history=histories,
    offset=st.integers(0, 9),
    earlier=histories,
    continued_at=st.integers(0, 9),
)


def event(name: str) -> TokenRevoked:
    """Make an event about the token of this name."""
    return TokenRevoked(token_id=name)


class TestPlanned:
    """The old primary hands over, and says how much it wrote."""

    @STREAMS
    async def test_failover(self, own_server: MakeServer, kind: str) -> None:
        """A subscriber hears on without a gap, although another process replies now."""
        async with pair(own_server) as both, Listener(transport_of(kind, both.name.url, "k")) as listener:
            await publish(RedisStream(both.name.url, "k"), event("before"))
            await listener.hears("before")
            await call(both.old, "FAILOVER", "TO", "127.0.0.1", urlsplit(both.new_url).port or 0)
            await wait_until(lambda: _is_primary(both.new), what="the new primary")
            await both.is_left()
            both.switch()
            await publish(RedisStream(both.new_url, "k"), event("after"))
            await listener.hears("after")
            assert listener.gaps == []

    @STREAMS
    async def test_old_primary_is_asked(self, own_server: MakeServer, kind: str) -> None:
        """It is asked at its own address, when the name leads elsewhere already."""
        async with pair(own_server) as both:
            await self._hand_over(both, transport_of(kind, both.old_url, "k"))

    async def _hand_over(self, both: Pair, transport: Transport) -> None:
        async with Listener(transport) as listener:
            await publish(RedisStream(both.old_url, "k"), event("before"))
            await listener.hears("before")
            transport.connector._options["port"] = urlsplit(both.new_url).port  # type: ignore[attr-defined]  # as a name does
            await call(both.old, "FAILOVER", "TO", "127.0.0.1", urlsplit(both.new_url).port or 0)
            await publish(RedisStream(both.new_url, "k"), event("after"))
            await listener.hears("after")
            assert listener.gaps == []


class TestUnplanned:
    """A primary that wrote on after it was replaced, or that is gone, may have had more."""

    @STREAMS
    async def test_wrote_on(self, own_server: MakeServer, kind: str) -> None:
        """What it wrote alone is lost, and that is one gap."""
        async with pair(own_server) as both, Listener(transport_of(kind, both.name.url, "k")) as listener:
            await publish(RedisStream(both.name.url, "k"), event("before"))
            await listener.hears("before")
            await wait_until(lambda: both.new.xlen("k"), what="the replica")
            await call(both.new, "REPLICAOF", "NO", "ONE")
            await publish(RedisStream(both.name.url, "k"), event("lost"))
            await listener.hears("lost")
            both.switch()
            await call(both.old, "REPLICAOF", "127.0.0.1", urlsplit(both.new_url).port or 0)
            await wait_until(lambda: "restarted" in listener.causes, what="the gap")
            await publish(RedisStream(both.new_url, "k"), event("after"))
            await listener.hears("after")
            assert listener.causes == ["restarted"]

    async def test_killed(self, own_server: MakeServer, tmp_path: Path) -> None:
        """A primary that was killed says nothing, so there is a gap."""
        async with (
            topology(own_server, tmp_path) as servers,
            Listener(RedisStream(servers.url, "k")) as listener,
        ):
            await publish(RedisStream(servers.url, "k"), event("before"))
            await listener.hears("before")
            await servers.servers[0].aclose()
            new = await servers.promoted()
            await publish(RedisStream(servers.url_of(new), "k"), event("after"))
            await listener.hears("after")
            assert listener.causes == ["restarted"]


class TestStart:
    """A list that is opened after a failover."""

    async def test_promoted(self, own_server: MakeServer) -> None:
        """It is told once that history may be missing, also if it connects again; not at an original primary."""
        async with pair(own_server) as both:
            await publish(RedisStream(both.name.url, "k"), event("before"))
            await wait_until(lambda: both.new.xlen("k"), what="the replica")
            assert await self._causes(RedisStream(both.name.url, "k"), both) == []
            await call(both.new, "REPLICAOF", "NO", "ONE")
            assert await self._causes(RedisStream(both.new_url, "k"), both) == ["unproven_history"]

    async def test_one_of_two(self, own_server: MakeServer) -> None:
        """Where one of two replicas is enough, the other one may take over; where both have it, neither lacks it."""
        async with pair(own_server) as both, own_server(port=0) as third, Redis.from_url(third.url) as client:
            await both.demote()
            await call(client, "REPLICAOF", "127.0.0.1", urlsplit(both.new_url).port or 0)
            await wait_until(lambda: _has_replica(both.new, 2), what="the replicas")
            assert await self._causes(RedisStream(both.new_url, "k", replicas=1), both) == ["unproven_history"]
            assert await self._causes(RedisStream(both.new_url, "k", replicas=2), both) == []

    async def test_replicated(self, own_server: MakeServer) -> None:
        """Where every event was replicated to all before its publish returned, nothing is missing."""
        async with pair(own_server) as both:
            await both.demote()
            await wait_until(lambda: _has_replica(both.new), what="the replica")
            assert await self._causes(RedisStream(both.new_url, "k", replicas=1), both) == []

    async def _causes(self, transport: RedisStream, both: Pair) -> list[str]:
        causes: list[str] = []
        revocations = RevocationList(transport)
        revocations.on_gap(lambda gap: causes.append(gap.cause))
        async with revocations:
            assert revocations.is_fresh
            for client in (both.old, both.new):
                await client.client_kill_filter(_type="normal", skipme=True)
            proven_at = time.monotonic() - revocations.staleness
            await wait_until(
                lambda: time.monotonic() - revocations.staleness > proven_at + 0.001, what="the next proof"
            )
        return causes


class TestJudgement:
    """The arithmetic. Pure."""

    @given(old=replications, new=replications, said=replications)
    def test_continued(self, old: Replication, new: Replication, said: Replication) -> None:
        """Another process has everything only if it continued the same history at, or after, its known end."""
        before, after = Epoch("1", replication=old), Epoch("2", replication=new)
        end = said.end_of(old.history)
        if end is None:
            assert said.role != "slave" or old.history not in {said.history, said.earlier} or not old.history
        complete = end is not None and new.earlier == old.history != "" and new.continued_at > end
        assert after.may_lack(before, end=end) is not complete

    def test_same_process(self) -> None:
        """A process that followed another one in between may have taken over its history, and lost its own."""
        before = Epoch("1", replication=Replication("master", history="a"))
        assert not Epoch("1", replication=Replication("master", history="a")).may_lack(before)
        assert not Epoch("1", replication=Replication("master", history="b")).may_lack(before)  # without any replica
        assert Epoch("1", replication=Replication("master", history="c", earlier="b")).may_lack(before)

    def test_parsed(self) -> None:
        """What INFO says of histories; zeros stand for none."""
        fields = {"role": "slave", "master_replid": "b" * 40, "master_repl_offset": "17", "second_repl_offset": "12"}
        told = Replication.parse(fields | {"master_replid2": "a" * 40})
        assert (told.end_of("b" * 40), told.end_of("a" * 40), told.end_of("c" * 40)) == (17, 11, None)
        assert Replication.parse(fields | {"master_replid2": "0" * 40}).earlier == ""


async def _has_replica(client: Redis, count: int = 1) -> bool:
    return bool((await client.info("replication"))["connected_slaves"] == count)


async def _is_primary(client: Redis) -> bool:
    return bool((await client.info("replication"))["role"] == "master")
