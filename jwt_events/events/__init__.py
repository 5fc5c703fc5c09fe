"""What happened: the events in the life of a JWT."""

from jwt_events.events._models import (
    EVENT_CLASSES,
    Event,
    EventType,
    KeyRotated,
    SessionCreated,
    SessionDestroyed,
    TokenExpired,
    TokenRevoked,
    UnknownEvent,
    fingerprint,
)

__all__ = [
    "EVENT_CLASSES",
    "Event",
    "EventType",
    "KeyRotated",
    "SessionCreated",
    "SessionDestroyed",
    "TokenExpired",
    "TokenRevoked",
    "UnknownEvent",
    "fingerprint",
]
