"""A reader of a stream that was disconnected resumes at its cursor, or reports what it has lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from redis.asyncio import Redis

from bench.ports import free_port
from jwt_events import Gap, Publisher, PublishFailed, RedisStream, ServerRefused, TokenRevoked
from jwt_events._internal.positions import sort_key
from jwt_events.embedded import EmbeddedServer
from jwt_events.envelope import Envelope, encode
from jwt_events.testing import Listener
from tests.support.faults import kill_reader, readers, while_reader_is_away
from tests.support.raw import add, call, count_where_known, counts_what_was_added, entries, server_time, trim
from tests.support.waiting import scaled, wait_until

KEEPS_ALL = {"appendonly": "yes", "appendfsync": "always"}


def revoked(name: str) -> TokenRevoked:
    """Return an event with a subject of its own."""
    return TokenRevoked(token_id=name)


async def listen(transport: RedisStream, meanwhile: Callable[[], Awaitable[object]] | None = None) -> None:
    """Run a listener until it ends."""
    async with asyncio.timeout(scaled(20)), Listener(transport):
        if meanwhile is not None:
            await meanwhile()
        await asyncio.Event().wait()


@pytest.fixture
def compares_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a reader compare its cursor with the stream before every read, and not once a second."""
    monkeypatch.setattr("jwt_events.transport._stream.cursor._AUDIT_INTERVAL", 0.0)


class TestNothingLost:
    """A disconnection loses nothing that the stream still holds."""

    async def test_a_killed_connection_is_made_good(self, url: str, key: str, client: Redis) -> None:
        """A reader whose connection was killed gets the events of the meantime, once, in order, without a gap."""
        transport = RedisStream(url, key)
        async with Listener(transport) as listener, Publisher(transport) as publisher:
            for round_ in range(3):
                await kill_reader(client)
                for number in range(10):
                    await publisher.publish(revoked(f"{round_}.{number}"))
            await listener.hears("2.9")
            stats = listener.subscriber.stats
        assert listener.subjects == [f"{round_}.{number}" for round_ in range(3) for number in range(10)]
        assert (stats.gaps, stats.duplicates) == (0, 0)

    async def test_a_killed_connection_before_the_first_event_is_made_good(
        self, url: str, key: str, client: Redis
    ) -> None:
        """A reader that has read nothing yet resumes where it began."""
        for start in ("new", "all", "0-0", datetime.now(UTC) - timedelta(hours=1)):
            await client.delete(key)
            async with Listener(RedisStream(url, key, start=start)) as listener:
                async with while_reader_is_away(client) as meanwhile:
                    meanwhile.ping()
                async with Publisher(RedisStream(url, key)) as publisher:
                    await publisher.publish(revoked("t"))
                await listener.hears("t")
            assert listener.gaps == []

    async def test_a_datetime_to_come_is_kept(self, url: str, key: str, client: Redis) -> None:
        """A reader that begins at a future datetime still does so after its connection was killed."""
        await add(client, key, "1000-0")
        async with RedisStream(url, key, start=datetime.fromtimestamp(2, UTC), block=0.1).receiver() as receiver:
            assert not (await receiver.receive()).deliveries
            reading = asyncio.create_task(receiver.receive())
            await kill_reader(client)
            await add(client, key, "1500-0", "2000-0")
            batches = [await reading]
            async with asyncio.timeout(scaled(10)):
                while not batches[-1].deliveries:
                    batches.append(await receiver.receive())
            assert [delivery.payload for delivery in batches[-1].deliveries] == [b"2000-0"]
            batches += [await receiver.receive() for _ in range(3)]  # with the next audit
        assert not any(batch.gaps for batch in batches)

    async def test_what_was_sent_meanwhile_is_read(self, url: str, key: str, client: Redis) -> None:
        """Entries appended during a disconnection are read first, without a gap, even if earlier ones were trimmed.

        Where the server does not count, there may have been others in between.
        """
        transport = RedisStream(url, key)
        async with Listener(transport) as listener, Publisher(transport) as publisher:
            await publisher.publish(revoked("before"))
            await listener.hears("before")
            ((_, fields),) = await entries(client, key)
            async with while_reader_is_away(client) as meanwhile:
                meanwhile.xadd(key, {"event": fields[b"event"].replace(b"before", b"during")})
                meanwhile.xtrim(key, maxlen=1, approximate=False)
            await publisher.publish(revoked("after"))
            await listener.hears("after")
        # The copy has the id of the first event, so it is a duplicate.
        assert listener.subjects == ["before", "after"]
        doubts = [] if await counts_what_was_added(client) else [("trimmed", None)]
        assert listener.subscriber.stats.duplicates == 1
        assert [(gap.cause, gap.lost) for gap in listener.gaps] == doubts

    async def test_a_crash_of_a_server_that_keeps_a_log_is_made_good(
        self, own_server: Callable[..., EmbeddedServer], tmp_path: Path
    ) -> None:
        """After a kill of a server that writes to disk before it confirms, readers resume without a loss or a gap."""
        port = free_port()
        make = partial(own_server, port=port, data_dir=tmp_path, config=KEEPS_ALL)
        transport = RedisStream(f"redis://127.0.0.1:{port}", "k")
        async with AsyncExitStack() as stack:
            async with make():
                listener = await stack.enter_async_context(Listener(transport))
                publisher = await stack.enter_async_context(Publisher(transport, timeout=scaled(10)))
                await publisher.publish(revoked("before"))
                await listener.hears("before")
            # Leaving the block is kill -9.
            restarted = await stack.enter_async_context(make())
            assert restarted.url == f"redis://127.0.0.1:{port}"
            await publisher.publish(revoked("after"))
            await listener.hears("after")
            await listener.subscriber.drain()
        assert listener.subjects == ["before", "after"]
        assert listener.gaps == []


