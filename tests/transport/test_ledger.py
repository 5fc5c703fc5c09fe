"""The ledger beside a stream, at real servers: nothing that is folded is lost, whatever is cut off in between."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from jwt_events.embedded import EmbeddedServer
from jwt_events.errors import ConnectionFailed, TransportError
from jwt_events.transport._redis.connection import Connection, Connector
from jwt_events.transport._stream import ledger as module
from jwt_events.transport._stream.keys import StreamKeys
from jwt_events.transport._stream.ledger import GRACE, NEVER, Folded, Ledger
from jwt_events.transport._stream.ledger_head import LedgerHead
from jwt_events.transport.optional import LedgerEntry
from tests.support.raw import add, call, counts, entries
from tests.support.waiting import scaled

NOW = 1_800_000_000.0
EVERYTHING = 2**50


def fold(payloads: Sequence[bytes], now: float) -> list[LedgerEntry]:
    """Keep every event for ever, or until what stands after a colon in it."""
    found = []
    for payload in payloads:
        content, _, until = payload.partition(b":")
        found.append(LedgerEntry(b"r" + content, float(until) if until else NEVER))
    return found


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    """Open a connection of the library's own."""
    connection = await Connector(url, destination="ledger").connect(within=scaled(5.0))
    try:
        yield connection
    finally:
        await connection.aclose()


async def contents(ledger: Ledger, connection: Connection) -> dict[bytes, float]:
    """Return all entries of a ledger."""
    return dict([entry async for batch in ledger.batches(connection) for entry in batch])


async def fold_all(ledger: Ledger, connection: Connection, *, before: int = EVERYTHING) -> int:
    """Fold until there is nothing left, and return how many entries of the stream that were."""
    count = 0
    while True:
        batch = await ledger.fold_batch(connection, fold, before=before, now=NOW)
        count += batch.events
        if batch.is_done:
            return count


