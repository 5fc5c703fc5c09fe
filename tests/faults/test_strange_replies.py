"""Replies of another shape now and then: an error or a gap, never a proof, a receipt or a bare error."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from redis.asyncio import Redis

from jwt_events import (
    Publisher,
    PublishError,
    RedisPubSub,
    RedisStream,
    RevocationList,
    TokenRevoked,
    TransportError,
    Verdict,
)
from jwt_events.envelope import Envelope, encode
from jwt_events.transport.base import Batch, Failure, Receiver
from jwt_events.transport.dead_letters import DeadLetters
from tests.support.handling import soon
from tests.support.proxy import Proxy
from tests.support.raw import call, entries
from tests.support.resp import Mutator
from tests.support.waiting import scaled, wait_until

_SEEDS = 15
_STALENESS = 0.1
_ENTRIES = 12
_PAYLOAD = encode(Envelope(TokenRevoked(token_id="t")), source="tests")

Episode = Callable[["Scene"], Awaitable[None]]


class Scene:
    """A server, and a way to it on which replies are changed.

    Attributes:
        url: of the changed way.
        client: of the server itself.
        key: the stream or channel.
        chance: of this episode.
        mutator: what changes replies.
    """

    def __init__(self, url: str, client: Redis, key: str, seed: int, mutator: Mutator) -> None:
        self.url = url
        self.client = client
        self.key = key
        self.chance = random.Random(seed)
        self.mutator = mutator

    async def fill(self) -> list[str]:
        """Append some entries, and return their positions."""
        added = [await call(self.client, "XADD", self.key, "*", "event", _PAYLOAD) for _ in range(_ENTRIES)]
        return [position.decode() for position in added]


async def publishing(scene: Scene) -> None:
    """A receipt names the position at which the server has this event."""
    async with Publisher(RedisStream(scene.url, scene.key), source="tests", timeout=scaled(0.5)) as publisher:
        for number in range(_ENTRIES):
            event = TokenRevoked(token_id=f"t{number}")
            try:
                receipt = await publisher.publish(event)
            except PublishError:
                continue
            stored = dict(await entries(scene.client, scene.key))
            assert receipt.position in stored
            assert event.id.encode() in stored[receipt.position][b"event"]


async def broadcasting(scene: Scene) -> None:
    """A receipt of a publish says how many got it."""
    async with Publisher(RedisPubSub(scene.url, scene.key), source="tests", timeout=scaled(0.5)) as publisher:
        for _ in range(_ENTRIES):
            try:
                receipt = await publisher.publish(TokenRevoked(token_id="t"))
            except PublishError:
                continue
            assert receipt.receivers == 0


async def reading(scene: Scene) -> None:
    """A batch that proves that a reader is current comes after everything was delivered."""
    positions, seen = await scene.fill(), set[str]()
    async with RedisStream(scene.url, scene.key, batch_size=5, block=0.02).receiver(from_oldest=True) as receiver:
        async for batch in _batches(receiver):
            seen |= {delivery.position or "" for delivery in batch.deliveries}
            assert seen <= {*positions}
            assert batch.current_as_of is None or seen == {*positions}
            if batch.current_as_of is not None and scene.chance.random() < 0.2:
                positions += await scene.fill()
                await asyncio.sleep(0)


async def checking(scene: Scene) -> None:
    """A list never lets a token in that was revoked longer than ``max_staleness`` ago."""
    stream = RedisStream(scene.url, scene.key, block=0.02)
    async with RevocationList(stream, max_staleness=_STALENESS) as revocations:
        for number in range(3):
            event = TokenRevoked(token_id=f"t{number}")
            await call(scene.client, "XADD", scene.key, "*", "event", encode(Envelope(event), source="tests"))
            revoked_at = time.monotonic()
            await wait_until(lambda: time.monotonic() > revoked_at + _STALENESS)  # noqa: B023 - waited for here
            assert revocations.check({"jti": f"t{number}"}) is not Verdict.ALLOW


async def sharing(scene: Scene) -> None:
    """A group's receiver delivers what is in the stream, and after all of it nothing is lost without a gap."""
    positions, seen, gaps = {*await scene.fill()}, set[str](), list[object]()
    stream = RedisStream(
        scene.url, scene.key, group="g", consumer="c", start="all", batch_size=5, block=0.02, claim_after=scaled(0.1)
    )
    async with stream.receiver() as receiver:
        async for batch in _batches(receiver):
            gaps += batch.gaps
            for delivery in batch.deliveries:
                assert delivery.position in positions
                seen.add(delivery.position)
                receiver.settle(delivery, None if scene.chance.random() < 0.8 else Failure("KeyError", handler="h"))
        scene.mutator.is_on = False
        async with asyncio.timeout(scaled(10)):
            while seen != positions and not gaps:
                batch = await receiver.receive()
                gaps += batch.gaps
                seen |= {delivery.position or "" for delivery in batch.deliveries}


