"""A service behind real Sentinels: nothing stays with a primary that was replaced, and no Sentinel alone decides."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import quote

import pytest
from redis.asyncio.sentinel import Sentinel
from redis.exceptions import ResponseError

from bench.ports import free_port
from jwt_events import (
    InvalidOption,
    NotProven,
    Publisher,
    PublishError,
    PublishFailed,
    RedisPubSub,
    RedisStream,
    RevocationList,
    TokenRevoked,
    TransportError,
    Verdict,
)
from jwt_events.testing import Listener
from jwt_events.transport._redis import multiplexer, reconnecting
from jwt_events.transport._redis.connection import Connector
from jwt_events.transport._stream import cursor, group
from tests.faults.scenes import transport_of
from tests.support.commands import run_apart
from tests.support.faults import frozen
from tests.support.handling import publish, running
from tests.support.proxy import Proxy
from tests.support.raw import call
from tests.support.topology import SERVICE, MakeServer, SentinelProcess, topology
from tests.support.waiting import scaled, wait_until

MAX_STALENESS = 2.0


def event(name: str) -> TokenRevoked:
    """Make an event about the token of this name."""
    return TokenRevoked(token_id=name)


class TestPartition:
    """The primary is cut off from its replicas and its Sentinels, and not from those who read it."""

    async def test_list(self, own_server: MakeServer, tmp_path: Path) -> None:
        """A list is not fresh when another server was promoted longer ago than it allows, and finds that server."""
        async with topology(own_server, tmp_path) as servers:
            transport = RedisStream(servers.url, "k")
            async with RevocationList(transport, max_staleness=MAX_STALENESS) as revocations:
                await publish(transport, event("before"))
                await wait_until(lambda: revocations.check({"jti": "before"}) is Verdict.REVOKED)
                await servers.cut_off()
                new = await servers.promoted()
                promoted_at = time.monotonic()
                assert await servers.is_primary(0)  # it does not know
                await publish(RedisStream(servers.url_of(new), "k"), event("stolen"))

                def is_known_or_stale() -> bool:
                    verdict = revocations.check({"jti": "stolen"})
                    assert verdict is not Verdict.ALLOW or time.monotonic() - promoted_at < MAX_STALENESS
                    return verdict is Verdict.REVOKED

                await wait_until(is_known_or_stale)
                await wait_until(lambda: revocations.is_fresh)
                assert revocations.check({"jti": "before"}) is Verdict.REVOKED

    @pytest.mark.parametrize("kind", ["pubsub", "stream", "group"])
    async def test_subscriber(self, own_server: MakeServer, tmp_path: Path, kind: str) -> None:
        """A subscriber hears what is published at the new primary."""
        async with (
            topology(own_server, tmp_path) as servers,
            Listener(transport_of(kind, servers.url, "k")) as listener,
        ):
            await servers.cut_off()
            new = await servers.promoted()
            if kind == "pubsub":
                await listener.hears_of_gap("disconnected", "reconnected")
            await publish(transport_of(kind, servers.url_of(new), "k"), event("after"))
            await listener.hears("after")


@pytest.mark.usefixtures("patient")
class TestHangs:
    """The primary hangs, or was powered off: it closes no connection, accepts new ones, and replies to nothing.

    What times out by itself is set to much longer than a test may take, so only the Sentinels can lead away from it.
    """

    @pytest.fixture
    def patient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let nothing that waits for a server give up by itself."""
        for module in (reconnecting, cursor, group, multiplexer):
            for name in {"ATTEMPT_WITHIN", "GRACE", "_REPLY_WITHIN"} & {*vars(module)}:
                monkeypatch.setattr(module, name, 1_000.0)

    async def test_all_follow(self, own_server: MakeServer, tmp_path: Path) -> None:
        """A list, a group and a publisher leave it as soon as the Sentinels name another server."""
        async with topology(own_server, tmp_path) as servers:
            transport = RedisStream(servers.url, "k")
            async with (
                RevocationList(transport, max_staleness=MAX_STALENESS) as revocations,
                Listener(transport_of("group", servers.url, "k")) as listener,
                Publisher(transport, timeout=scaled(60)) as publisher,
            ):
                await publisher.publish(event("before"))
                await listener.hears("before")
                with frozen(servers.servers[0]):
                    async with running(publisher.publish(event("stolen"))) as published:
                        await servers.promoted()
                        await published
                    await wait_until(lambda: revocations.check({"jti": "stolen"}) is Verdict.REVOKED)
                    await wait_until(lambda: revocations.is_fresh)
                    await listener.hears("before", "stolen")

    async def test_while_connecting(self, own_server: MakeServer, tmp_path: Path) -> None:
        """One who connects to it goes to the server that is named meanwhile, and needs no second attempt."""
        async with topology(own_server, tmp_path) as servers:
            with frozen(servers.servers[0]):
                connector = Connector(servers.url)
                async with running(connector.connect(within=1_000.0)) as connecting:
                    new = await servers.promoted()
                    async with asyncio.timeout(scaled(10)):
                        connection = await connecting
                assert connection.place == ("127.0.0.1", int(servers.addresses[new].rpartition(":")[2]))
                await connection.aclose()


