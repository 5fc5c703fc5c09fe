"""A fleet on a real server: who is waited for, and what is let in afterwards."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import redis.asyncio

from jwt_events import (
    Fleet,
    InvalidOption,
    Lease,
    MemoryTransport,
    Publisher,
    RedisStream,
    RevocationList,
    StaleRevocationsError,
    TokenRevoked,
    Transport,
    Verdict,
)
from jwt_events.fleet import parse
from tests.faults.failover import pair
from tests.fleet.test_announcement import SAID
from tests.support.proxy import Proxy
from tests.support.raw import call
from tests.support.waiting import scaled, wait_until

ROOT = Path(__file__).parents[2]
LONG = 600.0


@asynccontextmanager
async def opened(transport: Transport, *names: str, **options: Any) -> AsyncIterator[list[RevocationList]]:
    """Open a list for each instance of the service ``orders``."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(RevocationList(transport, service="orders", instance=name, **options))
            for name in names
        ]


async def entries(client: redis.asyncio.Redis, key: str) -> dict[str, Any]:
    """Return the announcements by the names of their instances."""
    found: Any = await client.hgetall(f"{key}:fleet")
    return {said.instance: said for field, entry in found.items() if (said := parse(field.decode(), entry))}


@pytest.fixture(params=["stream", "memory"])
def transport(request: pytest.FixtureRequest, url: str, key: str) -> Transport:
    """A transport that has a registry."""
    return MemoryTransport() if request.param == "memory" else RedisStream(url, key)


class TestAcknowledged:
    """What lists say ends the wait long before their leases would."""

    async def test_all(self, transport: Transport) -> None:
        """After the publish, every list has the rule."""
        async with opened(transport, "a", "b", max_staleness=LONG) as lists, Publisher(transport) as publisher:
            for number in range(10):
                receipt = await publisher.publish(TokenRevoked(token_id=f"t{number}"), in_force=Fleet("orders"))
                assert receipt.propagation is not None
                assert receipt.propagation.acknowledged == ["orders/a", "orders/b"]
                assert receipt.propagation.is_complete
                assert [one.check({"jti": f"t{number}"}) for one in lists] == [Verdict.REVOKED] * 2

    async def test_many(self, transport: Transport) -> None:
        """Many events are waited for once."""
        async with opened(transport, "a", max_staleness=LONG) as (one,), Publisher(transport) as publisher:
            events = [TokenRevoked(token_id=f"t{number}") for number in range(1_200)]
            receipts = await publisher.publish_many(events, in_force=Fleet())
            assert {id(receipt.propagation) for receipt in receipts} == {id(receipts[0].propagation)}
            assert not any(one.check({"jti": event.token_id}) for event in events)
            assert await publisher.publish_many([], in_force=Fleet()) == []

    async def test_unsafe(self, transport: Transport) -> None:
        """A list with ``on_stale="allow"`` is named, although it has acknowledged."""
        async with opened(transport, "a", on_stale="allow"), Publisher(transport) as publisher:
            receipt = await publisher.publish(TokenRevoked(token_id="t"), in_force=Fleet())
            assert receipt.propagation is not None
            assert receipt.propagation.unsafe == receipt.propagation.acknowledged == ["orders/a"]

    async def test_closed(self, transport: Transport) -> None:
        """A list that was closed is forgotten: nobody waits for it. Opened again it is there."""
        async with opened(transport, "a", "b", max_staleness=LONG) as (first, _), Publisher(transport) as publisher:
            await first.aclose()
            receipt = await publisher.publish(TokenRevoked(token_id="t"), in_force=Fleet())
            assert receipt.propagation is not None
            assert receipt.propagation.acknowledged == ["orders/b"]
            async with first:
                receipt = await publisher.publish(TokenRevoked(token_id="u"), in_force=Fleet())
                assert receipt.propagation is not None
                assert receipt.propagation.acknowledged == ["orders/a", "orders/b"]

    async def test_a_service_that_is_named_twice(self, transport: Transport) -> None:
        """It is one service."""
        async with opened(transport, "a", max_staleness=LONG), Publisher(transport) as publisher:
            fleet = Fleet("orders", "orders", "billing", "billing", lease=0.1)
            receipt = await publisher.publish(TokenRevoked(token_id="t"), in_force=fleet)
            assert receipt.propagation is not None
            assert (receipt.propagation.acknowledged, receipt.propagation.missing) == (["orders/a"], ["billing"])

    async def test_two_of_one_name(self, transport: Transport) -> None:
        """Both are waited for."""
        async with opened(transport, "a", "a", max_staleness=LONG), Publisher(transport) as publisher:
            receipt = await publisher.publish(TokenRevoked(token_id="t"), in_force=Fleet())
            assert receipt.propagation is not None
            assert receipt.propagation.acknowledged == ["orders/a", "orders/a"]

    async def test_it_is_known_before_it_is_fresh(self, transport: Transport) -> None:
        """A list is in the registry before it lets anything in, so no publisher overlooks it."""
        async with Publisher(transport) as publisher, opened(transport, "a", max_staleness=LONG, wait=False) as (one,):
            await wait_until(lambda: one.check({"jti": "other"}))
            receipt = await publisher.publish(TokenRevoked(token_id="t"), in_force=Fleet())
            assert receipt.propagation is not None
            assert receipt.propagation.acknowledged == ["orders/a"]


