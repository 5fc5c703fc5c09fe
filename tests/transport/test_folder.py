"""Folding in the background, at real servers."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from jwt_events import SessionDestroyed, TokenRevoked
from jwt_events._internal.cancellation import end
from jwt_events._internal.clock import boottime
from jwt_events.embedded import EmbeddedServer
from jwt_events.envelope import encode_event
from jwt_events.errors import TransportError
from jwt_events.revocation._entries import Folding, rule_of
from jwt_events.testing import eventually
from jwt_events.transport._redis.connection import Connector
from jwt_events.transport._stream import fold_lock as lock_module
from jwt_events.transport._stream import folder as module
from jwt_events.transport._stream import ledger as ledger_module
from jwt_events.transport._stream.folder import Folder
from jwt_events.transport._stream.keys import StreamKeys
from jwt_events.transport._stream.ledger import Folded, Ledger
from jwt_events.transport.optional import ENDLESS, Fold, LedgerEntry, LedgerReport
from tests.support.raw import add, call, counts, entries, server_time
from tests.support.records import recorded
from tests.transport.test_ledger import connected, contents, fold

MOMENT = timedelta(milliseconds=1)
HOUR = timedelta(hours=1)


def folder(url: str, key: str, *, retention: timedelta = MOMENT, fold: Fold = fold) -> Folder:
    """Return a folder with a ledger object of its own, as another program has."""
    return Folder(Connector(url, destination=key), Ledger(StreamKeys(key)), fold, retention)


async def names(url: str, key: str) -> set[bytes]:
    """Return what a ledger holds."""
    async with connected(url) as connection:
        return set(await contents(Ledger(StreamKeys(key)), connection))


class TestRounds:
    """One round."""

    async def test_what_is_old(self, url: str, key: str, client: Redis) -> None:
        """What is older than the longest retention is folded and trimmed, the rest stays."""
        now = await server_time(client)
        await add(client, key, f"{now - 7_200_000}-0", f"{now - 60_000}-0")
        assert await folder(url, key, retention=HOUR).fold_once() == 1
        assert [position for position, _ in await entries(client, key)] == [f"{now - 60_000}-0"]
        assert await names(url, key) == {f"r{now - 7_200_000}-0".encode()}

    async def test_the_longest_retention_counts(self, url: str, key: str, client: Redis) -> None:
        """What another publisher keeps is not folded."""
        now = await server_time(client)
        await add(client, key, f"{now - 60_000}-0")
        await folder(url, key, retention=HOUR).fold_once()
        await client.delete(StreamKeys(key).ledger_lock)
        assert await folder(url, key).fold_once() == 0
        assert len(await entries(client, key)) == 1

    async def test_one_at_a_time(self, url: str, key: str, client: Redis) -> None:
        """While one folds, others leave it to that one, which goes on in its next round."""
        await add(client, key, "1-0")
        first, second = folder(url, key), folder(url, key)
        assert await first.fold_once() == 1
        await add(client, key, "2-0")
        assert await second.fold_once() == 0
        assert await first.fold_once() == 1

    async def test_real_events(self, url: str, key: str, client: Redis) -> None:
        """Events become the entries of their rules; what is over leaves the ledger."""
        for position, event in (("1-0", TokenRevoked(token_id="a")), ("2-0", SessionDestroyed(session_id="s"))):
            await call(client, "XADD", key, position, "event", encode_event(event, source="tests"))
        await call(client, "XADD", key, "3-0", "event", "nonsense")
        await call(client, "ZADD", Ledger(StreamKeys(key)).key, 5, "told")
        assert await folder(url, key, fold=Folding(None)).fold_once() == 3
        found = [rule_of(content, float(ENDLESS + 5))[0] for content in await names(url, key)]
        assert sorted((rule.kind, rule.names) for rule in found) == [("session", ("s",)), ("token", ("a",))]

    async def test_a_clock_that_is_ahead(
        self, url: str, key: str, client: Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whichever clock is ahead, the server's or the publisher's, no rule is dropped before its time."""
        event = TokenRevoked(token_id="a", expires_at=datetime.now(UTC) + HOUR)
        await call(client, "XADD", key, "1-0", "event", encode_event(event, source="tests"))
        real_time = time.time
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda: real_time() + 86_400)
            assert await folder(url, key, fold=Folding()).fold_once() == 1
        await client.delete(StreamKeys(key).ledger_lock)
        assert await folder(url, key, fold=Folding()).fold_once() == 0
        assert await names(url, key) == {b"ta"}

    async def test_large_entries(self, url: str, key: str, client: Redis) -> None:
        """Entries that are large together take a few attempts within the round."""
        for number in range(1, 41):
            await call(client, "XADD", key, f"{number}-0", "event", b"x" * 1_000_000)

        def none(payloads: Sequence[bytes], now: float) -> list[LedgerEntry]:
            return []

        assert await folder(url, key, fold=none).fold_once() == 40