class TestSomethingLost:
    """Entries that can no longer be read are a gap."""

    async def _read_three(self, listener: Listener, publisher: Publisher) -> str:
        for number in range(3):
            receipt = await publisher.publish(revoked(f"t{number}"))
        await listener.hears("t0", "t1", "t2")
        return str(receipt.position)

    @pytest.mark.parametrize(("added", "kept", "lost"), [(5, 2, 3), (5, 0, 5), (1, 0, 1)])
    async def test_trimmed_past_the_cursor(
        self, url: str, key: str, client: Redis, *, added: int, kept: int, lost: int
    ) -> None:
        """Entries added and trimmed during a disconnection are counted once; those that are left are read.

        Where the server does not count, the first entry after an emptied stream may have followed others: another gap.
        """
        after = encode(Envelope(revoked("after")), source="test")
        doubts = kept == 0 and not await counts_what_was_added(client)
        transport = RedisStream(url, key)
        async with Listener(transport) as listener, Publisher(transport) as publisher:
            position = await self._read_three(listener, publisher)
            async with while_reader_is_away(client) as meanwhile:
                for number in range(added):
                    meanwhile.xadd(key, {"event": str(number)})
                meanwhile.xtrim(key, maxlen=kept, approximate=False)
            await listener.hears_of_gap("trimmed")
            trimmed_to = (await client.xinfo_stream(key))["last-generated-id"].decode()
            async with while_reader_is_away(client) as meanwhile:
                meanwhile.xadd(key, {"event": after})
            await listener.hears("after")
            # A gap is reported once.
            async with while_reader_is_away(client) as meanwhile:
                meanwhile.ping()
            await publisher.publish(revoked("again"))
            await listener.hears("again")
            stats = listener.subscriber.stats
        first = Gap(position, "trimmed", await count_where_known(client, lost))
        assert listener.gaps == [first, *[Gap(trimmed_to, "trimmed")] * doubts]
        assert stats.decode_errors == kept
        assert stats.gaps == 1 + doubts

    async def test_trimmed_while_reading_pauses(self, url: str, key: str, client: Redis, compares_always: None) -> None:
        """A connected reader that was overtaken by trimming reports a gap, too."""
        transport = RedisStream(url, key, batch_size=1)
        async with transport.receiver() as receiver, Publisher(transport) as publisher:
            positions = [
                receipt.position
                for receipt in await publisher.publish_many([revoked(f"t{number}") for number in range(10)])
            ]
            read, gaps = list[str | None](), list[Gap]()
            await receiver.receive()
            await trim(client, key, 1)
            while positions[9] not in read:
                batch = await receiver.receive()
                gaps += batch.gaps
                read += [delivery.position for delivery in batch.deliveries]
        # It requests the next batch while the one before is delivered, so that one may arrive in spite of the trimming.
        *ahead, last = read
        assert (ahead, last) == (positions[1 : 1 + len(ahead)], positions[9])
        assert gaps == [Gap(positions[len(ahead)], "trimmed", await count_where_known(client, 8 - len(ahead)))]

    async def test_deleted_while_away(self, url: str, key: str, client: Redis) -> None:
        """A deleted stream is a gap; a new one of that name is read from its beginning."""
        transport = RedisStream(url, key)
        async with Listener(transport) as listener, Publisher(transport) as publisher:
            position = await self._read_three(listener, publisher)
            async with while_reader_is_away(client) as meanwhile:
                meanwhile.delete(key)
            await listener.hears_of_gap("deleted")
            await publisher.publish(revoked("after"))
            await listener.hears("after")
        assert listener.gaps == [Gap(position, "deleted")]

    @pytest.mark.parametrize("added", [1, 3, 7])
    async def test_deleted_and_made_anew_while_away(self, url: str, key: str, client: Redis, added: int) -> None:
        """A stream that was deleted and made anew is recognized, however many entries it has.

        Where the server does not count, it looks like a stream that was trimmed. New entries that have the positions of
        old ones, as they may within a millisecond, are another matter.
        """
        cause = "deleted" if await counts_what_was_added(client) else "trimmed"
        transport = RedisStream(url, key)
        async with Listener(transport) as listener, Publisher(transport) as publisher:
            position = await self._read_three(listener, publisher)
            while await server_time(client) <= sort_key(position)[0]:
                pass
            async with while_reader_is_away(client) as meanwhile:
                meanwhile.delete(key)
                for number in range(added):
                    meanwhile.xadd(key, {"event": str(number)})
            await listener.hears_of_gap(cause)
            await publisher.publish(revoked("after"))
            await listener.hears("after")
        assert listener.gaps == [Gap(position, cause)]
        assert listener.subscriber.stats.decode_errors == added

    async def test_deleted_while_connected(self, url: str, key: str, client: Redis, compares_always: None) -> None:
        """A stream that is deleted under a connected reader is a gap, too."""
        transport = RedisStream(url, key, block=0.1)
        async with Listener(transport) as listener, Publisher(transport) as publisher:
            position = await self._read_three(listener, publisher)
            await client.delete(key)
            await listener.hears_of_gap("deleted")
        assert listener.gaps == [Gap(position, "deleted")]

    async def test_nothing_is_proven_about_a_stream_that_was_replaced(self, url: str, key: str, client: Redis) -> None:
        """The entries of a stream that replaced another are delivered before the reader counts as current."""
        transport = RedisStream(url, key, block=0.05)
        await add(client, key, "9-1")
        async with transport.receiver(from_oldest=True) as receiver:
            while (batch := await receiver.receive()).current_as_of is None:
                pass
            await client.delete(key)
            await add(client, key, "5-1")
            replaced_at, delivered = time.monotonic(), list[str]()
            while batch.current_as_of is None or batch.current_as_of < replaced_at:
                batch = await receiver.receive()
                delivered += [delivery.position or "" for delivery in batch.deliveries]
        assert delivered == ["5-1"]

    async def test_restored_from_an_older_state(self, url: str, key: str, client: Redis) -> None:
        """A stream with less than the reader has read is a gap; it is read anew, and no event is handled twice."""
        transport = RedisStream(url, key)
        async with Listener(transport) as listener, Publisher(transport) as publisher:
            await self._read_three(listener, publisher)
            backup = await call(client, "DUMP", key)
            position = str((await publisher.publish(revoked("forgotten"))).position)
            await listener.hears("forgotten")
            async with while_reader_is_away(client) as meanwhile:
                meanwhile.restore(key, 0, backup, replace=True)
            await listener.hears_of_gap("rewound")
            await publisher.publish(revoked("after"))
            await listener.hears("after")
            stats = listener.subscriber.stats
        assert listener.gaps == [Gap(position, "rewound")]
        assert listener.subjects == ["t0", "t1", "t2", "forgotten", "after"]
        assert stats.duplicates == 3

    async def test_a_last_id_behind_the_cursor(self, url: str, key: str, client: Redis) -> None:
        """A new server whose clock is behind assigns positions before the cursor: they are read, after a gap."""
        transport = RedisStream(url, key)
        async with Listener(transport) as listener, Publisher(transport) as publisher:
            position = await self._read_three(listener, publisher)
            ((_, fields), *_) = await entries(client, key)
            other = fields[b"event"].replace(b"t0", b"t3").replace(b'"id":"', b'"id":"x')
            async with while_reader_is_away(client) as meanwhile:
                meanwhile.delete(key)
                meanwhile.xadd(key, {"event": other}, id="5-0")
            await listener.hears("t3")
        assert listener.gaps == [Gap(position, "rewound")]


