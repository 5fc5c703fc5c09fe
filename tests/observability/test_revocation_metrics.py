"""What Prometheus is told about a revocation list."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry

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
    """Reads samples of a registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)

    def __call__(self, name: str, **labels: str) -> float | None:
        """Return one sample; ``None`` if it is not there."""
        return self.registry.get_sample_value(f"jwt_events_{name}", labels)


@pytest.fixture
def numbers() -> Numbers:
    """A registry with the instruments."""
    return Numbers()


async def test_rules_and_checks(numbers: Numbers) -> None:
    """Rules are counted by kind and answers by verdict, exactly, and the rules go when the list is closed."""
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
            assert kinds == {"token": 2, "user": 1, "session": 1, "key": 1, "client": 0, "user_at_client": 0}
            revocations.check({"jti": "w", "iat": 5})
    assert numbers("revocation_checks_total", verdict="allow") == 4
    assert numbers("revocation_rules", kind="token") == 0
    assert revocations.check({"jti": "x"}) is Verdict.STALE


async def test_events(numbers: Numbers, url: str, key: str, client: Any) -> None:
    """All that comes is counted; how long it took is observed for what happened since, and not for the history."""
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
    """The age of the last proof can be read at any time while the list is open, and is gone afterwards."""
    transport = MemoryTransport()
    async with RevocationList(transport, metrics=numbers.metrics):
        age = numbers("staleness_seconds", destination="memory")
        assert age is not None
        assert 0 <= age < 5
    assert numbers("staleness_seconds", destination="memory") is None


def test_not_metrics() -> None:
    """What is no Metrics is refused with its name."""
    metrics: Any = CollectorRegistry()
    with pytest.raises(InvalidOption, match="metrics"):
        RevocationList(MemoryTransport(), metrics=metrics)