class TestAnothersLock:
    """A lock that is held by what does not fold."""

    @pytest.mark.parametrize("words", [("SET", "x"), ("SETEX", "9999", "x"), ("RPUSH", "x")], ids=" ".join)
    async def test_is_taken(
        self, url: str, key: str, client: Redis, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
    ) -> None:
        """When nothing was folded for longer than a lease a publisher folds all the same, and says so."""
        await add(client, key, "1-0")
        await call(client, words[0], StreamKeys(key).ledger_lock, *words[1:])
        one = folder(url, key)
        assert await one.fold_once() == 0
        with recorded() as records, monkeypatch.context() as patch:
            assert await one.fold_once() == 0
            patch.setattr(module, "boottime", lambda: boottime() + 31)
            assert await one.fold_once() == 1
            assert len(records.of(_TAKEN, "WARNING")) == 1
            await add(client, key, "2-0")
            assert await one.fold_once() == 1
            assert len(records.of(_TAKEN, "WARNING")) == 1

    async def test_while_it_folds(self, url: str, key: str, client: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is left to the one that holds it and folds, however long that takes."""
        one, other = folder(url, key), folder(url, key)
        with recorded() as records, monkeypatch.context() as patch:
            for number in range(1, 5):
                await add(client, key, f"{number}-0", f"{number}-1")
                if number > 1:
                    assert await other.fold_once() == 0
                patch.setattr(module, "boottime", lambda passed=31 * number: boottime() + passed)
                assert await one.fold_once() == 2
            assert not records.of(_TAKEN, "WARNING")

    async def test_behind(self, url: str, key: str, client: Redis) -> None:
        """Meanwhile the metric grows."""
        await add(client, key, "1-0")
        await call(client, "SET", StreamKeys(key).ledger_lock, "x")
        reports: list[LedgerReport] = []
        one = Folder(Connector(url, destination=key), Ledger(StreamKeys(key)), fold, HOUR, reports.append)
        assert await one.fold_once() == 0
        assert reports[0].behind > 3_600


class TestSteps:
    """What a publish waits for."""

    async def test_after_a_publish(self, url: str, key: str, client: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each step waits for what is published, unless the round takes so long that the next one is due."""
        steps: list[str] = []

        async def quiet() -> None:
            steps.append("quiet")

        def folding(payloads: Sequence[bytes], now: float) -> list[LedgerEntry]:
            steps.append(f"folded {len(payloads)}")
            return fold(payloads, now)

        one = Folder(Connector(url, destination=key), Ledger(StreamKeys(key)), folding, HOUR, quiet=quiet)
        await add(client, key, *(f"{number}-0" for number in range(1, 41)))
        assert await one.fold_once() == 40
        assert steps == ["quiet", "quiet", "folded 32", "quiet", "folded 8", "quiet", "quiet"]
        await add(client, key, "41-0")
        monkeypatch.setattr(module, "boottime", iter(range(0, 10_000_000, 100)).__next__)
        assert await one.fold_once() == 1
        assert steps[7:] == ["folded 1"]

    async def test_parts(self, url: str, key: str, client: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
        """A batch is committed in parts; if another one folds in between, what was committed counts."""
        monkeypatch.setattr(ledger_module, "_FOLD_PART", 10)
        await add(client, key, *(f"{number}-0" for number in range(1, 51)))
        ledger, other = Ledger(StreamKeys(key)), Ledger(StreamKeys(key))
        async with connected(url) as connection, connected(url) as second:
            parts: list[int] = []

            async def rest() -> None:
                parts.append(await client.xlen(key))
                if parts.count(30) == 1 and parts[-1] == 30:
                    await other.fold_batch(second, fold, before=2**50, now=0.0)

            batch = await ledger.fold_batch(connection, fold, before=2**50, now=0.0, rest=rest)
            assert batch == Folded(20, is_done=False)
            assert await ledger.fold_batch(connection, fold, before=2**50, now=0.0) == Folded(0, is_done=True)
            assert len(await contents(ledger, connection)) == 50
            head = await ledger.read_head(connection)
            assert head is not None
            assert (head.position, head.lost) == ("50-0", 0)

    async def test_more_than_a_lease(self, url: str, key: str, client: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
        """A round that takes longer than the lease renews it, and ends when all is folded."""
        monkeypatch.setattr(ledger_module, "_FOLD_BATCH", 10)
        await add(client, key, *(f"{number}-0" for number in range(1, 101)))
        passed = 0.0

        def later() -> float:
            nonlocal passed
            passed += 7.0
            return boottime() + passed

        monkeypatch.setattr(lock_module, "boottime", later)
        assert await folder(url, key).fold_once() == 100
        assert passed > 60

    async def test_changed_again_and_again(self, url: str, key: str, client: Redis) -> None:
        """A ledger that another program changes all the time ends the round, and nothing is lost."""

        class Changed(Ledger):
            async def _commit(self, *args: Any, **options: Any) -> tuple[bool, bool]:
                await call(client, "ZADD", self.key, "INCR", 1, "rx")
                return await super()._commit(*args, **options)

        await add(client, key, "1-0")
        one = Folder(Connector(url, destination=key), Changed(StreamKeys(key)), fold, MOMENT)
        with pytest.raises(TransportError, match="again and again"):
            await one.fold_once()
        assert len(await entries(client, key)) == 1


class TestInTheBackground:
    """For as long as a publisher is open."""

    async def test_without_a_right(self, own_server: Callable[..., EmbeddedServer]) -> None:
        """A publisher that may not fold says which right it lacks, and removes nothing."""
        async with own_server(port=0) as server, Redis.from_url(server.url) as client:
            await call(client, "ACL", "SETUSER", "u", "reset", "on", ">secret", "~*", "+@all", "-exec")
            await add(client, "k", "1-0")
            with recorded() as records:
                task = asyncio.create_task(folder(server.url.replace("redis://", "redis://u:secret@"), "k").run())
                await eventually(lambda: records.of(_FAILED, "WARNING"))
                await end([task])
            assert "exec" in str(records.of(_FAILED, "WARNING")[0]["error"]).lower()
            assert len(await entries(client, "k")) == 1

    async def test_removed_by_others(self, url: str, key: str, client: Redis) -> None:
        """What others removed before it was folded is an error in the log."""
        await add(client, key, "1-0", "2-0", "3-0")
        one = folder(url, key)
        await one.fold_once()
        await add(client, key, "4-0", "5-0", "6-0")
        await call(client, "XTRIM", key, "MINID", "6-0")
        with recorded() as records:
            is_counted = await counts(client, key)
            assert await one.fold_once() == 1
        assert records.of(_REMOVED, "ERROR") == ([{"destination": key, "lost": 2}] if is_counted else [])

    async def test_killed_again_and_again(self, url: str, key: str, client: Redis) -> None:
        """Folders that are cancelled at any moment, while events come and others fold, lose none of them."""
        chance = random.Random(5)
        published: set[bytes] = set()
        for number in range(60):
            tasks = [asyncio.create_task(folder(url, key).fold_once()) for _ in range(2)]
            for part in range(chance.randrange(1, 8)):
                name = b"e%d.%d" % (number, part)
                await call(client, "XADD", key, "*", "event", name)
                published.add(name)
            await end(tasks)
            if number % 3 == 0:
                await client.delete(StreamKeys(key).ledger_lock)  # as the server does in time
        rows = {fields[b"event"] for _, fields in await entries(client, key)}
        kept = {content[1:] for content in await names(url, key)}
        assert rows | kept == published
        assert not rows & kept
        assert kept


_FAILED = "folding failed, so nothing is removed from the stream"
_TAKEN = "another program held the lock and folded nothing, so this one folds"
_REMOVED = "events were removed from the stream that were not folded"
