"""JWT lifecycle events between services, over Redis.

A JWT is valid until it expires, even if it should no longer be accepted. This library tells every service at once that
a token was revoked, a session destroyed or a key rotated, and reports when it may have missed an event::

    from jwt_events import Publisher, RedisStream, Subscriber, TokenRevoked

Each name is imported on first access, so a program that does not use redis-py, pydantic or prometheus_client does not
import them.

The library logs through loguru after ``loguru.logger.enable("jwt_events")``. Until then it tells what must not be
missed, once each, through the `logging` module.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from loguru import logger

# These imports are for type checkers; _NAMES lists the same names for run time, and a test compares the two.
if TYPE_CHECKING:
    from jwt_events._internal.event_type import EventType
    from jwt_events._internal.receipt import Propagation, Receipt
    from jwt_events._internal.retry import Retry
    from jwt_events.errors import (
        AnotherSubject,
        Closed,
        CompromisedKey,
        ConnectionFailed,
        DecodeError,
        EventTooLarge,
        ExpiredTokenError,
        InvalidClaims,
        InvalidEvent,
        InvalidKeySet,
        InvalidOption,
        JWTEventsError,
        KeysUnavailable,
        NotLive,
        NotProven,
        NotReplicated,
        OlderToken,
        OutlivesRetention,
        PublishError,
        PublishFailed,
        PublishOutcomeUnknown,
        RenewalRefused,
        RetiredKey,
        RevokedTokenError,
        ServerRefused,
        SigningKeyError,
        StaleRevocationsError,
        SubscriptionRefused,
        TransportError,
        Unavailable,
        UnknownKey,
        WrongLoop,
    )
    from jwt_events.events import (
        ClaimNames,
        Event,
        KeyRotated,
        SessionCreated,
        SessionDestroyed,
        TokenExpired,
        TokenRevoked,
        UnknownEvent,
    )
    from jwt_events.fleet import Fleet, Lease
    from jwt_events.keys import SigningKeys, SigningKeysStats
    from jwt_events.metrics import Metrics
    from jwt_events.publisher import Publisher
    from jwt_events.revocation import Explanation, RevocationList, RevocationStats, Verdict, ViewState, Watch
    from jwt_events.subscriber import Subscriber, SubscriberState, SubscriberStats
    from jwt_events.transport.base import Gap, Guarantees, Transport
    from jwt_events.transport.dead_letters import DeadLetter, DeadLetters
    from jwt_events.transport.memory import MemoryTransport
    from jwt_events.transport.pubsub import RedisPubSub
    from jwt_events.transport.regions import RegionalStreams
    from jwt_events.transport.stream import RedisStream

__all__ = [
    "AnotherSubject",
    "ClaimNames",
    "Closed",
    "CompromisedKey",
    "ConnectionFailed",
    "DeadLetter",
    "DeadLetters",
    "DecodeError",
    "Event",
    "EventTooLarge",
    "EventType",
    "ExpiredTokenError",
    "Explanation",
    "Fleet",
    "Gap",
    "Guarantees",
    "InvalidClaims",
    "InvalidEvent",
    "InvalidKeySet",
    "InvalidOption",
    "JWTEventsError",
    "KeyRotated",
    "KeysUnavailable",
    "Lease",
    "MemoryTransport",
    "Metrics",
    "NotLive",
    "NotProven",
    "NotReplicated",
    "OlderToken",
    "OutlivesRetention",
    "Propagation",
    "PublishError",
    "PublishFailed",
    "PublishOutcomeUnknown",
    "Publisher",
    "Receipt",
    "RedisPubSub",
    "RedisStream",
    "RegionalStreams",
    "RenewalRefused",
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
    "SubscriberState",
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
    "WrongLoop",
]
__version__ = "0.1.0"

logger.disable("jwt_events")

_NAMES = {
    "_internal.event_type": "EventType",
    "_internal.receipt": "Propagation Receipt",
    "_internal.retry": "Retry",
    "errors": (
        "AnotherSubject Closed CompromisedKey ConnectionFailed DecodeError EventTooLarge ExpiredTokenError "
        "InvalidClaims InvalidEvent InvalidKeySet InvalidOption JWTEventsError KeysUnavailable NotLive "
        "NotProven NotReplicated OlderToken OutlivesRetention PublishError PublishFailed "
        "PublishOutcomeUnknown RenewalRefused RetiredKey RevokedTokenError ServerRefused SigningKeyError "
        "StaleRevocationsError SubscriptionRefused TransportError Unavailable UnknownKey WrongLoop"
    ),
    "events": "ClaimNames Event KeyRotated SessionCreated SessionDestroyed TokenExpired TokenRevoked UnknownEvent",
    "fleet": "Fleet Lease",
    "keys": "SigningKeys SigningKeysStats",
    "metrics": "Metrics",
    "publisher": "Publisher",
    "revocation": "Explanation RevocationList RevocationStats Verdict ViewState Watch",
    "subscriber": "Subscriber SubscriberState SubscriberStats",
    "transport.base": "Gap Guarantees Transport",
    "transport.dead_letters": "DeadLetter DeadLetters",
    "transport.memory": "MemoryTransport",
    "transport.pubsub": "RedisPubSub",
    "transport.regions": "RegionalStreams",
    "transport.stream": "RedisStream",
}
_MODULE_OF = {name: home for home, names in _NAMES.items() for name in names.split()}


if not TYPE_CHECKING:  # with a module-level __getattr__, a type checker would accept every name

    def __getattr__(name: str) -> object:
        """Import a public name, or a module that holds some, on first access."""
        if name in _MODULE_OF:
            value: object = getattr(import_module(f"jwt_events.{_MODULE_OF[name]}"), name)
        elif name in _NAMES or name == "transport":
            value = import_module(f"jwt_events.{name}")
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value  # later accesses bypass this function
        return value


def __dir__() -> list[str]:
    """List the names that are loaded and those that can be."""
    return sorted(globals() | _MODULE_OF)
