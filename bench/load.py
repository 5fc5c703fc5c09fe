"""What is sent: the same event for everybody, as an object of jwt_events, as a model, and as the bytes that travel.

Each event has a number, its ``token_id`` in hexadecimal, so that whoever receives can say which ones are missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import BaseModel
from redis.asyncio import Redis

from jwt_events import TokenRevoked

SOURCE = "bench"
RETENTION = timedelta(days=3)  # of every stream: longer than any token of the bench lives
_NOW = datetime.now(UTC).replace(microsecond=123_456)
_EXPIRES_ON = (_NOW + timedelta(days=1)).date()

# 292 bytes with a number filled in. Expiries are spread over 20 hours, as those of real tokens are.
_TEMPLATE = (
    '{"specversion":"1.0","id":"01a21c3e-5079-76d0-8000-%012x","source":"bench","type":"jwt.token_revoked.v1",'
    f'"time":"{_NOW:%Y-%m-%dT%H:%M:%S.%fZ}","subject":"%032x",'
    f'"data":{{"token_id":"%032x","expires_at":"{_EXPIRES_ON}T%02d:%02d:00.123456Z"}}}}'
)

# The server makes its events by itself: a million of them in seconds, and no client is measured while it makes them.
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
_PAGE = 10_000


class Data(BaseModel):
    """What an event says."""

    token_id: str
    expires_at: datetime
    metadata: dict[str, Any] = {}


class Message(BaseModel):
    """An event, as somebody would write it who needs nothing else: what peers publish and validate."""

    specversion: str
    id: str
    source: str
    type: str
    time: datetime
    subject: str
    data: Data


def payload(number: int, padding: int = 0) -> bytes:
    """Return the bytes of an event that travel, with so many bytes of metadata."""
    text = _TEMPLATE % (number, number, number, number // 60 % 20, number % 60)
    if padding:
        text = text.replace('"data":{', f'"data":{{"metadata":{{"note":"{"x" * padding}"}},')
    return text.encode()


def message(number: int, padding: int = 0) -> Message:
    """Return the same event as a model."""
    return Message.model_validate_json(payload(number, padding))


def event(number: int, padding: int = 0) -> TokenRevoked:
    """Return the same event as one of ours."""
    sent = message(number, padding)
    return TokenRevoked(
        id=sent.id,
        occurred_at=sent.time,
        token_id=sent.data.token_id,
        expires_at=sent.data.expires_at,
        metadata=sent.data.metadata,
    )


async def make(client: Redis, to: str, number: int, field: str) -> None:
    """Let the server append the first so many events to a stream; or publish them, if there is no field for them."""
    for first in range(0, number, _PAGE):
        await client.eval(_MAKE, 1, to, first, min(_PAGE, number - first), _TEMPLATE, field)


async def fill(client: Redis, key: str, number: int) -> None:
    """See to it that a stream holds exactly the first so many events."""
    if await client.xlen(key) != number:
        await client.unlink(key)
        await make(client, key, number, "event")


class Counters:
    """Who has arrived: each number once, however often it comes.

    Args:
        number: how many events there are.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._seen = bytearray(number)

    def note(self, token_id: str) -> bool:
        """Note an event; return whether it is here for the first time."""
        index = int(token_id, 16)
        if self._seen[index]:
            return False
        self._seen[index] = 1
        return True

    @property
    def missing(self) -> int:
        """How many have not arrived."""
        return self._number - sum(self._seen)


def missing(tallies: Sequence[Counters]) -> str:
    """Say what is missing, in words."""
    return f"{sum(tally.missing for tally in tallies):,} events missing"
