"""Dead letters: events that were given up, kept with the reason until an operator decides about them.

Each is one entry of a stream of its own, by default ``<key>:dead``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from jwt_events.transport._redis.protocol import Argument
from jwt_events.transport.base import Delivery, Failure

# Beyond this count the oldest are removed: a handler that fails on every event must not fill the server.
_MAX_DEAD_LETTERS = 100_000


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that was given up.

    Attributes:
        id: its position among the dead letters.
        payload: the exact bytes that were delivered: an envelope, unless they could not be decoded as an event.
        error: the kind of error, and where it was raised.
        handler: which handler failed; ``None`` if the bytes could not be decoded as an event.
        attempts: how often handling it was tried, over all deliveries.
        consumer: the name of the consumer that gave it up.
        position: where it was in the stream.
        dead_lettered_at: when it was given up, by the clock of the consumer that did.
    """

    id: str
    payload: bytes
    error: str
    handler: str | None
    attempts: int
    consumer: str
    position: str
    dead_lettered_at: datetime


def dead_letter_command(
    dead_key: str, delivery: Delivery, failure: Failure, *, consumer: str, now: float
) -> tuple[Argument, ...]:
    """Return the command that keeps a delivery as a dead letter.

    Args:
        dead_key: the stream of dead letters.
        delivery: the delivery that was given up.
        failure: why.
        consumer: the name of the consumer that gives it up.
        now: the time, in seconds since 1970.
    """
    fields: Mapping[str, Argument] = {
        "event": delivery.payload,
        "error": failure.error,
        "handler": failure.handler or "",
        "attempts": failure.attempts,
        "consumer": consumer,
        "position": delivery.position or "",
        "time": int(now * 1000),
    }
    return (
        "XADD",
        dead_key,
        "MAXLEN",
        "~",
        _MAX_DEAD_LETTERS,
        "*",
        *(part for field in fields.items() for part in field),
    )


def parse_dead_letters(entries: Iterable[Sequence[Any]]) -> list[DeadLetter]:
    """Parse stream entries as dead letters."""
    return [
        _parse_dead_letter(position.decode(), dict(zip(fields[::2], fields[1::2], strict=True)))
        for position, fields in entries
    ]


def _parse_dead_letter(position: str, fields: Mapping[bytes, bytes]) -> DeadLetter:
    def text(name: bytes) -> str:
        return fields.get(name, b"").decode("utf-8", "replace")

    def number(name: bytes) -> int:
        return int(value) if (value := text(name)).isdecimal() else 0

    return DeadLetter(
        id=position,
        payload=fields.get(b"event", b""),
        error=text(b"error"),
        handler=text(b"handler") or None,
        attempts=number(b"attempts"),
        consumer=text(b"consumer"),
        position=text(b"position"),
        dead_lettered_at=datetime.fromtimestamp(number(b"time") / 1000, UTC),
    )
