"""Looking up signing keys: what is fetched, when, and what is refused."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import jwt
import pytest

from jwt_events import InvalidKeySet, InvalidOption, KeyRotated, KeysUnavailable, SigningKeys, Unavailable, UnknownKey
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
    monkeypatch.setattr(fetcher, "boottime", clock.monotonic)
    return clock


@pytest.fixture
def issuer() -> Issuer:
    """An issuer with two keys."""
    return Issuer("one", "two")


async def refusal(keys: SigningKeys, kid: Any) -> UnknownKey:
    """Return the error that `SigningKeys.get` raises for a kid."""
    with pytest.raises(UnknownKey) as caught:
        await keys.get(kid)
    return caught.value


class TestKnownKeys:
    """Known keys are returned from the cache."""

    async def test_verifies(self, issuer: Issuer) -> None:
        """A key verifies the tokens that its own private key signed, and no others."""
        keys = SigningKeys(issuer.fetch)
        assert jwt.decode(issuer.token("one"), await keys.get("one")) == {"sub": "user-1"}
        with pytest.raises(jwt.InvalidSignatureError):
            jwt.decode(issuer.token("one"), await keys.get("two"))

    async def test_one_fetch_for_all_keys(self, issuer: Issuer) -> None:
        """One fetch brings the whole set, and it is not fetched again before half of max_age."""
        keys = SigningKeys(issuer.fetch)
        for kid in ("one", "two", "one", "two"):
            assert (await keys.get(kid)).key_id == kid
        assert issuer.calls == 1

    async def test_nothing_before_the_first_call(self, issuer: Issuer) -> None:
        """Nothing is fetched before the first call."""
        keys = SigningKeys(issuer.fetch)
        await asyncio.sleep(0)
        assert issuer.calls == 0
        assert keys.stats.age == float("inf")

    async def test_new_key(self, issuer: Issuer) -> None:
        """A key that the issuer added is found when its first token arrives, rotation after rotation."""
        keys = SigningKeys(issuer.fetch, cooldown=3600)
        for kid in ("one", "three", "four", "five"):
            issuer.list("one", kid)
            assert (await keys.get(kid)).key_id == kid
        assert issuer.calls == 4

    async def test_withdrawn_key(self, issuer: Issuer, clock: Clock) -> None:
        """A key that the issuer no longer lists is removed by the next fetch."""
        keys = SigningKeys(issuer.fetch)
        await keys.get("one")
        issuer.list("two", "three")
        await keys.get("three")
        clock.advance(11)
        await refusal(keys, "one")


class TestSharedFetches:
    """At most one fetch runs at a time."""

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
        """A cancelled caller, even the one that started the fetch, does not affect the others."""
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
        """A fetch whose callers were all cancelled goes on, and the next caller gets its keys."""
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
    """Invented kids cause at most one fetch per cooldown."""

    async def test_flood(self, issuer: Issuer, clock: Clock) -> None:
        """10,000 invented kids cause one fetch per cooldown, and the known keys stay valid."""
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
        """10,000 invented kids at the same time share one fetch, and the negative cache stays within its limit."""
        keys = SigningKeys(issuer.fetch)
        issuer.open.clear()
        tasks = [asyncio.create_task(refusal(keys, f"invented-{number}")) for number in range(10_000)]
        await wait_until(lambda: issuer.calls)
        issuer.open.set()
        await asyncio.gather(*tasks)
        assert issuer.calls == 1
        assert len(keys._negative_cache) <= 1_024
        await keys.get("one")

    async def test_retry_after(self, issuer: Issuer, clock: Clock) -> None:
        """Within the cooldown a kid is refused at once, and a retry after ``retry_after`` finds it."""
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
        """Invented kids cannot keep a new key out: each fetch that they cause brings all keys."""
        keys = SigningKeys(issuer.fetch)
        await refusal(keys, "invented")
        issuer.list("new")
        clock.advance(10)
        await refusal(keys, "invented too")
        await keys.get("new")
        assert issuer.calls == 2

    async def test_negative_cache(self, issuer: Issuer, clock: Clock) -> None:
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
        """A value that cannot be a key's name is refused without a fetch; the sender of a token chooses its kid."""
        keys = SigningKeys(issuer.fetch)
        error = await refusal(keys, kid)
        assert (error.fingerprint, error.retry_after, issuer.calls) == (None, None, 0)

    @pytest.mark.parametrize("kid", ["\r\nSet-Cookie: x", "\x1b[2J", "\ud800", "<script>", "{0}{kid}"], ids=ascii)
    async def test_hostile_kids(self, issuer: Issuer, kid: str) -> None:
        """A kid never appears in an error or a log line, only its fingerprint of eight digits."""
        keys = SigningKeys(issuer.fetch, cooldown=3600)
        with watching(kid):
            for _ in range(2):
                error = await refusal(keys, kid)
                assert kid not in f"{error} {error!r} {keys!r}"
                assert error.fingerprint is not None
                assert len(error.fingerprint) == 8
            assert kid not in str(await refusal(keys, kid + "!"))