class TestFolding:
    """From the stream into the ledger."""

    async def test_a_page(self, url: str, key: str, client: Redis) -> None:
        """What is old enough moves from the stream into the ledger; what is younger stays."""
        await add(client, key, "1-0", "2-0", "2-1", "3-0")
        ledger = Ledger(StreamKeys(key))
        async with connected(url) as connection:
            assert await ledger.read_head(connection) is None
            batch = await ledger.fold_batch(connection, fold, before=3, now=NOW)
            assert batch == Folded(3, is_done=True)
            assert await contents(ledger, connection) == {b"r1-0": NEVER, b"r2-0": NEVER, b"r2-1": NEVER}
            assert [position for position, _ in await entries(client, key)] == ["3-0"]
            head = await ledger.read_head(connection)
            assert head is not None
            assert (head.position, head.lost, head.kept) == ("2-1", 0, 0)
            assert sum((await ledger.counts(connection)).values()) == 3

    async def test_nothing_to_fold(self, url: str, key: str, client: Redis) -> None:
        """Without old entries, or without a stream, nothing is written."""
        ledger = Ledger(StreamKeys(key))
        async with connected(url) as connection:
            assert await ledger.fold_batch(connection, fold, before=3, now=NOW) == Folded(0, is_done=True)
            await add(client, key, "5-0")
            assert await ledger.fold_batch(connection, fold, before=3, now=NOW) == Folded(0, is_done=True)
            assert await fold_all(ledger, connection, before=-1) == 0
        assert not await client.exists(ledger.key)

    async def test_many_pages(self, url: str, key: str, client: Redis) -> None:
        """A long stream is folded batch by batch, each entry once."""
        pipeline = client.pipeline(transaction=False)
        for number in range(1, 1_202):
            pipeline.execute_command("XADD", key, f"{number}-0", "event", f"{number}")
        await pipeline.execute()
        ledger = Ledger(StreamKeys(key))
        async with connected(url) as connection:
            assert await fold_all(ledger, connection) == 1_201
            assert len(await contents(ledger, connection)) == 1_201
        assert not await entries(client, key)

    async def test_the_later_time_counts(self, url: str, key: str, client: Redis) -> None:
        """An entry that is folded again keeps the later of its times, whichever comes first."""
        for position, text in (("1-0", "a:200"), ("2-0", "b:100"), ("3-0", "a:100"), ("4-0", "b:200.5")):
            await call(client, "XADD", key, position, "event", text)
        ledger = Ledger(StreamKeys(key))
        async with connected(url) as connection:
            await ledger.fold_batch(connection, fold, before=3, now=NOW)
            await ledger.fold_batch(connection, fold, before=5, now=NOW)
            assert await contents(ledger, connection) == {b"ra": 200.0, b"rb": 201.0}

    async def test_two_at_once(self, url: str, key: str, client: Redis) -> None:
        """Two that fold the same batch: one of them does, the other one folds the next."""
        await add(client, key, "1-0", "2-0")
        ledger, other = Ledger(StreamKeys(key)), Ledger(StreamKeys(key))

        async with connected(url) as connection, connected(url) as second:
            inner: list[Folded] = []

            class Between(Connection):
                """Lets the other one fold when the batch was read and nothing is written yet."""

                async def execute_many(self, commands: Any, **options: Any) -> list[Any]:
                    if commands[-1] == ("EXEC",) and not inner:
                        inner.append(await other.fold_batch(second, fold, before=3, now=NOW))
                        await add(client, key, "2-5")
                    return await super().execute_many(commands, **options)

            between = Between(connection.protocol, connection._decoder)
            assert await ledger.fold_batch(between, fold, before=3, now=NOW) == Folded(0, is_done=False)
            assert inner == [Folded(2, is_done=True)]
            assert await fold_all(ledger, between, before=3) == 1
            assert sorted(await contents(ledger, connection)) == [b"r1-0", b"r2-0", b"r2-5"]
            head = await ledger.read_head(connection)
            assert head is not None
            assert (head.position, head.lost) == ("2-5", 0)

    async def test_large_entries(self, url: str, key: str, client: Redis) -> None:
        """Entries that are large together are folded in smaller batches."""
        for number in range(40):
            await call(client, "XADD", key, f"{number + 1}-0", "event", b"x" * 1_000_000 + b"%d" % number)
        ledger = Ledger(StreamKeys(key))

        def brief(payloads: Sequence[bytes], now: float) -> list[LedgerEntry]:
            return [LedgerEntry(payload[1_000_000:], NEVER) for payload in payloads]

        folded = 0
        for _ in range(20):
            async with connected(url) as connection:
                try:
                    while not (batch := await ledger.fold_batch(connection, brief, before=99, now=NOW)).is_done:
                        folded += batch.events
                    folded += batch.events
                    break
                except ConnectionFailed:
                    continue
        assert folded == 40
        async with connected(url) as connection:
            assert sum((await ledger.counts(connection)).values()) == 40


class TestRemovedByOthers:
    """Entries that somebody else removed before they were folded."""

    async def test_trimmed(self, url: str, key: str, client: Redis) -> None:
        """They are counted, where the server counts, when the next batch is folded."""
        await add(client, key, "1-0", "2-0", "3-0", "4-0")
        ledger = Ledger(StreamKeys(key))
        async with connected(url) as connection:
            await ledger.fold_batch(connection, fold, before=2, now=NOW)
            await call(client, "XTRIM", key, "MINID", "4-0")
            is_counted = await counts(client, key)
            batch = await ledger.fold_batch(connection, fold, before=5, now=NOW)
            assert batch == Folded(1, is_done=True, lost=2 if is_counted else 0)
            head = await ledger.read_head(connection)
            assert head is not None
            assert (head.lost, head.lost_at) == ((2, int(NOW * 1000)) if is_counted else (0, 0))
            await add(client, key, "6-0")
            assert (await ledger.fold_batch(connection, fold, before=7, now=NOW)).lost == 0

    async def test_deleted_in_between(self, url: str, key: str, client: Redis) -> None:
        """One that was deleted among those that are there is counted, too."""
        await add(client, key, "1-0", "2-0", "3-0")
        ledger = Ledger(StreamKeys(key))
        async with connected(url) as connection:
            await ledger.fold_batch(connection, fold, before=2, now=NOW)
            await call(client, "XDEL", key, "2-0")
            assert (await ledger.fold_batch(connection, fold, before=4, now=NOW)).lost == (
                1 if await counts(client, key) else 0
            )

    async def test_another_stream(self, url: str, key: str, client: Redis) -> None:
        """A stream that was deleted and began anew is folded from its beginning, and that is remembered."""
        await add(client, key, "5-0", "6-0")
        ledger = Ledger(StreamKeys(key))
        async with connected(url) as connection:
            await fold_all(ledger, connection)
            await call(client, "DEL", key)
            await add(client, key, "1-0")
            assert await fold_all(ledger, connection) == 1
            assert sorted(await contents(ledger, connection)) == [b"r1-0", b"r5-0", b"r6-0"]
            head = await ledger.read_head(connection)
            assert head is not None
            assert (head.position, head.lost_at) == ("1-0", int(NOW * 1000))

    async def test_before_the_ledger(self, url: str, key: str, client: Redis) -> None:
        """What was removed before there was a ledger is not held against anybody."""
        await add(client, key, "1-0", "2-0", "3-0")
        await call(client, "XTRIM", key, "MINID", "3-0")
        ledger = Ledger(StreamKeys(key))
        async with connected(url) as connection:
            assert await ledger.fold_batch(connection, fold, before=4, now=NOW) == Folded(1, is_done=True)