class TestOutage:
    """No server can be connected to for a while."""

    async def test_named_in_a_pause(
        self, own_server: MakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A pause between attempts, however long, ends when the Sentinels name another server."""
        async with topology(own_server, tmp_path) as servers:
            transport = RedisStream(servers.url, "k")
            async with RevocationList(transport, max_staleness=MAX_STALENESS) as revocations:
                monkeypatch.setattr(reconnecting, "backoff", lambda *_, **__: 1_000.0)
                await servers.servers[0].aclose()
                await servers.promoted()
                await wait_until(lambda: revocations.is_fresh)

    async def test_named_again(self, own_server: MakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """So does one that began when no majority of the Sentinels could be asked, as soon as one can."""
        async with topology(own_server, tmp_path) as servers:
            for one in servers.sentinels[:2]:
                await one.kill()
            failures = 0

            def pause(*_: object, **__: object) -> float:
                nonlocal failures
                failures += 1
                return 1_000.0

            monkeypatch.setattr(reconnecting, "backoff", pause)
            monkeypatch.setattr(reconnecting, "OPEN_WITHIN", scaled(60))
            async with running(Listener(RedisStream(servers.url, "k")).__aenter__()) as opening:
                await wait_until(lambda: failures)
                await servers.sentinels[0].start()
                async with asyncio.timeout(scaled(10)):
                    listener = await opening
                await listener.__aexit__(None, None, None)
        assert failures == 1

    async def test_callers_share_attempts(self) -> None:
        """However many callers publish again and again, a server that is away is tried a few times a second."""
        async with Proxy(f"redis://127.0.0.1:{free_port()}") as nothing:
            async with Publisher(RedisStream(nothing.url, "k"), timeout=1.0) as publisher:
                publishing = [publisher.publish(event(str(number))) for number in range(100)]
                outcomes = await asyncio.gather(*publishing, return_exceptions=True)
            assert all(isinstance(outcome, PublishError) for outcome in outcomes)
            assert nothing.accepted <= 25


class TestMinority:
    """One Sentinel of three decides nothing."""

    async def test_down(self, own_server: MakeServer, tmp_path: Path) -> None:
        """While one is down or does not reply, a list stays fresh, and another one starts."""
        async with topology(own_server, tmp_path) as servers:
            transport = RedisStream(servers.url, "k")
            async with RevocationList(transport, max_staleness=scaled(1.0)) as revocations:
                for trouble in (servers.sentinels[0].freeze, servers.sentinels[1].kill):
                    if trouble == servers.sentinels[1].kill:
                        servers.sentinels[0].thaw()
                        await servers.sentinels[1].kill()
                    else:
                        servers.sentinels[0].freeze()
                    until = time.monotonic() + scaled(1.0) + 2.0
                    await wait_until(lambda until=until: not revocations.is_fresh or time.monotonic() > until)
                    assert revocations.is_fresh
                    async with RevocationList(transport) as second:
                        assert second.is_fresh

    async def test_majority_down(self, own_server: MakeServer, tmp_path: Path) -> None:
        """While two are down, a list is stale and says why; it goes on reading, and is fresh when one has returned."""
        async with topology(own_server, tmp_path) as servers:
            transport = RedisStream(servers.url, "k")
            async with RevocationList(transport, max_staleness=scaled(0.5)) as revocations:
                await servers.sentinels[0].kill()
                await servers.sentinels[1].kill()
                await wait_until(lambda: not revocations.is_fresh)
                failure = revocations.failure
                assert isinstance(failure, NotProven)
                assert failure.reason == "few_sentinels"
                assert "1 of 3 Sentinels name it, 2 are needed" in str(failure)
                assert "few_sentinels" in repr(revocations)
                await publish(RedisStream(servers.url_of(0), "k"), event("meanwhile"))
                await wait_until(lambda: revocations.check({"jti": "meanwhile"}) is Verdict.REVOKED)
                await servers.sentinels[0].start()
                await wait_until(lambda: revocations.is_fresh)
                assert revocations.failure is None


class TestClient:
    """A client that redis-py's Sentinel made is treated as the URL is."""

    async def test_partition(self, own_server: MakeServer, tmp_path: Path) -> None:
        """A list leaves the old primary."""
        async with topology(own_server, tmp_path) as servers:
            found = Sentinel(  # type: ignore[no-untyped-call]  # redis-py does not annotate it
                [("127.0.0.1", one.port) for one in servers.sentinels]
            )
            transport = RedisStream(found.master_for(SERVICE, password="secret"), "k")
            async with RevocationList(transport, max_staleness=MAX_STALENESS) as revocations:
                await servers.cut_off()
                new = await servers.promoted()
                await publish(RedisStream(servers.url_of(new), "k"), event("stolen"))
                await wait_until(lambda: revocations.check({"jti": "stolen"}) is Verdict.REVOKED)

    def test_replicas(self) -> None:
        """A client of the replicas is refused."""
        found = Sentinel([("127.0.0.1", 1)])  # type: ignore[no-untyped-call]  # redis-py does not annotate it
        with pytest.raises(InvalidOption, match=r"use master_for\(\)"):
            RedisStream(found.slave_for(SERVICE))


class TestBadSetUps:
    """What a list says of Sentinels that cannot tell which server is the primary."""

    async def test_no_such_service(self, own_server: MakeServer, tmp_path: Path) -> None:
        """A service that they do not know is named."""
        async with topology(own_server, tmp_path) as servers:
            await refused(RedisStream(servers.url.replace(f"/{SERVICE}", "/other")), "knows no service 'other'")

    async def test_not_all_listed(self, own_server: MakeServer, tmp_path: Path) -> None:
        """One of three decides nothing, also if it alone is listed."""
        async with topology(own_server, tmp_path) as servers:
            alone = f"redis+sentinel://:secret@127.0.0.1:{servers.sentinels[0].port}/{SERVICE}"
            await refused(RedisStream(alone), "1 of 3 Sentinels name it, 2 are needed .2 more of them are not listed")

    async def test_password(self, own_server: MakeServer, tmp_path: Path) -> None:
        """A password that the Sentinels need is asked for, and is another one than that of the servers."""
        async with topology(own_server, tmp_path) as servers:
            for one in servers.sentinels:
                async with one.client as client:
                    rights = ("+sentinel|master", "+sentinel|get-master-addr-by-name")  # those of the page
                    await call(client, "ACL", "SETUSER", "reader", "on", ">p@ss", *rights)
                    await call(client, "ACL", "SETUSER", "default", "resetpass", ">other")
            for client in servers.clients:
                await call(client, "ACL", "SETUSER", "service", "on", ">se/cret", "~*", "&*", "+@all")
            await refused(RedisStream(servers.url), "NOAUTH")
            own = servers.url.replace(":secret@", f"service:{quote('se/cret', safe='')}@")
            wrong = f"{own}?sentinel_username=reader&sentinel_password=wrong"
            message = await refused(RedisStream(wrong), "WRONGPASS")
            assert "wrong" not in message.replace("WRONGPASS", "").replace("wrong number", "")
            right = RedisStream(f"{own}?sentinel_username=reader&sentinel_password=p%40ss", "k")
            assert "p@ss" not in repr(right)
            async with RevocationList(right) as revocations, Publisher(right) as publisher:
                await publisher.publish(event("stolen"))
                await wait_until(lambda: revocations.check({"jti": "stolen"}) is Verdict.REVOKED)

    async def test_wrong_kind(self, own_server: MakeServer, tmp_path: Path) -> None:
        """A Sentinel in place of a server, or a server in place of a Sentinel, is told as such."""
        async with topology(own_server, tmp_path) as servers:
            one = f"redis://127.0.0.1:{servers.sentinels[0].port}"
            for transport in (RedisStream(one, "k"), RedisStream(one, "k", group="g"), RedisPubSub(one, "k")):
                with pytest.raises(TransportError, match=r"a Sentinel replied.*redis\+sentinel://") as caught:
                    await Listener(transport).__aenter__()
                assert not caught.value.retryable
                async with Publisher(transport) as publisher:
                    with pytest.raises(PublishFailed, match="a Sentinel replied"):
                        await publisher.publish(event("lost"))
            places = ",".join(servers.addresses)
            servers_url = f"redis+sentinel://:secret@{places}/{SERVICE}?sentinel_password=secret"
            await refused(RedisStream(servers_url), rf"{servers.addresses[0]} is no Sentinel, ")

    async def test_rights(self, own_server: MakeServer, tmp_path: Path) -> None:
        """Rights that are missing at a majority of the Sentinels are named."""
        async with topology(own_server, tmp_path) as servers:
            for one in servers.sentinels[:2]:
                async with one.client as client:
                    await call(client, "ACL", "SETUSER", "default", "-sentinel|master")
            await refused(RedisStream(servers.url), r"NOPERM.*need the rights \+sentinel\|master and ")

    async def test_listed_twice(self, own_server: MakeServer, tmp_path: Path) -> None:
        """A Sentinel that is listed by two names has one vote."""
        async with topology(own_server, tmp_path) as servers:
            first, second = (one.port for one in servers.sentinels[:2])
            twice = f"redis+sentinel://:secret@127.0.0.1:{first},localhost:{first}"
            await refused(RedisStream(f"{twice}/{SERVICE}"), "1 of 3 Sentinels name it.*is the same as")
            async with RevocationList(RedisStream(f"{twice},127.0.0.1:{second}/{SERVICE}", "k")) as revocations:
                assert revocations.is_fresh

    async def test_nothing_there(self) -> None:
        """Sentinels that are not there are named."""
        await refused(RedisPubSub("redis+sentinel://127.0.0.1:1/main"), "0 of 1 Sentinels name it.*127.0.0.1:1")


class TestChanges:
    """What operators do to Sentinels while they are asked."""

    async def test_monitored_anew(self, own_server: MakeServer, tmp_path: Path) -> None:
        """A service that is removed proves nothing; monitored at another address, it is read there."""
        async with topology(own_server, tmp_path) as servers:
            transport = RedisStream(servers.url, "k")
            async with RevocationList(transport, max_staleness=scaled(0.5)) as revocations:
                for one in servers.sentinels:
                    async with one.client as client:
                        await call(client, "SENTINEL", "REMOVE", SERVICE)
                await wait_until(lambda: not revocations.is_fresh)
                assert "knows no service" in str(revocations.failure)
                await call(servers.clients[1], "REPLICAOF", "NO", "ONE")
                await publish(RedisStream(servers.url_of(1), "k"), event("elsewhere"))
                await servers.monitor(1)
                await wait_until(lambda: revocations.check({"jti": "elsewhere"}) is Verdict.REVOKED, within=30)
                await wait_until(lambda: revocations.is_fresh)

    async def test_two_failovers(self, own_server: MakeServer, tmp_path: Path) -> None:
        """Two that are forced one after the other, and then a reset, are followed."""
        async with topology(own_server, tmp_path) as servers:
            transport = RedisStream(servers.url, "k")
            async with RevocationList(transport, max_staleness=MAX_STALENESS) as revocations:
                for number in range(2):
                    before = servers.addresses.index(str(await servers.sentinels[number].primary()))

                    async def forced(one: SentinelProcess = servers.sentinels[number]) -> bool:
                        async with one.client as client:
                            try:
                                await call(client, "SENTINEL", "FAILOVER", SERVICE)
                            except ResponseError:  # one is under way, or no replica is known to be good yet
                                return False
                        return True

                    await wait_until(forced, within=30)
                    new = await servers.promoted(after=before)
                    await publish(RedisStream(servers.url_of(new), "k"), event(f"stolen {number}"))
                    name = f"stolen {number}"
                    await wait_until(lambda name=name: revocations.check({"jti": name}) is Verdict.REVOKED, within=30)
                for one in servers.sentinels:
                    async with one.client as client:
                        await call(client, "SENTINEL", "RESET", SERVICE)
                await publish(transport, event("after"))
                await wait_until(lambda: revocations.check({"jti": "after"}) is Verdict.REVOKED, within=30)
                await wait_until(lambda: revocations.is_fresh, within=30)


class TestSlow:
    """Sentinels that are far away."""

    async def test_publisher(self, own_server: MakeServer, tmp_path: Path) -> None:
        """A publisher at a primary that was cut off leaves it, although each Sentinel takes a fifth of a second."""
        async with topology(own_server, tmp_path) as servers, AsyncExitStack() as stack:
            far = [await stack.enter_async_context(Proxy(f"redis://127.0.0.1:{one.port}")) for one in servers.sentinels]
            places = ",".join(proxy.url.removeprefix("redis://") for proxy in far)
            transport = RedisStream(f"redis+sentinel://:secret@{places}/{SERVICE}", "k")
            async with Publisher(transport, timeout=scaled(10), republish=0) as publisher:
                await publisher.publish(event("before"))
                for proxy in far:
                    proxy.to_client.latency = 0.2
                await servers.cut_off()
                new = await servers.promoted()
                await call(servers.clients[new], "DEL", "k")

                async def has_left() -> bool:
                    await publisher.publish(event("after"))
                    return bool(await servers.clients[new].exists("k"))

                await wait_until(has_left)


async def refused(transport: RedisStream | RedisPubSub, message: str) -> str:
    """Check that a transport cannot be read because of what its Sentinels say, and return the message."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reconnecting, "OPEN_WITHIN", scaled(1.0))
        with pytest.raises(NotProven, match=message) as caught:
            await Listener(transport).__aenter__()
    assert caught.value.reason == "few_sentinels"
    return str(caught.value)


async def test_doctor(own_server: MakeServer, tmp_path: Path) -> None:
    """`jwt-events doctor` says what the Sentinels agree on, and which of them is missing."""
    async with topology(own_server, tmp_path) as servers:
        assert "3 of 3 name 127.0.0.1" in await asyncio.to_thread(_sentinels_of, servers.url)
        await servers.sentinels[2].kill()
        text = await asyncio.to_thread(_sentinels_of, servers.url)
        assert "2 of 3 name 127.0.0.1" in text
        assert f"127.0.0.1:{servers.sentinels[2].port}" in text


def _sentinels_of(url: str) -> str:
    found = run_apart("doctor", "--json", url=url).records
    (finding,) = [one for one in found if one["topic"] == "sentinels"]
    return str(finding["text"])
