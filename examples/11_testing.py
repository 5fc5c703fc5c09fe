"""Learn to test your code without a server: what it publishes, and how it handles failures.

Run it with ``pytest examples/11_testing.py``; it needs pytest-asyncio.
"""

from collections.abc import Mapping

import pytest

from jwt_events import Publisher, PublishFailed, RevocationList, TokenRevoked, Verdict
from jwt_events.testing import FaultyTransport, ManualClock, RecordingPublisher, eventually

pytest_plugins = ["jwt_events.testing.plugin"]
pytestmark = pytest.mark.asyncio


async def log_out(publisher: Publisher, claims: Mapping[str, object]) -> str:
    """The code under test."""
    try:
        await publisher.publish(TokenRevoked.from_claims(claims, reason="logout"))
    except PublishFailed:
        return "try again"
    return "logged out"


async def test_logging_out_revokes_the_token(jwt_events_publisher: RecordingPublisher) -> None:
    assert await log_out(jwt_events_publisher, {"jti": "token-1"}) == "logged out"
    jwt_events_publisher.assert_published(TokenRevoked, token_id="token-1", reason="logout")


async def test_logging_out_without_a_server(jwt_events_publisher: RecordingPublisher) -> None:
    jwt_events_publisher.fail_next(PublishFailed)
    assert await log_out(jwt_events_publisher, {"jti": "token-1"}) == "try again"
    jwt_events_publisher.assert_not_published()


async def test_a_revoked_token_is_refused(
    jwt_events_publisher: RecordingPublisher, jwt_events_revocations: RevocationList
) -> None:
    async with jwt_events_revocations as revocations:
        await log_out(jwt_events_publisher, {"jti": "token-1"})
        await eventually(lambda: revocations.check({"jti": "token-1"}) is Verdict.REVOKED)


async def test_nothing_is_known_while_the_network_is_gone(
    jwt_events_transport: FaultyTransport, jwt_events_clock: ManualClock, jwt_events_revocations: RevocationList
) -> None:
    async with jwt_events_revocations as revocations:
        jwt_events_transport.faults.disconnect()
        jwt_events_clock.advance(6.0)  # seconds, without sleeping
        assert revocations.check({"jti": "token-2"}) is Verdict.STALE
        jwt_events_transport.faults.heal()
        await eventually(lambda: revocations.is_fresh)
