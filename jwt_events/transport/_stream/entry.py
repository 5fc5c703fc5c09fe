"""Stream entries as deliveries. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from jwt_events.transport.base import Delivery

FIELD = b"event"
"""The field of a stream entry whose value is the envelope."""

MAX_VALUE_BYTES = 2 * 1_048_576
"""Bytes that are kept of a value: twice as many as an event may have, so that what is slightly wrong is whole."""


def parse_delivery(position: bytes, fields: Sequence[bytes] | None, attempt: int = 1) -> Delivery:
    """Return the delivery of an entry.

    The envelope is in the field ``event``, whatever stands beside it, or in the only field, whatever its name. The
    payload of any other entry is empty, so that it fails to decode and is counted.

    Args:
        position: the position of the entry.
        fields: names and values in turn; ``None`` for an entry that was removed.
        attempt: see `Delivery`.
    """
    if fields is not None and len(fields) == 2:
        name, payload = fields
        return Delivery(payload, position.decode(), attempt, () if name == FIELD else fields)
    return Delivery(event_in(fields or ()), position.decode(), attempt, fields or ())


def parse_deliveries(entries: Sequence[tuple[bytes, Sequence[bytes]]]) -> list[Delivery]:
    """Return the deliveries of entries that are delivered for the first time, none of which was removed."""
    try:
        # As nearly all entries are an event alone, these cost no call of a function.
        return [
            Delivery(payload, position.decode()) if name == FIELD else parse_delivery(position, [name, payload])
            for position, (name, payload) in entries
        ]
    except ValueError:  # more fields, or none
        return [parse_delivery(position, fields) for position, fields in entries]


def payloads_of(entries: Iterable[tuple[bytes, Sequence[bytes]]]) -> list[bytes]:
    """Return the payloads of entries, none of which was removed, as their deliveries have them."""
    return [fields[1] if len(fields) == 2 else event_in(fields) for _, fields in entries]


def cut(deliveries: list[Delivery], missing: int) -> list[Delivery]:
    """Return deliveries of a reply of which so many bytes were dropped: it had one entry."""
    if not missing:
        return deliveries
    return [Delivery(each.payload, each.position, each.attempt, each.fields, missing) for each in deliveries]


def event_in(fields: Sequence[bytes]) -> bytes:
    """Return the value of the field ``event``; empty if there is none."""
    return next((value for name, value in zip(fields[::2], fields[1::2], strict=False) if name == FIELD), b"")
