"""Parameters of the constructors of events, for type checkers. pydantic makes the constructors from the fields.

The type of a field is that of the value read from it. A constructor accepts more: a NumericDate for each instant.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Required, TypeAlias, TypedDict

from pydantic import JsonValue

from jwt_events._internal.event_type import EventType

Instant: TypeAlias = datetime | float
"""An aware datetime, or a NumericDate in seconds."""


class EventParameters(TypedDict, total=False):
    """Parameters of every event."""

    id: str
    occurred_at: Instant
    source: str | None
    metadata: dict[str, JsonValue]


class TokenRevokedParameters(EventParameters, total=False):
    """Parameters of `TokenRevoked`."""

    type: Literal[EventType.TOKEN_REVOKED]
    token_id: str | None
    user_id: str | None
    session_id: str | None
    client_id: str | None
    issued_before: Instant | None
    expires_at: Instant | None
    reason: str | None


class TokenExpiredParameters(EventParameters, total=False):
    """Parameters of `TokenExpired`."""

    type: Literal[EventType.TOKEN_EXPIRED]
    token_id: Required[str]
    user_id: str | None
    session_id: str | None
    expired_at: Instant | None


class KeyRotatedParameters(EventParameters, total=False):
    """Parameters of `KeyRotated`."""

    type: Literal[EventType.KEY_ROTATED]
    key_id: Required[str]
    previous_key_id: str | None
    issuer: str | None
    algorithm: str | None
    active_from: Instant | None
    retire_at: Instant | None
    compromised: bool


class SessionCreatedParameters(EventParameters, total=False):
    """Parameters of `SessionCreated`."""

    type: Literal[EventType.SESSION_CREATED]
    session_id: Required[str]
    user_id: Required[str]
    client_id: str | None
    expires_at: Instant | None


class SessionDestroyedParameters(EventParameters, total=False):
    """Parameters of `SessionDestroyed`."""

    type: Literal[EventType.SESSION_DESTROYED]
    session_id: Required[str]
    user_id: str | None
    expires_at: Instant | None
    reason: str | None


class UnknownEventParameters(EventParameters, total=False):
    """Parameters of `UnknownEvent`."""

    type: Required[str]
    data: dict[str, JsonValue]
