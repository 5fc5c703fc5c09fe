"""JWT lifecycle events between services, over Redis.

A JWT is valid until it expires, whatever happened since. This library tells every service at once that a token was
revoked, a session destroyed or a key rotated, and says so when it may have missed something::

    from jwt_events import Publisher, RedisStream, Subscriber, TokenRevoked

It logs through loguru and stays silent until ``loguru.logger.enable("jwt_events")``.
"""

from typing import TYPE_CHECKING

from loguru import logger

from jwt_events.deadletters import DeadLetters
from jwt_events.errors import (
    Closed,
    CompromisedKey,
    ConnectionFailed,
    DecodeError,
    EventTooLarge,
    InvalidClaims,
    InvalidEvent,
    InvalidKeySet,
    InvalidOption,
    JWTEventsError,
    KeysUnavailable,
    NotLive,
    OutlivesRetention,
    PublishError,
    PublishFailed,
    PublishOutcomeUnknown,
    RetiredKey,
    RevokedTokenError,
    ServerRefused,
    SigningKeyError,
    StaleRevocationsError,
    SubscriptionRefused,
    TransportError,
    Unavailable,
    UnknownKey,
)
from jwt_events.events import (
    Event,
    EventType,
    KeyRotated,
    SessionCreated,
    SessionDestroyed,
    TokenExpired,
    TokenRevoked,
    UnknownEvent,
)
from jwt_events.keys import SigningKeys, SigningKeysStats
from jwt_events.publisher import Publisher
from jwt_events.retry import Retry
from jwt_events.revocation import RevocationList
from jwt_events.shipment import Receipt
from jwt_events.subscriber import Subscriber, SubscriberStats
from jwt_events.transport.base import Gap, Guarantees, Transport
from jwt_events.transport.letters import DeadLetter
from jwt_events.transport.memory import MemoryTransport
from jwt_events.transport.pubsub import RedisPubSub
from jwt_events.transport.stream import RedisStream
from jwt_events.verdict import Explanation, RevocationStats, Verdict
from jwt_events.view import ViewState
from jwt_events.watches import Watch

__all__ = [
    "Closed",
    "CompromisedKey",
    "ConnectionFailed",
    "DeadLetter",
    "DeadLetters",
    "DecodeError",
    "Event",
    "EventTooLarge",
    "EventType",
    "Explanation",
    "Gap",
    "Guarantees",
    "InvalidClaims",
    "InvalidEvent",
    "InvalidKeySet",
    "InvalidOption",
    "JWTEventsError",
    "KeyRotated",
    "KeysUnavailable",
    "MemoryTransport",
    "NotLive",
    "OutlivesRetention",
    "PublishError",
    "PublishFailed",
    "PublishOutcomeUnknown",
    "Publisher",
    "Receipt",
    "RedisPubSub",
    "RedisStream",
    "RetiredKey",
    "Retry",
    "RevocationList",
    "RevocationStats",
    "RevokedTokenError",
    "ServerRefused",
    "SessionCreated",
    "SessionDestroyed",
    "SigningKeyError",
    "SigningKeys",
    "SigningKeysStats",
    "StaleRevocationsError",
    "Subscriber",
    "SubscriberStats",
    "SubscriptionRefused",
    "TokenExpired",
    "TokenRevoked",
    "Transport",
    "TransportError",
    "Unavailable",
    "UnknownEvent",
    "UnknownKey",
    "Verdict",
    "ViewState",
    "Watch",
]
__version__ = "0.1.0"

logger.disable("jwt_events")

if TYPE_CHECKING:
    from jwt_events.metrics import Metrics as Metrics


def __getattr__(name: str) -> object:
    """Import `Metrics` when it is asked for: prometheus_client changes its default registry when it is imported."""
    if name == "Metrics":
        from jwt_events.metrics import Metrics  # noqa: PLC0415 - see above

        return Metrics
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
