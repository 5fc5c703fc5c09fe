"""`read_from="replica"`: events from a replica, proof from the primary."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis

from jwt_events import InvalidOption, RedisStream, RevocationList, TokenRevoked, Verdict
from jwt_events.revocation import Folding
from jwt_events.testing import Listener
from jwt_events.transport._redis import replicas
from jwt_events.transport._redis.connection import Connector
from jwt_events.transport._redis.replicas import ReplicaChoice
from jwt_events.transport._stream.folder import Folder
from jwt_events.transport._stream.ledger import Ledger
from tests.faults.auditing import Auditor, audited
from tests.faults.failover import MakeServer
from tests.faults.replicated import Replicated, replicated
from tests.support.cluster import Cluster
from tests.support.faults import readers, the_reader
from tests.support.handling import publish
from tests.support.logs import everything_logged
from tests.support.proxy import Proxy
from tests.support.raw import call, counts_what_was_added
from tests.support.topology import topology
from tests.support.waiting import scaled, wait_until

MakeCluster = Callable[..., AbstractAsyncContextManager[Cluster]]

MAX_STALENESS = 2.0
RIGHTS = ("+xread", "+xrange", "+xinfo|stream", "+info", "+zrange", "+zcount", "+zscan")


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let readers return soon to a replica that they left."""
    monkeypatch.setattr(replicas, "_INITIAL_AVOIDANCE", 1.0)
    monkeypatch.setattr(replicas, "_SETTLE", 1.0)


def event(name: str) -> TokenRevoked:
    """Make an event about the token of this name."""
    return TokenRevoked(token_id=name)


def stream(servers: Replicated, read_from: str = "replica") -> RedisStream:
    """Make a transport that reads from a replica."""
    return RedisStream(servers.url, "k", read_from=read_from)


@asynccontextmanager
async def watched(servers: Replicated, read_from: str = "replica") -> AsyncIterator[Auditor]:
    """Run a list that reads from a replica, check it all the time, and let it never be stale nor report a gap."""
    async with audited(servers.url, max_staleness=scaled(MAX_STALENESS), read_from=read_from) as auditor:
        yield auditor
        assert auditor.revocations.stats.gaps == 0
    assert auditor.verdicts[Verdict.STALE] == 0


class TestReading:
    """Who is read from."""

    async def test_replica_only(self, own_server: MakeServer) -> None:
        """The primary is not read, and what is published there is in force."""
        async with replicated(own_server) as servers, watched(servers):
            number = await servers.the_one_read()
            assert number in servers.replicas

    async def test_spread(self, own_server: MakeServer) -> None:
        """Many readers read from all replicas, and none from the primary."""
        async with replicated(own_server) as servers, AsyncExitStack() as stack:
            listeners = [await stack.enter_async_context(Listener(stream(servers))) for _ in range(20)]
            await publish(stream(servers), event("t"))
            for listener in listeners:
                await listener.hears("t")
            on_primary, first, second = await servers.reading()
            assert on_primary == 0
            assert first > 0
            assert second > 0

    async def test_none(self, own_server: MakeServer) -> None:
        """Without a replica the primary is read, which the log says once; when there is one, it is read."""
        async with replicated(own_server, replicas=1) as servers:
            await servers.promote(1)
            with everything_logged() as lines:
                async with watched(servers):
                    await servers.is_read(0)
                    await servers.follow(1)
                    await servers.is_read(1)
            assert len([line for line in lines if line.startswith("no replica is fit")]) == 1
            assert any(line.startswith("reading from a replica") for line in lines)

    async def test_another_one(self, own_server: MakeServer) -> None:
        """Readers move to a replica that is added, as many as it has a share of, without a gap."""
        async with replicated(own_server) as servers, AsyncExitStack() as stack:
            await servers.promote(2)
            listeners = [await stack.enter_async_context(Listener(stream(servers))) for _ in range(12)]
            await servers.is_read(1, by=12)
            await servers.follow(2)

            async def are_spread() -> bool:
                return all((await servers.reading())[1:])

            await wait_until(are_spread, within=30.0, what="readers at both")
            await publish(stream(servers), event("t"))
            for listener in listeners:
                await listener.hears("t")
                assert listener.gaps == []

    async def test_named(self, own_server: MakeServer) -> None:
        """A replica on a unix socket is read if it is named; without it the primary is, and later it again."""
        async with replicated(own_server, replicas=0) as servers, own_server() as relay:
            assert relay.url.startswith("unix://")
            async with Redis.from_url(relay.url) as client:
                local = Replicated([*servers.servers, relay], [*servers.clients, client])
                await local.follow(1)
                await local.are_linked()
                async with watched(local, relay.url):
                    await local.is_read(1)
                    with local.frozen(1):
                        await wait_until(lambda: _has_readers(local, 0), within=30.0, what="a reader at the primary")
                    await local.is_read(1)

    async def test_no_replica_at_the_url(self, own_server: MakeServer) -> None:
        """A server that is no replica of the primary is not read."""
        async with replicated(own_server, replicas=0) as servers, own_server(port=0) as other:
            await publish(RedisStream(other.url, "k"), event("alien"))
            async with Listener(stream(servers, other.url)) as listener:
                await servers.is_read(0)
                await publish(stream(servers), event("t"))
                await listener.hears("t")
                assert listener.subjects == ["t"]


