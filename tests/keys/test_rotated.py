"""Effects of rotations on the keys, in any order of arrival."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jwt_events import (
    CompromisedKey,
    Event,
    EventType,
    InvalidOption,
    KeyRotated,
    KeysUnavailable,
    RetiredKey,
    SigningKeys,
    TokenRevoked,
    UnknownKey,
)
from jwt_events.keys import _fetcher
from tests.support.examples import received
from tests.support.issuers import Clock, Issuer, entry
from tests.support.records import watching
from tests.support.waiting import wait_until


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the keys."""
    clock = Clock()
    monkeypatch.setattr(_fetcher, "time", clock)
    monkeypatch.setattr(_fetcher, "boottime", clock.monotonic)
    return clock


@pytest.fixture
def issuer() -> Issuer:
    """An issuer with two keys."""
    return Issuer("old", "new")


def rotated(key_id: str = "new", **fields: Any) -> KeyRotated:
    """Return a rotation; ``at`` is when it occurred, ``retire`` when the old key retires, in seconds from now."""
    now = datetime.now(UTC)
    if "at" in fields:
        fields["occurred_at"] = now + timedelta(seconds=fields.pop("at"))
    if "retire" in fields:
        fields |= {"previous_key_id": "old", "retire_at": now + timedelta(seconds=fields.pop("retire"))}
    return KeyRotated(key_id=key_id, **fields)


COMPROMISED = rotated("old", compromised=True)


def rotation(event: Event) -> KeyRotated:
    """Return the event, which is a rotation."""
    assert isinstance(event, KeyRotated)
    return event


class TestCompromised:
    """A compromised key."""

    async def test_evicted(self, issuer: Issuer, clock: Clock) -> None:
        """A compromised key is refused at once, and stays refused while the issuer still lists it."""
        keys = SigningKeys(issuer.fetch, max_age=100)
        await keys.get("old")
        keys.apply(COMPROMISED)
        for _ in range(5):
            with pytest.raises(CompromisedKey):
                await keys.get("old")
            await keys.get("new")
            clock.advance(101)
        assert issuer.calls >= 5
        assert len(keys._keyring._leaked) == 1

    @pytest.mark.parametrize("names", [("new", "old"), ("old", "new")])
    async def test_one_of_two(self, issuer: Issuer, clock: Clock, names: tuple[str, str]) -> None:
        """A received rotation that says of two keys that one is compromised makes both invalid, for ever."""
        issuer.list("old", "new", "next")
        keys = SigningKeys(issuer.fetch, max_age=100)
        await keys.get("old")
        event = received(EventType.KEY_ROTATED, key_id=names[0], previous_key_id=names[1], compromised=True)
        keys.apply(rotation(event))
        keys.apply(rotated("new", previous_key_id="old"))
        for _ in range(3):
            for kid in names:
                with pytest.raises(CompromisedKey):
                    await keys.get(kid)
            await keys.get("next")
            clock.advance(101)

    async def test_before_the_first_fetch(self, issuer: Issuer) -> None:
        """A key compromised before the first fetch is never accepted, and nothing is fetched for it."""
        keys = SigningKeys(issuer.fetch)
        keys.apply(COMPROMISED)
        with pytest.raises(CompromisedKey):
            await keys.get("old")
        assert issuer.calls == 0
        await keys.get("new")
        with pytest.raises(CompromisedKey):
            await keys.get("old")

    async def test_during_a_fetch(self, issuer: Issuer) -> None:
        """A fetch that started before does not restore it, also for callers that wait for that fetch."""
        keys = SigningKeys(issuer.fetch)
        issuer.open.clear()
        waiting = asyncio.create_task(keys.get("old"))
        await wait_until(lambda: issuer.calls)
        keys.apply(COMPROMISED)
        issuer.open.set()
        with pytest.raises(CompromisedKey):
            await waiting
        with pytest.raises(CompromisedKey):
            await keys.get("old")

    @pytest.mark.parametrize("seconds", [-60, 60], ids=["older", "newer"])
    async def test_rotation_to_it(self, issuer: Issuer, seconds: float) -> None:
        """No other rotation makes it valid again, whatever the order in which they occurred and arrived."""
        for events in ([COMPROMISED, rotated("old", at=seconds)], [rotated("old", at=seconds), COMPROMISED]):
            keys = SigningKeys(issuer.fetch)
            for event in events:
                keys.apply(event)
            with pytest.raises(CompromisedKey):
                await keys.get("old")

    @pytest.mark.parametrize("heard_first", [True, False])
    async def test_other_names(self, issuer: Issuer, clock: Clock, heard_first: bool) -> None:
        """It is refused under its other names too, and does not verify tokens without a kid."""
        keys = SigningKeys(issuer.fetch, max_age=100)
        issuer.entries += [entry("old", kid="alias"), entry("old", kid=None)]
        if not heard_first:
            await keys.get("alias")
        keys.apply(COMPROMISED)
        assert (await keys.get(None)).key_id == "new"
        issuer.entries = [entry("old", kid="late alias"), entry("new")]
        clock.advance(100)
        await keys.get("new")
        for kid in ("alias", "late alias"):
            with pytest.raises(CompromisedKey):
                await keys.get(kid)

    async def test_during_an_outage(self, issuer: Issuer) -> None:
        """It is refused as compromised even while fetches fail."""
        keys = SigningKeys(issuer.fetch)
        issuer.error = OSError()
        with pytest.raises(KeysUnavailable):
            await keys.get("old")
        keys.apply(COMPROMISED)
        with pytest.raises(CompromisedKey):
            await keys.get("old")

    async def test_its_successor(self, issuer: Issuer) -> None:
        """Its successor is fetched for the next caller, although invented kids have used up the cooldown's fetch."""
        keys = SigningKeys(issuer.fetch, cooldown=3600)
        await keys.get("old")
        with pytest.raises(UnknownKey):
            await keys.get("invented")
        issuer.list("old", "new", "newest")
        keys.apply(COMPROMISED)
        await keys.get("new")
        await wait_until(lambda: keys.stats.fetches == 3 and keys._fetcher.current is None)
        await keys.get("newest")
        assert issuer.calls == 3


