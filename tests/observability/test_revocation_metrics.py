"""Prometheus metrics of a revocation list."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from jwt_events import (
    InvalidOption,
    KeyRotated,
    MemoryTransport,
    Publisher,
    RedisStream,
    RevocationList,
    SessionDestroyed,
    TokenRevoked,
    Verdict,
)
from jwt_events.metrics import Metrics
from tests.support.waiting import wait_until


class Numbers:
    """Reader of the samples of a registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)

    def __call__(self, name: str, **labels: str) -> float | None:
        """Return the value of a sample; ``None`` if it does not exist."""
        return self.registry.get_sample_value(f"jwt_events_{name}", labels)


@pytest.fixture
def numbers() -> Numbers:
    """Samples of a new registry."""
    return Numbers()


async def test_rules_and_checks(numbers: Numbers) -> None:
    """Rules are counted by kind and checks by verdict, exactly; rules are removed when the list is closed."""
    transport = MemoryTransport()
    revocations = RevocationList(transport, metrics=numbers.metrics)
    async with Publisher(transport) as publisher:
        await publisher.publish_many(
            [TokenRevoked(token_id="a"), TokenRevoked(token_id="b"), TokenRevoked(user_id="u")]
        )
        async with revocations:
            await publisher.publish(SessionDestroyed(session_id="s"))
            await publisher.publish(KeyRotated(key_id="k", compromised=True))
            await wait_until(lambda: revocations.stats.events == 5, what="all events")
            for jti in ["a", "a", "x", "y", "z"]:
                revocations.check({"jti": jti, "iat": 5})
            await wait_until(lambda: numbers("revocation_checks_total", verdict="allow") == 3, what="the count")
            assert numbers("revocation_checks_total", verdict="revoked") == 2
            kinds = {kind: numbers("revocation_rules", kind=kind) for kind in revocations.stats.rules}
            none = dict.fromkeys(("client", "user_at_client", "claims", "everyone"), 0)
            assert kinds == {"token": 2, "user": 1, "session": 1, "key": 1} | none
            revocations.check({"jti": "w", "iat": 5})
    assert numbers("revocation_checks_total", verdict="allow") == 4
    assert numbers("revocation_rules", kind="token") == 0
    assert revocations.check({"jti": "x"}) is Verdict.STALE


async def test_events(numbers: Numbers, url: str, key: str, client: Any) -> None:
    """Every event is counted; propagation is observed for new events, not for the history."""
    transport = RedisStream(url, key)
    async with Publisher(transport) as publisher:
        await publisher.publish(TokenRevoked(token_id="before"))
        async with RevocationList(transport, metrics=numbers.metrics) as revocations:
            await client.xadd(key, {"event": "poison"})
            await publisher.publish(TokenRevoked(token_id="after"))
            await wait_until(lambda: revocations.stats.events == 2, what="both events")
    assert numbers("received_total", type="token_revoked", transport="stream") == 2
    assert numbers("propagation_seconds_count", type="token_revoked") == 1
    assert numbers("decode_errors_total", reason="not_json") == 1


async def test_staleness(numbers: Numbers) -> None:
    """Staleness can be read while the list is open, and is removed when it is closed."""
    transport = MemoryTransport()
    async with RevocationList(transport, metrics=numbers.metrics):
        age = numbers("staleness_seconds", destination="memory")
        assert age is not None
        assert 0 <= age < 5
    assert numbers("staleness_seconds", destination="memory") is None


def test_not_metrics() -> None:
    """A value that is not a Metrics is refused with the option's name."""
    metrics: Any = CollectorRegistry()
    with pytest.raises(InvalidOption, match="metrics"):
        RevocationList(MemoryTransport(), metrics=metrics)


async def test_ledger(numbers: Numbers, url: str, key: str) -> None:
    """A publisher that folds tells how many rules the ledger has, what they take, and that it is not behind."""
    transport = RedisStream(url, key, retention=timedelta(milliseconds=1))
    expires_at = datetime.now(UTC) + timedelta(hours=1)
    async with Publisher(transport, metrics=numbers.metrics) as publisher:
        await publisher.publish(TokenRevoked(token_id="a", expires_at=expires_at))
        await publisher.publish(SessionDestroyed(session_id="s"))
        await publisher.publish(KeyRotated(key_id="k", compromised=True))
        await wait_until(lambda: numbers("ledger_rules", kind="key") == 1, what="a round")
    assert [numbers("ledger_rules", kind=kind) for kind in ("ending", "endless")] == [1, 1]
    assert (numbers("ledger_bytes") or 0) > 0
    assert numbers("ledger_folded_seconds") == 0


async def test_ledger_that_cannot_be_folded(numbers: Numbers, url: str, key: str, client: Redis) -> None:
    """While it cannot fold, the time grows."""
    await client.set(f"{key}:ledger", "text")
    transport = RedisStream(url, key, retention=timedelta(milliseconds=1))
    async with Publisher(transport, metrics=numbers.metrics) as publisher:
        await publisher.publish(TokenRevoked(token_id="a"))
        await wait_until(lambda: (numbers("ledger_folded_seconds") or 0) > 0, what="a round that fails")
