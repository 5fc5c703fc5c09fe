"""What lies beside a stream in a cluster: ledger, dead letters, registry and leases, all in its slot."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio import RedisCluster

from jwt_events import (
    DeadLetters,
    Event,
    Fleet,
    InvalidOption,
    Publisher,
    RedisPubSub,
    RedisStream,
    Retry,
    RevocationList,
    TokenRevoked,
    Verdict,
)
from jwt_events.testing import Listener
from jwt_events.transport.lease import ServerLease
from tests.support.cluster import Cluster
from tests.support.handling import publish
from tests.support.waiting import scaled, wait_until


@pytest.fixture(params=["plain", "tagged"])
def name(request: pytest.FixtureRequest, key: str) -> str:
    """The key of a stream, without and with a hash tag."""
    return key if request.param == "plain" else f"{{{key}}}:events"


async def on(cluster: Cluster, key: str, command: str, *words: str | bytes | int) -> Any:
    """Send a command about a key to the node that has it."""
    return await (await cluster.owner_of(key)).call(command, key, *words)


def failing(transport: RedisStream) -> Listener:
    """Return a listener that fails on every event."""

    async def fail(event: Event) -> None:
        raise ValueError

    listener = Listener(transport, retry=Retry(attempts=1))
    listener.subscriber.on()(fail)
    return listener


class TestDeadLetters:
    """Dead letters."""

    @pytest.mark.parametrize("group", [None, "g"])
    async def test_from_the_handler_to_the_replay(self, cluster: Cluster, name: str, group: str | None) -> None:
        """Events that fail, and bytes that are no event, are kept, listed, replayed and purged."""
        transport = RedisStream(cluster.url, name, group=group)
        async with failing(transport), DeadLetters(transport) as dead:
            await publish(transport, TokenRevoked(token_id="a"))
            await on(cluster, name, "XADD", "*", "event", "no event")

            async def both_are_there() -> bool:
                return await dead.count() == 2

            await wait_until(both_are_there)
        async with Listener(RedisStream(cluster.url, name)) as listener, DeadLetters(transport) as dead:
            letters = {letter.handler is not None: letter for letter in await dead.list()}
            await dead.replay(letters[True].id)
            await listener.hears("a")
            assert letters[False].payload == b"no event"
            assert await dead.purge(letters[False].id) == 1
            assert await dead.count() == 0
        assert transport.dead_letter == (f"{{{name}}}:dead" if "{" not in name else f"{name}:dead")

    async def test_once(self, cluster: Cluster, key: str) -> None:
        """Of several readers one keeps bytes that are not an event."""
        transport = RedisStream(cluster.url, key)
        async with Listener(transport) as one, Listener(transport) as other, DeadLetters(transport) as dead:
            await on(cluster, key, "XADD", "*", "event", "no event")
            for listener in (one, other):
                await wait_until(lambda listener=listener: listener.subscriber.stats.decode_errors == 1)
        async with DeadLetters(transport) as dead:
            assert await dead.count() == 1


class TestLedger:
    """The ledger."""

    async def test_nothing_is_forgotten(self, cluster: Cluster, name: str) -> None:
        """A publisher folds and trims; a list that starts afterwards knows everything."""
        transport = RedisStream(cluster.url, name, retention=timedelta(milliseconds=1))
        async with Publisher(transport) as publisher:
            await publisher.publish(TokenRevoked(token_id="a"))

            async def is_folded() -> bool:
                return not await on(cluster, name, "XLEN")

            await wait_until(is_folded)
        gaps: list[object] = []
        revocations = RevocationList(transport, max_staleness=scaled(5))
        revocations.on_gap(gaps.append)
        async with revocations:
            assert revocations.check({"jti": "a", "iat": 1}) is Verdict.REVOKED
            assert revocations.check({"jti": "b", "iat": 1}) is Verdict.ALLOW
        assert gaps == []
        assert await on(cluster, str(transport.ledger), "EXISTS") == 1


class TestFleet:
    """The registry of instances, and leases."""

    async def test_waiting_for_all(self, cluster: Cluster, name: str) -> None:
        """A publish returns when the lists that announced themselves have it."""
        transport = RedisStream(cluster.url, name)
        async with (
            RevocationList(transport, service="orders", instance="one") as one,
            RevocationList(transport, service="orders", instance="two") as two,
            Publisher(transport, timeout=scaled(5)) as publisher,
        ):
            receipt = await publisher.publish(
                TokenRevoked(token_id="a"), in_force=Fleet("orders", timeout=scaled(5.0)), timeout=scaled(10)
            )
            assert receipt.propagation is not None
            assert {one.check({"jti": "a", "iat": 1}), two.check({"jti": "a", "iat": 1})} == {Verdict.REVOKED}
            assert await on(cluster, transport.keys.fleet, "HLEN") == 2

    async def test_one_holder(self, cluster: Cluster, name: str) -> None:
        """A lease is held by one, and goes to another."""
        transport = RedisStream(cluster.url, name)
        async with ServerLease(transport, "work", seconds=scaled(5), report=lambda: 1.0) as one:
            await one.wait()
            async with ServerLease(transport, "work", seconds=scaled(5), report=lambda: 1.0) as other:
                await other.renew()
                assert (one.is_held, other.is_held) == (True, False)
            await one.remember("a note")
        async with ServerLease(transport, "work", seconds=scaled(5), report=lambda: 1.0) as next_one:
            await next_one.wait()
            assert await next_one.recall() == "a note"


class TestRefused:
    """Names that cannot be."""

    def test_other_slots(self, cluster: Cluster, key: str) -> None:
        """Keys in another slot are refused at construction, of a URL and of a client."""
        client = RedisCluster(host="127.0.0.1", port=cluster.nodes[0].port)
        for given in (cluster.url, client):
            for option in ("ledger", "dead_letter"):
                elsewhere: dict[str, Any] = {option: f"{key}:x"}
                with pytest.raises(InvalidOption, match=f"{option}: is '{key}:x', .* '{key}'; .*: {{{key}}}:{key}:x"):
                    RedisStream(given, key, **elsewhere)
            with pytest.raises(InvalidOption, match="key: has a '}' but no hash tag"):
                RedisStream(given, "a}b")
        with pytest.raises(InvalidOption, match="key: has a '}' but no hash tag"):
            ServerLease(RedisPubSub(cluster.url, "a}b"), "work", seconds=1, report=lambda: 0.0)


class TestNodeAlone:
    """The URL of one node, as of a server that is in no cluster: the first reply of another slot tells."""

    async def test_everything_works(self, cluster: Cluster, key: str) -> None:
        """Events are published, folded, known to a list, given up and announced, whichever node the URL names."""
        for number, node in enumerate(cluster.nodes[:3]):
            transport = RedisStream(node.url, f"{key}:{number}", retention=timedelta(milliseconds=1))
            async with (
                failing(transport),
                RevocationList(transport, max_staleness=scaled(5), service="orders", instance="one") as revocations,
                Publisher(transport) as publisher,
            ):
                await publisher.publish(TokenRevoked(token_id="a"), timeout=scaled(5))
                await wait_until(lambda revocations=revocations: revocations.check({"jti": "a"}) is Verdict.REVOKED)
                for name in ("ledger", "dead", "fleet"):
                    expected = f"{{{transport.destination}}}:{name}"
                    await wait_until(lambda name=expected: on(cluster, name, "EXISTS"), what=name)
            async with RevocationList(RedisStream(node.url, f"{key}:{number}"), max_staleness=scaled(5)) as alone:
                assert alone.check({"jti": "a"}) is Verdict.REVOKED
            assert transport.dead_letter == f"{{{transport.destination}}}:dead"
            assert transport.ledger == f"{{{transport.destination}}}:ledger"