class TestFatal:
    """Errors that are not retryable end the context at once, with a reason."""

    async def test_a_key_of_another_type(self, url: str, key: str, client: Redis) -> None:
        """A key of another type is refused on entering and on publishing, with its name."""
        await client.set(key, "x")
        transport = RedisStream(url, key)
        with pytest.raises(ServerRefused, match="WRONGTYPE") as caught:
            await Listener(transport).__aenter__()
        assert caught.value.code == "WRONGTYPE"
        assert key in str(caught.value)
        async with Publisher(transport, timeout=scaled(5)) as publisher:
            with pytest.raises(PublishFailed, match="WRONGTYPE") as failed:
                await publisher.publish(revoked("t"))
        assert key in str(failed.value)

    async def test_a_key_that_becomes_one_of_another_type(self, url: str, key: str, client: Redis) -> None:
        """A stream that is replaced by a key of another type ends the context with the reason."""

        async def replace() -> None:
            await wait_until(lambda: readers(client))
            await client.set(key, "x")

        with pytest.raises(ServerRefused, match=key) as caught:
            await listen(RedisStream(url, key, start="all", block=0.1), replace)
        assert caught.value.code == "WRONGTYPE"

    async def test_no_permission(self, own_server: Callable[..., EmbeddedServer]) -> None:
        """A user who may not read is refused on entering; one who loses the right later, where the block ends."""
        async with own_server() as server, Redis.from_url(server.url) as admin:
            await call(admin, "ACL", "SETUSER", "reader", "on", ">pw", "~*", "+@all", "-xread")
            transport = RedisStream(server.url.replace("unix://", "unix://reader:pw@"), "k", block=0.1)
            with pytest.raises(ServerRefused, match=r"NOPERM.*xread"):
                await listen(transport)
            await call(admin, "ACL", "SETUSER", "reader", "-@all", "+xread", "+info")
            with pytest.raises(ServerRefused, match=r"'k'.*NOPERM.*xinfo"):
                await Listener(transport).__aenter__()
            await call(admin, "ACL", "SETUSER", "reader", "+@all")
            with pytest.raises(ServerRefused, match=r"NOPERM.*xread") as caught:
                await listen(transport, lambda: call(admin, "ACL", "SETUSER", "reader", "-xread"))
            assert (caught.value.code, caught.value.retryable) == ("NOPERM", False)
