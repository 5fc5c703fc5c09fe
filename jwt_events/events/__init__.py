"""Events of the JWT lifecycle: models, validation and routing."""

from jwt_events._internal.event_type import EventType
from jwt_events.events._fast_path import fast_builder as fast_builder
from jwt_events.events._fields import MAX_IDENTIFIER_LENGTH as MAX_IDENTIFIER_LENGTH
from jwt_events.events._fields import MAX_NUMERIC_DATE as MAX_NUMERIC_DATE
from jwt_events.events._fields import Instant as Instant
from jwt_events.events._fields import looks_like_jwt as looks_like_jwt
from jwt_events.events._models import (
    EVENT_CLASSES,
    Event,
    KeyRotated,
    SessionCreated,
    SessionDestroyed,
    TokenExpired,
    TokenRevoked,
    UnknownEvent,
    fingerprint,
)
from jwt_events.events._models import make_event as make_event
from jwt_events.events._routing import EventHandler as EventHandler
from jwt_events.events._routing import Handler as Handler
from jwt_events.events._routing import Routes as Routes

# Names imported "as" themselves are for other packages of this library, not for its users.
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
