"""Dead letters: events that were given up, kept with the reason until somebody looks.

They lie in a stream of their own, ``<key>:dead`` unless said otherwise, one entry each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from jwt_events.transport._redis.protocol import Argument
from jwt_events.transport.base import Delivery, Failure

# The oldest are forgotten beyond this many: a handler that fails on everything must not fill the server.
_MAX_DEAD_LETTERS = 100_000


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that was given up.

    Attributes:
        id: its position among the dead letters.
        payload: the exact bytes that were delivered; an envelope, unless they were no event at all.
        error: the kind of error, and where it was raised.
        handler: which handler failed; ``None`` if the bytes were no event.
        attempts: how often it was tried.
        consumer: who gave it up.
        position: where it was in the stream.
        dead_lettered_at: when it was given up, by the clock of whoever did.
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
        delivery: what to keep.
        failure: why.
        consumer: who gives it up.
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


def letters(entries: Iterable[Sequence[Any]]) -> list[DeadLetter]:
    """Read stream entries as dead letters."""
    return [
        _letter(position.decode(), dict(zip(fields[::2], fields[1::2], strict=True))) for position, fields in entries
    ]


def _letter(position: str, fields: Mapping[bytes, bytes]) -> DeadLetter:
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
