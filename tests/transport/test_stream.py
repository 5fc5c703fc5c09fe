"""Start positions of a reader, and the retention of a stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from jwt_events import Event, Gap, InvalidOption, OutlivesRetention, Publisher, RedisStream, TokenRevoked
from jwt_events.embedded import EmbeddedServer
from jwt_events.testing import Listener
from jwt_events.transport._stream.cursor import CursorReceiver
from jwt_events.transport.base import Receiver
from tests.support.raw import add, call, entries, server_time, trim
from tests.support.waiting import scaled, wait_until

HOUR = timedelta(hours=1)


def at(seconds: float) -> datetime:
    """Return the time ``seconds`` after the beginning of 1970."""
    return datetime.fromtimestamp(seconds, UTC)


async def receive_until(receiver: Receiver, last: str) -> tuple[list[str], list[Gap]]:
    """Receive up to this payload."""
    payloads: list[str] = []
    gaps: list[Gap] = []
    async with asyncio.timeout(scaled(10)):
        while last not in payloads:
            batch = await receiver.receive()
            payloads += [delivery.payload.decode() for delivery in batch.deliveries]
            gaps += batch.gaps
    return payloads, gaps


class TestStart:
    """Where a receiver begins."""

    @pytest.fixture
    async def url(self, own_server: Callable[..., EmbeddedServer]) -> AsyncIterator[str]:
        """A server that loses nothing it confirmed: on another, a position from before its start would be in doubt."""
        async with own_server(config={"appendonly": "yes", "appendfsync": "always"}) as server:
            yield server.url

    @pytest.mark.parametrize(
        "start",
        [
            "",
            "old",
            "NEW",
            "$",
            ">",
            "+",
            "1",
            "1-",
            "-1",
            "1-2-3",
            "1-*",
            "a-b",
            " 1-1",
            "1-1\n",
            "\N{ARABIC-INDIC DIGIT ONE}-0",
            "18446744073709551616-0",
            "1-18446744073709551616",
            datetime(2026, 11, 22),  # noqa: DTZ001 - a naive datetime is the point
            b"1-1",
            None,
            0,
            1.5,
        ],
    )
    def test_garbage_is_refused_where_it_is_given(self, start: Any) -> None:
        """A start that is no known word, aware datetime or position is an `InvalidOption` that names it."""
        with pytest.raises(InvalidOption, match=r"^start: ") as caught:
            RedisStream("redis://127.0.0.1:1", start=start)
        assert caught.value.option == "start"

    @pytest.mark.parametrize(
        ("start", "expected"),
        [
            ("all", ["1000-0", "2000-0", "2000-1", "3000-0"]),
            ("0-0", ["1000-0", "2000-0", "2000-1", "3000-0"]),
            ("2000-0", ["2000-1", "3000-0"]),
            ("2500-7", ["3000-0"]),
            (at(-5), ["1000-0", "2000-0", "2000-1", "3000-0"]),
            (at(0), ["1000-0", "2000-0", "2000-1", "3000-0"]),
            (at(2), ["2000-0", "2000-1", "3000-0"]),
            (at(2.001), ["3000-0"]),
            (at(3).astimezone(), ["3000-0"]),
        ],
    )
    async def test_the_past_from_there_on_is_read(
        self, url: str, key: str, client: Redis, start: Any, expected: list[str]
    ) -> None:
        """Reading begins after a position, at a datetime, or with the first entry; no gap is reported."""
        await add(client, key, "1000-0", "2000-0", "2000-1", "3000-0")
        async with RedisStream(url, key, start=start).receiver() as receiver:
            assert await receive_until(receiver, "3000-0") == (expected, [])

    async def test_a_datetime_after_the_last_entry_replays_nothing(self, url: str, key: str, client: Redis) -> None:
        """A datetime between the last entry and the next begins with the next, without a gap."""
        await add(client, key, "1000-0")
        async with RedisStream(url, key, start=at(2)).receiver() as receiver:
            await add(client, key, "1500-0", "2000-0", "2500-0")
            assert await receive_until(receiver, "2500-0") == (["2000-0", "2500-0"], [])

    async def test_a_datetime_before_the_first_entry_ever_reads_all(self, url: str, key: str, client: Redis) -> None:
        """A datetime from before the stream was made is no gap."""
        async with RedisStream(url, key, start=datetime.now(UTC) - HOUR).receiver() as receiver:
            position = (await call(client, "XADD", key, "*", "event", "x")).decode()
            assert await receive_until(receiver, "x") == (["x"], [])
        async with RedisStream(url, key, start=at(1)).receiver() as receiver:
            batch = await receiver.receive()
        assert [delivery.position for delivery in batch.deliveries] == [position]
        assert list(batch.gaps) == []

    @pytest.mark.parametrize("start", [at(1.5), "1000-0"])
    async def test_a_start_in_a_past_that_was_trimmed_is_a_gap(
        self, url: str, key: str, client: Redis, start: Any
    ) -> None:
        """A start before the oldest entry reads what is left, and reports a gap."""
        await add(client, key, "1000-0", "2000-0", "3000-0", "4000-0")
        await trim(client, key, 2)
        async with RedisStream(url, key, start=start).receiver() as receiver:
            payloads, gaps = await receive_until(receiver, "4000-0")
        assert payloads == ["3000-0", "4000-0"]
        assert [gap.cause for gap in gaps] == ["trimmed"]

    async def test_a_position_that_the_stream_never_reached_is_a_gap(self, url: str, key: str, client: Redis) -> None:
        """A position ahead of the stream belongs to an earlier stream: every entry is read, and a gap is reported."""
        await add(client, key, "1000-0", "2000-0")
        async with RedisStream(url, key, start="5000-0").receiver() as receiver:
            payloads, gaps = await receive_until(receiver, "2000-0")
        assert payloads == ["1000-0", "2000-0"]
        assert gaps == [Gap("5000-0", "rewound")]

    async def test_a_receipts_position_is_a_place_to_go_on(self, url: str, key: str) -> None:
        """Starting at a receipt's position reads what was published after it."""
        async with Publisher(RedisStream(url, key)) as publisher:
            receipts = [await publisher.publish(TokenRevoked(token_id=f"t{number}")) for number in range(3)]
        async with Listener(RedisStream(url, key, start=str(receipts[0].position))) as listener:
            await listener.hears("t1", "t2")
        assert listener.subjects == ["t1", "t2"]

    async def test_entries_that_are_not_ours_are_counted(self, url: str, key: str, client: Redis) -> None:
        """An entry of another form is skipped and counted; an event beside another field is read."""
        async with Publisher(RedisStream(url, key)) as publisher:
            await publisher.publish(TokenRevoked(token_id="real"))
            ((_, fields),) = await entries(client, key)
            await call(client, "XADD", key, "*", "name", "value")
            await call(client, "XADD", key, "*", "event", fields[b"event"], "more", "value")
            await call(client, "XADD", key, "*", "event", "")
            async with Listener(RedisStream(url, key, start="all")) as listener:
                await publisher.publish(TokenRevoked(token_id="last"))
                await listener.hears("last")
                stats = listener.subscriber.stats
        assert listener.subjects == ["real", "last"]
        assert (stats.decode_errors, stats.duplicates) == (2, 1)


