"""What an instance says about itself, and entries that are not understood."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jwt_events import (
    Fleet,
    InvalidOption,
    Lease,
    MemoryTransport,
    Publisher,
    RedisPubSub,
    RevocationList,
    TokenRevoked,
)
from jwt_events.fleet import Announcement, Announcer, Condition, parse
from jwt_events.transport.optional import Registry, Stored
from tests.support.records import watching
from tests.support.strategies import json_values
from tests.support.waiting import wait_until

SAID = Announcement(
    service="orders",
    instance="o-1",
    run="6f",
    position="1700000000000-5",
    lease=5.0,
    allows_stale=False,
    state="fresh",
    staleness=0.1,
    said_at=1700000000.5,
    version="1.0",
)

announcements = st.builds(
    Announcement,
    service=st.sampled_from(["orders", "billing"]),
    instance=st.sampled_from(["a", "b-1", "pod_7.x"]),
    run=st.sampled_from(["1", "2"]),
    position=st.sampled_from(["", "0-0", "5-0", "9-3"]),
    lease=st.floats(0.1, 100),
    allows_stale=st.booleans(),
    state=st.sampled_from(["fresh", "stale", "closed"]),
    staleness=st.none() | st.floats(0, 1e6),
    said_at=st.none() | st.floats(0, 2e9),
    lost_at=st.none() | st.floats(0, 2e9),
    version=st.just("1.0"),
    trouble=st.text(max_size=20),
    history=st.sampled_from(["", "", "a", "b"]),
)


@given(announcements)
def test_it_comes_back(said: Announcement) -> None:
    """What was encoded is parsed as it was."""
    assert parse(said.field, said.encode()) == said


@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_what_is_no_entry(entry: bytes) -> None:
    """Bytes of another program are no announcement, and no error."""
    assert parse(SAID.field, entry) is None


@pytest.mark.parametrize(
    "members",
    [
        {"lease": True},
        {"lease": "5"},
        {"lease": 0},
        {"lease": -1.0},
        {"lease": float("nan")},
        {"lease": float("inf")},
        {"lease": 1e300},
        {"allows_stale": 1},
        {"allows_stale": None},
        {"position": None},
        {"position": 5},
        {"said_at": "now"},
        {"service": "billing"},
        {"run": "7"},
        {"state": ["fresh"]},
    ],
)
def test_an_entry_that_is_not_sound(members: dict[str, Any]) -> None:
    """An entry with one wrong member, or of another instance than its field names, is not believed."""
    entry = json.dumps(asdict(SAID) | members).encode()
    assert parse(SAID.field, entry) is None


def test_a_later_version() -> None:
    """Members that are not known yet are passed over."""
    entry = json.dumps(asdict(SAID) | {"color": "red"}).encode()
    assert parse(SAID.field, entry) == SAID
    assert parse(SAID.field, replace(SAID, trouble="x" * 5_000).encode()) is None  # none that this library writes


@pytest.mark.parametrize("name", ["", "two words", "a/b", "x" * 129, "naïve", "a\n", 5])
@pytest.mark.parametrize("option", ["service", "instance", "services"])
def test_names(option: str, name: Any) -> None:
    """A name has 1 to 128 visible ASCII characters without a slash."""
    names = {"service": "s", "instance": "i", option: name}
    make = partial(Fleet, name) if option == "services" else partial(RevocationList, MemoryTransport(), **names)
    with pytest.raises(InvalidOption, match=f"{option}: must be 1 to 128 visible ASCII"):
        make()


def test_half_a_name() -> None:
    """The service and the instance are given together."""
    with pytest.raises(InvalidOption, match="instance: is missing"):
        RevocationList(MemoryTransport(), service="orders")
    with pytest.raises(InvalidOption, match="service: is missing"):
        RevocationList(MemoryTransport(), instance="o-1")


def test_a_lease_that_publishers_would_not_understand() -> None:
    """A list with a longer lease is refused, as they would overlook it."""
    with pytest.raises(InvalidOption, match="max_staleness: must be at most 31622400 s"):
        RevocationList(MemoryTransport(), service="orders", instance="o-1", max_staleness=4e7)
    RevocationList(MemoryTransport(), max_staleness=4e7)


async def test_trouble_that_is_no_unicode() -> None:
    """The path of a file may be part of what is announced."""
    transport = MemoryTransport()
    announcer = Announcer(transport, "orders", "o-1", lease=5.0, allows_stale=False)
    announcer.open(lambda: Condition("0-0", "", "stale", None, "no \udcff"))
    try:
        await announcer.attempted.wait()
        async with transport.registry() as registry:
            ((field, entry),) = (await registry.entries(within=5.0)).entries.items()
        said = parse(field, entry)
        assert said is not None
        assert said.trouble == "no ?"
    finally:
        await announcer.aclose()


@asynccontextmanager
async def opened(announcer: Announcer, state: str) -> AsyncIterator[None]:
    """Announce an instance, whose list has this state, while the block runs."""
    announcer.open(lambda: Condition("0-0", "", state, None, ""))
    try:
        yield
    finally:
        await announcer.aclose()


async def said_by(announcer: Announcer, transport: MemoryTransport) -> Announcement:
    """Return what the announcer has said last."""
    await announcer.attempted.wait()
    async with transport.registry() as registry:
        ((field, entry),) = (await registry.entries(within=5.0)).entries.items()
    said = parse(field, entry)
    assert said is not None
    return said


async def test_an_instance_that_is_killed_early() -> None:
    """Its entry has an age, long before the second beat, so that it is forgotten one day."""
    transport = MemoryTransport()
    announcer = Announcer(transport, "orders", "o-1", lease=600.0, allows_stale=False)
    async with opened(announcer, "catching_up"):

        async def has_age() -> bool:
            return (await said_by(announcer, transport)).said_at is not None

        await wait_until(has_age)


class _Failing(MemoryTransport):
    """A transport whose registry fails with an error of its own each second time."""

    def __init__(self) -> None:
        super().__init__()
        self.attempts = 0

    @asynccontextmanager
    async def registry(self) -> AsyncIterator[Registry]:
        """Open the registry."""
        async with super().registry() as registry:
            store = registry.announce

            async def announce(name: str, entry: bytes, *, within: float) -> Stored:
                self.attempts += 1
                if self.attempts % 2 == 0:
                    raise LookupError("a secret")
                return await store(name, entry, within=within)

            registry.announce = announce  # type: ignore[method-assign]  # of this object alone
            yield registry


async def test_a_registry_that_fails_oddly() -> None:
    """Whatever it raises, the instance stays announced: publishers must wait for it as long as its list is open."""
    transport = _Failing()
    announcer = Announcer(transport, "orders", "o-1", lease=0.1, allows_stale=False)
    async with opened(announcer, "fresh"):
        with watching("a secret"):
            await wait_until(lambda: transport.attempts > 6)
        assert (await said_by(announcer, transport)).instance == "o-1"


async def test_an_entry_that_was_lost() -> None:
    """An instance that finds its entry gone says so, and when; one that opens does not."""
    transport = MemoryTransport()
    announcer = Announcer(transport, "orders", "o-1", lease=600.0, allows_stale=False)
    for _ in range(2):
        async with opened(announcer, "fresh"):
            said = await said_by(announcer, transport)
            assert said.lost_at is None
            async with transport.registry() as registry:
                await registry.forget([said.field], within=5.0)
            began = time.time()
            announcer.hurry()

            async def lost_at() -> float | None:
                async with transport.registry() as registry:
                    entries = (await registry.entries(within=5.0)).entries
                said = parse(announcer._said.field, entries.get(announcer._said.field, b""))
                return None if said is None else said.lost_at

            async def is_told() -> bool:
                return await lost_at() is not None

            await wait_until(is_told)
            assert began - 1 <= (await lost_at() or 0) <= time.time()


async def test_what_cannot_be_waited_for() -> None:
    """It is refused before anything is sent."""
    event = TokenRevoked(token_id="t")
    in_force: Any
    async with Publisher(RedisPubSub("redis://127.0.0.1:1")) as publisher:
        for in_force in (Lease(), Fleet(), 5.0, "orders", Lease):
            with pytest.raises(InvalidOption, match="in_force: "):
                await publisher.publish(event, in_force=in_force)
            with pytest.raises(InvalidOption, match="in_force: "):
                await publisher.publish_many([event], in_force=in_force)
    for seconds in (0, -1, float("nan"), float("inf"), True, "5"):
        bad: Any = seconds
        with pytest.raises(InvalidOption):
            Lease(bad)
        with pytest.raises(InvalidOption):
            Fleet(timeout=bad)
        with pytest.raises(InvalidOption):
            Fleet(lease=bad)