async def listening(scene: Scene) -> None:
    """A subscriber hears what is sent, or is told of a gap."""
    async with RedisPubSub(scene.url, scene.key).receiver() as receiver:
        for _ in range(_ENTRIES):
            await call(scene.client, "PUBLISH", scene.key, _PAYLOAD)
            async with asyncio.timeout(scaled(10)):
                while True:
                    batch = await receiver.receive()
                    if batch.deliveries or batch.gaps:
                        break


async def managing_dead_letters(scene: Scene) -> None:
    """Dead letters are counted, listed, replayed and removed as they are, or not at all."""
    dead = f"{scene.key}:dead"
    for number in range(3):
        await call(scene.client, "XADD", dead, "*", "event", _PAYLOAD, "attempts", number, "time", "1700000000000")
    async with DeadLetters(RedisStream(scene.url, scene.key), timeout=scaled(0.5)) as letters:
        for _ in range(_ENTRIES):
            stored = [position for position, _ in await entries(scene.client, dead)]
            work = scene.chance.choice((letters.count, letters.list, letters.replay, letters.purge))
            arguments = stored[:1] if work in (letters.replay, letters.purge) else []
            try:
                done: Any = await work(*arguments)
            except TransportError:
                continue
            if work == letters.count:
                assert done == len(stored)
            elif work == letters.list:
                assert [letter.id for letter in done] == stored
            elif work == letters.replay:
                assert {*done} <= {position for position, _ in await entries(scene.client, scene.key)}


async def _batches(receiver: Receiver) -> AsyncIterator[Batch]:
    for _ in range(3 * _ENTRIES):
        yield await soon(receiver.receive())


@pytest.fixture
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connect again, and settle again, without long pauses."""
    delays = (
        "_redis.reconnecting._INITIAL_DELAY",
        "_redis.topology.OneServer.max_delay",
        "_stream.settler._INITIAL_DELAY",
        "_stream.settler._MAX_DELAY",
    )
    for name in delays:
        monkeypatch.setattr(f"jwt_events.transport.{name}", 0.001)
    monkeypatch.setattr("jwt_events.transport._stream.settler._FLUSH_WITHIN", 0.05)


@asynccontextmanager
async def _no_bare_error() -> AsyncIterator[None]:
    """Require that no callback and no task fails unseen."""
    loop, unseen = asyncio.get_running_loop(), list[dict[str, Any]]()
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: unseen.append(context))
    try:
        yield
    finally:
        loop.set_exception_handler(before)
    assert unseen == []


@pytest.mark.parametrize(
    "episode",
    [publishing, broadcasting, reading, checking, sharing, listening, managing_dead_letters],
    ids=lambda episode: episode.__name__,
)
async def test_an_episode(episode: Episode, url: str, client: Redis, key: str, in_a_hurry: None) -> None:
    """Every outcome is a library error, a gap, a new connection or the right result."""
    changed = 0
    for seed in range(_SEEDS):
        mutator = Mutator(seed, share=random.Random(seed).choice((0.03, 0.1, 0.3)))
        try:
            async with _no_bare_error(), Proxy(url) as proxy:
                proxy.to_client.damage = mutator
                with suppress(TransportError):
                    await episode(Scene(proxy.url, client, key, seed, mutator))
        except BaseException as error:
            error.add_note(f"seed {seed} of {episode.__name__}")
            raise
        changed += mutator.count
        await call(client, "DEL", key, f"{key}:dead")
    assert changed > _SEEDS