class TestRetired:
    """A key that was replaced."""

    async def test_retired_in_time(self, issuer: Issuer, clock: Clock) -> None:
        """A replaced key is valid until a few seconds after retire_at, and then refused, although it is listed."""
        keys = SigningKeys(issuer.fetch)
        keys.apply(rotated(retire=60))
        await keys.get("old")
        clock.advance(62)
        await keys.get("old")
        clock.advance(5)
        with pytest.raises(RetiredKey):
            await keys.get("old")
        assert (await keys.get("new")).key_id == "new"

    async def test_without_retire_at(self, issuer: Issuer, clock: Clock) -> None:
        """Without retire_at it is valid for as long as it is listed."""
        keys = SigningKeys(issuer.fetch)
        keys.apply(rotated(previous_key_id="old"))
        clock.advance(10_000)
        await keys.get("old")

    @pytest.mark.parametrize("backwards", [False, True])
    async def test_newest_event_counts(self, issuer: Issuer, backwards: bool) -> None:
        """The newest event about it counts, in any order of arrival."""
        keys = SigningKeys(issuer.fetch)
        for event in sorted([rotated(retire=-60, at=-3), rotated(retire=60, at=-2)], key=str, reverse=backwards):
            keys.apply(event)
        await keys.get("old")

    @pytest.mark.parametrize("backwards", [False, True])
    async def test_simultaneous_events(self, issuer: Issuer, backwards: bool) -> None:
        """Of two events that occurred at the same time the stricter one counts."""
        keys, now = SigningKeys(issuer.fetch), datetime.now(UTC)
        events = [rotated(retire=seconds, occurred_at=now) for seconds in (-60, 60)]
        for event in reversed(events) if backwards else events:
            keys.apply(event)
        with pytest.raises(RetiredKey):
            await keys.get("old")

    @pytest.mark.parametrize("backwards", [False, True])
    async def test_roll_back(self, issuer: Issuer, backwards: bool) -> None:
        """A rotation back to it makes it valid again."""
        events = [rotated(retire=-60, at=-9), rotated("old", previous_key_id="new", at=-8)]
        keys = SigningKeys(issuer.fetch)
        for event in reversed(events) if backwards else events:
            keys.apply(event)
        await keys.get("old")

    @pytest.mark.parametrize("backwards", [False, True])
    @pytest.mark.parametrize("previous", [{}, {"previous_key_id": "old"}], ids=["alone", "twice"])
    async def test_one_key_is_named(self, issuer: Issuer, previous: dict[str, str], backwards: bool) -> None:
        """A received rotation that names one key, or one key twice, retires it, until it is rotated to again."""
        retired = received(EventType.KEY_ROTATED, key_id="old", retire_at="2026-03-01T12:30:00Z", **previous)
        keys = SigningKeys(issuer.fetch)
        keys.apply(rotation(retired))
        with pytest.raises(RetiredKey):
            await keys.get("old")
        await keys.get("new")
        again = SigningKeys(issuer.fetch)
        for event in (rotated("old"), rotation(retired)) if backwards else (rotation(retired), rotated("old")):
            again.apply(event)
        await again.get("old")

    async def test_without_kid(self, issuer: Issuer) -> None:
        """A retired key does not verify tokens without a kid."""
        keys = SigningKeys(issuer.fetch)
        keys.apply(rotated(retire=-60))
        assert (await keys.get(None)).key_id == "new"


