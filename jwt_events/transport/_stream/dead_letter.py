"""Dead letters: events that were given up, kept with the reason until an operator decides about them.

Each is one entry of a stream of its own, by default ``<key>:dead``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from jwt_events.transport._redis.commands import Argument
from jwt_events.transport._stream.entry import FIELD, MAX_VALUE_BYTES
from jwt_events.transport.base import Delivery, Failure

# Beyond this count the oldest are removed: a handler that fails on every event must not fill the server.
_MAX_DEAD_LETTERS = 100_000

# Before the names of the fields of an entry that is not an event alone; what this library says about it has none.
_PREFIX = b"entry:"

_EPOCH = datetime.fromtimestamp(0, UTC)
_MAX_MILLISECONDS = 253_402_300_799_999  # the end of the year 9999


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that was given up.

    Attributes:
        id: its position among the dead letters.
        payload: the exact bytes that were delivered: an envelope, unless they could not be decoded as an event; empty
            for an entry of the stream that holds no event.
        error: the kind of error, and where it was raised.
        handler: which handler failed; ``None`` if the bytes could not be decoded as an event.
        attempts: how often handling it was tried, over all deliveries.
        consumer: the name of the consumer that gave it up.
        position: where it was in the stream.
        dead_lettered_at: when it was given up, by the clock of the consumer that did; of an entry that another program
            added to the dead letters, when it did.
        fields: names and values of the entry of the stream, in its order, if it held anything else than an event; empty
            otherwise. They are what a replay appends.
        missing: how many bytes of the entry are not kept, as it was larger than any event. It is not replayed.
    """

    id: str
    payload: bytes
    error: str
    handler: str | None
    attempts: int
    consumer: str
    position: str
    dead_lettered_at: datetime
    fields: tuple[tuple[bytes, bytes], ...] = ()
    missing: int = 0


def dead_letter_command(
    dead_key: str, delivery: Delivery, failure: Failure, *, consumer: str, now: float
) -> tuple[Argument, ...]:
    """Return the command that keeps a delivery as a dead letter; of a value that is too large, the beginning.

    Args:
        dead_key: the stream of dead letters.
        delivery: the delivery that was given up.
        failure: why.
        consumer: the name of the consumer that gives it up.
        now: the time, in seconds since 1970.
    """
    values = [delivery.payload, *delivery.fields]
    missing = delivery.missing + sum(max(0, len(value) - MAX_VALUE_BYTES) for value in values)
    payload, *others = [value[:MAX_VALUE_BYTES] for value in values]
    fields: dict[str, Argument] = {
        "event": payload,
        "error": failure.error,
        "handler": failure.handler or "",
        "attempts": failure.attempts,
        "consumer": consumer,
        "position": delivery.position or "",
        "time": int(now * 1000),
    }
    if missing:
        fields["missing"] = missing
    return (
        "XADD",
        dead_key,
        "MAXLEN",
        "~",
        _MAX_DEAD_LETTERS,
        "*",
        *(part for field in fields.items() for part in field),
        *(part for name, value in _pairs(others) for part in (_PREFIX + name, value)),
    )


def parse_dead_letters(entries: Iterable[Sequence[Any]]) -> list[DeadLetter]:
    """Parse stream entries as dead letters, also those that another program added."""
    return [_parse_dead_letter(position.decode(), list(_pairs(fields))) for position, fields in entries]


def replayed_fields(letter: DeadLetter) -> list[bytes]:
    """Return the names and values of the entry that a dead letter came from."""
    return [part for field in letter.fields or ((FIELD, letter.payload),) for part in field]


def _parse_dead_letter(position: str, pairs: Sequence[tuple[bytes, bytes]]) -> DeadLetter:
    fields = dict(reversed(pairs))

    def text(name: bytes) -> str:
        return fields.get(name, b"").decode("utf-8", "replace")

    is_foreign = FIELD not in fields or b"error" not in fields
    kept = tuple((name.removeprefix(_PREFIX), value) for name, value in pairs if name.startswith(_PREFIX))
    return DeadLetter(
        id=position,
        payload=fields.get(FIELD, b""),
        error=text(b"error"),
        handler=text(b"handler") or None,
        attempts=_number(text(b"attempts")) or 0,
        consumer=text(b"consumer"),
        position=text(b"position"),
        dead_lettered_at=_instant(text(b"time")) or _instant(position.partition("-")[0]) or _EPOCH,
        fields=tuple(pairs) if is_foreign and [name for name, _ in pairs] != [FIELD] else kept,
        missing=0 if is_foreign else _number(text(b"missing")) or 0,
    )


def _pairs(fields: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    return zip(fields[::2], fields[1::2], strict=False)


def _number(text: str) -> int | None:
    """Parse a number; ``None`` for what is none, or is larger than this library writes."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else None


def _instant(text: str) -> datetime | None:
    """Parse milliseconds since 1970; ``None`` for what is no such number, or is after the year 9999."""
    milliseconds = _number(text)
    if milliseconds is None or milliseconds > _MAX_MILLISECONDS:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
