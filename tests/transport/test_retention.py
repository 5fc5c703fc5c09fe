"""Trimming: no publisher removes what another one still keeps, and the command line removes nothing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from jwt_events import Publisher, RedisStream, RevocationList, TokenRevoked, Verdict
from jwt_events.embedded import EmbeddedServer
from jwt_events.envelope import encode_event
from tests.support.commands import run
from tests.support.raw import add, call, entries, server_time
from tests.support.records import recorded
from tests.support.servers import Server

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


async def publish(transport: RedisStream, name: str = "x") -> None:
    """Publish one event, as a program does that soon ends; without a ledger it trims before."""
    async with Publisher(transport, source="tests") as publisher:
        await publisher.publish(TokenRevoked(token_id=name))


async def add_old(client: Redis, key: str, age: timedelta, name: str) -> str:
    """Append a revocation that was published some time ago."""
    position = f"{await server_time(client) - int(age.total_seconds() * 1000)}-0"
    await call(client, "XADD", key, position, "event", encode_event(TokenRevoked(token_id=name), source="tests"))
    return position


async def positions(client: Redis, key: str) -> list[str]:
    """Return the positions of all entries."""
    return [position for position, _ in await entries(client, key)]


class TestSeveralPublishers:
    """The longest retention of a stream counts. Here without a ledger; with one, see `test_folder`."""

    async def test_a_shorter_one_removes_nothing(self, url: str, key: str, client: Redis) -> None:
        """What a publisher with 30 days keeps is there after one with a day has published."""
        month = RedisStream(url, key, ledger=False, retention=30 * DAY)
        await publish(month)
        await call(client, "DEL", key)
        old = await add_old(client, key, 3 * DAY, "stolen")
        await publish(RedisStream(url, key, ledger=False))
        await publish(RedisStream(url, key, ledger=False, retention=timedelta(milliseconds=1)))
        assert (await positions(client, key))[0] == old
        async with RevocationList(month) as revocations:
            assert revocations.check({"jti": "stolen"}) is Verdict.REVOKED

    async def test_the_longer_one_trims(self, url: str, key: str, client: Redis) -> None:
        """What is older than the longest is removed, whoever trims."""
        await publish(RedisStream(url, key, ledger=False, retention=DAY))
        await call(client, "DEL", key)
        await add_old(client, key, 2 * DAY, "a")
        old = await add_old(client, key, 2 * HOUR, "b")
        await publish(RedisStream(url, key, ledger=False, retention=HOUR))
        assert (await positions(client, key))[0] == old

    async def test_a_shorter_one_that_goes_on(self, url: str, key: str, client: Redis) -> None:
        """A publisher that began alone learns of the longer retention before it trims again."""
        async with Publisher(RedisStream(url, key, ledger=False, retention=timedelta(milliseconds=50))) as short:
            await short.publish(TokenRevoked(token_id="a"))
            await publish(RedisStream(url, key, ledger=False, retention=DAY))
            kept = await positions(client, key)
            sender: Any = short._sender
            sender._multiplexer._maintenance.due_at = 0.0
            await call(client, "WAIT", 0, 60)  # until all there is is older than the short retention
            await short.publish(TokenRevoked(token_id="b"))
            assert (await positions(client, key))[: len(kept)] == kept

    async def test_it_warns_once(self, url: str, key: str) -> None:
        """The one with the shorter retention is told, the other is not."""
        with recorded() as records:
            await publish(RedisStream(url, key, ledger=False, retention=DAY))
            assert not records.of(_LONGER, "WARNING")
            async with Publisher(RedisStream(url, key, ledger=False, retention=HOUR)) as publisher:
                for _ in range(3):
                    await publisher.publish(TokenRevoked(token_id="t"))
                    sender: Any = publisher._sender
                    sender._multiplexer._maintenance.due_at = 0.0
        assert records.of(_LONGER, "WARNING") == [{"destination": key, "retention": 3600.0, "longest": 86_400.0}]

    async def test_after_the_marker_is_deleted(self, url: str, key: str, client: Redis) -> None:
        """An operator shortens the retention by deleting it."""
        await publish(RedisStream(url, key, ledger=False, retention=DAY))
        await call(client, "DEL", key, f"{key}:retention")
        await add_old(client, key, 2 * HOUR, "a")
        await publish(RedisStream(url, key, ledger=False, retention=HOUR))
        assert len(await positions(client, key)) == 1

    @pytest.mark.parametrize(
        "marker", [("SET", "text"), ("ZADD", "inf", "longest"), ("ZADD", "-inf", "other")], ids=str
    )
    async def test_a_marker_of_somebody_else(self, url: str, key: str, client: Redis, marker: tuple[str, ...]) -> None:
        """Whatever is in its place, publishing goes on and nothing is removed that should stay."""
        await call(client, marker[0], f"{key}:retention", *marker[1:])
        young = await add_old(client, key, HOUR / 2, "young")
        await publish(RedisStream(url, key, ledger=False, retention=HOUR))
        assert (await positions(client, key))[0] == young

    async def test_for_a_century(self, url: str, key: str, client: Redis) -> None:
        """A retention that began before 1970 removes nothing."""
        with recorded() as records:
            await publish(RedisStream(url, key, ledger=False, retention=100 * 365 * DAY))
        assert not records.of("maintenance failed", "WARNING")

    async def test_without_the_right(self, own_server: Callable[..., EmbeddedServer]) -> None:
        """A publisher that may not read the marker trims nothing, says which right it lacks, and publishes."""
        async with own_server(port=0) as server, Redis.from_url(server.url) as client:
            await call(client, "ACL", "SETUSER", "u", "reset", "on", ">secret", "~k", "+xadd", "+xtrim", "+time")
            old = await add_old(client, "k", 2 * HOUR, "old")
            with recorded() as records:
                await publish(
                    RedisStream(server.url.replace("redis://", "redis://u:secret@"), "k", ledger=False, retention=HOUR)
                )
            assert (await positions(client, "k"))[0] == old
            (failure,) = records.of("maintenance failed", "WARNING")
            assert "zadd" in str(failure["error"]).lower()


class TestThatNeverTrims:
    """A program that only looks in."""

    async def test_in_code(self, url: str, key: str, client: Redis) -> None:
        """With ``trims`` off nothing is removed, and the retention is not told to others."""
        await add(client, key, "1-0")
        stream = RedisStream(url, key, retention=HOUR)
        stream.trims = False
        await publish(stream)
        assert (await positions(client, key))[0] == "1-0"
        assert not await client.exists(f"{key}:retention")

    @pytest.mark.parametrize(
        "words",
        [
            ("publish", "token-revoked", "--token-id", "t"),
            ("publish", "session-destroyed", "--session-id", "s", "--retention", "1s"),
            ("publish", "--file", "FILE"),
            ("tail", "--start", "all", "--until-current"),
            ("doctor",),
            ("dead", "list"),
            ("dead", "replay", "--all"),
            ("groups",),
        ],
        ids=" ".join,
    )
    def test_the_command_line(self, server: Server, url: str, key: str, words: tuple[str, ...], tmp_path: Path) -> None:
        """No command removes an entry of the stream, whatever its defaults."""
        client: Any = server.inspector
        file = tmp_path / "events.jsonl"
        file.write_text('{"type": "token_revoked", "token_id": "t"}\n')
        for position in ("1-0", "2-0"):
            client.xadd(key, {"event": encode_event(TokenRevoked(token_id="stolen"), source="tests")}, id=position)
        run(*(str(file) if word == "FILE" else word for word in words), "--key", key, url=url)
        assert [position for position, _ in client.xrange(key)][:2] == [b"1-0", b"2-0"]
        assert not client.exists(f"{key}:retention")


_LONGER = "another publisher keeps the events of this stream for longer, so its retention counts"
