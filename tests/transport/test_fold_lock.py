"""The lock of folding, at real servers: who holds it, and how it is freed of those that do not fold."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from redis.asyncio import Redis

from jwt_events.embedded import EmbeddedServer
from jwt_events.transport._stream.fold_lock import LEASE, FoldLock
from jwt_events.transport._stream.keys import StreamKeys
from tests.support.raw import call
from tests.transport.test_ledger import connected

# What tools and operators left in its place: words of the command that makes it.
FOREIGN = {
    "without a TTL": ("SET", "another"),
    "with a TTL of an hour": ("SETEX", "3600", "another"),
    "a list": ("RPUSH", "another"),
    "a hash": ("HSET", "another", "1"),
    "a sorted set": ("ZADD", "1", "another"),
}


class TestHeld:
    """One folds at a time."""

    async def test_held(self, url: str, key: str, client: Redis) -> None:
        """It is held by one, who may go on, and by another one when it has ended."""
        first, second = FoldLock(StreamKeys(key)), FoldLock(StreamKeys(key))
        async with connected(url) as connection:
            assert not first.is_held
            assert await first.acquire(connection)
            assert first.is_held
            assert not await second.acquire(connection)
            assert await first.acquire(connection)
            assert 0 < await client.pttl(first.key) <= LEASE * 1000
            await client.delete(first.key)  # as the server does when its time has passed
            assert await second.acquire(connection)
            assert second.is_held

    async def test_lost(self, url: str, key: str, client: Redis) -> None:
        """One that lost it asks for it like everybody else."""
        first, second = FoldLock(StreamKeys(key)), FoldLock(StreamKeys(key))
        async with connected(url) as connection:
            assert await first.acquire(connection)
            await client.delete(first.key)
            assert not await first.acquire(connection)
            assert not first.is_held
            assert await second.acquire(connection)
            assert not await first.acquire(connection)

    async def test_renewed_in_time(self, url: str, key: str, client: Redis) -> None:
        """The one that holds it may go on for as long as it likes: it is not released in between."""
        lock, other = FoldLock(StreamKeys(key)), FoldLock(StreamKeys(key))
        async with connected(url) as connection:
            for _ in range(3):
                assert await lock.acquire(connection)
                lock._held_until -= 20.0  # as when that time has passed
                assert not lock.is_held
                assert not await other.acquire(connection)

    async def test_released(self, url: str, key: str, client: Redis) -> None:
        """The one that holds it may release it; one that does not leaves it as it is."""
        lock, other = FoldLock(StreamKeys(key)), FoldLock(StreamKeys(key))
        async with connected(url) as connection:
            assert await lock.acquire(connection)
            await other.release(connection)
            assert await lock.holder(connection) == "publisher"
            await lock.release(connection)
            assert await lock.holder(connection) is None


class TestForeign:
    """What is no lock of a publisher."""

    @pytest.mark.parametrize("words", FOREIGN.values(), ids=FOREIGN)
    async def test_taken(self, url: str, key: str, client: Redis, words: tuple[str, ...]) -> None:
        """It is told from the lock of a publisher, and can be taken, whatever it is."""
        lock = FoldLock(StreamKeys(key))
        await call(client, words[0], lock.key, *words[1:])
        async with connected(url) as connection:
            assert await lock.holder(connection) == "other"
            assert not await lock.acquire(connection)
            await lock.take(connection)
            assert lock.is_held
            assert await lock.holder(connection) == "publisher"
            assert 0 < await client.pttl(lock.key) <= LEASE * 1000

    async def test_without_the_right_to_look(self, own_server: Callable[..., EmbeddedServer]) -> None:
        """A user that may not ask for the TTL learns whether it is there."""
        lock = FoldLock(StreamKeys("k"))
        async with own_server(port=0) as server, Redis.from_url(server.url) as client:
            await call(client, "ACL", "SETUSER", "u", "reset", "on", ">secret", "~*", "+@all", "-pttl")
            async with connected(server.url.replace("redis://", "redis://u:secret@")) as connection:
                assert await lock.holder(connection) is None
                await client.set(lock.key, "another")
                assert await lock.holder(connection) == "publisher"


class TestStuck:
    """Held, and nothing is folded."""

    def test_longer_than_a_lease(self) -> None:
        """It is stuck if the same entry is due for longer than one lease."""
        lock = FoldLock(StreamKeys("k"))
        assert not lock.is_stuck("5-0", before=10, now=100.0)
        assert not lock.is_stuck("5-0", before=20, now=100.0 + LEASE)
        assert lock.is_stuck("5-0", before=30, now=101.0 + LEASE)

    @pytest.mark.parametrize("oldest", ["6-0", "5-1", "30-0", None])
    def test_progress(self, oldest: str | None) -> None:
        """It is not if something was folded meanwhile, or nothing is due."""
        lock = FoldLock(StreamKeys("k"))
        assert not lock.is_stuck("5-0", before=10, now=100.0)
        assert not lock.is_stuck(oldest, before=30, now=200.0)
        assert lock.is_stuck(oldest, before=30, now=300.0) == (oldest in {"6-0", "5-1"})
