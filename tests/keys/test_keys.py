"""Looking up signing keys: what is fetched, when, and what is refused."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import jwt
import pytest

from jwt_events import InvalidKeySet, InvalidOption, KeyRotated, KeysUnavailable, SigningKeys, UnknownKey
from jwt_events.keys import _fetcher as fetcher
from tests.support.issuers import Clock, Issuer, entry
from tests.support.records import recorded, watching
from tests.support.waiting import scaled, wait_until

NO_SECONDS = [0, -1, float("nan"), float("inf"), "5", None, True]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the keys."""
    clock = Clock()
    monkeypatch.setattr(fetcher, "time", clock)
    return clock


@pytest.fixture
def issuer() -> Issuer:
    """An issuer with two keys."""
    return Issuer("one", "two")


async def refusal(keys: SigningKeys, kid: Any) -> UnknownKey:
    """Return the error with which a kid is refused."""
    with pytest.raises(UnknownKey) as caught:
        await keys.get(kid)
    return caught.value


class TestKnownKeys:
    """What is here is answered from here."""

    async def test_verifies(self, issuer: Issuer) -> None:
        """A key verifies the tokens of its own private key and no others."""
        keys = SigningKeys(issuer.fetch)
        assert jwt.decode(issuer.token("one"), await keys.get("one")) == {"sub": "user-1"}
        with pytest.raises(jwt.InvalidSignatureError):
            jwt.decode(issuer.token("one"), await keys.get("two"))

    async def test_one_fetch_for_all_keys(self, issuer: Issuer) -> None:
        """The whole set comes with one fetch, and is not fetched again while it is young."""
        keys = SigningKeys(issuer.fetch)
        for kid in ("one", "two", "one", "two"):
            assert (await keys.get(kid)).key_id == kid
        assert issuer.calls == 1

    async def test_unasked(self, issuer: Issuer) -> None:
        """Nothing is fetched before somebody asks."""
        keys = SigningKeys(issuer.fetch)
        await asyncio.sleep(0)
        assert issuer.calls == 0
        assert keys.stats.age == float("inf")

    async def test_new_key(self, issuer: Issuer) -> None:
        """A key that the issuer added is found when the first token of it arrives, rotation after rotation."""
        keys = SigningKeys(issuer.fetch, cooldown=3600)
        for kid in ("one", "three", "four", "five"):
            issuer.list("one", kid)
            assert (await keys.get(kid)).key_id == kid
        assert issuer.calls == 4

    async def test_withdrawn_key(self, issuer: Issuer, clock: Clock) -> None:
        """A key that the issuer lists no more is gone with the next fetch."""
        keys = SigningKeys(issuer.fetch)
        await keys.get("one")
        issuer.list("two", "three")
        await keys.get("three")
        clock.advance(11)
        await refusal(keys, "one")


class TestSingleFlight:
    """There is never more than one fetch."""

    @pytest.mark.parametrize("listed", [True, False])
    async def test_many_callers(self, issuer: Issuer, listed: bool) -> None:
        """200 tasks that ask for the same key share one fetch, whether it brings the key or not."""
        keys, kid = SigningKeys(issuer.fetch), "one" if listed else "other"
        issuer.open.clear()
        tasks = [asyncio.create_task(keys.get(kid)) for _ in range(200)]
        await wait_until(lambda: issuer.calls)
        issuer.open.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert issuer.calls == 1
        assert {type(result) for result in results} == ({jwt.PyJWK} if listed else {UnknownKey})

    async def test_cancelled_callers(self, issuer: Issuer) -> None:
        """A caller that is cancelled, even the one for whom the fetch began, takes nothing from the others."""
        keys = SigningKeys(issuer.fetch)
        issuer.open.clear()
        tasks = [asyncio.create_task(keys.get("one")) for _ in range(5)]
        await wait_until(lambda: issuer.calls)
        for task in tasks[:4]:
            task.cancel()
        await asyncio.wait(tasks[:4])
        issuer.open.set()
        assert (await tasks[4]).key_id == "one"
        assert all(task.cancelled() for task in tasks[:4])
        assert issuer.calls == 1

    async def test_all_callers_gone(self, issuer: Issuer) -> None:
        """A fetch that nobody waits for any more goes on, and its keys are there for the next caller."""
        keys = SigningKeys(issuer.fetch)
        issuer.open.clear()
        task = asyncio.create_task(keys.get("one"))
        await wait_until(lambda: issuer.calls)
        task.cancel()
        await asyncio.wait([task])
        issuer.open.set()
        await wait_until(lambda: keys.stats.keys)
        assert (await keys.get("one")).key_id == "one"
        assert issuer.calls == 1