class TestLease:
    """What is not acknowledged is waited for as long as a proof may be relied on."""

    async def test_lease_alone(self, transport: Transport) -> None:
        """The lease takes its time, and says that nobody was asked."""
        async with Publisher(transport) as publisher:
            began = monotonic()
            receipt = await publisher.publish(TokenRevoked(token_id="t"), in_force=Lease(0.2))
            assert monotonic() - began >= 0.2
            assert receipt.propagation is not None
            assert (receipt.propagation.by, receipt.propagation.is_complete) == ("lease", True)

    @pytest.mark.parametrize("services", [(), ("billing",)])
    async def test_nobody(self, transport: Transport, services: tuple[str, ...]) -> None:
        """Where nobody is registered, the lease is waited for; a service that was asked for is missing."""
        async with Publisher(transport) as publisher:
            began = monotonic()
            receipt = await publisher.publish(TokenRevoked(token_id="t"), in_force=Fleet(*services, lease=0.3))
            assert monotonic() - began >= 0.3
            assert receipt.propagation is not None
            assert (receipt.propagation.by, receipt.propagation.missing) == ("lease", [*services])

    async def test_half_open(self, url: str, key: str) -> None:
        """A list whose connection lost the event is waited for until it is stale."""
        async with (
            Proxy(url) as proxy,
            Publisher(RedisStream(url, key)) as publisher,
            opened(RedisStream(proxy.url, key), "a", max_staleness=0.5) as (one,),
        ):
            proxy.to_client.lose()
            receipt = await publisher.publish(TokenRevoked(token_id="t"), in_force=Fleet())
            assert not one.check({"jti": "t"})
            assert receipt.propagation is not None
            assert receipt.propagation.expired == ["orders/a"]
            proxy.heal()

    async def test_a_registry_that_is_lost(self, url: str, key: str, client: redis.asyncio.Redis) -> None:
        """Where the entry of a list that is cut off is lost, too, the lease is waited for, whoever else is there."""
        lease = scaled(0.5)
        stream = RedisStream(url, key)

        async def is_back() -> bool:
            found = (await entries(client, key)).get("a")
            return found is not None and found.lost_at is not None

        async with (
            Proxy(url) as proxy,
            Publisher(stream) as publisher,
            opened(stream, "a", max_staleness=lease),
            opened(RedisStream(proxy.url, key), "b", max_staleness=lease) as (cut_off,),
        ):
            proxy.to_client.lose()
            proxy.to_server.lose()
            await client.delete(f"{key}:fleet")
            await wait_until(is_back)
            receipt = await publisher.publish(TokenRevoked(token_id="t"), in_force=Fleet("orders", lease=lease))
            assert not cut_off.check({"jti": "t"})
            assert receipt.propagation is not None
            assert (receipt.propagation.by, receipt.propagation.acknowledged) == ("lease", ["orders/a"])
            proxy.heal()

    async def test_a_publisher_that_is_closed(self, transport: Transport) -> None:
        """Closing does not wait for leases, and what waits for one goes on."""
        async with Publisher(transport) as publisher, RevocationList(transport) as one:
            waiting = asyncio.create_task(publisher.publish(TokenRevoked(token_id="t"), in_force=Fleet(lease=0.5)))
            await wait_until(lambda: one.check({"jti": "t"}) is Verdict.REVOKED)
            await publisher.aclose()
            receipt = await waiting
        assert receipt.propagation is not None
        assert receipt.propagation.by == "lease"

    async def test_cancelled(self, transport: Transport) -> None:
        """Cancelled while it waits, the event is published."""
        async with opened(transport, "a") as (one,), Publisher(transport) as publisher:
            waiting = asyncio.create_task(publisher.publish(TokenRevoked(token_id="t"), in_force=Lease(LONG)))
            await wait_until(lambda: one.check({"jti": "t"}) is Verdict.REVOKED)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting


class TestRegistry:
    """What is kept on the server, and what is not believed."""

    async def test_what_is_announced(self, url: str, key: str, client: redis.asyncio.Redis) -> None:
        """The entry holds the condition of the list; it is gone when the list is closed."""
        stream = RedisStream(url, key)
        async with opened(stream, "a", max_staleness=1.0) as (one,), Publisher(stream) as publisher:
            receipt = await publisher.publish(TokenRevoked(token_id="t"))
            await wait_until(lambda: one.check({"jti": "t"}) is Verdict.REVOKED)

            async def is_announced() -> bool:
                said = (await entries(client, key))["a"]
                return bool(said.position == receipt.position and said.said_at and said.state == "fresh")

            await wait_until(is_announced)
            said = (await entries(client, key))["a"]
            assert (said.service, said.lease, said.allows_stale, said.trouble) == ("orders", 1.0, False, "")
            assert abs(said.said_at - (await client.time())[0]) < scaled(10)
        assert await entries(client, key) == {}

    async def test_entries_that_are_not_ours(self, url: str, key: str, client: redis.asyncio.Redis) -> None:
        """They are waited for by nobody, and forgotten; one that is silent for an hour is forgotten after its lease."""
        stream = RedisStream(url, key)
        seconds = (await client.time())[0]
        silent = replace(SAID, instance="silent", lease=0.2, position="0-0", said_at=seconds - 3_700.0)
        recent = replace(silent, instance="recent", said_at=float(seconds))
        ahead = replace(silent, instance="ahead", said_at=seconds + 3_600.0)
        for said in (silent, recent, ahead):
            await client.hset(f"{key}:fleet", said.field, said.encode())
        await client.hset(f"{key}:fleet", "foreign", b"\xff")
        async with Publisher(stream) as publisher:
            receipt = await publisher.publish(TokenRevoked(token_id="t"), in_force=Fleet())
        assert receipt.propagation is not None
        assert receipt.propagation.expired == ["orders/ahead", "orders/recent", "orders/silent"]
        assert set(await entries(client, key)) == {"ahead", "recent"}
        assert not await client.hexists(f"{key}:fleet", "foreign")

    async def test_who_asks(self, url: str, key: str, client: redis.asyncio.Redis) -> None:
        """Of many events only the last one asks to be confirmed, as a list applies them in order."""
        async with Publisher(RedisStream(url, key)) as publisher:
            events = [TokenRevoked(token_id=f"t{number}") for number in range(3)]
            await publisher.publish_many(events, in_force=Lease(0.1))
        entries: Any = await client.xrange(key)
        assert [b"confirm" in fields[b"event"] for _, fields in entries] == [False, False, True]

    async def test_a_replica(self, own_server: Any) -> None:
        """What a replica has of the registry is old, so it is not read; the lease is waited for."""
        async with own_server(port=0) as primary, own_server(port=0) as other:
            async with (
                redis.asyncio.Redis.from_url(primary.url) as writer,
                redis.asyncio.Redis.from_url(other.url) as client,
            ):
                await call(writer, "HSET", "k:fleet", SAID.field, SAID.encode())
                await call(client, "REPLICAOF", "127.0.0.1", primary.url.rpartition(":")[2].partition("/")[0])
                await wait_until(lambda: client.exists("k:fleet"), what="the replica")
            began = monotonic()
            found = await Fleet(timeout=0.2, lease=0.3).wait(RedisStream(other.url, "k"), "1-0", began)
        assert (found.by, monotonic() - began >= 0.3) == ("lease", True)

    async def test_connections(self, own_server: Any) -> None:
        """To wait opens no connection: the registry is read at the server that accepted the event."""
        async with own_server() as server, redis.asyncio.Redis.from_url(server.url) as client:
            stream = RedisStream(server.url, "k")
            async with opened(stream, "a", max_staleness=LONG), Publisher(stream) as publisher:
                await publisher.publish(TokenRevoked(token_id="t"))
                before = (await client.info("stats"))["total_connections_received"]
                receipt = await publisher.publish(TokenRevoked(token_id="u"), in_force=Fleet())
                assert receipt.propagation is not None
                assert receipt.propagation.acknowledged == ["orders/a"]
                assert (await client.info("stats"))["total_connections_received"] == before

    async def test_closed_meanwhile(self, url: str, key: str) -> None:
        """Who closes the publisher hears no more acknowledgements, and waits for the leases."""
        async with (
            Proxy(url) as proxy,
            Publisher(RedisStream(url, key)) as publisher,
            opened(RedisStream(proxy.url, key), "a", max_staleness=1.0) as (one,),
        ):
            proxy.to_client.lose()
            waiting = asyncio.create_task(publisher.publish(TokenRevoked(token_id="t"), in_force=Fleet()))
            await wait_until(lambda: not one.check({"jti": "other"}), what="the list to be stale")
            await publisher.aclose()
            receipt = await waiting
            assert receipt.propagation is not None
            assert receipt.propagation.expired == ["orders/a"]
            proxy.heal()

    async def test_with_replicas(self, own_server: Any) -> None:
        """A publisher whose connection waits for replicas reads the registry on another one."""
        async with pair(own_server) as both:
            stream = RedisStream(both.name.url, "k", replicas=1)
            async with opened(stream, "a", max_staleness=LONG) as (one,), Publisher(stream) as publisher:
                receipt = await publisher.publish(TokenRevoked(token_id="t"), in_force=Fleet())
                assert receipt.propagation is not None
                assert receipt.propagation.acknowledged == ["orders/a"]
                assert one.check({"jti": "t"}) is Verdict.REVOKED

    async def test_a_key_of_another_type(self, url: str, key: str, client: redis.asyncio.Redis) -> None:
        """The list works as before, and the publisher waits for the lease."""
        await client.set(f"{key}:fleet", "no hash")
        stream = RedisStream(url, key)
        async with opened(stream, "a") as (one,), Publisher(stream) as publisher:
            assert one.check({"jti": "other"})
            receipt = await publisher.publish(TokenRevoked(token_id="t"), in_force=Fleet(lease=0.2, timeout=0.2))
            assert receipt.propagation is not None
            assert receipt.propagation.by == "lease"
            await wait_until(lambda: one.check({"jti": "t"}) is Verdict.REVOKED)

    async def test_without_the_right(self, own_server: Any) -> None:
        """A list whose user may not announce itself works as before."""
        async with own_server() as server, redis.asyncio.Redis.from_url(server.url) as admin:
            rules = ("+@all", "-hset", "-hdel", "~*", "on", ">pw")
            await call(admin, "ACL", "SETUSER", "list", *rules)
            url = server.url.replace("redis://", "redis://list:pw@").replace("unix://", "unix://list:pw@")
            async with (
                opened(RedisStream(url, "k"), "a") as (one,),
                Publisher(RedisStream(server.url, "k")) as publisher,
            ):
                receipt = await publisher.publish(TokenRevoked(token_id="t"), in_force=Fleet(lease=0.2))
                assert receipt.propagation is not None
                assert receipt.propagation.by == "lease"
                await wait_until(lambda: one.check({"jti": "t"}) is Verdict.REVOKED)

    async def test_a_publisher_without_the_right(self, own_server: Any) -> None:
        """Who may not ask for the history of a server cannot compare positions, so the lease is waited for."""
        async with own_server() as server, redis.asyncio.Redis.from_url(server.url) as admin:
            await call(admin, "ACL", "SETUSER", "publisher", "+@all", "-info", "~*", "on", ">pw")
            scheme, _, place = server.url.partition("://")
            async with (
                opened(RedisStream(server.url, "k"), "a") as (one,),
                Publisher(RedisStream(f"{scheme}://publisher:pw@{place}", "k")) as publisher,
            ):
                receipt = await publisher.publish(TokenRevoked(token_id="t"), in_force=Fleet(lease=0.2))
                assert receipt.propagation is not None
                assert receipt.propagation.by == "lease"
                await wait_until(lambda: one.check({"jti": "t"}) is Verdict.REVOKED)


