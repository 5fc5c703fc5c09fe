"""Signing keys that keep themselves up to date, and what is left when they end."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jwt_events import Closed, KeyRotated, KeysUnavailable, SigningKeys, UnknownKey
from tests.support.issuers import Issuer
from tests.support.waiting import wait_until


@pytest.fixture
def issuer() -> Issuer:
    """An issuer with one key."""
    return Issuer("one")


class TestEntered:
    """Inside of the context."""

    async def test_ready(self, issuer: Issuer) -> None:
        """Entered means that the keys are there."""
        async with SigningKeys(issuer.fetch) as keys:
            assert keys.stats.keys == 1
            await keys.get("one")
        assert issuer.calls == 1

    async def test_not_ready(self, issuer: Issuer) -> None:
        """Entering fails when the keys cannot be fetched, leaves nothing behind, and can be tried again at once."""
        keys = SigningKeys(issuer.fetch)
        issuer.error = OSError()
        with pytest.raises(KeysUnavailable) as caught:
            await keys.__aenter__()
        assert caught.value.__cause__ is issuer.error
        issuer.error = None
        async with keys:
            await keys.get("one")

    async def test_cancelled_entering(self, issuer: Issuer) -> None:
        """Entering that is cancelled leaves nothing behind."""
        issuer.open.clear()
        task = asyncio.create_task(SigningKeys(issuer.fetch).__aenter__())
        await wait_until(lambda: issuer.calls)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def test_entered_twice(self, issuer: Issuer) -> None:
        """It cannot be entered twice at a time, but again after it was left."""
        keys = SigningKeys(issuer.fetch)
        async with keys:
            with pytest.raises(Closed):
                await keys.__aenter__()
            await keys.get("one")
        async with keys:
            await keys.get("one")
        assert issuer.calls == 1

    def test_another_loop(self) -> None:
        """It can be entered again in another event loop, as when the tests of an application start it many times."""
        issuers: list[Issuer] = []

        async def fetch() -> dict[str, Any]:
            return await issuers[-1].fetch()

        keys = SigningKeys(fetch, max_age=0.02, cooldown=0.001)

        async def serve() -> None:
            issuers.append(Issuer("one"))
            async with keys:
                await wait_until(lambda: issuers[-1].calls >= 2)

        for _ in range(3):
            asyncio.run(serve())

    async def test_announced_key(self, issuer: Issuer) -> None:
        """A key that is announced is fetched before anybody asks for it."""
        async with SigningKeys(issuer.fetch, cooldown=3600) as keys:
            issuer.list("one", "two")
            keys.apply(KeyRotated(key_id="two"))
            await wait_until(lambda: keys.stats.keys == 2)
            await keys.get("two")
        assert issuer.calls == 2

    async def test_announced_and_listed_later(self, issuer: Issuer) -> None:
        """A key that is listed later than it was announced is fetched by its active_from, without being asked for."""
        async with SigningKeys(issuer.fetch, cooldown=0.02) as keys:
            keys.apply(KeyRotated(key_id="two", active_from=datetime.now(UTC) + timedelta(seconds=0.2)))
            await wait_until(lambda: issuer.calls >= 3)
            issuer.list("one", "two")
            await wait_until(lambda: keys.stats.keys == 2)

    async def test_announced_during_a_fetch(self, issuer: Issuer) -> None:
        """A fetch that is on its way when a key is announced is followed by another."""
        async with SigningKeys(issuer.fetch, cooldown=3600) as keys:
            issuer.open.clear()
            asking = asyncio.create_task(keys.get("other"))
            await wait_until(lambda: issuer.calls == 2)
            issuer.list("one", "two")
            keys.apply(KeyRotated(key_id="two"))
            issuer.open.set()
            await wait_until(lambda: keys.stats.keys == 2)
            with pytest.raises(UnknownKey):
                await asking
        assert issuer.calls == 3

    async def test_renewed(self, issuer: Issuer) -> None:
        """The keys are renewed without being asked for, also after failures."""
        async with SigningKeys(issuer.fetch, max_age=0.05, cooldown=0.01) as keys:
            await wait_until(lambda: issuer.calls >= 3)
            issuer.error = OSError()
            await wait_until(lambda: keys.stats.failures >= 3)
            issuer.error = None
            issuer.list("two")
            await wait_until(lambda: "two" in keys._keyring)


class TestLeft:
    """After its end, and without a context."""

    async def test_nothing_left(self, issuer: Issuer) -> None:
        """Closing ends a fetch, and those who wait for it are told."""
        keys = SigningKeys(issuer.fetch)
        issuer.open.clear()
        tasks = [asyncio.create_task(keys.get("one")) for _ in range(3)]
        await wait_until(lambda: issuer.calls)
        await keys.aclose()
        for task in tasks:
            with pytest.raises(Closed):
                await task
        assert asyncio.all_tasks() == {asyncio.current_task()}

    async def test_closing_twice(self, issuer: Issuer) -> None:
        """Closing is idempotent, also before anything was done and for two at once."""
        keys = SigningKeys(issuer.fetch)
        await keys.aclose()
        async with keys:
            await asyncio.gather(keys.aclose(), keys.aclose())
            await keys.aclose()

    async def test_used_afterwards(self, issuer: Issuer) -> None:
        """It can be used after it was left, and nothing happens in the background then."""
        keys = SigningKeys(issuer.fetch)
        async with keys:
            pass
        await keys.get("one")
        issuer.list("two")
        keys.apply(KeyRotated(key_id="two"))
        await asyncio.sleep(0)
        assert issuer.calls == 1
        await keys.get("two")

    async def test_error_in_the_block(self, issuer: Issuer) -> None:
        """An error in the block comes out of it, and everything has ended."""
        with pytest.raises(ZeroDivisionError):
            async with SigningKeys(issuer.fetch):
                raise ZeroDivisionError
        assert asyncio.all_tasks() == {asyncio.current_task()}