class TestUnknownKeys:
    """Whoever invents kids causes one fetch per cooldown and no more."""

    async def test_flood(self, issuer: Issuer, clock: Clock) -> None:
        """10,000 invented kids cause one fetch per cooldown, and the known keys are good all the time."""
        keys = SigningKeys(issuer.fetch, cooldown=10)
        await keys.get("one")
        for number in range(10_000):
            await refusal(keys, f"invented-{number}")
        assert issuer.calls == 2
        clock.advance(10)
        for number in range(100):
            await refusal(keys, f"other-{number}")
            assert (await keys.get("one")).key_id == "one"
        assert issuer.calls == 3
        assert keys.stats.refused == 10_100

    async def test_flood_at_once(self, issuer: Issuer) -> None:
        """10,000 invented kids at the same time share one fetch, and few of them are remembered."""
        keys = SigningKeys(issuer.fetch)
        issuer.open.clear()
        tasks = [asyncio.create_task(refusal(keys, f"invented-{number}")) for number in range(10_000)]
        await wait_until(lambda: issuer.calls)
        issuer.open.set()
        await asyncio.gather(*tasks)
        assert issuer.calls == 1
        assert len(keys._absent) <= 1_024
        await keys.get("one")

    async def test_when_to_try_again(self, issuer: Issuer, clock: Clock) -> None:
        """Within the cooldown a kid is refused at once, and trying again when the error says so finds it."""
        keys = SigningKeys(issuer.fetch, cooldown=10)
        await refusal(keys, "invented")
        issuer.list("new")
        clock.advance(4)
        error = await refusal(keys, "new")
        assert error.retry_after == pytest.approx(6)
        assert issuer.calls == 1
        clock.advance(error.retry_after or 0)
        assert (await keys.get("new")).key_id == "new"

    async def test_another_ones_fetch(self, issuer: Issuer, clock: Clock) -> None:
        """Inventing kids cannot keep a new key out: each fetch that it causes brings all keys."""
        keys = SigningKeys(issuer.fetch)
        await refusal(keys, "invented")
        issuer.list("new")
        clock.advance(10)
        await refusal(keys, "invented too")
        await keys.get("new")
        assert issuer.calls == 2

    async def test_sought_in_vain(self, issuer: Issuer, clock: Clock) -> None:
        """A kid that was not listed is refused without a fetch for negative_ttl, also after the cooldown."""
        keys = SigningKeys(issuer.fetch, cooldown=10, negative_ttl=30)
        error = await refusal(keys, "other")
        assert error.retry_after == 30
        clock.advance(29)
        assert (await refusal(keys, "other")).retry_after == pytest.approx(1)
        assert issuer.calls == 1
        clock.advance(1)
        issuer.list("other")
        assert (await keys.get("other")).key_id == "other"

    @pytest.mark.parametrize("kid", ["", "k" * 513, 5, b"one", ["one"], {"kid": "one"}, True], ids=repr)
    async def test_impossible_kids(self, issuer: Issuer, kid: Any) -> None:
        """What cannot be the name of a key is refused without a fetch; the sender of a token chooses its kid."""
        keys = SigningKeys(issuer.fetch)
        error = await refusal(keys, kid)
        assert (error.fingerprint, error.retry_after, issuer.calls) == (None, None, 0)

    @pytest.mark.parametrize("kid", ["\r\nSet-Cookie: x", "\x1b[2J", "\ud800", "<script>", "{0}{kid}"], ids=ascii)
    async def test_hostile_kids(self, issuer: Issuer, kid: str) -> None:
        """A kid never appears in an error or a log line, only eight digits that stand for it."""
        keys = SigningKeys(issuer.fetch, cooldown=3600)
        with watching(kid):
            for _ in range(2):
                error = await refusal(keys, kid)
                assert kid not in f"{error} {error!r} {keys!r}"
                assert error.fingerprint is not None
                assert len(error.fingerprint) == 8
            assert kid not in str(await refusal(keys, kid + "!"))


