"""What a type checker knows of publishing, and of what helps to test it. Nothing here is run; see `make types`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import assert_type

import jwt_events
from jwt_events import (
    Event,
    EventType,
    KeyRotated,
    MemoryTransport,
    Publisher,
    PublishError,
    PublishFailed,
    Receipt,
    RedisPubSub,
    RedisStream,
    RevocationList,
    SessionCreated,
    SessionDestroyed,
    TokenExpired,
    TokenRevoked,
    Transport,
    UnknownEvent,
)
from jwt_events._internal.clock import SYSTEM, Clock
from jwt_events.testing import Faults, FaultyTransport, ManualClock, RecordingPublisher, eventually


async def both_shapes(publisher: Publisher) -> None:
    """An event, or a type and its fields; nothing else."""
    assert_type(await publisher.publish(TokenRevoked(token_id="t")), Receipt)
    assert_type(await publisher.publish(EventType.KEY_ROTATED, {"key_id": "k"}), Receipt)
    assert_type(await publisher.publish_many([TokenRevoked(token_id="t"), KeyRotated(key_id="k")]), list[Receipt])
    assert_type(TokenRevoked.from_claims({"jti": "t"}), TokenRevoked)
    async with publisher as entered:
        assert_type(entered, Publisher)
    await publisher.publish(EventType.KEY_ROTATED)  # type: ignore[call-overload]  # the mistake that is to be found
    await publisher.publish(TokenRevoked(token_id="t"), {})  # type: ignore[call-overload]  # another one
    _ = jwt_events.Publischer  # type: ignore[attr-defined]  # names are imported when asked for, and no others are there


def instants(now: datetime) -> list[Event]:
    """Every constructor takes a NumericDate for each instant, and what is read is a datetime."""
    rotated = KeyRotated(key_id="k", active_from=1_700_000_000.0, retire_at=1_700_000_000)
    assert_type(rotated.active_from, datetime | None)
    assert_type(rotated.occurred_at, datetime)
    KeyRotated(key_id="k", active_from="2026-03-01T12:00:00Z")  # type: ignore[arg-type]  # text is for JSON
    KeyRotated(active_from=now)  # type: ignore[call-arg]  # the key is missing
    KeyRotated(key_id="k", activ_from=now)  # type: ignore[call-arg]  # no such field
    return [
        rotated,
        KeyRotated(key_id="k", active_from=now, retire_at=None, occurred_at=1_700_000_000.5, metadata={"a": [1]}),
        TokenRevoked(token_id="t", issued_before=1_700_000_000, expires_at=1_700_000_000.0, id="i", source=None),
        TokenExpired(token_id="t", expired_at=1_700_000_000.0, occurred_at=1_700_000_000),
        SessionCreated(session_id="s", user_id="u", expires_at=1_700_000_000.0),
        SessionDestroyed(session_id="s", expires_at=datetime.now(UTC).timestamp()),
        UnknownEvent(type="jwt.session_paused.v1", data={"a": None}, occurred_at=1_700_000_000.0),
    ]


def transports(url: str) -> list[Transport]:
    """Every transport is one, and every clock is a clock."""
    clocks: list[Clock] = [SYSTEM, ManualClock()]
    assert_type(RevocationList(MemoryTransport(), clock=clocks[0]), RevocationList)
    return [RedisPubSub(url), RedisStream(url), MemoryTransport(), FaultyTransport(MemoryTransport())]


async def recording(transport: FaultyTransport) -> None:
    """A recording publisher is a publisher, and what it finds has the class that was asked for."""
    publisher = RecordingPublisher(transport)
    await both_shapes(publisher)
    assert_type(publisher.published, list[Event])
    assert_type(publisher.assert_published(KeyRotated, key_id="k"), KeyRotated)
    assert_type(transport.faults, Faults)
    publisher.fail_next(PublishFailed)
    publisher.fail_next(PublishError)  # type: ignore[arg-type]  # neither surely not, nor perhaps


async def waiting() -> None:
    """What was waited for has the type that the predicate returns."""

    async def ask() -> str:
        return "answer"

    assert_type(await eventually(ask), str)
    assert_type(await eventually(lambda: 7), int)
