"""Signing keys in any sequence of calls, rotations, outages and pauses, checked against a model."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from unittest.mock import patch

import jwt
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from jwt_events import CompromisedKey, KeyRotated, RetiredKey, SigningKeyError, SigningKeys
from jwt_events.events import receive_event
from jwt_events.keys import _fetcher as fetcher
from jwt_events.keys._keyring import MAX_NEGATIVE_ENTRIES, RETIREMENT_LEEWAY
from tests.support.issuers import Clock, Issuer

COOLDOWN, MAX_AGE = 10.0, 200.0
KIDS = [f"key-{number}" for number in range(5)]
kids = st.sampled_from(KIDS)
instants = st.integers(-60, 60)


class KeysMachine(RuleBasedStateMachine):
    """Calls keys, rotates them, breaks the issuer and advances the clock; checks each result."""

    def __init__(self) -> None:
        super().__init__()
        self._clock = Clock()
        self._patch = patch.multiple(fetcher, time=self._clock, boottime=self._clock.monotonic)
        self._patch.start()
        self._runner = asyncio.Runner()
        self._issuer = Issuer()
        self._keys = SigningKeys(self._issuer.fetch, cooldown=COOLDOWN, max_age=MAX_AGE)
        self._compromised: set[str] = set()
        self._retirements: dict[str, list[tuple[float, float]]] = {}  # by kid: (occurred_at, minus retire_at)
        self._invented_at: list[float] = []

    def teardown(self) -> None:
        """Close the event loop and restore the clock."""
        self._runner.run(self._keys.aclose())
        self._runner.close()
        self._patch.stop()
        super().teardown()

    @initialize(listed=st.sets(kids))
    def begin(self, listed: set[str]) -> None:
        """Start with some keys."""
        self._issuer.list(*sorted(listed))

    @rule(listed=st.sets(kids))
    def publish(self, listed: set[str]) -> None:
        """Let the issuer list other keys."""
        self._issuer.list(*sorted(listed))

    @rule(fails=st.booleans())
    def fail(self, fails: bool) -> None:
        """Begin or end an outage."""
        self._issuer.error = OSError() if fails else None

    @rule(seconds=st.sampled_from([0.5, 4.0, COOLDOWN, 31.0, MAX_AGE / 2, MAX_AGE]))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self._clock.advance(seconds)

    @rule(
        kid=kids,
        previous=st.none() | kids,
        offsets=st.tuples(instants, st.none() | instants, st.none() | instants),
        compromised=st.booleans(),
        during_a_fetch=st.booleans(),
    )
    def rotate(
        self,
        kid: str,
        previous: str | None,
        offsets: tuple[int, int | None, int | None],
        compromised: bool,
        during_a_fetch: bool,
    ) -> None:
        """Apply a rotation, perhaps while a fetch is running."""
        occurred, active_from, retire_at = (
            None if offset is None else self._clock.time() + offset for offset in offsets
        )
        rotation = receive_event(
            KeyRotated,
            {
                "key_id": kid,
                "previous_key_id": previous,
                "occurred_at": occurred,
                "active_from": active_from,
                "retire_at": retire_at,
                "compromised": compromised,
            },
        )
        assert isinstance(rotation, KeyRotated)
        occurred_at = rotation.occurred_at.timestamp()
        retired = None if rotation.retire_at is None else previous or kid
        if compromised:
            self._compromised |= {kid} if previous is None else {kid, previous}
        elif retired != kid:
            self._retirements.setdefault(kid, []).append((occurred_at, float("-inf")))
        if retired is not None and rotation.retire_at is not None:
            self._retirements.setdefault(retired, []).append((occurred_at, -rotation.retire_at.timestamp()))
        if during_a_fetch:
            self._runner.run(self._apply_during_a_fetch(rotation))
        else:
            self._keys.apply(rotation)

    async def _apply_during_a_fetch(self, rotation: KeyRotated) -> None:
        self._issuer.open.clear()
        getting = asyncio.create_task(self._keys.get(rotation.key_id))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        self._keys.apply(rotation)
        self._issuer.open.set()
        with suppress(SigningKeyError):
            await getting
        await self._get(rotation.key_id)

    @rule(kid=kids)
    def get(self, kid: str) -> None:
        """Get a key that may be listed."""
        self._runner.run(self._get(kid))

    @rule(number=st.integers(0, 9))
    def invent(self, number: int) -> None:
        """Get a key that is never listed; record the fetch that it causes."""
        before, age = self._keys.stats.fetches, self._keys.stats.age
        self._runner.run(self._get(f"invented-{number}"))
        if self._keys.stats.fetches > before and age < MAX_AGE / 2:
            self._invented_at.append(self._clock.monotonic())

    async def _get(self, kid: str) -> None:
        try:
            key = await self._keys.get(kid)
        except CompromisedKey:
            assert kid in self._compromised
        except RetiredKey:
            assert self._is_retired(kid)
        except SigningKeyError:
            assert kid not in self._compromised
            assert not self._is_retired(kid)
        else:
            assert isinstance(key, jwt.PyJWK)
            assert key.key_id == kid
            assert kid not in self._compromised
            assert not self._is_retired(kid)
            assert self._keys.stats.age < MAX_AGE
        while self._keys._fetcher.current is not None:
            await self._keys._fetcher.current.wait()

    def _is_retired(self, kid: str) -> bool:
        _, minus_retire_at = max(self._retirements.get(kid, [(0.0, float("-inf"))]))
        return self._clock.time() > RETIREMENT_LEEWAY - minus_retire_at

    @invariant()
    def few_fetches(self) -> None:
        """Two fetches for invented kids are at least a cooldown apart."""
        gaps = [later - earlier for earlier, later in zip(self._invented_at, self._invented_at[1:], strict=False)]
        assert all(gap >= COOLDOWN for gap in gaps)

    @invariant()
    def bounded(self) -> None:
        """The memory that callers can fill is bounded."""
        assert len(self._keys._negative_cache) <= MAX_NEGATIVE_ENTRIES


TestKeysMachine = pytest.mark.timeout(180)(KeysMachine.TestCase)
KeysMachine.TestCase.settings = settings(deadline=None, max_examples=200, stateful_step_count=40)