class TestTokensWithoutKid:
    """A token that names no key."""

    @pytest.mark.parametrize("entries", [[entry("one")], [entry("one", kid=None)]], ids=["named", "unnamed"])
    async def test_only_key(self, issuer: Issuer, entries: list[Any]) -> None:
        """It is verified with the only key that there is."""
        issuer.entries = entries
        jwt.decode(issuer.token("one"), await SigningKeys(issuer.fetch).get(None))

    async def test_several_keys(self, issuer: Issuer) -> None:
        """It is refused when there are several keys, and asking again leads to no fetch."""
        keys = SigningKeys(issuer.fetch)
        for _ in range(3):
            assert "names no key" in str(await refusal(keys, None))
        assert issuer.calls == 1

    async def test_withdrawn_keys(self, issuer: Issuer) -> None:
        """Keys that are compromised do not count, and do not verify it either."""
        keys = SigningKeys(issuer.fetch)
        keys.apply(KeyRotated(key_id="one", compromised=True))
        assert (await keys.get(None)).key_id == "two"
        keys.apply(KeyRotated(key_id="two", compromised=True))
        await refusal(keys, None)


class TestFailures:
    """An issuer that cannot be reached."""

    async def test_keys_stay_good(self, issuer: Issuer, clock: Clock) -> None:
        """Known keys are good until they are max_age old, then nothing is, and a fetch that succeeds mends it."""
        keys = SigningKeys(issuer.fetch, max_age=100, cooldown=10)
        await keys.get("one")
        issuer.error = OSError("secret.example")
        for _ in range(99):
            clock.advance(1)
            await keys.get("one")
            await wait_until(lambda: keys._fetcher.flight is None)
        assert keys.stats.failures == issuer.calls - 1 == 5
        clock.advance(1)
        for _ in range(3):
            with pytest.raises(KeysUnavailable, match="OSError") as caught:
                await keys.get("one")
            assert caught.value.__cause__ is issuer.error
        assert issuer.calls == 7
        issuer.error = None
        clock.advance(caught.value.retry_after or 0)
        await keys.get("one")
        for kid in ("invented", "another"):
            await refusal(keys, kid)

    async def test_outage_is_no_reason_to_hammer(self, issuer: Issuer, clock: Clock) -> None:
        """While all fetches fail there is one per cooldown, also when there never were any keys."""
        keys = SigningKeys(issuer.fetch, cooldown=10)
        issuer.error = OSError()
        for number in range(300):
            with pytest.raises(KeysUnavailable) as caught:
                await keys.get(f"kid-{number}")
            assert caught.value.retry_after is not None
            assert 0 < caught.value.retry_after <= 10
            clock.advance(0.1)
        assert issuer.calls == 3

    async def test_unknown_during_outage(self, issuer: Issuer) -> None:
        """Whether a kid is unknown cannot be told while fetches fail, so that is what is said."""
        keys = SigningKeys(issuer.fetch)
        await keys.get("one")
        issuer.error = OSError()
        for _ in range(2):
            with pytest.raises(KeysUnavailable):
                await keys.get("new")
        await keys.get("one")

    async def test_hanging(self, issuer: Issuer) -> None:
        """A fetch that hangs fails after its timeout."""
        keys = SigningKeys(issuer.fetch, timeout=0.01)
        issuer.open.clear()
        async with asyncio.timeout(scaled(10)):
            with pytest.raises(KeysUnavailable) as caught:
                await keys.get("one")
        assert isinstance(caught.value.__cause__, TimeoutError)

    @pytest.mark.parametrize("error", [asyncio.CancelledError(), ExceptionGroup("", [OSError()]), RecursionError()])
    async def test_odd_failures(self, issuer: Issuer, error: BaseException) -> None:
        """Whatever a fetch raises, a cancellation of its own too, is a failure like others."""
        keys = SigningKeys(issuer.fetch)
        issuer.error = error
        with pytest.raises(KeysUnavailable) as caught:
            await keys.get("one")
        assert caught.value.__cause__ is error

    async def test_bad_set(self, issuer: Issuer, clock: Clock) -> None:
        """A set without a usable key changes nothing."""
        keys = SigningKeys(issuer.fetch)
        await keys.get("one")
        issuer.entries = [entry("new", kty="oct", k="c2VjcmV0")]
        with pytest.raises(KeysUnavailable) as caught:
            await keys.get("new")
        assert isinstance(caught.value.__cause__, InvalidKeySet)
        await keys.get("one")

    async def test_renewed_before_it_is_needed(self, issuer: Issuer, clock: Clock) -> None:
        """After half of max_age a caller still gets the key at once, and the fetch goes on beside it."""
        keys = SigningKeys(issuer.fetch, max_age=100)
        await keys.get("one")
        issuer.open.clear()
        clock.advance(51)
        await keys.get("one")
        await wait_until(lambda: issuer.calls == 2)
        issuer.open.set()
        await wait_until(lambda: keys.stats.age < 1)

    async def test_logged(self, issuer: Issuer) -> None:
        """A failure is logged by its kind; its text, which may quote a URL, is not."""
        keys = SigningKeys(issuer.fetch)
        issuer.error = OSError("https://user:password@issuer")
        with watching("password") as records:
            with pytest.raises(KeysUnavailable) as caught:
                await keys.get("one")
            assert "password" not in str(caught.value)
        assert records.of("fetching the signing keys failed", "WARNING") == [{"error": "OSError", "failures": 1}]