class TestLeaving:
    """A replica that cannot be relied on is left, before a list is stale."""

    async def test_frozen(self, own_server: MakeServer) -> None:
        """One that sends nothing is left for the other one, and read again when it goes on."""
        async with replicated(own_server) as servers, watched(servers):
            number = await servers.the_one_read()
            with servers.frozen(number):
                await wait_until(lambda: _has_readers(servers, 3 - number), what="a reader at the other one")
            await servers.is_read(number)

    async def test_many(self, own_server: MakeServer) -> None:
        """All who read from one that is frozen leave it before they are stale, and know what is revoked meanwhile."""
        limit = scaled(MAX_STALENESS)
        async with replicated(own_server) as servers, AsyncExitStack() as stack:
            lists = [RevocationList(stream(servers), max_staleness=limit) for _ in range(16)]
            for one in lists:
                await stack.enter_async_context(one)
            await wait_until(lambda: _has_readers(servers, 1), what="a reader at the first replica")
            worst = 0.0

            async def are_all_at_the_other() -> bool:
                nonlocal worst
                worst = max(worst, *(one.staleness for one in lists))
                return len(await readers(servers.clients[2])) == len(lists)

            with servers.frozen(1):
                await publish(RedisStream(servers.url, "k"), event("stolen"))
                revoked_at = time.monotonic()

                def is_known() -> bool:
                    nonlocal worst
                    worst = max(worst, *(one.staleness for one in lists))
                    verdicts = {one.check({"jti": "stolen"}) for one in lists}
                    assert Verdict.ALLOW not in verdicts or time.monotonic() - revoked_at < limit
                    return verdicts == {Verdict.REVOKED}

                await wait_until(is_known, what="the revocation")
                await wait_until(are_all_at_the_other, what="all readers at the other one")
            assert worst < limit

    async def test_both_frozen(self, own_server: MakeServer) -> None:
        """If all are frozen, the primary is read."""
        async with (
            replicated(own_server) as servers,
            audited(servers.url, max_staleness=scaled(MAX_STALENESS), read_from="replica") as auditor,
        ):
            with servers.frozen(1), servers.frozen(2):
                await wait_until(lambda: _has_readers(servers, 0), within=30.0, what="a reader at the primary")
                await auditor.sees_it_fresh()
            await wait_until(lambda: _has_no_readers(servers, 0), within=60.0, what="no reader at the primary")

    async def test_lagging(self, own_server: MakeServer) -> None:
        """One that replies, and gets nothing of what is written, is left."""
        async with replicated(own_server, replicas=1) as servers, Proxy(servers.url) as way:
            await call(servers.clients[1], "REPLICAOF", "127.0.0.1", urlsplit(way.url).port or 0)
            await servers.are_linked()
            async with watched(servers, servers.servers[1].url):
                await servers.is_read(1)
                way.to_client.hold()
                await servers.is_read(0)
                assert (await servers.clients[1].info("replication"))["master_link_status"] == "up"
                way.heal()
                await servers.is_read(1)

    async def test_cut_off(self, own_server: MakeServer) -> None:
        """One that lost its primary is left, and read again when it has found it."""
        async with replicated(own_server) as servers, watched(servers):
            number = await servers.the_one_read()
            await servers.cut_off(number)
            await servers.is_read(3 - number)
            await servers.follow(number)
            await servers.is_read(number)

    async def test_promoted(self, own_server: MakeServer) -> None:
        """One that was promoted by itself is left."""
        async with replicated(own_server) as servers, watched(servers):
            number = await servers.the_one_read()
            await servers.promote(number)
            await servers.is_read(3 - number)

    async def test_of_another_primary(self, own_server: MakeServer) -> None:
        """One that follows another primary is left, although it is connected, and has as much."""
        async with replicated(own_server) as servers, watched(servers):
            number = await servers.the_one_read()
            await servers.promote(3 - number)
            await servers.follow(number, primary=3 - number)
            await servers.is_read(0)

    async def test_writable(self, own_server: MakeServer) -> None:
        """One that takes writes of others is left."""
        async with replicated(own_server, replicas=1) as servers, watched(servers):
            await servers.is_read(1)
            await call(servers.clients[1], "CONFIG", "SET", "replica-read-only", "no")
            await servers.is_read(0)

    async def test_killed(self, own_server: MakeServer) -> None:
        """One that is gone is left."""
        async with replicated(own_server) as servers, watched(servers):
            number = await servers.the_one_read()
            await servers.servers[number].aclose()
            await wait_until(lambda: _has_readers(servers, 3 - number), what="a reader at the other one")


