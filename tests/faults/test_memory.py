"""Entries that are far too large: a reader's memory is bounded by bytes, whatever they have."""

from __future__ import annotations

import asyncio
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from redis.asyncio import Redis

from jwt_events import InvalidOption, RedisStream, TokenRevoked
from jwt_events.embedded import EmbeddedServer
from jwt_events.testing import Listener
from jwt_events.transport.base import Backlog, Batch, Failure
from jwt_events.transport.dead_letters import DeadLetters
from tests.support.handling import publish, soon
from tests.support.raw import call
from tests.support.records import recorded
from tests.support.waiting import scaled, wait_until

_MEGABYTE = 1_048_576


async def fill(client: Redis, key: str, number: int, size: int) -> list[str]:
    """Append entries of this size, and return their positions."""
    added = [await call(client, "XADD", key, "*", "event", b"x" * size) for _ in range(number)]
    return [position.decode() for position in added]


def _client(server: EmbeddedServer) -> Redis:
    """Return a client that writes what is large, in its time."""
    client: Redis = Redis.from_url(server.url, socket_timeout=scaled(20))
    return client


@pytest.mark.parametrize("kind", ["list", "stream", "group"])
@pytest.mark.parametrize(
    ("number", "megabytes"),
    [
        pytest.param(20, 20, id="twenty of 20 MB"),
        pytest.param(2, 100, id="two of 100 MB"),
        pytest.param(300, 1, id="three hundred of 1 MB"),
    ],
)
async def test_peak(own_server: Callable[..., EmbeddedServer], kind: str, number: int, megabytes: int) -> None:
    """However many there are, and however large, a process that reads them needs room for a batch, twice at most."""
    async with own_server() as server, _client(server) as client:
        await fill(client, "k", number, megabytes * _MEGABYTE)
        await publish(RedisStream(client, "k"), TokenRevoked(token_id="t"))
        program = (sys.executable, "-m", "tests.faults.memory_process", server.url, "k", kind)
        process = await asyncio.create_subprocess_exec(*program, stdout=asyncio.subprocess.PIPE)
        output, _ = await soon(process.communicate(), within=60)
        assert process.returncode == 0
        skipped, grown = map(int, output.split())
        assert skipped == number
        assert grown < 70 * _MEGABYTE


@pytest.mark.parametrize("group", [None, "workers"])
async def test_every_entry_is_delivered(own_server: Callable[..., EmbeddedServer], group: str | None) -> None:
    """Large and small ones, each once or more and in order, without a gap, and all are settled."""
    async with own_server() as server, _client(server) as client:
        positions = []
        for number, size in ((90, 100), (2, 20 * _MEGABYTE), (40, 100), (30, _MEGABYTE), (90, 100)):
            positions += await fill(client, "k", number, size)
        stream = RedisStream(server.url, "k", start="all", batch_size=64, block=0.1, group=group)
        async with stream.receiver() as receiver, asyncio.timeout(scaled(20)):
            seen: list[str] = []
            batch = Batch()
            while len({*seen}) < len(positions) or (group is None and batch.current_as_of is None):
                batch = await receiver.receive()
                assert not batch.gaps
                seen += [delivery.position or "" for delivery in batch.deliveries]
                assert sum(len(delivery.payload) for delivery in batch.deliveries) < 21 * _MEGABYTE
                for delivery in batch.deliveries:
                    receiver.settle(
                        delivery, Failure("DecodeError: too_large") if len(delivery.payload) > 100 else None
                    )
        if group is None:
            assert seen == positions
        else:
            assert {*seen} == {*positions}
            assert (await call(client, "XPENDING", "k", group))["pending"] == 0
        async with DeadLetters(stream, timeout=scaled(10)) as dead:
            assert await dead.count() == 32


@pytest.mark.parametrize("group", [None, "workers"])
async def test_a_server_that_buffers_little(own_server: Callable[..., EmbeddedServer], group: str | None) -> None:
    """A server hangs up on who asks for more than it buffers: fewer entries are asked for, until all were read."""
    async with own_server(config={"client-output-buffer-limit": "normal 1mb 1mb 1"}) as server:
        async with _client(server) as client:
            positions = await fill(client, "k", 30, 400_000)
        stream = RedisStream(server.url, "k", start="all", block=0.1, group=group)
        async with stream.receiver() as receiver, asyncio.timeout(scaled(30)):
            seen: set[str | None] = set()
            while len(seen) < len(positions):
                batch = await receiver.receive()
                assert not batch.gaps
                seen |= {delivery.position for delivery in batch.deliveries}
        assert seen == {*positions}


async def test_dead_letters_that_cannot_be_written_delay_nothing(own_server: Callable[..., EmbeddedServer]) -> None:
    """A reader waits while large dead letters are written, but not for a server that does not take them."""
    async with own_server() as server, _client(server) as client:
        positions = await fill(client, "k", 5, 2 * _MEGABYTE)
        await call(client, "SET", "k:dead", "in the way")
        stream = RedisStream(server.url, "k", start="all", batch_size=1, block=0.1)
        async with stream.receiver() as receiver, asyncio.timeout(scaled(10)):
            seen: list[str] = []
            while len(seen) < len(positions):
                for delivery in (await receiver.receive()).deliveries:
                    seen.append(delivery.position or "")
                    receiver.settle(delivery, Failure("DecodeError: too_large"))
            assert seen == positions


