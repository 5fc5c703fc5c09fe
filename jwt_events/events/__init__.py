"""Events of the JWT lifecycle: models, validation and routing."""

from jwt_events._internal.event_type import EventType
from jwt_events.events._canonical import Read as Read
from jwt_events.events._canonical import canonical_bytes as canonical_bytes
from jwt_events.events._canonical import canonical_decoder as canonical_decoder
from jwt_events.events._canonical import canonical_reader as canonical_reader
from jwt_events.events._claim_names import STANDARD as STANDARD
from jwt_events.events._claim_names import ClaimNames
from jwt_events.events._claim_names import claim_names_of as claim_names_of
from jwt_events.events._claims import ALIAS_PREFIX as ALIAS_PREFIX
from jwt_events.events._claims import is_plain as is_plain
from jwt_events.events._claims import name_of as name_of
from jwt_events.events._conditions import ComparedValue as ComparedValue
from jwt_events.events._conditions import compared as compared
from jwt_events.events._conditions import compared_values as compared_values
from jwt_events.events._conditions import path_of as path_of
from jwt_events.events._event import Event
from jwt_events.events._event import fixed_values as fixed_values
from jwt_events.events._event import from_fixed_values as from_fixed_values
from jwt_events.events._event import validated_values as validated_values
from jwt_events.events._fast_path import fast_builder as fast_builder
from jwt_events.events._fields import FROM_WIRE as FROM_WIRE
from jwt_events.events._fields import MAX_IDENTIFIER_LENGTH as MAX_IDENTIFIER_LENGTH
from jwt_events.events._fields import MAX_NUMERIC_DATE as MAX_NUMERIC_DATE
from jwt_events.events._fields import Instant as Instant
from jwt_events.events._fields import is_uri_reference as is_uri_reference
from jwt_events.events._fields import looks_like_jwt as looks_like_jwt
from jwt_events.events._fields import parse_instant as parse_instant
from jwt_events.events._making import make_event as make_event
from jwt_events.events._making import receive_event as receive_event
from jwt_events.events._making import validated as validated
from jwt_events.events._models import (
    EVENT_CLASSES,
    KeyRotated,
    SessionCreated,
    SessionDestroyed,
    TokenExpired,
    TokenRevoked,
    UnknownEvent,
    fingerprint,
)
from jwt_events.events._rotation import compromised_keys as compromised_keys
from jwt_events.events._rotation import retired_key as retired_key
from jwt_events.events._routing import EventHandler as EventHandler
from jwt_events.events._routing import Handler as Handler
from jwt_events.events._routing import Routes as Routes
from jwt_events.events._routing import classes_of as classes_of

# Names imported "as" themselves are for other packages of this library, not for its users.
__all__ = [
    "EVENT_CLASSES",
    "ClaimNames",
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
