"""`replicas=N`: what was published survives a failover, and a server without replicas proves nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from redis.asyncio import Redis

from jwt_events import (
    InvalidOption,
    NotProven,
    NotReplicated,
    Publisher,
    PublishOutcomeUnknown,
    RedisStream,
    RevocationList,
    TokenRevoked,
    Verdict,
)
from jwt_events.transport._redis.proof import MAX_LAG
from tests.faults.failover import MakeServer, Pair, pair
from tests.support.handling import publish, running, soon
from tests.support.raw import call
from tests.support.waiting import scaled, wait_until


def event(name: str = "t") -> TokenRevoked:
    """Make an event about the token of this name."""
    return TokenRevoked(token_id=name)


@contextmanager
def frozen_replica(both: Pair) -> Iterator[None]:
    """Stop the process of the replica: it stays connected, and confirms nothing."""
    os.kill(both.new_pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(both.new_pid, signal.SIGCONT)


async def number_of_waits(client: Redis) -> int:
    """Return how many WAITs the server has carried out."""
    return int((await client.info("commandstats")).get("cmdstat_wait", {}).get("calls", 0))


class TestPublish:
    """A publish returns when the replicas have its events."""

    async def test_one(self, own_server: MakeServer) -> None:
        """The receipt says how many replicas have the event, and they do."""
        async with pair(own_server) as both, Publisher(RedisStream(both.name.url, "k", replicas=1)) as publisher:
            for number in range(1, 20):
                receipt = await publisher.publish(event())
                assert receipt.replicas == 1
                assert await both.new.xlen("k") == number
            await both.replicate()

    async def test_not_asked_for(self, own_server: MakeServer) -> None:
        """Without the option nothing waits, and the receipt says nothing."""
        async with pair(own_server) as both, Publisher(RedisStream(both.name.url, "k")) as publisher:
            assert (await publisher.publish(event())).replicas is None
            assert await number_of_waits(both.old) == 0

    async def test_many(self, own_server: MakeServer) -> None:
        """Events that are published at the same time share their waits, and all are replicated."""
        async with pair(own_server) as both, Publisher(RedisStream(both.name.url, "k", replicas=1)) as publisher:

            async def publish_some() -> None:
                for _ in range(20):
                    assert (await publisher.publish(event())).replicas == 1

            await asyncio.gather(*(publish_some() for _ in range(50)))
            receipts = await publisher.publish_many([event() for _ in range(2_500)])
            assert {receipt.replicas for receipt in receipts} == {1}
            assert await both.new.xlen("k") == 3_500
            assert await number_of_waits(both.old) < 200

    async def test_too_few(self, own_server: MakeServer) -> None:
        """With fewer replicas than asked for it ends in time, and says where the event is and how many have it."""
        async with (
            pair(own_server) as both,
            Publisher(RedisStream(both.name.url, "k", replicas=2), timeout=scaled(0.7)) as publisher,
        ):
            began = time.monotonic()
            with pytest.raises(NotReplicated, match="1 replicas have it in time, and 2 are needed") as caught:
                await publisher.publish(event())
            assert scaled(0.6) < time.monotonic() - began < scaled(0.95)
            assert caught.value.replicas == 1
            assert isinstance(caught.value, PublishOutcomeUnknown)
            ((position, _),) = await call(both.old, "XRANGE", "k", "-", "+")
            assert caught.value.position == position.decode()

    async def test_frozen(self, own_server: MakeServer) -> None:
        """While the replica confirms nothing, short publishes end, and those that can wait succeed afterwards."""
        async with (
            pair(own_server) as both,
            Publisher(RedisStream(both.name.url, "k", replicas=1), timeout=scaled(10)) as publisher,
        ):
            await publisher.publish(event())
            with frozen_replica(both):
                waiting = [asyncio.create_task(publisher.publish(event(f"{index}"))) for index in range(3)]
                with pytest.raises(NotReplicated) as caught:
                    await publisher.publish(event(), timeout=1.2)
                assert caught.value.replicas == 0
                late = asyncio.create_task(publisher.publish(event("late")))
                assert not any(task.done() for task in waiting)
            receipts = await soon(asyncio.gather(*waiting, late))
            assert [receipt.replicas for receipt in receipts] == [1] * 4

    async def test_lost_connection(self, own_server: MakeServer) -> None:
        """What was written on a connection that is lost before it is replicated is sent again, with the same id."""
        async with (
            pair(own_server) as both,
            Publisher(RedisStream(both.name.url, "k", replicas=1), timeout=scaled(10)) as publisher,
        ):
            await publisher.publish(event("before"))
            with frozen_replica(both):
                async with running(publisher.publish(event("during"))) as publishing:
                    await wait_until(lambda: both.old.xlen("k"), what="the event")
                    await wait_until(lambda: _has(both.old, 2), what="the event")
                    both.name.reset()
                    await wait_until(lambda: _has(both.old, 3), what="the second copy")
                    os.kill(both.new_pid, signal.SIGCONT)
                    assert (await publishing).replicas == 1

    async def test_cancelled(self, own_server: MakeServer) -> None:
        """A publish that is cancelled while it waits was perhaps published, and the next one is not disturbed."""
        async with (
            pair(own_server) as both,
            Publisher(RedisStream(both.name.url, "k", replicas=1), timeout=scaled(10)) as publisher,
        ):
            await publisher.publish(event("before"))
            with frozen_replica(both):
                task = asyncio.create_task(publisher.publish(event("during")))
                await wait_until(lambda: _has(both.old, 2), what="the event")
                task.cancel()
                with pytest.raises(asyncio.CancelledError) as caught:
                    await task
                assert isinstance(caught.value.__cause__, PublishOutcomeUnknown)
            assert (await publisher.publish(event("after"))).replicas == 1

    async def test_right(self, own_server: MakeServer) -> None:
        """The right that is missing is named."""
        async with pair(own_server) as both:
            await call(both.old, "ACL", "SETUSER", "p", "on", ">secret", "~k*", "+xadd", "+xtrim", "+time", "+zadd")
            url = both.name.url.replace("://", "://p:secret@")
            async with Publisher(RedisStream(url, "k", replicas=1)) as publisher:
                with pytest.raises(NotReplicated, match=r"NOPERM.*needs the right \+wait") as caught:
                    await publisher.publish(event())
                assert "secret" not in str(caught.value)
                await call(both.old, "ACL", "SETUSER", "p", "+wait")
                assert (await publisher.publish(event())).replicas == 1

    @pytest.mark.parametrize("replicas", [-1, 101, 1.0, True, "1", None])
    def test_refused(self, replicas: object) -> None:
        """What is no number of replicas is refused."""
        with pytest.raises(InvalidOption, match="replicas"):
            RedisStream("redis://localhost", replicas=replicas)  # type: ignore[arg-type]  # that is what is tested


class TestList:
    """A list counts as current only while its server is in contact with the replicas."""

    async def test_lost_and_found(self, own_server: MakeServer) -> None:
        """Without the replica it turns stale, says why and reads on; with it, it is fresh again."""
        async with pair(own_server) as both:
            transport = RedisStream(both.name.url, "k", replicas=1)
            async with RevocationList(transport, max_staleness=scaled(0.5)) as revocations:
                await call(both.new, "REPLICAOF", "NO", "ONE")
                await wait_until(lambda: revocations.check({"jti": "good"}) is Verdict.STALE)
                failure = revocations.failure
                assert isinstance(failure, NotProven)
                assert failure.reason == "few_replicas"
                assert "in contact with 0 replicas, and 1 are needed" in str(failure)
                await publish(RedisStream(both.name.url, "k"), event("stolen"))
                await wait_until(lambda: revocations.check({"jti": "stolen"}) is Verdict.REVOKED)
                await both.replicate()
                await wait_until(lambda: revocations.check({"jti": "good"}) is Verdict.ALLOW)
                assert revocations.failure is None

    async def test_silent(self, own_server: MakeServer) -> None:
        """A replica whose connection is open, and that is not heard of, is not in contact."""
        async with pair(own_server) as both:
            transport = RedisStream(both.name.url, "k", replicas=1)
            async with RevocationList(transport, max_staleness=1.0) as revocations:
                with frozen_replica(both):
                    frozen_at = time.monotonic()
                    await wait_until(lambda: revocations.check({"jti": "good"}) is Verdict.STALE)
                    assert time.monotonic() - frozen_at < 1.0 + MAX_LAG + scaled(0.5)
                await wait_until(lambda: revocations.check({"jti": "good"}) is Verdict.ALLOW)

    async def test_never(self, own_server: MakeServer) -> None:
        """With more replicas than there are it is never fresh, and says why."""
        async with pair(own_server) as both:
            transport = RedisStream(both.name.url, "k", replicas=2)
            async with RevocationList(transport, wait=False) as revocations:
                await wait_until(lambda: isinstance(revocations.failure, NotProven))
                assert not revocations.is_fresh
                assert "in contact with 1 replicas, and 2 are needed" in str(revocations.failure)

    async def test_elsewhere(self, own_server: MakeServer) -> None:
        """A name that leads to another server by now is asked again when the replicas are gone."""
        async with pair(own_server) as both:
            transport = RedisStream(both.name.url, "k", replicas=1)
            async with RevocationList(transport, max_staleness=scaled(0.5)) as revocations:
                await call(both.new, "REPLICAOF", "NO", "ONE")
                both.switch()
                await publish(RedisStream(both.new_url, "k"), event("stolen"))
                await wait_until(lambda: revocations.check({"jti": "stolen"}) is Verdict.REVOKED)


async def _has(client: Redis, number: int) -> bool:
    return bool(await client.xlen("k") >= number)