class TestPrimary:
    """What happens to the primary."""

    async def test_frozen(self, own_server: MakeServer) -> None:
        """While it does not reply nothing is proven, although the replica is read; then all goes on without a gap."""
        async with (
            replicated(own_server) as servers,
            audited(servers.url, max_staleness=scaled(1.0), read_from="replica") as auditor,
        ):
            with servers.frozen(0):
                await auditor.sees_it_stale()
            await auditor.sees_it_fresh()
            assert auditor.revocations.stats.gaps == 0

    async def test_planned_failover(self, own_server: MakeServer) -> None:
        """After a planned failover the new primary proves, and its replicas are read: no gap."""
        async with (
            replicated(own_server) as servers,
            Proxy(servers.url) as name,
            Listener(RedisStream(name.url, "k", read_from="replica")) as listener,
        ):
            await publish(RedisStream(name.url, "k"), event("before"))
            await listener.hears("before")
            await call(servers.primary, "FAILOVER", "TO", "127.0.0.1", servers.port(1))
            await wait_until(lambda: _is_primary(servers, 1), what="the new primary")
            await servers.follow(2, primary=1)
            name.upstream = servers.servers[1].url
            await publish(RedisStream(servers.servers[1].url, "k"), event("after"))
            await listener.hears("after", within=20.0)
            await wait_until(lambda: _has_no_readers(servers, 1), within=30.0, what="a reader at a replica")
            assert listener.gaps == []

    async def test_killed_behind_sentinels(self, own_server: MakeServer, tmp_path: Path) -> None:
        """After a failover that was not planned there is a gap, and no list allows what it should not."""
        async with topology(own_server, tmp_path) as servers:
            transport = RedisStream(servers.url, "k", read_from="replica")
            async with (
                Listener(transport) as listener,
                RevocationList(transport, max_staleness=scaled(MAX_STALENESS)) as revocations,
            ):
                await publish(RedisStream(servers.url, "k"), event("before"))
                await listener.hears("before")
                assert "xread" not in {one["cmd"] for one in await servers.clients[0].client_list()}
                await servers.servers[0].aclose()
                new = await servers.promoted()
                await publish(RedisStream(servers.url_of(new), "k"), event("after"))
                await listener.hears("after", within=30.0)
                await wait_until(lambda: revocations.check({"jti": "after"}) is Verdict.REVOKED, within=30.0)
                await wait_until(lambda: revocations.is_fresh, within=30.0)
                assert listener.causes == ["restarted"]
                assert revocations.check({"jti": "before"}) is Verdict.REVOKED

    async def test_partition(self, own_server: MakeServer, tmp_path: Path) -> None:
        """A primary that was replaced, and does not know, proves nothing, nor do the replicas that it lost."""
        async with topology(own_server, tmp_path) as servers:
            transport = RedisStream(servers.url, "k", read_from="replica")
            async with RevocationList(transport, max_staleness=MAX_STALENESS) as revocations:
                await publish(RedisStream(servers.url, "k"), event("before"))
                await wait_until(lambda: revocations.check({"jti": "before"}) is Verdict.REVOKED)
                await servers.cut_off()
                new = await servers.promoted()
                promoted_at = time.monotonic()
                await publish(RedisStream(servers.url_of(new), "k"), event("stolen"))

                def is_known_or_stale() -> bool:
                    verdict = revocations.check({"jti": "stolen"})
                    assert verdict is not Verdict.ALLOW or time.monotonic() - promoted_at < MAX_STALENESS
                    return verdict is Verdict.REVOKED

                await wait_until(is_known_or_stale, within=30.0)
                await wait_until(lambda: revocations.is_fresh, within=30.0)


