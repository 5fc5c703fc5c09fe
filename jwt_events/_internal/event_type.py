"""Names of the event types, in a module of their own so that importing them does not import pydantic."""

from __future__ import annotations

from enum import StrEnum


class EventType(StrEnum):
    """Type of an event, as far as this version knows it."""

    TOKEN_REVOKED = "token_revoked"
    TOKEN_EXPIRED = "token_expired"
    KEY_ROTATED = "key_rotated"
    SESSION_CREATED = "session_created"
    SESSION_DESTROYED = "session_destroyed"
