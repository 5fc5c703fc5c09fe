"""JWT lifecycle events between services, over Redis.

A JWT is valid until it expires, whatever happened since. This library tells every service at once that a token was
revoked, a session destroyed or a key rotated, and says so when it may have missed something::

    from jwt_events import Publisher, RedisStream, Subscriber, TokenRevoked

Each name is imported when it is asked for, so that nobody waits for redis-py or pydantic, or has prometheus_client
change its default registry, who does not use them.

It logs through loguru and stays silent until ``loguru.logger.enable("jwt_events")``.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from loguru import logger

# What follows is for type checkers; _NAMES says the same at run time, and a test holds them together.
if TYPE_CHECKING:
    from jwt_events._internal.event_type import EventType
    from jwt_events._internal.receipt import Receipt
    from jwt_events._internal.retry import Retry
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
        KeyRotated,
        SessionCreated,
        SessionDestroyed,
        TokenExpired,
        TokenRevoked,
        UnknownEvent,
    )
    from jwt_events.keys import SigningKeys, SigningKeysStats
    from jwt_events.metrics import Metrics
    from jwt_events.publisher import Publisher
    from jwt_events.revocation import Explanation, RevocationList, RevocationStats, Verdict, ViewState, Watch
    from jwt_events.subscriber import Subscriber, SubscriberStats
    from jwt_events.transport.base import Gap, Guarantees, Transport
    from jwt_events.transport.dead_letters import DeadLetter, DeadLetters
    from jwt_events.transport.memory import MemoryTransport
    from jwt_events.transport.pubsub import RedisPubSub
    from jwt_events.transport.stream import RedisStream

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
    "Metrics",
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

_NAMES = {
    "transport.dead_letters": "DeadLetter DeadLetters",
    "errors": (
        "Closed CompromisedKey ConnectionFailed DecodeError EventTooLarge InvalidClaims InvalidEvent "
        "InvalidKeySet InvalidOption JWTEventsError KeysUnavailable NotLive OutlivesRetention PublishError "
        "PublishFailed PublishOutcomeUnknown RetiredKey RevokedTokenError ServerRefused SigningKeyError "
        "StaleRevocationsError SubscriptionRefused TransportError Unavailable UnknownKey"
    ),
    "events": "Event KeyRotated SessionCreated SessionDestroyed TokenExpired TokenRevoked UnknownEvent",
    "_internal.event_type": "EventType",
    "keys": "SigningKeys SigningKeysStats",
    "metrics": "Metrics",
    "publisher": "Publisher",
    "_internal.receipt": "Receipt",
    "_internal.retry": "Retry",
    "revocation": "Explanation RevocationList RevocationStats Verdict ViewState Watch",
    "subscriber": "Subscriber SubscriberStats",
    "transport.base": "Gap Guarantees Transport",
    "transport.memory": "MemoryTransport",
    "transport.pubsub": "RedisPubSub",
    "transport.stream": "RedisStream",
}
_HOMES = {name: home for home, names in _NAMES.items() for name in names.split()}


if not TYPE_CHECKING:  # which would take every name for one that is there

    def __getattr__(name: str) -> object:
        """Import what is asked for; a module of one of the names, too."""
        if name in _HOMES:
            value: object = getattr(import_module(f"jwt_events.{_HOMES[name]}"), name)
        elif name in _NAMES or name == "transport":
            value = import_module(f"jwt_events.{name}")
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value  # from now on it is found without this function
        return value


def __dir__() -> list[str]:
    """List what is here, and what can be asked for."""
    return sorted(globals() | _HOMES)
