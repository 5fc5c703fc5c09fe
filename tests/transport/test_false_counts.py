"""Counts of a stream that others set to anything: what a reader missed is a gap all the same."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from jwt_events import RedisStream, RevocationList, Verdict
from jwt_events.transport.base import Gap
from tests.support.raw import call, counts_what_was_added
from tests.support.waiting import wait_until
from tests.transport.test_removed import KINDS, reading, stream

Words = tuple[str, ...]


def _add(key: str, *positions: str) -> list[Words]:
    return [("XADD", key, position, "event", "x") for position in positions]


def _set(last: str, added: int, deleted: str = "0-0") -> Words:
    return ("XSETID", "KEY", last, "ENTRIESADDED", str(added), "MAXDELETEDID", deleted)


# Each happens in one transaction, so that no reader can come in between. Before it 1-1 and 1-2 were read.
LIES: dict[str, list[Words]] = {
    "the newest deleted": [*_add("KEY", "5-1"), ("XDEL", "KEY", "5-1"), _set("5-1", 2)],
    "the newest deleted, as they say": [*_add("KEY", "5-1"), ("XDEL", "KEY", "5-1"), _set("5-1", 2, "5-1")],
    "the first deleted": [*_add("KEY", "5-1", "5-2"), ("XDEL", "KEY", "5-1"), _set("5-2", 3, "5-1")],
    "one in the middle deleted": [*_add("KEY", "5-1", "5-2", "5-3"), ("XDEL", "KEY", "5-2"), _set("5-3", 4, "5-2")],
    "trimmed": [*_add("KEY", "5-1"), ("XTRIM", "KEY", "MAXLEN", "0"), _set("5-1", 2)],
    "a later position": [("XSETID", "KEY", "9-9")],
    "another stream": [*_add("KEY", "5-1"), *_add("KEY:other", "1-1", "3-1", "4-1"), ("RENAME", "KEY:other", "KEY")],
}


@pytest.fixture(autouse=True)
async def _counting_server(client: Redis) -> None:
    """Before Redis 7 there are no counts to set: what such a server can tell is in `test_stream_history`."""
    if not await counts_what_was_added(client):
        pytest.skip("the server does not count what was added")


async def transaction(client: Redis, key: str, commands: list[Words]) -> None:
    """Carry out commands in one transaction."""
    async with client.pipeline(transaction=True) as pipeline:
        for words in commands:
            pipeline.execute_command(*(word.replace("KEY", key) for word in words))
        await pipeline.execute()


@KINDS
@pytest.mark.parametrize("way", LIES)
async def test_false_counts(url: str, key: str, client: Redis, group: str | None, way: str) -> None:
    """What the counts do not show is seen from the last position and that of the last deletion; it is told once."""
    async with reading(stream(url, key, group)) as found:
        for position in ("1-1", "1-2"):
            await client.xadd(key, {"event": "x"}, id=position)
        await wait_until(lambda: found.positions == ["1-1", "1-2"])
        await found.goes_on()
        await transaction(client, key, LIES[way])
        await wait_until(lambda: found.gaps, what="a gap")
        await client.xadd(key, {"event": "x"}, id="10-1")
        await wait_until(lambda: found.positions[-1] == "10-1")
        await found.goes_on()
    assert len(found.gaps) == 1
    assert not found.gap_in_proof


@KINDS
async def test_true_counts(url: str, key: str, client: Redis, group: str | None) -> None:
    """That a worker deletes what it has handled, and sets the counts to what they are, is no gap."""
    async with reading(stream(url, key, group)) as found:
        for number in range(1, 20):
            await client.xadd(key, {"event": "x"}, id=f"{number}-1")
            await wait_until(lambda number=number: found.positions[-1:] == [f"{number}-1"])
            await transaction(client, key, [("XDEL", "KEY", f"{number}-1"), _set(f"{number}-1", number, f"{number}-1")])
        await found.goes_on()
    assert found.gaps == []


async def test_list(url: str, key: str, client: Redis) -> None:
    """A list that cannot have read a revocation is told, and reads all that there is again."""
    gaps: list[Gap] = []
    async with RevocationList(RedisStream(url, key)) as revocations:
        revocations.on_gap(gaps.append)
        await transaction(client, key, _add("KEY", "1-1"))
        await wait_until(lambda: revocations.stats.decode_errors == 1)
        await transaction(client, key, [*_add("KEY", "5-1"), ("XDEL", "KEY", "5-1"), _set("5-1", 1)])
        await wait_until(lambda: gaps)
        assert [gap.cause for gap in gaps] == ["deleted"]
        await wait_until(lambda: revocations.check({"jti": "t", "iat": 1}) is Verdict.ALLOW)


async def test_the_highest_deletion(client: Redis, key: str) -> None:
    """Trimming does not move it, and XDEL does: readers rely on that."""
    await transaction(client, key, _add("KEY", "1-1", "1-2", "1-3"))
    await transaction(client, key, [("XDEL", "KEY", "1-2"), ("XTRIM", "KEY", "MAXLEN", "0")])
    found = await call(client, "XINFO", "STREAM", key)
    fields = found if isinstance(found, dict) else dict(zip(found[::2], found[1::2], strict=True))  # by RESP3, or RESP2
    assert fields[b"max-deleted-entry-id"] == b"1-2"
