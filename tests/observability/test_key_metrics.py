"""Prometheus metrics of signing keys."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest
from prometheus_client import CollectorRegistry

from jwt_events import InvalidOption, KeyRotated, SigningKeys
from jwt_events.errors import SigningKeyError
from jwt_events.metrics import Metrics
from tests.support.issuers import Issuer

NAME = "https://issuer.example"


async def test_fetches_and_lookups() -> None:
    """Fetches and look-ups are counted by outcome; the last success is an instant."""
    registry = CollectorRegistry()
    issuer = Issuer("one", "leaked")
    keys = SigningKeys(issuer.fetch, cooldown=0.001, issuer=NAME, metrics=Metrics(registry))

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"jwt_events_{name}", {"issuer": NAME, **labels})

    assert value("signing_key_fetches_total", outcome="succeeded") == 0
    before = time.time()
    await keys.get("one")
    keys.apply(KeyRotated(key_id="leaked", compromised=True))
    for kid in ("one", "leaked", "other"):
        with suppress(SigningKeyError):
            await keys.get(kid)
    fetched_at = value("signing_keys_fetched_timestamp_seconds")
    assert fetched_at is not None
    assert before <= fetched_at <= time.time()
    outcomes = {
        outcome: value("signing_key_lookups_total", outcome=outcome)
        for outcome in ("found", "unknown", "retired", "compromised", "unavailable")
    }
    assert outcomes == {"found": 2, "unknown": 1, "retired": 0, "compromised": 1, "unavailable": 0}
    assert value("signing_key_fetches_total", outcome="succeeded") == keys.stats.fetches


async def test_failure() -> None:
    """A fetch that fails leaves the instant of the last success where it was."""
    registry = CollectorRegistry()

    async def fetch() -> None:
        raise OSError("away")

    keys = SigningKeys(fetch, metrics=Metrics(registry))
    with pytest.raises(SigningKeyError):
        await keys.get("one")
    labels = {"issuer": ""}
    failed = registry.get_sample_value("jwt_events_signing_key_fetches_total", labels | {"outcome": "failed"})
    assert failed == 1
    lookups = registry.get_sample_value("jwt_events_signing_key_lookups_total", labels | {"outcome": "unavailable"})
    assert lookups == 1
    assert registry.get_sample_value("jwt_events_signing_keys_fetched_timestamp_seconds", labels) == 0


def test_option() -> None:
    """What is no `Metrics` is refused."""
    with pytest.raises(InvalidOption, match="metrics"):
        SigningKeys(Issuer("one").fetch, metrics=True)  # type: ignore[arg-type] # the mistake under test