class TestAnnounced:
    """An announced key."""

    async def test_despite_the_cooldown(self, issuer: Issuer) -> None:
        """It is fetched although invented kids have used up the cooldown's fetch."""
        keys = SigningKeys(issuer.fetch, cooldown=3600)
        for kid in ("invented", "next"):
            with pytest.raises(UnknownKey):
                await keys.get(kid)
        issuer.list("next")
        keys.apply(rotated("next"))
        await keys.get("next")
        assert issuer.calls == 2

    async def test_after_a_negative_entry(self, issuer: Issuer) -> None:
        """It is fetched although it was not listed a moment ago."""
        keys = SigningKeys(issuer.fetch)
        with pytest.raises(UnknownKey):
            await keys.get("next")
        issuer.list("next")
        keys.apply(rotated("next"))
        await keys.get("next")

    async def test_during_a_fetch(self, issuer: Issuer) -> None:
        """A caller that waits for a fetch that started before gets it from the next fetch."""
        keys = SigningKeys(issuer.fetch, cooldown=3600)
        issuer.open.clear()
        waiting = asyncio.create_task(keys.get("next"))
        await wait_until(lambda: issuer.calls)
        issuer.list("next")
        keys.apply(rotated("next"))
        issuer.open.set()
        assert (await waiting).key_id == "next"
        assert issuer.calls == 2

    async def test_one_at_a_time(self, issuer: Issuer) -> None:
        """While a fetch is running, a caller of a known key starts no other, however long it is due."""
        keys = SigningKeys(issuer.fetch)
        await keys.get("old")
        issuer.open.clear()
        waiting = asyncio.create_task(keys.get("other"))
        await wait_until(lambda: issuer.calls == 2)
        keys.apply(rotated("next"))
        await keys.get("old")
        assert keys.stats.fetches == 2
        issuer.open.set()
        with pytest.raises(UnknownKey):
            await waiting

    async def test_usable_early(self, issuer: Issuer) -> None:
        """An announced key is accepted as soon as it is listed, also before its active_from."""
        keys = SigningKeys(issuer.fetch)
        keys.apply(rotated(active_from=datetime.now(UTC) + timedelta(days=1)))
        await keys.get("new")

    async def test_flood(self, issuer: Issuer, clock: Clock) -> None:
        """Many different rotations cause neither many fetches nor unbounded memory."""
        keys = SigningKeys(issuer.fetch, cooldown=10)
        await keys.get("old")
        for number in range(2_000):
            keys.apply(rotated(f"next-{number}"))
            await keys.get("old")
            await asyncio.sleep(0)
        await wait_until(lambda: keys._fetcher.current is None)
        assert issuer.calls == 2
        assert len(keys._plan._announced) <= 256

    async def test_duplicates(self, issuer: Issuer, clock: Clock) -> None:
        """A repeated rotation, of a key that is listed or compromised, starts no fetch."""
        keys = SigningKeys(issuer.fetch, cooldown=1)
        keys.apply(COMPROMISED)
        await keys.get("new")
        for event in (rotated(retire=60), COMPROMISED) * 10:
            keys.apply(event)
            await keys.get("new")
            clock.advance(1)
        assert keys.stats.fetches == 1

    async def test_history(self, issuer: Issuer, clock: Clock) -> None:
        """Rotations of last year, whose keys are no longer listed, cause no fetch after the first."""
        keys = SigningKeys(issuer.fetch, cooldown=10)
        for number in range(100):
            keys.apply(rotated(f"past-{number}", at=-86_400 * 365))
        for _ in range(20):
            await keys.get("new")
            await wait_until(lambda: keys._fetcher.current is None)
            clock.advance(10)
        assert issuer.calls == 1

    async def test_published_late(self, issuer: Issuer, clock: Clock) -> None:
        """A key that is listed later than announced is fetched again at growing intervals, and not for ever."""
        keys = SigningKeys(issuer.fetch, cooldown=10, max_age=1e6)
        await keys.get("old")
        keys.apply(rotated("next"))
        calls = []
        for _ in range(200):
            await keys.get("old")
            await wait_until(lambda: keys._fetcher.current is None)
            calls.append(issuer.calls)
            clock.advance(10)
        assert calls[0] == 2
        assert calls[10] <= 6
        assert calls[-1] == calls[100] <= 9

    async def test_fetched_before_active_from(self, issuer: Issuer, clock: Clock) -> None:
        """A key announced for tomorrow and not listed today is fetched again shortly before its active_from."""
        keys = SigningKeys(issuer.fetch, cooldown=10, max_age=1e6)
        keys.apply(rotated("next", active_from=clock.time() + 86_400))
        for _ in range(86_400 // 600):
            await keys.get("old")
            await wait_until(lambda: keys._fetcher.current is None)
            clock.advance(600)
        clock.advance(-5)
        issuer.list("old", "next")
        before = issuer.calls
        await keys.get("old")
        await wait_until(lambda: keys._fetcher.current is None)
        assert issuer.calls == before + 1
        await keys.get("next")
        assert issuer.calls == before + 1


class TestEvents:
    """Which events are applied."""

    async def test_other_issuers(self, issuer: Issuer) -> None:
        """With ``issuer``, rotations that name another issuer are ignored; those without an issuer are applied."""
        keys = SigningKeys(issuer.fetch, issuer="https://issuer.example")
        keys.apply(rotated("old", compromised=True, issuer="https://other.example"))
        await keys.get("old")
        keys.apply(rotated("old", compromised=True, issuer="https://issuer.example"))
        keys.apply(rotated("new", compromised=True))
        for kid in ("old", "new"):
            with pytest.raises(CompromisedKey):
                await keys.get(kid)

    async def test_other_events(self, issuer: Issuer) -> None:
        """An event of another type is refused."""
        other: Any = TokenRevoked(token_id="t")
        with pytest.raises(InvalidOption):
            SigningKeys(issuer.fetch).apply(other)

    def test_without_a_loop(self) -> None:
        """Applying needs no event loop."""

        async def fetch() -> dict[str, Any]:
            raise AssertionError

        keys = SigningKeys(fetch)
        for event in (rotated(retire=60), COMPROMISED, rotated("next")):
            keys.apply(event)
        with pytest.raises(CompromisedKey):
            asyncio.run(keys.get("old"))

    async def test_logged(self, issuer: Issuer) -> None:
        """A rotation is logged without the names of keys."""
        name = "-".join(["secret", "name"])
        keys = SigningKeys(issuer.fetch)
        with watching(name) as records:
            keys.apply(rotated(name, compromised=True, issuer=name))
            with pytest.raises(CompromisedKey) as caught:
                await keys.get(name)
        assert records.of("signing key rotated", "INFO")[0]["compromised"] is True
        assert name not in str(caught.value)

    def test_kind(self) -> None:
        """`attach` registers for `KeyRotated` alone, with an async function, as sync ones may run in threads."""
        registered: list[tuple[type[Event], Any]] = []

        class Source:
            def on(self, kind: type[KeyRotated], /) -> Any:
                return lambda function: registered.append((kind, function))

        SigningKeys(Issuer().fetch).attach(Source())
        ((kind, function),) = registered
        assert kind is KeyRotated
        assert asyncio.iscoroutinefunction(function)