class TestAtLeast:
    """A client that was logged out is refused by a list that has not heard of it yet."""

    async def test_until_it_is_applied(self, url: str, key: str) -> None:
        """Stale until the position is reached, whatever ``on_stale`` says."""
        async with (
            Proxy(url) as proxy,
            Publisher(RedisStream(url, key)) as publisher,
            opened(RedisStream(proxy.url, key), "a", on_stale="allow") as (one,),
        ):
            proxy.to_client.hold()
            receipt = await publisher.publish(TokenRevoked(token_id="t"))
            assert one.check({"jti": "t"})
            assert one.check({"jti": "t"}, at_least=receipt.position) is Verdict.STALE
            with pytest.raises(StaleRevocationsError, match="has not applied the event") as caught:
                one.ensure_live({"jti": "t"}, at_least=receipt.position)
            assert caught.value.waits_for == receipt.position
            proxy.heal()
            await wait_until(lambda: one.check({"jti": "t"}) is Verdict.REVOKED)
            assert one.check({"jti": "other"}, at_least=receipt.position)

    async def test_what_was_trimmed_before(self, url: str, key: str, client: redis.asyncio.Redis) -> None:
        """A list that starts after the event was trimmed has reached its position."""
        stream = RedisStream(url, key)
        async with Publisher(stream) as publisher:
            receipt = await publisher.publish(TokenRevoked(token_id="t"))
        await client.xtrim(key, maxlen=0)
        async with RevocationList(stream) as revocations:
            assert revocations.check({"jti": "other"}, at_least=receipt.position)

    @pytest.mark.parametrize("position", ["", "5", "a-b", "-", "1-2-3", 5, b"1-0", "1" * 30 + "-0"])
    async def test_no_position(self, position: Any) -> None:
        """What is no position is refused."""
        async with RevocationList(MemoryTransport()) as revocations:
            with pytest.raises(InvalidOption, match="position: must be a position"):
                revocations.check({"jti": "t"}, at_least=position)


