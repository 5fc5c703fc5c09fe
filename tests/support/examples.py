"""Example events: one of each type with every field set."""

from __future__ import annotations

import json
import traceback
from datetime import UTC, datetime
from typing import Any

from jwt_events import Event, EventType, KeyRotated, SessionCreated, SessionDestroyed, TokenExpired, TokenRevoked
from jwt_events.envelope import decode

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LATER = datetime(2026, 3, 1, 13, 30, 15, 250_000, tzinfo=UTC)

COMPACT_JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"
"""A whole token, which must never be sent."""

_HEADER: dict[str, Any] = {
    "id": "01961f7e-0000-7000-8000-000000000001",
    "occurred_at": NOON,
    "source": "auth",
    "metadata": {"ip": "192.0.2.1"},
}

FIELDS: dict[type[Event], dict[str, Any]] = {
    TokenRevoked: _HEADER
    | {
        "token_id": "token-1",
        "user_id": "user-1",
        "session_id": "session-1",
        "client_id": "client-1",
        "issued_before": NOON,
        "expires_at": LATER,
        "reason": "logout",
    },
    TokenExpired: _HEADER
    | {"token_id": "token-1", "user_id": "user-1", "session_id": "session-1", "expired_at": LATER},
    KeyRotated: _HEADER
    | {
        "key_id": "key-2",
        "previous_key_id": "key-1",
        "issuer": "https://issuer.example",
        "algorithm": "ES256",
        "active_from": NOON,
        "retire_at": LATER,
        "compromised": False,
    },
    SessionCreated: _HEADER
    | {"session_id": "session-1", "user_id": "user-1", "client_id": "client-1", "expires_at": LATER},
    SessionDestroyed: _HEADER
    | {"session_id": "session-1", "user_id": "user-1", "expires_at": LATER, "reason": "logout"},
}
"""Every field of every type of event, with a valid value."""

EVENTS: list[Event] = [cls(**fields) for cls, fields in FIELDS.items()]
"""One event of each type, with every field set."""

IDENTIFIERS = {name: value for fields in FIELDS.values() for name, value in fields.items() if name.endswith("_id")}
"""Identifiers in the example events, by field."""


def revoked(number: int = 1, **fields: Any) -> TokenRevoked:
    """Return an event that is identified by its number."""
    return TokenRevoked(token_id=f"token-{number}", **fields)


def on_the_wire(kind: EventType, at: datetime = NOON, /, **data: Any) -> bytes:
    """Return a message as another program may have written it, which checks less than this one.

    Args:
        kind: the type of the event.
        at: when it occurred.
        data: its fields; instants as text.
    """
    message = {
        "specversion": "1.0",
        "id": "event-1",
        "source": "elsewhere",
        "type": f"jwt.{kind}.v1",
        "time": at.isoformat().replace("+00:00", "Z"),
        "data": data,
    }
    return json.dumps(message).encode()


def received(kind: EventType, at: datetime = NOON, /, **data: Any) -> Event:
    """Return an event as it is received from another program."""
    return decode(on_the_wire(kind, at, **data)).event


def all_that_is_said(error: BaseException) -> str:
    """Return every text of an error that may appear in a log."""
    return "\n".join([str(error), repr(error), *map(str, error.args), *traceback.format_exception(error)])
