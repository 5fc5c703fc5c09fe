"""JWT lifecycle events between services, over Redis.

A JWT is valid until it expires, whatever happened since. This library tells every service at once that a token was
revoked, a session destroyed or a key rotated, and says so when it may have missed something::

    from jwt_events import Publisher, RedisStream, Subscriber, TokenRevoked

It logs through loguru and stays silent until ``loguru.logger.enable("jwt_events")``.
"""

from loguru import logger

from jwt_events.deadletters import DeadLetters
from jwt_events.errors import (
    Closed,
    ConnectionFailed,
    DecodeError,
    EventTooLarge,
    InvalidEvent,
    InvalidOption,
    JWTEventsError,
    OutlivesRetention,
    PublishError,
    PublishFailed,
    PublishOutcomeUnknown,
    ServerRefused,
    SubscriptionRefused,
    TransportError,
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
from jwt_events.publisher import Publisher, Receipt
from jwt_events.retry import Retry
from jwt_events.subscriber import Subscriber, SubscriberStats
from jwt_events.transport.base import Gap, Guarantees, Transport
from jwt_events.transport.letters import DeadLetter
from jwt_events.transport.memory import MemoryTransport
from jwt_events.transport.pubsub import RedisPubSub
from jwt_events.transport.stream import RedisStream

__all__ = [
    "Closed",
    "ConnectionFailed",
    "DeadLetter",
    "DeadLetters",
    "DecodeError",
    "Event",
    "EventTooLarge",
    "EventType",
    "Gap",
    "Guarantees",
    "InvalidEvent",
    "InvalidOption",
    "JWTEventsError",
    "KeyRotated",
    "MemoryTransport",
    "OutlivesRetention",
    "PublishError",
    "PublishFailed",
    "PublishOutcomeUnknown",
    "Publisher",
    "Receipt",
    "RedisPubSub",
    "RedisStream",
    "Retry",
    "ServerRefused",
    "SessionCreated",
    "SessionDestroyed",
    "Subscriber",
    "SubscriberStats",
    "SubscriptionRefused",
    "TokenExpired",
    "TokenRevoked",
    "Transport",
    "TransportError",
    "UnknownEvent",
]
__version__ = "0.1.0"

logger.disable("jwt_events")