class TestCluster:
    """The replicas of a slot's owner."""

    async def test_replica(self, cluster: Cluster, key: str) -> None:
        """A replica is read, which would send other readers to the owner."""
        key = f"{{{key}}}"
        async with RevocationList(RedisStream(cluster.url, key, read_from="replica")) as revocations:
            await publish(RedisStream(cluster.url, key), event("t"))
            await wait_until(lambda: revocations.check({"jti": "t"}) is Verdict.REVOKED)
            assert revocations.is_fresh
            (replica,) = await cluster.replicas_of(key)
            async with replica.client as client:
                await the_reader(client)
            async with (await cluster.owner_of(key)).client as client:
                assert await readers(client) == []

    async def test_failover(self, own_cluster: MakeCluster) -> None:
        """When the replica is the owner, it goes on, without a gap; the old owner is read when it is a replica."""
        async with own_cluster() as cluster:
            transport = RedisStream(cluster.url, "{k}", read_from="replica")
            async with RevocationList(transport, max_staleness=scaled(MAX_STALENESS)) as revocations:
                old = await cluster.owner_of("{k}")
                await publish(transport, event("before"))
                new = await cluster.failover("{k}")
                await cluster.agrees_on("{k}", new)
                await publish(transport, event("after"))
                await wait_until(lambda: revocations.check({"jti": "after"}) is Verdict.REVOKED)
                assert revocations.check({"jti": "before"}) is Verdict.REVOKED
                async with old.client as client:
                    await wait_until(lambda: readers(client), within=30.0, what="a reader at the old owner")
                await wait_until(lambda: revocations.is_fresh)
                assert revocations.stats.gaps == 0


class TestRemoved:
    """Entries that are removed while a replica lags."""

    async def test_read_ones(self, own_server: MakeServer) -> None:
        """Those that were read may go, however late that arrives at the replica: no gap."""
        async with replicated(own_server, replicas=1) as servers, Proxy(servers.url) as way:
            await call(servers.clients[1], "REPLICAOF", "127.0.0.1", urlsplit(way.url).port or 0)
            await servers.are_linked()
            way.to_client.latency = 0.05
            transport = RedisStream(servers.url, "k", block=2.0, read_from="replica")
            async with Listener(transport) as listener:
                await servers.is_read(1)
                for number in range(20):
                    await publish(RedisStream(servers.url, "k", ledger=False), event(f"{number}"))
                    await listener.hears(f"{number}")
                    await call(servers.primary, "XTRIM", "k", "MAXLEN", number % 3)
                assert listener.gaps == []
                assert (await servers.reading())[1] == 1

    async def test_unread_ones(self, own_server: MakeServer) -> None:
        """Each one is received, or told as lost."""
        async with replicated(own_server, replicas=1) as servers, Proxy(servers.url) as way:
            await call(servers.clients[1], "REPLICAOF", "127.0.0.1", urlsplit(way.url).port or 0)
            await servers.are_linked()
            transport = RedisStream(servers.url, "k", read_from="replica")
            async with Listener(transport) as listener:
                await servers.is_read(1)
                way.to_client.hold()
                await publish(RedisStream(servers.url, "k"), *[event(f"{number}") for number in range(5)])
                await call(servers.primary, "XTRIM", "k", "MAXLEN", 0)
                way.heal()
                if await counts_what_was_added(servers.primary):
                    await wait_until(
                        lambda: len(listener.events) + sum(gap.lost or 0 for gap in listener.gaps) == 5,
                        what=lambda: f"all five; there were {listener.events} and {listener.gaps}",
                    )

    async def test_ledger(self, own_server: MakeServer) -> None:
        """A list that starts at a replica knows what was folded into the ledger."""
        async with replicated(own_server) as servers:
            await publish(RedisStream(servers.url, "k"), *[event(f"{number}") for number in range(50)])
            connector = Connector(servers.url, destination="k")
            folder = Folder(connector, Ledger("k"), Folding(), timedelta(milliseconds=1))

            async def is_folded() -> bool:
                await folder.fold_once()
                return await servers.primary.xlen("k") == 0

            await wait_until(is_folded, what="an empty stream")
            async with RevocationList(stream(servers)) as revocations:
                assert await servers.the_one_read() in servers.replicas
                assert all(revocations.check({"jti": f"{number}"}) is Verdict.REVOKED for number in range(50))


