"""The events that are sent: the same for every competitor, as an event of jwt_events, as a model, and as encoded bytes.

Each event has a number, its ``token_id`` in hexadecimal, by which a receiver finds out which events are missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import BaseModel
from redis.asyncio import Redis

from jwt_events import TokenRevoked

SOURCE = "bench"
RETENTION = timedelta(days=3)  # of every stream: longer than the lifetime of any token here
_NOW = datetime.now(UTC).replace(microsecond=123_456)
_EXPIRES_ON = (_NOW + timedelta(days=1)).date()

# 292 bytes with the number filled in. Expiries are spread over 20 hours, as those of real tokens are.
_TEMPLATE = (
    '{"specversion":"1.0","id":"01a21c3e-5079-76d0-8000-%012x","source":"bench","type":"jwt.token_revoked.v1",'
    f'"time":"{_NOW:%Y-%m-%dT%H:%M:%S.%fZ}","subject":"%032x",'
    f'"data":{{"token_id":"%032x","expires_at":"{_EXPIRES_ON}T%02d:%02d:00.123456Z"}}}}'
)

# The server makes its events itself: a million of them in seconds, and no client is measured meanwhile.
_MAKE = """
local first, count, template, field = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4]
for i = first, first + count - 1 do
    local event = string.format(template, i, i, i, math.floor(i / 60) % 20, i % 60)
    if field == '' then
        redis.call('PUBLISH', KEYS[1], event)
    else
        redis.call('XADD', KEYS[1], '*', field, event)
    end
end
"""
_BATCH_SIZE = 10_000


class Data(BaseModel):
    """The payload of an event."""

    token_id: str
    expires_at: datetime
    metadata: dict[str, Any] = {}


class Message(BaseModel):
    """An event as a plain pydantic model: what other libraries publish and validate."""

    specversion: str
    id: str
    source: str
    type: str
    time: datetime
    subject: str
    data: Data


def payload(number: int, padding: int = 0) -> bytes:
    """Return the encoded bytes of an event, with `padding` bytes of metadata."""
    text = _TEMPLATE % (number, number, number, number // 60 % 20, number % 60)
    if padding:
        text = text.replace('"data":{', f'"data":{{"metadata":{{"note":"{"x" * padding}"}},')
    return text.encode()


def message(number: int, padding: int = 0) -> Message:
    """Return the same event as a model."""
    return Message.model_validate_json(payload(number, padding))


def event(number: int, padding: int = 0) -> TokenRevoked:
    """Return the same event as an event of jwt_events."""
    sent = message(number, padding)
    return TokenRevoked(
        id=sent.id,
        occurred_at=sent.time,
        token_id=sent.data.token_id,
        expires_at=sent.data.expires_at,
        metadata=sent.data.metadata,
    )


async def make(client: Redis, to: str, count: int, field: str) -> None:
    """Let the server append the first `count` events to a stream, or publish them if `field` is empty."""
    for first in range(0, count, _BATCH_SIZE):
        await client.eval(_MAKE, 1, to, first, min(_BATCH_SIZE, count - first), _TEMPLATE, field)


async def fill(client: Redis, key: str, count: int) -> None:
    """Make sure that a stream holds exactly the first `count` events."""
    if await client.xlen(key) != count:
        await client.unlink(key)
        await make(client, key, count, "event")


class Arrivals:
    """The events that one subscriber has received, each counted once however often it comes.

    Args:
        count: how many events there are.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._seen = bytearray(count)

    def add(self, token_id: str) -> bool:
        """Count an event; return whether it has come for the first time."""
        index = int(token_id, 16)
        if self._seen[index]:
            return False
        self._seen[index] = 1
        return True

    @property
    def missing(self) -> int:
        """How many events have not come."""
        return self._count - sum(self._seen)


def missing(all_arrivals: Sequence[Arrivals]) -> str:
    """Describe how many events are missing, for a message."""
    return f"{sum(arrivals.missing for arrivals in all_arrivals):,} events missing"