class TestTokensWithoutKid:
    """Tokens without a kid."""

    @pytest.mark.parametrize("entries", [[entry("one")], [entry("one", kid=None)]], ids=["named", "unnamed"])
    async def test_only_key(self, issuer: Issuer, entries: list[Any]) -> None:
        """A token without a kid is verified with the only key."""
        issuer.entries = entries
        jwt.decode(issuer.token("one"), await SigningKeys(issuer.fetch).get(None))

    async def test_several_keys(self, issuer: Issuer) -> None:
        """It is refused when there are several keys, and a retry starts no fetch."""
        keys = SigningKeys(issuer.fetch)
        for _ in range(3):
            assert "names no key" in str(await refusal(keys, None))
        assert issuer.calls == 1

    async def test_withdrawn_keys(self, issuer: Issuer) -> None:
        """Compromised keys do not count, and do not verify it either."""
        keys = SigningKeys(issuer.fetch)
        keys.apply(KeyRotated(key_id="one", compromised=True))
        assert (await keys.get(None)).key_id == "two"
        keys.apply(KeyRotated(key_id="two", compromised=True))
        await refusal(keys, None)


class TestFailures:
    """An issuer that is unreachable or broken."""

    async def test_keys_stay_valid(self, issuer: Issuer, clock: Clock) -> None:
        """Known keys are valid until they are max_age old, then none is, until a fetch succeeds."""
        keys = SigningKeys(issuer.fetch, max_age=100, cooldown=10)
        await keys.get("one")
        issuer.error = OSError("secret.example")
        for _ in range(99):
            clock.advance(1)
            await keys.get("one")
            await wait_until(lambda: keys._fetcher.current is None)
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

    async def test_cooldown_during_outage(self, issuer: Issuer, clock: Clock) -> None:
        """While all fetches fail one starts per cooldown, also when there never were any keys."""
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
        """While fetches fail, an unlisted kid raises `KeysUnavailable`, not `UnknownKey`."""
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

    @pytest.mark.parametrize(
        "error",
        [asyncio.CancelledError(), ExceptionGroup("", [OSError()]), RecursionError(), BaseException(), GeneratorExit()],
    )
    async def test_odd_failures(self, issuer: Issuer, error: BaseException) -> None:
        """Whatever a fetch raises is a failure, its own `CancelledError` too."""
        keys = SigningKeys(issuer.fetch)
        issuer.error = error
        with pytest.raises(KeysUnavailable) as caught:
            await keys.get("one")
        cause = caught.value.__cause__
        assert cause is error or (isinstance(cause, Unavailable) and cause.__cause__ is error)

    async def test_bad_set(self, issuer: Issuer, clock: Clock) -> None:
        """A set without a usable key leaves the known keys unchanged."""
        keys = SigningKeys(issuer.fetch)
        await keys.get("one")
        issuer.entries = [entry("new", kty="oct", k="c2VjcmV0")]
        with pytest.raises(KeysUnavailable) as caught:
            await keys.get("new")
        assert isinstance(caught.value.__cause__, InvalidKeySet)
        await keys.get("one")

    async def test_renewed_before_it_is_needed(self, issuer: Issuer, clock: Clock) -> None:
        """After half of max_age a caller still gets the key at once, and a fetch runs in the background."""
        keys = SigningKeys(issuer.fetch, max_age=100)
        await keys.get("one")
        issuer.open.clear()
        clock.advance(51)
        await keys.get("one")
        await wait_until(lambda: issuer.calls == 2)
        issuer.open.set()
        await wait_until(lambda: keys.stats.age < 1)

    async def test_logged(self, issuer: Issuer) -> None:
        """A failure is logged with its type; its text, which may quote a URL, is not."""
        keys = SigningKeys(issuer.fetch)
        issuer.error = OSError("https://user:password@issuer")
        with watching("password") as records:
            with pytest.raises(KeysUnavailable) as caught:
                await keys.get("one")
            assert "password" not in str(caught.value)
        assert records.of("fetching the signing keys failed", "WARNING") == [{"error": "OSError", "failures": 1}]


class TestConstruction:
    """Construction, options and repr."""

    @pytest.mark.parametrize("value", NO_SECONDS, ids=repr)
    @pytest.mark.parametrize("option", ["cooldown", "negative_ttl", "max_age", "timeout"])
    async def test_refused_options(self, issuer: Issuer, option: str, value: Any) -> None:
        """An invalid number of seconds is refused with the option's name."""
        options: dict[str, Any] = {option: value}
        with pytest.raises(InvalidOption) as caught:
            SigningKeys(issuer.fetch, **options)
        assert caught.value.option == option

    async def test_refused_wait(self, issuer: Issuer) -> None:
        """Whether to wait is True or False."""
        with pytest.raises(InvalidOption, match="wait"):
            SigningKeys(issuer.fetch, wait=0)  # type: ignore[arg-type]  # the mistake that is to be found

    async def test_refused_fetch_and_issuer(self, issuer: Issuer) -> None:
        """A URL is refused as ``fetch``, and a blank as ``issuer``."""
        url: Any = "https://issuer.example/jwks.json"
        with pytest.raises(InvalidOption, match="fetch: must be"):
            SigningKeys(url)
        with pytest.raises(InvalidOption, match="issuer: must be"):
            SigningKeys(issuer.fetch, issuer=" ")

    async def test_repr(self, issuer: Issuer, clock: Clock) -> None:
        """The repr shows the state and no key."""
        keys = SigningKeys(issuer.fetch, cooldown=1)
        assert repr(keys) == "<SigningKeys 0 keys, never fetched>"
        await keys.get("one")
        clock.advance(3)
        assert repr(keys) == "<SigningKeys 2 keys, 3 s old>"
        issuer.error = OSError()
        with pytest.raises(KeysUnavailable):
            await keys.get("new")
        assert repr(keys) == "<SigningKeys 2 keys, 3 s old, failing>"

    async def test_skipped_entries_are_logged_once(self, issuer: Issuer, clock: Clock) -> None:
        """An unusable entry is logged when it is new, not with every fetch."""
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
        """Importing works without PyJWT; constructing raises an error that says what to install."""
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
