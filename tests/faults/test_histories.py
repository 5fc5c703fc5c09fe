"""A failover loses events that a list has applied, and the new primary's clock is behind: positions are given again."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import Redis

from jwt_events import Fleet, Publisher, RedisStream, RevocationList, TokenRevoked, Verdict
from jwt_events.envelope import ask_to_confirm, encode_event
from jwt_events.fleet import Status, parse, standings
from tests.faults.failover import MakeServer, Pair, pair
from tests.support.raw import call
from tests.support.waiting import wait_until

AHEAD = 10**15  # milliseconds since 1970: no clock of a server is so far ahead
LONG = 600.0


async def lose(both: Pair, number: int) -> None:
    """Add an event at the old server that the new one has not, far ahead of its clock."""
    payload = ask_to_confirm(encode_event(TokenRevoked(token_id="lost"), source="test"))
    await call(both.old, "XADD", "k", f"{AHEAD}-{number}", "event", payload)


async def announced(client: Redis) -> str:
    """Return the position that the only instance has announced at a server; empty for none."""
    found: Any = await client.hgetall("k:fleet")
    said = [parse(field.decode(), entry) for field, entry in found.items()]
    return said[0].position if said and said[0] is not None else ""


async def readings(client: Redis) -> int:
    """Return how often the registry of a server was read."""
    found: Any = await client.info("commandstats")
    return int(found.get("cmdstat_hgetall", {"calls": 0})["calls"])


async def disconnect(client: Redis, *commands: str) -> None:
    """Close the connections whose last command was one of these."""
    for one in await client.client_list():
        if one["cmd"] in commands:
            await client.client_kill_filter(_id=one["id"])


@asynccontextmanager
async def list_ahead(own_server: MakeServer) -> AsyncIterator[tuple[Pair, RevocationList]]:
    """Run a list that reads at the old server, has applied what the new one lacks, and announces itself at the new."""
    async with pair(own_server) as both:
        transport = RedisStream(both.name.url, "k")
        async with (
            Publisher(transport) as publisher,
            RevocationList(transport, service="orders", instance="a", max_staleness=LONG) as one,
        ):
            await publisher.publish(TokenRevoked(token_id="kept"), in_force=Fleet("orders"))
            await call(both.new, "REPLICAOF", "NO", "ONE")
            both.switch()
            await disconnect(both.old, "hset", "time")  # of the announcer; the reader stays
            numbers = itertools.count()

            async def is_announced() -> bool:
                await lose(both, next(numbers))  # with each the list announces itself
                return (await announced(both.new)).startswith(f"{AHEAD}-")

            await wait_until(is_announced, what="the announcement at the new server")
            yield both, one


async def test_acknowledgement(own_server: MakeServer) -> None:
    """A position of the lost events does not acknowledge a new one, until the list has applied that."""
    async with list_ahead(own_server) as (both, one), Publisher(RedisStream(both.new_url, "k")) as publisher:
        before = await readings(both.new)
        waiting = asyncio.create_task(publisher.publish(TokenRevoked(token_id="t"), in_force=Fleet("orders")))

        async def was_read() -> bool:
            return waiting.done() or await readings(both.new) > before + 2

        await wait_until(was_read, what="the registry to be read")
        assert one.check({"jti": "t"}) is Verdict.ALLOW  # it still relies on what it proved at the old server
        assert not waiting.done()
        await both.demote()
        receipt = await waiting
        assert receipt.propagation is not None
        assert receipt.propagation.acknowledged == ["orders/a"]
        assert one.check({"jti": "t"}) is Verdict.REVOKED


async def test_standing(own_server: MakeServer) -> None:
    """A person sees that the list is behind, and when it no longer is."""
    async with list_ahead(own_server) as (both, one), RedisStream(both.new_url, "k").registry() as registry:

        async def status() -> Status:
            (standing,) = standings(await registry.entries(within=5.0), "1-0")
            return standing.status

        assert await status() is Status.BEHIND
        await both.demote()
        await wait_until(lambda: not one.has_applied(f"{AHEAD}-0"), what="the list to read at the new server")

        async def is_fresh() -> bool:
            return await status() is Status.FRESH

        await wait_until(is_fresh)


async def test_nothing_is_left(own_server: MakeServer) -> None:
    """At a server whose stream is empty the list has applied no position, however far it had come before."""
    async with list_ahead(own_server) as (both, one):
        await both.new.delete("k")
        assert one.has_applied(f"{AHEAD}-0")
        await both.demote()
        await wait_until(lambda: not one.has_applied("0-1"), what="the list to read at the new server")
        assert one.check({"jti": "lost"}) is Verdict.REVOKED
