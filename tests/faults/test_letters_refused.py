"""Dead letters that the server refuses for good: reading goes on, memory is bounded, nothing is dropped silently."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from jwt_events import Metrics, RedisStream, Subscriber, TokenRevoked
from jwt_events.embedded import EmbeddedServer
from jwt_events.transport._stream import settler, unwritten
from jwt_events.transport.base import Failure, Receiver
from tests.support.handling import publish
from tests.support.raw import call
from tests.support.records import recorded
from tests.support.waiting import wait_until

DROPPED = "dead letters dropped, the server does not take them"
FORGOTTEN = "deliveries not acknowledged, they will be delivered again"
KEPT = 10
SENT = 30


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep few."""
    monkeypatch.setattr(unwritten, "MAX_LETTERS", KEPT)
    monkeypatch.setattr(settler, "_MAX_FINISHED", KEPT)


@asynccontextmanager
async def refusing(client: Redis, why: str) -> AsyncIterator[None]:
    """Let the server refuse dead letters in the block."""
    match why:
        case "another type":
            await call(client, "SET", "k:dead", "x")
        case "no right":
            await call(client, "ACL", "SETUSER", "default", "resetkeys", "~k", "~k:ledger*")
        case "out of memory":
            await call(client, "CONFIG", "SET", "maxmemory", 1)
    yield
    await call(client, "ACL", "SETUSER", "default", "allkeys")
    await call(client, "CONFIG", "SET", "maxmemory", 0)
    if why == "another type":
        await call(client, "DEL", "k:dead")


@pytest.mark.parametrize("why", ["another type", "no right", "out of memory"])
@pytest.mark.parametrize("group", [None, "workers"])
async def test_refused(own_server: Callable[..., EmbeddedServer], group: str | None, why: str) -> None:
    """The oldest of too many are dropped and reported; in a group they are delivered again, and none is lost."""
    async with own_server() as server, Redis.from_url(server.url) as client:
        options: dict[str, Any] = {"group": group, "claim_after": 0.5} if group else {}
        stream = RedisStream(server.url, "k", start="all", block=0.05, **options)
        for number in range(SENT):
            await call(client, "XADD", "k", "*", "event", f"junk {number}")
        good = await call(client, "XADD", "k", "*", "event", "good")
        with recorded() as records:
            async with stream.receiver() as receiver:
                seen: list[str | None] = []
                reading = asyncio.create_task(_read(receiver, seen))
                async with refusing(client, why):
                    await wait_until(lambda: good.decode() in seen, within=30, what="the good one, behind all others")
                    await wait_until(lambda: records.of(DROPPED), within=30, what="an error")
                    assert len(receiver.settler._given_up) <= KEPT  # type: ignore[attr-defined]  # both have one

                async def kept() -> bool:
                    found = {fields[b"position"] for _, fields in await call(client, "XRANGE", "k:dead", "-", "+")}
                    return len(found) == (SENT if group else KEPT)

                await wait_until(kept, within=30, what="the dead letters")
                reading.cancel()
    assert records.of(DROPPED, "ERROR")[-1]["count"] >= SENT - KEPT


async def _read(receiver: Receiver, seen: list[str | None]) -> None:
    while True:
        for delivery in (await receiver.receive()).deliveries:
            seen.append(delivery.position)
            receiver.settle(delivery, None if delivery.payload == b"good" else Failure("DecodeError: not_json"))


@pytest.mark.parametrize("group", [None, "workers"])
async def test_counted(own_server: Callable[..., EmbeddedServer], group: str | None) -> None:
    """Each that was dropped is counted once: of too many, and when the subscriber ends."""
    registry = CollectorRegistry()
    dropped = partial(registry.get_sample_value, "jwt_events_dead_letters_dropped_total", {"transport": "stream"})
    async with own_server() as server, Redis.from_url(server.url) as client, refusing(client, "another type"):
        subscriber = Subscriber(RedisStream(server.url, "k", group=group), metrics=Metrics(registry))
        with recorded() as records:
            async with subscriber:
                assert dropped() == 0
                for number in range(SENT):
                    await call(client, "XADD", "k", "*", "event", f"junk {number}")
                await wait_until(lambda: dropped() == SENT - KEPT, within=30, what="those that are too many")
        assert dropped() == SENT
    assert records.of(DROPPED, "ERROR")[-1]["count"] == SENT


async def test_acknowledgements_refused(own_server: Callable[..., EmbeddedServer]) -> None:
    """Deliveries that the server does not acknowledge are forgotten beyond a limit, and stay pending there."""
    async with own_server() as server, Redis.from_url(server.url) as client:
        stream = RedisStream(server.url, "k", group="workers", start="all", block=0.05, claim_after=600)
        await publish(RedisStream(server.url, "k"), *(TokenRevoked(token_id=f"t{n}") for n in range(SENT)))
        async with stream.receiver() as receiver:
            await call(client, "ACL", "SETUSER", "default", "-xack")
            with recorded() as records:
                seen = await _settled(receiver, SENT)
                await wait_until(lambda: records.of(FORGOTTEN, "ERROR"), within=30, what="an error")
            assert len(seen) == SENT
            assert sum(one["count"] for one in records.of(FORGOTTEN)) == SENT - KEPT
            await call(client, "ACL", "SETUSER", "default", "+xack")

            async def pending() -> bool:
                return bool((await call(client, "XPENDING", "k", "workers"))["pending"] == SENT - KEPT)

            await wait_until(pending, within=30)


async def _settled(receiver: Receiver, number: int) -> list[str | None]:
    seen: list[str | None] = []
    while len(seen) < number:
        for delivery in (await receiver.receive()).deliveries:
            seen.append(delivery.position)
            receiver.settle(delivery)
    return seen
