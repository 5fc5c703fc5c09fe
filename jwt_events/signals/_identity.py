"""Ids of events that are made from signals, and the data that they carry. Pure."""

from __future__ import annotations

import hashlib
import uuid
from datetime import UTC, datetime
from typing import Any

from jwt_events.errors import InvalidEvent, SignalRefused
from jwt_events.events import Event, EventType, looks_like_jwt, make_event

MAX_TEXT = 256


def event_id(issuer: str, jti: str, index: int = 0) -> str:
    """Return the id of an event: the same for every delivery of a signal, to whichever receiver (UUIDv8, RFC 9562).

    Args:
        issuer: the ``iss`` of the token.
        jti: the ``jti``, unique for the issuer.
        index: which of the token's events it is.
    """
    digest = hashlib.sha256(f"{len(issuer)}:{issuer}{len(jti)}:{jti}{index}".encode()).digest()
    number = int.from_bytes(digest[:16], "big")
    number = number & ~(0xF << 76) | 0x8 << 76  # version 8
    number = number & ~(0x3 << 62) | 0x2 << 62  # variant of RFC 9562
    return str(uuid.UUID(int=number))


def build(kind: EventType, **fields: Any) -> Event:
    """Return an event with these fields.

    Raises:
        SignalRefused: a field from the token is not valid in an event.
    """
    try:
        return make_event(kind, fields)
    except InvalidEvent as error:
        names = ", ".join(sorted({field for field, _ in error.problems}))
        raise SignalRefused("invalid_request", f"not valid as a field of an event: {names}") from None


def instant(seconds: float) -> datetime:
    """Return the instant of a NumericDate that was checked."""
    return datetime.fromtimestamp(seconds, UTC)


def metadata(**values: Any) -> dict[str, Any]:
    """Return the values that are text, cut to a bounded length; a whole token among them is left out."""
    return {
        name: value[:MAX_TEXT]
        for name, value in values.items()
        if isinstance(value, str) and value and not looks_like_jwt(value[:MAX_TEXT]) and not looks_like_jwt(value)
    }


def reason_of(payload: dict[str, Any]) -> str | None:
    """Return the reason for administrators in the payload of an event (CAEP 1.0 §2), in English if it has that."""
    for name in ("reason_admin", "reason"):
        value = payload.get(name)
        if isinstance(value, dict):
            said = sorted(
                (language != "en", language, text) for language, text in value.items() if isinstance(text, str)
            )
            value = said[0][2] if said else None
        if found := metadata(reason=value).get("reason"):
            return str(found)
    return None