@pytest.mark.parametrize("is_busy", [True, False])
async def test_more_are_read_at_once_where_replies_are_late(
    url: str, key: str, client: Redis, *, is_busy: bool
) -> None:
    """A reader that finds each reply there asks for no more at once; one that waits for them does, up to the limit."""
    await call(client, "EVAL", "for i = 1, 3000 do redis.call('XADD', KEYS[1], i .. '-0', 'event', i) end", 1, key)
    sizes: list[int] = []
    async with RedisStream(url, key=key, start="all").receiver() as receiver:
        assert isinstance(receiver, CursorReceiver)
        while sum(sizes) < 3_000:
            sizes.append(len((await receiver.receive()).deliveries))
            if is_busy and (ahead := receiver._ahead) is not None:
                await wait_until(ahead.request.settled.done)
    assert max(sizes) == (256 if is_busy else 500)


class TestRetention:
    """Retention of a stream without a ledger, where it is a security setting."""

    @pytest.mark.parametrize("retention", [timedelta(0), -HOUR, timedelta(microseconds=1), 3600, "1h", None])
    def test_garbage_is_refused_where_it_is_given(self, retention: Any) -> None:
        """A retention that is no positive timedelta is an `InvalidOption`."""
        with pytest.raises(InvalidOption, match=r"^retention: "):
            RedisStream("redis://127.0.0.1:1", retention=retention)

    async def test_publishing_forgets_what_is_older(self, url: str, key: str, client: Redis) -> None:
        """Entries older than the retention are removed by the next publish; younger ones stay."""
        now = await server_time(client)
        old, young = f"{now - 3_660_000}-0", f"{now - 3_540_000}-0"
        await add(client, key, "1-0", old, young)
        async with Publisher(RedisStream(url, key, retention=HOUR, ledger=False)) as publisher:
            receipt = await publisher.publish(TokenRevoked(token_id="x"))
        assert [position for position, _ in await entries(client, key)] == [young, receipt.position]

    @pytest.mark.parametrize("ahead", [timedelta(days=10), timedelta(days=-10)])
    async def test_only_the_servers_clock_counts(
        self, url: str, key: str, client: Redis, monkeypatch: pytest.MonkeyPatch, ahead: timedelta
    ) -> None:
        """A publisher whose own clock is wrong removes exactly what others would, and assigns no wrong position."""
        now = await server_time(client)
        old, young = f"{now - 3_660_000}-0", f"{now - 3_540_000}-0"
        await add(client, key, old, young)

        class Clock(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> Any:
                return datetime.now(tz) + ahead

        real_time, real_time_ns = time.time, time.time_ns
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda: real_time() + ahead.total_seconds())
            patch.setattr(time, "time_ns", lambda: real_time_ns() + int(ahead.total_seconds()) * 10**9)
            patch.setattr("jwt_events.publisher._publisher.datetime", Clock)
            patch.setattr("jwt_events.events._event.datetime", Clock)
            async with Publisher(RedisStream(url, key, retention=HOUR, ledger=False)) as publisher:
                event = TokenRevoked(token_id="x")
                assert abs(event.occurred_at - datetime.now(UTC) - ahead) < HOUR
                receipt = await publisher.publish(event)
        assert [position for position, _ in await entries(client, key)] == [young, receipt.position]
        assert abs(int(str(receipt.position).partition("-")[0]) - await server_time(client)) < 3_600_000

    async def test_an_event_that_outlives_it_is_refused(self, url: str, key: str, client: Redis) -> None:
        """Publishing an event that expires after the retention raises, names the retention, and sends nothing."""
        transport = RedisStream(url, key, retention=HOUR, ledger=False)
        expires = datetime.now(UTC) + 2 * HOUR
        events: list[Event] = [TokenRevoked(token_id="a"), TokenRevoked(token_id="b", expires_at=expires)]
        async with Publisher(transport) as publisher:
            with pytest.raises(OutlivesRetention, match="retention") as caught:
                await publisher.publish(events[1])
            with pytest.raises(OutlivesRetention):
                await publisher.publish_many(events)
        assert caught.value.retention == 3600
        assert caught.value.needed == pytest.approx(7200, abs=scaled(60))
        assert await client.exists(key) == 0

    async def test_an_event_that_just_fits_is_published(self, url: str, key: str) -> None:
        """An event that expires with the retention, or has expired, is published."""
        async with Publisher(RedisStream(url, key, retention=HOUR, ledger=False)) as publisher:
            await publisher.publish(TokenRevoked(token_id="a", expires_at=datetime.now(UTC) + HOUR))
            await publisher.publish(TokenRevoked(token_id="b", expires_at=at(0)))

    async def test_with_a_ledger_none_outlives_it(self, url: str, key: str) -> None:
        """Beside a ledger, what is in force is never forgotten, so an event may expire after the retention."""
        async with Publisher(RedisStream(url, key, retention=HOUR)) as publisher:
            await publisher.publish(TokenRevoked(token_id="a", expires_at=datetime.now(UTC) + 2 * HOUR))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("batch_size", 0),
        ("batch_size", 1.0),
        ("batch_size", 10**6),
        ("block", 0),
        ("block", float("inf")),
        ("key", ""),
        ("ledger", ""),
        ("ledger", "jwt:events"),
    ],
)
def test_an_option_that_cannot_work_is_refused(option: str, value: Any) -> None:
    """An invalid option raises when it is given, and the error names it."""
    with pytest.raises(InvalidOption) as caught:
        RedisStream("redis://127.0.0.1:1", **{option: value})
    assert caught.value.option == option