class TestRights:
    """Users are not replicated."""

    @pytest.mark.parametrize("rights", [(), ("-zscan",), ("-xread",), ("-info",), ("-xinfo",)])
    async def test_missing_at_the_replica(self, own_server: MakeServer, rights: tuple[str, ...]) -> None:
        """A replica at which the user is unknown, or lacks a right, is not fit; the log says which."""
        async with replicated(own_server, replicas=1) as servers:
            user = ("ACL", "SETUSER", "reader", "on", ">secret", "~k", "~k:ledger", *RIGHTS)
            await call(servers.primary, *user)
            if rights:
                await call(servers.clients[1], *user, *rights)
            url = servers.url.replace("://", "://reader:secret@")
            await publish(RedisStream(servers.url, "k"), event("t"))
            with everything_logged() as lines:
                async with RevocationList(RedisStream(url, "k", read_from="replica")) as revocations:
                    assert revocations.check({"jti": "t"}) is Verdict.REVOKED
                    await wait_until(lambda: _has_readers(servers, 0), what="a reader at the primary")
                    assert revocations.is_fresh
            told = [line for line in lines if "connection attempt failed" in line or "connection lost" in line]
            assert any(f"127.0.0.1:{servers.port(1)}" in line for line in told)
            assert "secret" not in "".join(lines)


class TestOption:
    """What `read_from` may be."""

    @pytest.mark.parametrize(
        "read_from",
        ["", "replicas", "h:6379", "http://h", "redis+sentinel://h/service", "redis+cluster://h", None, 1, "unix://"],
    )
    def test_refused(self, read_from: object) -> None:
        """What names no server is refused."""
        with pytest.raises(InvalidOption, match=r"^read_from: ") as caught:
            RedisStream("redis://localhost", read_from=read_from)  # type: ignore[arg-type]  # that is what is tested
        assert caught.value.option == "read_from"

    def test_group(self) -> None:
        """A group reads from the primary."""
        with pytest.raises(InvalidOption, match="a group reads from the primary"):
            RedisStream("redis://localhost", group="g", read_from="replica")
        RedisStream("redis://localhost", group="g", read_from="primary")

    def test_secret(self) -> None:
        """No message repeats a password."""
        with pytest.raises(InvalidOption) as caught:
            RedisStream("redis://localhost", read_from="redis://u:secret@h:port")
        assert "secret" not in str(caught.value)


class TestChoice:
    """Which replica a reader chooses. Pure."""

    PLACES = (("10.0.0.1", 1), ("10.0.0.2", 1), ("10.0.0.3", 1))

    def test_only_those_move_that_must(self) -> None:
        """When a replica goes, only its readers choose anew; when it returns, only they return."""
        for seed in range(50):
            choice = ReplicaChoice(seed)
            choice.places = self.PLACES
            best = choice.best(0.0)
            for place in self.PLACES:
                choice.places = [other for other in self.PLACES if other != place]
                assert (choice.best(0.0) == best) is (place != best)

    def test_spread(self) -> None:
        """Each has its share."""
        chosen = []
        for seed in range(300):
            choice = ReplicaChoice(seed)
            choice.places = self.PLACES
            chosen.append(choice.best(0.0))
        assert all(70 < chosen.count(place) < 130 for place in self.PLACES)

    def test_avoided(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One that was left is avoided for longer each time, up to a limit, and forgiven after a good while."""
        monkeypatch.setattr(replicas, "_INITIAL_AVOIDANCE", 5.0)
        choice, now = ReplicaChoice(1), 100.0
        choice.places = self.PLACES[:1]
        for seconds in (5, 10, 20, 40, 60, 60):
            choice.avoid(self.PLACES[0], now)
            assert choice.best(now + seconds - 0.1) is None
            assert choice.best(now + seconds) == self.PLACES[0]
            now += seconds
        now += 61
        choice.avoid(self.PLACES[0], now)
        assert choice.best(now + 5) == self.PLACES[0]


async def _has_readers(servers: Replicated, number: int) -> bool:
    return bool(await readers(servers.clients[number]))


async def _has_no_readers(servers: Replicated, number: int) -> bool:
    return not await readers(servers.clients[number])


async def _is_primary(servers: Replicated, number: int) -> bool:
    return bool((await servers.clients[number].info("replication"))["role"] == "master")
