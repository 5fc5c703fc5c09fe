"""Consumer names, which are distinct within a process, and the removal of abandoned consumers."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from jwt_events import Closed, InvalidOption, RedisStream, Subscriber
from jwt_events.testing import Listener
from jwt_events.transport._stream.consumer_group import ConsumerGroup, new_consumer_name, reserve_consumer_name
from tests.support.examples import revoked
from tests.support.groups import RawGroup
from tests.support.handling import Gate, publish
from tests.support.raw import call
from tests.support.waiting import wait_until

Make = Callable[..., RedisStream]


@pytest.fixture
def make(url: str, key: str) -> Make:
    """Makes a `RedisStream` with a group."""

    def make(consumer: str | None = None, **options: Any) -> RedisStream:
        return RedisStream(url, key, **{"group": "g", "consumer": consumer, "start": "all"} | options)

    return make


@pytest.fixture
async def raw(client: Redis, key: str) -> RawGroup:
    """A group that begins with the first entry."""
    await client.xgroup_create(key, "g", "0", mkstream=True)
    return RawGroup(client, key)


class TestNames:
    """Names of consumers."""

    async def test_distinct_by_themselves(self, make: Make, raw: RawGroup) -> None:
        """Consumers of one process get distinct names by default, and are removed when they end."""
        async with Listener(make()), Listener(make()), Listener(make()):

            async def three() -> bool:
                await publish(make(), revoked(1))  # Redis 7.0 lists a consumer only when it has got an entry
                return len(await raw.consumers()) == 3

            await wait_until(three)
            await raw.all_acknowledged()
        assert await raw.consumers() == set()

    async def test_one_for_each_receiver(self, make: Make) -> None:
        """A name is made when a receiver opens, so processes that were forked with the transport have their own."""
        transport, names = make(), set[str]()
        for _ in range(3):
            async with transport.receiver() as receiver:
                names.add(receiver._group.consumer)  # type: ignore[attr-defined]  # there is no public way to ask
        assert len(names) == 3

    @pytest.mark.parametrize("host", ["a" * 1_000, "h"])
    def test_after_a_fork(self, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Containers may share the name of a host and the number of a process, and a fork the state of `random`."""
        monkeypatch.setattr("socket.gethostname", lambda: host)
        monkeypatch.setattr("os.getpid", lambda: 1)
        names = set[str]()
        for _ in range(100):
            random.seed(1)
            names.add(new_consumer_name())
        assert len(names) == 100
        assert {name.startswith(host[:90]) and len(name) <= 128 for name in names} == {True}

    def test_reservations(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A name is in use in one database of one server, by one process: a child does not run what its parent runs."""
        group = ConsumerGroup("key", "g", "one")
        with reserve_consumer_name("host:1", 0, group):
            with pytest.raises(Closed), reserve_consumer_name("host:1", 0, group):
                pass
            with reserve_consumer_name("host:1", 1, group), reserve_consumer_name("host:2", 0, group):
                pass
            monkeypatch.setattr("os.getpid", lambda: -1)
            with reserve_consumer_name("host:1", 0, group):
                pass

    async def test_a_name_that_is_in_use(self, make: Make, raw: RawGroup) -> None:
        """A name cannot be used twice at the same time in a process; afterwards it can be used again."""
        async with Listener(make("one")):
            with pytest.raises(Closed):
                await Listener(make("one")).__aenter__()
            async with Listener(make("one", group="other")):
                pass
        async with Listener(make("one")):
            pass

    @pytest.mark.parametrize("option", ["group", "consumer"])
    @pytest.mark.parametrize("name", ["", " ", "n" * 129, "a\nb", "a\0b", 7], ids=repr)
    def test_bad_names(self, option: str, name: object) -> None:
        """A name is 1 to 128 printable characters."""
        options: dict[str, Any] = {"group": "g"} | {option: name}
        with pytest.raises(InvalidOption) as caught:
            RedisStream("redis://localhost", **options)
        assert caught.value.option == option

    @pytest.mark.parametrize("options", [{"consumer": "one"}, {"group": "g", "claim_after": 0}])
    def test_options_that_cannot_work(self, options: dict[str, Any]) -> None:
        """A consumer needs a group, and a lease must be longer than zero."""
        with pytest.raises(InvalidOption):
            RedisStream("redis://localhost", **options)

    def test_a_lease_that_is_too_short(self) -> None:
        """A handler timeout longer than the lease is refused: other consumers would claim its event."""
        transport = RedisStream("redis://localhost", group="g", claim_after=5.0)
        with pytest.raises(InvalidOption) as caught:
            Subscriber(transport, handler_timeout=6.0)
        assert caught.value.option == "handler_timeout"
        Subscriber(transport, handler_timeout=5.0)


class TestRemoval:
    """Removal of consumers that have ended."""

    async def test_who_still_holds_something_stays(self, make: Make, raw: RawGroup) -> None:
        """A consumer that ends while it holds an entry is not removed, as the entry would be lost."""
        subscriber = Subscriber(make("one"), drain_timeout=0.01)
        gate = Gate()
        subscriber.on()(gate)
        async with subscriber:
            await publish(make(), revoked(1))
            await wait_until(lambda: gate.running == 1)
        assert await raw.consumers() == {"one"}
        assert len(await raw.pending()) == 1

    async def test_in_one_step(self, make: Make, raw: RawGroup) -> None:
        """A consumer is removed only if it holds no entries and was idle for long enough."""
        await publish(make(), revoked(1))
        await raw.give("holds something")
        await raw.give("holds nothing")

        async def remove(consumer: str, idle: int) -> int:
            return int(await call(raw.client, *ConsumerGroup(raw.key, "g", consumer).remove(consumer, idle=idle)))

        assert await remove("holds something", 0) == -1
        assert await remove("holds nothing", 3_600_000) == -1
        assert await raw.consumers() == {"holds something", "holds nothing"}
        assert await remove("holds nothing", 0) == 0
        assert await raw.consumers() == {"holds something"}
        assert await remove("unknown", 0) == -1

    async def test_by_another_consumer(self, make: Make, raw: RawGroup) -> None:
        """Killed consumers are removed by one that runs, as soon as their entries have been claimed."""
        await publish(make(), revoked(1))
        await raw.give("holds something")
        async with Listener(make("one", claim_after=0.1)) as one:
            await raw.give("holds nothing")
            await wait_until(lambda: one.events)  # what the first one held was claimed

            async def is_so() -> bool:
                return await raw.consumers() == {"one"}

            await wait_until(is_so)