class TestExpiry:
    """Entries leave when their time is over."""

    async def test_after_the_grace(self, url: str, key: str, client: Redis) -> None:
        """They are kept for the grace after their time; those without an end, and the head, for ever."""
        for position, text in (("1-0", "old:100"), ("2-0", "new:200"), ("3-0", "key")):
            await call(client, "XADD", key, position, "event", text)
        ledger = Ledger(StreamKeys(key))
        async with connected(url) as connection:
            await fold_all(ledger, connection)
            assert await ledger.expire(connection, now=100 + GRACE) == 0
            assert await ledger.expire(connection, now=101 + GRACE) == 1
            assert await contents(ledger, connection) == {b"rnew": 200.0, b"rkey": NEVER}
            assert await ledger.expire(connection, now=1e12) == 1
            assert await contents(ledger, connection) == {b"rkey": NEVER}
            assert await ledger.read_head(connection) is not None
            assert await ledger.expire(connection, now=0.0) == 0

    async def test_many(self, url: str, key: str, client: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
        """They are removed a batch at a time, also when many end in the same second."""
        monkeypatch.setattr(module, "_EXPIRY_BATCH", 10)
        ledger = Ledger(StreamKeys(key))
        members = [word for number in range(100) for word in (100 + number // 25, f"m{number}")]
        await call(client, "ZADD", ledger.key, *members)
        async with connected(url) as connection:
            assert await ledger.expire(connection, now=103 + GRACE) == 75
            assert await ledger.expire(connection, now=104 + GRACE) == 25


class TestForeign:
    """What somebody else put in the place of the ledger."""

    @pytest.mark.parametrize("members", [(b"\0nonsense",), (b"\x001 1-0 - 0 0 0 0", b"x"), (b"x",)], ids=repr)
    async def test_no_head(self, url: str, key: str, client: Redis, members: tuple[bytes, ...]) -> None:
        """A head that is none is refused, and nothing is removed from the stream."""
        await add(client, key, "1-0")
        ledger = Ledger(StreamKeys(key))
        await call(client, "ZADD", ledger.key, *(word for member in members for word in ("-inf", member)))
        async with connected(url) as connection:
            with pytest.raises(TransportError, match="not written by this library"):
                await fold_all(ledger, connection)
        async with connected(url) as connection:
            with pytest.raises(TransportError, match="not written by this library"):
                await ledger.read_head(connection)
        assert len(await entries(client, key)) == 1

    async def test_a_later_version(self, url: str, key: str, client: Redis) -> None:
        """A ledger of a later version is neither read nor written."""
        await add(client, key, "1-0")
        ledger = Ledger(StreamKeys(key))
        await call(client, "ZADD", ledger.key, "-inf", b"\x002 whatever comes")
        async with connected(url) as connection:
            with pytest.raises(TransportError, match="has version 2, and this program reads version 1: upgrade it"):
                await fold_all(ledger, connection)
        assert len(await entries(client, key)) == 1

    async def test_another_type(self, url: str, key: str, client: Redis) -> None:
        """A key of another type is refused, and nothing is removed from the stream."""
        await add(client, key, "1-0")
        ledger = Ledger(StreamKeys(key))
        await client.set(ledger.key, "text")
        async with connected(url) as connection:
            with pytest.raises(TransportError, match="WRONGTYPE"):
                await fold_all(ledger, connection)
        async with connected(url) as connection:
            with pytest.raises(TransportError, match="WRONGTYPE"):
                await contents(ledger, connection)
        assert len(await entries(client, key)) == 1

    @pytest.mark.parametrize(
        "right",
        ["watch", "zrange", "xinfo", "xrange", "multi", "zremrangebyscore", "zadd", "xtrim", "exec"],
    )
    async def test_without_a_right(self, own_server: Callable[..., EmbeddedServer], right: str) -> None:
        """Whichever right is lacking, it is named, and nothing is removed from the stream."""
        async with own_server(port=0) as server, Redis.from_url(server.url) as client:
            await call(client, "ACL", "SETUSER", "u", "reset", "on", ">secret", "~*", "+@all", f"-{right}")
            await add(client, "k", "1-0")
            async with connected(server.url.replace("redis://", "redis://u:secret@")) as connection:
                with pytest.raises(TransportError) as caught:
                    await fold_all(Ledger(StreamKeys("k")), connection)
            assert right in str(caught.value).lower()
            assert len(await entries(client, "k")) == 1
            assert not await client.exists("k:ledger")

    async def test_out_of_memory(self, own_server: Callable[..., EmbeddedServer]) -> None:
        """A server that has no room for the entries removes nothing."""
        async with own_server(port=0) as server, Redis.from_url(server.url) as client:
            await add(client, "k", "1-0")
            await client.config_set("maxmemory", 1)
            async with connected(server.url) as connection:
                with pytest.raises(TransportError, match="OOM"):
                    await fold_all(Ledger(StreamKeys("k")), connection)
            await client.config_set("maxmemory", 0)
            assert len(await entries(client, "k")) == 1


class TestPages:
    """Reading."""

    async def test_large_entries(self, url: str, key: str, client: Redis) -> None:
        """A batch that is too large is read in smaller ones by the next attempt, down to one entry, however large."""
        ledger = Ledger(StreamKeys(key))
        sizes = [10] * 300 + [2**21] * 15 + [2**25]
        for number, size in enumerate(sizes):
            await call(client, "ZADD", ledger.key, 5, (b"%d" % number).ljust(size, b"x"))
        attempts = 0
        while True:
            attempts += 1
            found = dict[bytes, int]()
            try:
                async with connected(url) as connection:
                    async for batch in ledger.batches(connection):
                        assert sum(len(content) for content, _ in batch) <= 2**24 + 2**16 or len(batch) < 15
                        found |= {content.rstrip(b"x"): len(content) for content, _ in batch}
                break
            except ConnectionFailed:
                assert attempts < 10
        assert 1 < attempts < 5
        assert found == {b"%d" % number: size for number, size in enumerate(sizes)}

    async def test_while_others_write(self, url: str, key: str, client: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is there from the first batch to the last is read, whatever comes and goes meanwhile."""
        monkeypatch.setattr(module, "_READ_BATCH", 50)
        ledger = Ledger(StreamKeys(key))
        stays = [b"s%d" % number for number in range(2_000)]
        goes = [b"g%d" % number for number in range(2_000)]
        await call(client, "ZADD", ledger.key, *(word for name in stays + goes for word in (5, name)))
        found: set[bytes] = set()
        async with connected(url) as connection:
            async for batch in ledger.batches(connection):
                found.update(content for content, _ in batch)
                if goes:
                    await call(client, "ZREM", ledger.key, *goes[:100])
                await call(client, "ZADD", ledger.key, "GT", *(word for name in stays[:50] for word in (9, name)))
                await call(client, "ZADD", ledger.key, *(word for name in stays[:150] for word in (5, name + b"n")))
                goes = goes[100:]
        assert found >= set(stays)

    async def test_for_ever(self, url: str, key: str, client: Redis) -> None:
        """Times come back as they were stored."""
        ledger = Ledger(StreamKeys(key))
        await call(client, "ZADD", ledger.key, "+inf", "a", 2**50, "b", 0, "c", "-inf", LedgerHead().encode())
        async with connected(url) as connection:
            assert await contents(ledger, connection) == {b"a": math.inf, b"b": float(2**50), b"c": 0.0}