class Instance:
    """A process of its own, which checks tokens all the time."""

    def __init__(self, name: str, url: str, key: str, *, tokens: int) -> None:
        self.name = name
        self._arguments = (url, key, name, "0.3", str(tokens))
        self._process: asyncio.subprocess.Process
        self.allowed: list[list[float]] = []

    async def start(self) -> None:
        """Start it, and wait until its list is open."""
        program = (sys.executable, "-m", "tests.fleet.instance_process", *self._arguments)
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(*program, stdin=pipe, stdout=pipe, cwd=ROOT)
        assert self._process.stdout is not None
        async with asyncio.timeout(scaled(30)):
            assert await self._process.stdout.readline() == b"ready\n"

    def freeze(self) -> None:
        """Stop it in the middle of whatever it does."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)

    async def kill(self) -> None:
        """End it without a word."""
        self._process.kill()
        await self._process.wait()

    async def end(self) -> None:
        """End it in order, and keep what it says."""
        self.thaw()
        async with asyncio.timeout(scaled(30)):
            said, _ = await self._process.communicate(b"")
        self.allowed.append(json.loads(said))


async def run_against_faults(url: str, key: str, tokens: int, chance: random.Random) -> None:
    """Publish tokens to a fleet whose instances are frozen, killed, cut off and started again; then compare."""
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(Proxy(url))
        instances = [Instance(f"i{number}", (url, proxy.url)[number % 2], key, tokens=tokens) for number in range(4)]
        for instance in instances:
            await instance.start()
            stack.push_async_callback(instance.end)
        publisher = await stack.enter_async_context(Publisher(RedisStream(url, key)))
        in_force_at = []
        for number in range(tokens):
            instance = chance.choice(instances)
            fault = chance.choice(["none", "freeze", "freeze", "cut", "restart"])
            if fault == "freeze":
                instance.freeze()
            elif fault == "cut":
                proxy.to_client.lose()
            elif fault == "restart":
                await instance.kill()
            wait = Lease(0.3) if chance.random() < 0.3 else Fleet("orders", timeout=1.0, lease=0.3)
            await publisher.publish(TokenRevoked(token_id=f"t{number}"), in_force=wait)
            in_force_at.append(monotonic())
            if fault == "restart":
                await instance.start()
            instance.thaw()
            proxy.heal()
        await stack.aclose()
    for instance in instances:
        for allowed in instance.allowed:
            late = [number for number, (last, at) in enumerate(zip(allowed, in_force_at, strict=True)) if last > at]
            assert not late, f"{instance.name} let tokens in after they were revoked everywhere: {late}"
    assert any(any(allowed) for instance in instances for allowed in instance.allowed)  # they let them in before


async def test_nothing_is_let_in_afterwards(url: str, key: str) -> None:
    """After the wait, no registered list lets the token in, whatever became of its process or its connection."""
    await run_against_faults(url, key, 12, random.Random(1))


@pytest.mark.stress
@pytest.mark.timeout(scaled(1_500))
@pytest.mark.parametrize("seed", range(4))
async def test_nothing_is_let_in_ever(url: str, key: str, seed: int) -> None:
    """The same a thousand times."""
    await run_against_faults(url, key, 250, random.Random(seed))