class TestObject:
    """How it is made and how it looks."""

    @pytest.mark.parametrize("value", NO_SECONDS, ids=repr)
    @pytest.mark.parametrize("option", ["cooldown", "negative_ttl", "max_age", "timeout"])
    async def test_refused_options(self, issuer: Issuer, option: str, value: Any) -> None:
        """A number of seconds that cannot work is refused by name."""
        options: dict[str, Any] = {option: value}
        with pytest.raises(InvalidOption) as caught:
            SigningKeys(issuer.fetch, **options)
        assert caught.value.option == option

    async def test_refused_fetch_and_issuer(self, issuer: Issuer) -> None:
        """The URL itself is no fetch, and a blank is no issuer."""
        url: Any = "https://issuer.example/jwks.json"
        with pytest.raises(InvalidOption, match="fetch: must be"):
            SigningKeys(url)
        with pytest.raises(InvalidOption, match="issuer: must be"):
            SigningKeys(issuer.fetch, issuer=" ")

    async def test_repr(self, issuer: Issuer, clock: Clock) -> None:
        """It shows its state and no key."""
        keys = SigningKeys(issuer.fetch, cooldown=1)
        assert repr(keys) == "<SigningKeys 0 keys, never fetched>"
        await keys.get("one")
        clock.advance(3)
        assert repr(keys) == "<SigningKeys 2 keys, 3 s old>"
        issuer.error = OSError()
        with pytest.raises(KeysUnavailable):
            await keys.get("new")
        assert repr(keys) == "<SigningKeys 2 keys, 3 s old, failing>"

    async def test_skipped_entries_are_told_once(self, issuer: Issuer, clock: Clock) -> None:
        """An entry that cannot be used is logged when it is new, not with every fetch."""
        keys = SigningKeys(issuer.fetch, negative_ttl=1, cooldown=1)
        issuer.entries.append(entry("oct", kty="oct"))
        with recorded() as records:
            for _ in range(3):
                await refusal(keys, "oct")
                clock.advance(1)
        assert issuer.calls == 3
        assert len(records.of("key of the issuer skipped", "WARNING")) == 1

    @pytest.mark.parametrize("module", ["jwt", "cryptography"])
    def test_without_the_extra(self, module: str) -> None:
        """Importing works without PyJWT; making one says what to install."""
        program = f"""
import sys
sys.modules["{module}"] = None
import jwt_events.keys
assert sys.modules.get("jwt") is None
try:
    jwt_events.SigningKeys(print)
except ImportError as error:
    assert "pip install '.[keys]'" in str(error), error
else:
    raise AssertionError("made without the extra")
"""
        subprocess.run([sys.executable, "-c", program], check=True, timeout=scaled(60))
