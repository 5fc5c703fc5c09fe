"""The types of events, by name. Apart from the events, so that who needs the names alone does not wait for pydantic."""

from __future__ import annotations

from enum import StrEnum


class EventType(StrEnum):
    """The types of events that this version knows."""

    TOKEN_REVOKED = "token_revoked"
    TOKEN_EXPIRED = "token_expired"
    KEY_ROTATED = "key_rotated"
    SESSION_CREATED = "session_created"
    SESSION_DESTROYED = "session_destroyed"
