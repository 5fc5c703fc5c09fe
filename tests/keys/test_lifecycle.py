"""Signing keys inside and outside of their context: background fetches, and closing."""

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
    """Inside the context."""

    async def test_ready(self, issuer: Issuer) -> None:
        """Entering fetches the keys."""
        async with SigningKeys(issuer.fetch) as keys:
            assert keys.stats.keys == 1
            await keys.get("one")
        assert issuer.calls == 1

    async def test_not_ready(self, issuer: Issuer) -> None:
        """Entering fails if the keys cannot be fetched, leaves no task behind, and can be retried at once."""
        keys = SigningKeys(issuer.fetch)
        issuer.error = OSError()
        with pytest.raises(KeysUnavailable) as caught:
            await keys.__aenter__()
        assert caught.value.__cause__ is issuer.error
        issuer.error = None
        async with keys:
            await keys.get("one")

    async def test_without_waiting(self, issuer: Issuer) -> None:
        """Without waiting, entering succeeds at once; the keys are fetched in the background until that succeeds."""
        issuer.error = OSError()
        async with SigningKeys(issuer.fetch, wait=False, cooldown=0.01) as keys:
            assert keys.stats.keys == 0
            await wait_until(lambda: keys.stats.failures >= 2)
            with pytest.raises(KeysUnavailable):
                await keys.get("one")
            issuer.error = None
            await wait_until(lambda: keys.stats.keys == 1)
            await keys.get("one")

    async def test_without_waiting_for_a_fetch_that_hangs(self, issuer: Issuer) -> None:
        """A caller shares the fetch that entering has started, and leaving ends it."""
        issuer.open.clear()
        async with SigningKeys(issuer.fetch, wait=False) as keys:
            caller = asyncio.create_task(keys.get("one"))
            await wait_until(lambda: issuer.calls)
            issuer.open.set()
            await caller
            assert issuer.calls == 1
        issuer.open.clear()
        async with SigningKeys(issuer.fetch, wait=False):
            await wait_until(lambda: issuer.calls == 2)

    async def test_cancelled_entering(self, issuer: Issuer) -> None:
        """Cancelled entering leaves no task behind."""
        issuer.open.clear()
        task = asyncio.create_task(SigningKeys(issuer.fetch).__aenter__())
        await wait_until(lambda: issuer.calls)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def test_entered_twice(self, issuer: Issuer) -> None:
        """It cannot be entered while it is open, but again after it was closed."""
        keys = SigningKeys(issuer.fetch)
        async with keys:
            with pytest.raises(Closed):
                await keys.__aenter__()
            await keys.get("one")
        async with keys:
            await keys.get("one")
        assert issuer.calls == 1

    def test_another_loop(self) -> None:
        """It can be entered again in another event loop, as in tests that start an application many times."""
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
        """An announced key is fetched before a caller needs it."""
        async with SigningKeys(issuer.fetch, cooldown=3600) as keys:
            issuer.list("one", "two")
            keys.apply(KeyRotated(key_id="two"))
            await wait_until(lambda: keys.stats.keys == 2)
            await keys.get("two")
        assert issuer.calls == 2

    async def test_announced_and_listed_later(self, issuer: Issuer) -> None:
        """A key that is listed later than announced is fetched by its active_from, without a caller."""
        async with SigningKeys(issuer.fetch, cooldown=0.02) as keys:
            keys.apply(KeyRotated(key_id="two", active_from=datetime.now(UTC) + timedelta(seconds=0.2)))
            await wait_until(lambda: issuer.calls >= 3)
            issuer.list("one", "two")
            await wait_until(lambda: keys.stats.keys == 2)

    async def test_announced_during_a_fetch(self, issuer: Issuer) -> None:
        """A fetch that is running when a key is announced is followed by another."""
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
        """The keys are refreshed without a caller, also after failures."""
        async with SigningKeys(issuer.fetch, max_age=0.05, cooldown=0.01) as keys:
            await wait_until(lambda: issuer.calls >= 3)
            issuer.error = OSError()
            await wait_until(lambda: keys.stats.failures >= 3)
            issuer.error = None
            issuer.list("two")
            await wait_until(lambda: "two" in keys._keyring)


class TestClosed:
    """After closing, and without a context."""

    async def test_nothing_left(self, issuer: Issuer) -> None:
        """Closing cancels a fetch, and its callers get `Closed`."""
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
        """Closing is idempotent, also before the first use and concurrently."""
        keys = SigningKeys(issuer.fetch)
        await keys.aclose()
        async with keys:
            await asyncio.gather(keys.aclose(), keys.aclose())
            await keys.aclose()

    async def test_used_afterwards(self, issuer: Issuer) -> None:
        """It can be used after closing, and then runs no background task."""
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
        """An error in the block is raised, and all tasks have ended."""
        with pytest.raises(ZeroDivisionError):
            async with SigningKeys(issuer.fetch):
                raise ZeroDivisionError
        assert asyncio.all_tasks() == {asyncio.current_task()}
