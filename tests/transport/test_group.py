"""Consumer groups: each event goes to one consumer, is acknowledged when handled, and claimed if that one dies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from redis.asyncio import Redis

from jwt_events import Event, RedisStream, ServerRefused, Subscriber
from jwt_events.testing import Listener
from tests.support.examples import revoked
from tests.support.groups import RawGroup
from tests.support.handling import Gate, Recorder, publish
from tests.support.raw import call, entries
from tests.support.waiting import scaled, wait_until


@pytest.fixture
def make(url: str, key: str) -> Callable[..., RedisStream]:
    """Makes a `RedisStream` with a group."""

    def make(consumer: str | None = None, **options: Any) -> RedisStream:
        return RedisStream(url, key, **{"group": "g", "consumer": consumer, "start": "all"} | options)

    return make


Make = Callable[..., RedisStream]


@pytest.fixture
async def raw(client: Redis, key: str) -> RawGroup:
    """A group that begins with the first entry."""
    await client.xgroup_create(key, "g", "0", mkstream=True)
    return RawGroup(client, key)


class TestSharing:
    """Which consumer gets an event, and when it is acknowledged."""

    async def test_each_event_to_one(self, make: Make, raw: RawGroup) -> None:
        """Three consumers share the events; together they handle each once, and all are acknowledged."""
        async with Listener(make(batch_size=5)) as a, Listener(make(batch_size=5)) as b, Listener(make()) as c:
            await publish(make(), *(revoked(n) for n in range(200)))
            await wait_until(lambda: len(a.events) + len(b.events) + len(c.events) >= 200)
            await raw.all_acknowledged()
            assert sorted(a.subjects + b.subjects + c.subjects, key=str) == sorted(f"token-{n}" for n in range(200))
            assert a.gaps + b.gaps + c.gaps == []

    async def test_two_groups(self, make: Make, raw: RawGroup) -> None:
        """Each group gets every event."""
        async with Listener(make()) as one, Listener(make(group="other")) as other:
            await publish(make(), revoked(1), revoked(2))
            await one.hears("token-1", "token-2")
            await other.hears("token-1", "token-2")

    async def test_start(self, make: Make, client: Redis, key: str) -> None:
        """A group begins at its start position when it is first used, and then keeps its cursor."""
        await publish(make(), revoked(0), revoked(1), revoked(2))
        first = (await entries(client, key))[0][0]
        starts = {"all": [0, 1, 2, 3], first: [1, 2, 3], "new": [3]}
        async with AsyncExitStack() as stack:
            listeners = [
                await stack.enter_async_context(Listener(make(group=f"from {start}", start=start))) for start in starts
            ]
            await publish(make(), revoked(3))
            for listener, expected in zip(listeners, starts.values(), strict=True):
                await listener.hears("token-3")
                assert listener.subjects == [f"token-{n}" for n in expected]
        await publish(make(), revoked(4))
        async with Listener(make(group="from new", start="all")) as listener:
            await listener.hears("token-4")
            assert listener.subjects == ["token-4"]

    async def test_acknowledged_after_all_handlers(self, make: Make, raw: RawGroup) -> None:
        """An event stays pending until the last of its handlers has succeeded."""
        subscriber, recorder, gate = Subscriber(make()), Recorder(), Gate()
        subscriber.on()(recorder)
        subscriber.on()(gate)
        async with subscriber:
            await publish(make(), revoked(1))
            await recorder.has_seen(1)
            await wait_until(lambda: gate.running == 1)
            assert len(await raw.pending()) == 1
            gate.open()
            await raw.all_acknowledged()

    async def test_cut_off_is_not_acknowledged(self, make: Make, raw: RawGroup) -> None:
        """A handler that is cancelled when the subscriber ends leaves its event for the next one."""
        subscriber, gate = Subscriber(make("one"), drain_timeout=0.01), Gate()
        subscriber.on()(gate)
        async with subscriber:
            await publish(make(), revoked(1))
            await wait_until(lambda: gate.running == 1)
        assert list((await raw.pending()).values()) == ["one"]
        async with Listener(make("one")) as listener:
            await listener.hears("token-1")
            await raw.all_acknowledged()

    async def test_no_stream_but_another_thing(self, make: Make, client: Redis, key: str) -> None:
        """If the key holds another type, entering raises an error that tells so."""
        await client.set(key, "text")
        with pytest.raises(ServerRefused) as caught:
            await Listener(make()).__aenter__()
        assert caught.value.code == "WRONGTYPE"


class TestTakingOver:
    """Events that were delivered before."""

    async def test_own_first(self, make: Make, raw: RawGroup) -> None:
        """A consumer that returns begins with the entries that it holds, in order, before new ones."""
        await publish(make(), *(revoked(n) for n in range(5)))
        await raw.give("one", 3)
        async with Listener(make("one", batch_size=2, claim_after=60.0)) as listener:
            await listener.hears("token-4")
            await raw.all_acknowledged()
        assert listener.subjects == [f"token-{n}" for n in range(5)]

    async def test_only_what_is_stale(self, make: Make, raw: RawGroup) -> None:
        """Entries that another consumer has held for longer than the lease are claimed; newer ones are not."""
        await publish(make(), revoked(0), revoked(1))
        stale, fresh = await raw.give("dead")
        await raw.pretend("dead", [stale], idle=61)
        async with Listener(make("one", claim_after=60.0)) as listener:
            await listener.hears("token-0")
            await publish(make(), revoked(2))
            await listener.hears("token-2")
            await wait_until(lambda: listener.subscriber.stats.handled == 2)
            assert await raw.pending() in ({fresh: "dead"}, {fresh: "dead", stale: "one"})
        assert listener.subjects == ["token-0", "token-2"]

    async def test_soon_after_the_lease_has_ended(self, make: Make, raw: RawGroup) -> None:
        """A dead consumer's events are handled by another one as soon as its lease has ended, in batches."""
        await publish(make(), *(revoked(n) for n in range(25)))
        await raw.give("dead")
        async with Listener(make(claim_after=scaled(0.5), batch_size=10)) as listener:
            await listener.hears(*(f"token-{n}" for n in range(25)), within=2.5)
            await raw.all_acknowledged()
        assert (len(listener.events), listener.gaps) == (25, [])

    async def test_removed_meanwhile(self, make: Make, raw: RawGroup) -> None:
        """Entries that were removed while a consumer held them are a gap with their count."""
        await publish(make(), *(revoked(n) for n in range(5)))
        for consumer, count in (("dead", 3), ("one", 2)):
            await raw.give(consumer, count)
        await call(raw.client, "XTRIM", raw.key, "MAXLEN", 1)
        async with Listener(make("one", claim_after=0.05)) as listener:
            await listener.hears("token-4")
            await raw.all_acknowledged()
            await wait_until(lambda: sum(gap.lost or 0 for gap in listener.gaps) == 4)
        assert listener.subjects == ["token-4"]
        assert set(listener.causes) == {"trimmed"}

    async def test_a_long_handler_keeps_its_lease(self, make: Make, raw: RawGroup) -> None:
        """A handler that takes three times as long as the lease keeps its event: no other consumer gets it."""
        gate, lease = Gate(), scaled(0.5)
        one = Subscriber(make(claim_after=lease))
        one.on()(gate)
        async with one, Listener(make(claim_after=lease)) as other:
            ends_at = 0.0
            while not gate.running:  # until this consumer gets an event
                await publish(make(), revoked(len(other.events)))
                ends_at = asyncio.get_running_loop().time() + 3 * lease
                await wait_until(lambda: gate.running or len(other.events))
            held = gate.seen[0].subject
            await wait_until(lambda: asyncio.get_running_loop().time() > ends_at)
            assert held not in other.subjects
            assert len(gate.seen) == 1
            gate.open()
            await raw.all_acknowledged()

    async def test_delivered_too_often(self, make: Make, raw: RawGroup) -> None:
        """Each event of a large claimed batch has its own count of deliveries, the last ones too."""
        await publish(make(), *(revoked(n) for n in range(1_500)))
        await raw.pretend("dead", await raw.give("dead"), idle=61, deliveries=10)
        async with Listener(make(batch_size=2_000, claim_after=30.0)) as listener:
            await wait_until(lambda: listener.subscriber.stats.dead_lettered == 1_500)
            await raw.all_acknowledged(within=60)  # they are kept one by one
        assert listener.events == []


async def test_order_by_key(make: Make, raw: RawGroup) -> None:
    """Events of one key that one consumer gets are handled in order and never two at a time."""
    running, order = set[str | None](), list[str | None]()
    subscriber = Subscriber(make(), ordered_by=lambda event: getattr(event, "user_id", None))

    @subscriber.on()
    async def handle(event: Event) -> None:
        user = getattr(event, "user_id", None)
        assert user not in running
        running.add(user)
        await asyncio.sleep(0)
        running.discard(user)
        order.append(event.subject)

    async with subscriber:
        await publish(make(), *(revoked(n, user_id="u") for n in range(50)))
        await raw.all_acknowledged()
    assert order == [f"token-{n}" for n in range(50)]
    assert subscriber.stats.failed == 0