@pytest.mark.parametrize("group", [None, "workers"])
async def test_dead_letter(own_server: Callable[..., EmbeddedServer], group: str | None) -> None:
    """Of an entry that is far too large the beginning is kept, with what is missing; it is not replayed."""
    async with own_server() as server, _client(server) as client:
        stream = RedisStream(server.url, "k", start="all", group=group)
        await fill(client, "k", 1, 20 * _MEGABYTE)
        await call(client, "XADD", "k", "*", "a", b"y" * 3 * _MEGABYTE, "event", b"junk")
        with recorded() as records:
            async with Listener(stream), DeadLetters(stream, timeout=scaled(10)) as dead:

                async def are_kept() -> bool:
                    return await dead.count() == 2

                await wait_until(are_kept, within=30)
                whole, field = await dead.list()
                assert (whole.payload, whole.missing) == (b"x" * 2 * _MEGABYTE, 18 * _MEGABYTE)
                assert (field.payload, field.missing) == (b"junk", _MEGABYTE)
                assert field.fields == ((b"a", b"y" * 2 * _MEGABYTE), (b"event", b"junk"))
                for letter in (whole, field):
                    with pytest.raises(InvalidOption, match="not kept whole"):
                        await dead.replay(letter.id)
                assert await dead.count() == 2
    assert records.of("delivery skipped: not an event")[0]["size"] == 20 * _MEGABYTE


async def test_many_large_dead_letters(own_server: Callable[..., EmbeddedServer]) -> None:
    """They are listed in parts of so many bytes, in order, each once; small ones as many as asked for."""
    async with own_server() as server, _client(server) as client:
        small = await fill(client, "k:dead", 300, 10)
        large = await fill(client, "k:dead", 40, 2 * _MEGABYTE)
        async with DeadLetters(RedisStream(server.url, "k"), timeout=scaled(10)) as dead:
            found = [letter.id for letter in await dead.list(limit=150)]
            assert found == small[:150]
            while True:
                before = await sent(client)
                letters = await dead.list(after=found[-1], limit=1_000)
                assert await sent(client) - before < 40 * _MEGABYTE
                if not letters:
                    break
                found += [letter.id for letter in letters]
        assert found == small + large


@contextmanager
def peak() -> Iterator[Callable[[], int]]:
    """Measure how many bytes are held at most."""
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


async def test_many_large_replays(own_server: Callable[..., EmbeddedServer]) -> None:
    """They are replayed in their order and in parts of so many bytes; none if one of them cannot be."""
    async with own_server() as server, _client(server) as client:
        large = await fill(client, "k:dead", 50, 2 * _MEGABYTE)
        cut = await call(client, "XADD", "k:dead", "*", "event", b"x", "error", b"e", "missing", 1)
        small = await fill(client, "k:dead", 20, 10)
        async with DeadLetters(RedisStream(server.url, "k"), timeout=scaled(10)) as dead:
            with pytest.raises(InvalidOption, match="not kept whole"):
                await dead.replay(*large, cut.decode())
            assert (await dead.count(), await call(client, "XLEN", "k")) == (71, 0)
            with peak() as measured:
                found = await dead.replay(*large, "1-1", *small)
                assert measured() < 90 * _MEGABYTE
            assert await dead.count() == 1
        sizes = [len(fields[b"event"]) for _, fields in await call(client, "XRANGE", "k", found[0], "+")]
        assert sizes == [2 * _MEGABYTE] * 50 + [10] * 20


async def test_busy_group(own_server: Callable[..., EmbeddedServer]) -> None:
    """While all handlers of a group are busy, how far it is behind is told without reading what it has not read yet."""
    async with own_server() as server, _client(server) as client:
        stream, told = RedisStream(server.url, "k", group="workers", claim_after=0.3), list[Backlog]()
        async with stream.receiver() as receiver:
            await publish(stream, TokenRevoked(token_id="t"))
            while not (await receiver.receive()).deliveries:
                pass
            await fill(client, "k", 2, 20 * _MEGABYTE)
            receiver.backlog.tell = told.append  # type: ignore[attr-defined]  # that of a group has it
            before = await sent(client)
            await wait_until(lambda: len(told) > 3, what="how far it is behind")
            assert await sent(client) - before < _MEGABYTE
        assert {(one.lag, one.pending) for one in told} <= {(2, 1), (None, 1)}


async def sent(client: Redis) -> int:
    """Return how many bytes the server has sent to its clients."""
    return int((await client.info("stats"))["total_net_output_bytes"])


async def test_oldest_is_too_large(own_server: Callable[..., EmbeddedServer]) -> None:
    """What the server says of a stream has its oldest entry whole; a reader stays connected all the same."""
    async with own_server() as server, _client(server) as client:
        await fill(client, "k", 1, 20 * _MEGABYTE)
        async with RedisStream(server.url, "k", block=0.1).receiver() as receiver, asyncio.timeout(scaled(30)):
            proofs: set[float | None] = set()
            while len(proofs - {None}) < 3:
                batch = await receiver.receive()
                assert not batch.reconnected
                proofs.add(batch.current_as_of)
