"""Entries that others remove before they are read: in every way, each is a gap, and none is a proof."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from jwt_events import Publisher, RedisStream, RevocationList, TokenRevoked
from jwt_events.transport.base import Gap, Receiver
from tests.support.handling import running
from tests.support.raw import count_where_known, counts_what_was_added
from tests.support.waiting import scaled, wait_until

KINDS = pytest.mark.parametrize("group", [None, "workers"], ids=["cursor", "group"])

Remove = Callable[[Pipeline, str], object]

# Each happens in one transaction with the adding of these entries, so that no reader can come in between.
WAYS: dict[str, tuple[tuple[str, ...], Remove, int]] = {
    "the newest deleted": (("5-1",), lambda to, key: to.xdel(key, "5-1"), 1),
    "one in the middle deleted": (("5-1", "5-2", "5-3"), lambda to, key: to.xdel(key, "5-2"), 1),
    "the first deleted": (("5-1", "5-2"), lambda to, key: to.xdel(key, "5-1"), 1),
    "the last two deleted": (("5-1", "5-2", "5-3"), lambda to, key: to.xdel(key, "5-2", "5-3"), 2),
    "all deleted": (("5-1", "5-2"), lambda to, key: to.xdel(key, "5-1", "5-2"), 2),
    "trimmed to one": (("5-1", "5-2", "5-3"), lambda to, key: to.xtrim(key, maxlen=1, approximate=False), 2),
    "trimmed to nothing": (("5-1", "5-2"), lambda to, key: to.xtrim(key, maxlen=0, approximate=False), 2),
    "trimmed by position": (("5-1", "5-2"), lambda to, key: to.xtrim(key, minid="5-2", approximate=False), 1),
    "deleted by a script": (
        ("5-1", "5-2"),
        lambda to, key: to.eval("return redis.call('XDEL', KEYS[1], '5-2')", 1, key),
        1,
    ),
}

# Where the server does not count, these leave no trace: what is left looks as if it had been added alone.
TRACELESS = {"one in the middle deleted", "the first deleted", "trimmed to one", "trimmed by position"}


@pytest.fixture
async def counts(client: Redis) -> bool:
    """Whether the server counts what was added."""
    return await counts_what_was_added(client)


@dataclass
class Reading:
    """What a receiver returned.

    Attributes:
        positions: of the deliveries, in order.
        gaps: the gaps, in order.
        proofs: how many batches were proofs.
        gap_in_proof: whether a batch with a gap was a proof.
    """

    positions: list[str] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    batches: int = 0
    gap_in_proof: bool = False

    @property
    def lost(self) -> int:
        """How many entries were reported as lost, where the server counts them."""
        return sum(gap.lost or 0 for gap in self.gaps)

    async def run(self, receiver: Receiver) -> None:
        """Read until cancelled, and settle what comes."""
        while True:
            await self.read(receiver)

    async def read(self, receiver: Receiver) -> None:
        """Read one batch, and settle what it holds."""
        batch = await receiver.receive()
        self.batches += 1
        self.gaps += batch.gaps
        self.gap_in_proof |= bool(batch.gaps) and batch.current_as_of is not None
        for delivery in batch.deliveries:
            self.positions.append(delivery.position or "")
            receiver.settle(delivery)

    async def read_until(self, receiver: Receiver, condition: Callable[[], object]) -> None:
        """Read as often as it takes."""
        async with asyncio.timeout(scaled(20)):
            while not condition():
                await self.read(receiver)

    async def goes_on(self) -> None:
        """Wait for a few more batches, one of them after the next audit."""
        before = self.batches
        await wait_until(lambda: self.batches >= before + 12)


@asynccontextmanager
async def reading(transport: RedisStream) -> AsyncIterator[Reading]:
    """Read a stream in the background."""
    found = Reading()
    async with transport.receiver(poll_timeout=0.1) as receiver, running(found.run(receiver)):
        yield found


def stream(url: str, key: str, group: str | None) -> RedisStream:
    """Return a stream whose readers do not wait long."""
    return RedisStream(url, key, group=group, block=0.12, claim_after=scaled(5))


@KINDS
@pytest.mark.parametrize("way", WAYS)
async def test_every_way(url: str, key: str, client: Redis, group: str | None, way: str, *, counts: bool) -> None:
    """Whatever is removed before it was read is reported at once, with its number, once, and not by a proof.

    Where the server does not count, there is no number, and once more if the next entry may have followed others.
    """
    if way in TRACELESS and not counts:
        pytest.skip("the server does not count what was added, so this leaves no trace")
    added, remove, lost = WAYS[way]
    async with reading(stream(url, key, group)) as found:
        await client.xadd(key, {"event": "x"}, id="1-1")
        await wait_until(lambda: found.positions == ["1-1"])
        await found.goes_on()
        async with client.pipeline(transaction=True) as pipeline:
            for position in added:
                pipeline.xadd(key, {"event": "x"}, id=position)
            remove(pipeline, key)
            await pipeline.execute()
        await wait_until(lambda: found.gaps, what="a gap")
        await client.xadd(key, {"event": "x"}, id="9-1")
        await wait_until(lambda: found.positions[-1] == "9-1")
        await found.goes_on()
    assert len(found.positions) == 2 + len(added) - lost
    if counts:
        assert found.lost == lost
    else:
        assert {gap.lost for gap in found.gaps} == {None}
        assert len(set(found.gaps)) == len(found.gaps) <= 2
    assert not found.gap_in_proof


@KINDS
async def test_each_loss_is_told_once(url: str, key: str, client: Redis, group: str | None, *, counts: bool) -> None:
    """An emptied stream is one gap, however often the reader looks; what is lost after that is another."""
    found = Reading()
    async with stream(url, key, group).receiver(poll_timeout=0.1) as receiver:
        await found.read_until(receiver, lambda: found.batches > 3)
        await client.xadd(key, {"event": "x"}, id="1-1")
        await found.read_until(receiver, lambda: found.positions)
        async with client.pipeline(transaction=True) as pipeline:
            pipeline.xadd(key, {"event": "x"}, id="5-1")
            pipeline.xadd(key, {"event": "x"}, id="5-2")
            pipeline.xtrim(key, maxlen=0, approximate=False)
            await pipeline.execute()
        await found.read_until(receiver, lambda: found.gaps)
        batches = found.batches
        await found.read_until(receiver, lambda: found.batches > batches + 12)
        assert [gap.lost for gap in found.gaps] == [2 if counts else None]
        async with client.pipeline(transaction=True) as pipeline:
            pipeline.xadd(key, {"event": "x"}, id="6-1")
            pipeline.xadd(key, {"event": "x"}, id="7-1")
            pipeline.xtrim(key, maxlen=1, approximate=False)
            await pipeline.execute()
        await found.read_until(receiver, lambda: found.positions[-1] == "7-1" and len(found.gaps) > 1)
    assert found.positions == ["1-1", "7-1"]
    if counts:
        assert [gap.lost for gap in found.gaps] == [2, 1]
    else:
        assert found.gaps == [Gap("1-1", "trimmed"), Gap("5-2", "trimmed")]


@KINDS
async def test_what_was_read_is_not_missing(
    url: str, key: str, client: Redis, group: str | None, *, counts: bool
) -> None:
    """Workers that delete what was read, one by one or by trimming, cause no gap where the server counts."""
    async with reading(stream(url, key, group)) as found:
        for number in range(1, 30):
            await client.xadd(key, {"event": "x"}, id=f"{number}-1")
            await wait_until(lambda number=number: found.positions[-1:] == [f"{number}-1"])
            if number % 3:
                await client.xdel(key, f"{number}-1")
            elif number % 2:
                await client.xtrim(key, maxlen=0, approximate=False)
        await found.goes_on()
    assert found.gaps == [] or not counts


async def test_two_consumers_that_delete_what_they_handled(url: str, key: str, client: Redis, *, counts: bool) -> None:
    """A group whose consumers delete what they have handled has lost nothing, as a server that counts can tell."""
    async with reading(stream(url, key, "workers")) as one, reading(stream(url, key, "workers")) as other:
        for number in range(1, 60):
            await client.xadd(key, {"event": "x"}, id=f"{number}-1")
            await wait_until(lambda number=number: len(one.positions) + len(other.positions) == number)
            await client.xdel(key, f"{number}-1")
        await one.goes_on()
        await other.goes_on()
    assert one.gaps == other.gaps == [] or not counts
    assert one.positions
    assert other.positions


async def test_a_list_is_told(url: str, key: str, client: Redis) -> None:
    """A list whose newest revocation was deleted by a worker reports a gap within its next audit."""
    transport = RedisStream(url, key)
    gaps: list[Gap] = []
    async with RevocationList(transport) as revocations, Publisher(transport) as publisher:
        revocations.on_gap(gaps.append)
        await publisher.publish(TokenRevoked(token_id="first"))
        await wait_until(lambda: revocations.stats.events == 1)
        async with client.pipeline(transaction=True) as pipeline:
            pipeline.xadd(key, {"event": "stolen"}, id="99999999999999-1")
            pipeline.xdel(key, "99999999999999-1")
            await pipeline.execute()
        await wait_until(lambda: gaps)
        assert [(gap.cause, gap.lost) for gap in gaps] == [("trimmed", await count_where_known(client, 1))]


async def _change(client: Redis, key: str, chance: random.Random, count: int) -> int:
    """Add some entries and remove some others, in one transaction; return how many were added."""
    added = chance.randrange(5)
    async with client.pipeline(transaction=True) as pipeline:
        for number in range(count + 1, count + 1 + added):
            pipeline.xadd(key, {"event": "x"}, id=f"{number}-1")
        match chance.randrange(6):
            case 0:
                pipeline.xdel(key, f"{count + added}-1")
            case 1:
                pipeline.xdel(key, *(f"{chance.randrange(1, count + added + 2)}-1" for _ in range(3)))
            case 2:
                pipeline.xtrim(key, maxlen=chance.randrange(4), approximate=False)
            case 3:
                pipeline.xtrim(key, minid=f"{chance.randrange(count + added + 2)}-1", approximate=False)
            case _:
                pass
        await pipeline.execute()
    return count + added


async def follow(url: str, key: str, client: Redis, group: str | None, seed: int) -> None:
    """Change a stream at random while it is read, and compare what was received and lost with what was added."""
    chance = random.Random(seed)
    async with reading(stream(url, key, group)) as found:
        await client.xadd(key, {"event": "x"}, id="1-1")
        await wait_until(lambda: found.positions == ["1-1"])
        count = 1
        for _ in range(chance.randrange(3, 12)):
            count = await _change(client, key, chance, count)
            if chance.random() < 0.3:
                await found.goes_on()
        await wait_until(
            lambda: len(found.positions) + found.lost == count,
            what=lambda: f"{count} received or lost, not {len(found.positions)} and {found.gaps}, seed {seed}",
        )
        await found.goes_on()
        assert len(found.positions) + found.lost == count, f"seed {seed}: {found.gaps}"
        assert not found.gap_in_proof


@KINDS
@pytest.mark.parametrize("seed", range(4))
async def test_random_changes(url: str, key: str, client: Redis, group: str | None, seed: int, *, counts: bool) -> None:
    """No loss without a gap, no gap without a loss, whatever was added and removed when."""
    if not counts:
        pytest.skip("the server does not count what was added; the model of what it can tell is another one")
    await follow(url, key, client, group, seed)


@pytest.mark.stress
@pytest.mark.timeout(1800)
@KINDS
async def test_five_hundred_random_changes(url: str, key: str, client: Redis, group: str | None) -> None:
    """The same, five hundred times."""
    for first in range(100, 600, 20):
        await asyncio.gather(*(follow(url, f"{key}:{seed}", client, group, seed) for seed in range(first, first + 20)))


@KINDS
async def test_a_stream_that_vanishes_while_it_is_read(url: str, key: str, client: Redis, group: str | None) -> None:
    """A reader goes on, whatever it has just been told of a stream that is deleted a moment later."""
    transport = RedisStream(url, key, group=group, block=0.05, claim_after=0.05)
    found = Reading()
    async with transport.receiver(poll_timeout=0.05) as receiver:
        task = asyncio.create_task(found.run(receiver))
        try:
            while found.batches < 40 and not task.done():
                async with client.pipeline(transaction=False) as pipeline:
                    for _ in range(2):
                        pipeline.xadd(key, {"event": "x"})
                        pipeline.delete(key)
                    await pipeline.execute()
            await client.xadd(key, {"event": "x"}, id="99999999999999-1")
            await wait_until(lambda: task.done() or found.positions[-1:] == ["99999999999999-1"])
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("how", ["moved", "made anew", "read for it"])
async def test_a_group_that_others_move(url: str, key: str, client: Redis, how: str) -> None:
    """What others move a group over, whose only consumer does not receive it, is a gap on every server."""
    async with reading(stream(url, key, "workers")) as found:
        await client.xadd(key, {"event": "x"}, id="1-1")
        await wait_until(lambda: found.positions == ["1-1"])
        await found.goes_on()
        async with client.pipeline(transaction=True) as pipeline:
            pipeline.xadd(key, {"event": "x"}, id="5-1")
            if how == "moved":
                pipeline.xgroup_setid(key, "workers", "$")
            elif how == "made anew":
                pipeline.xgroup_destroy(key, "workers")
                pipeline.xgroup_create(key, "workers", "$")
            else:
                pipeline.xreadgroup("workers", "other", {key: ">"})
                pipeline.xgroup_delconsumer(key, "workers", "other")
            await pipeline.execute()
        await wait_until(lambda: found.gaps, what="a gap")
        await client.xadd(key, {"event": "x"}, id="9-1")
        await wait_until(lambda: found.positions[-1] == "9-1")
        await found.goes_on()
    assert {gap.lost for gap in found.gaps} == {await count_where_known(client, 1)}
