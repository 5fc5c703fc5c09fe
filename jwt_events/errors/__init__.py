"""All exceptions that this library raises deliberately.

::

    JWTEventsError
    ├── InvalidOption (ValueError)       an option or URL that cannot work
    ├── InvalidEvent (ValueError)        an event that cannot be published as given
    │   ├── EventTooLarge                its encoded form exceeds the limit
    │   └── OutlivesRetention            the stream would trim it while a token it covers is still valid
    ├── DecodeError                      bytes from the wire that are not an event
    ├── InvalidClaims (ValueError)       the value to check is not the claims of a token
    ├── Unavailable                      the answer is not known at the moment; the caller did nothing wrong
    ├── NotLive                          a token that must be refused
    │   ├── RevokedTokenError            it is revoked
    │   ├── ExpiredTokenError            it has expired while it was in use
    │   └── StaleRevocationsError        unknown, because the list is not current; also Unavailable
    ├── RenewalRefused                   a token that cannot take the place of the one in use
    │   ├── AnotherSubject               it belongs to another user, client or issuer
    │   └── OlderToken                   it was issued before the one in use, or expires earlier
    ├── SignalRefused                    a token from another system that is not accepted
    ├── TransmitterError                 a request to a transmitter of signals failed
    │   └── TransmitterRefused           it answered that the request is wrong, or not allowed
    ├── Closed (RuntimeError)            the object was closed, or is already running
    ├── WrongLoop (RuntimeError)         the object belongs to another event loop, or to another thread
    ├── TransportError                   the server, or the connection to it, failed
    │   ├── ConnectionFailed             unreachable, or the connection was lost: worth retrying
    │   │   └── NotProven                what the server says proves nothing: it may be no primary any more
    │   ├── NotConfirmed                 accepted, but too few replicas are known to have it
    │   ├── ServerRefused                the server sent an error reply: a retry rarely helps
    │   └── SubscriptionRefused          the server did not accept the subscription
    ├── PublishError                     at least one event was not confirmed
    │   ├── PublishFailed                it was certainly not published
    │   └── PublishOutcomeUnknown        sent without a reply: it may have been published
    │       └── NotReplicated            accepted by the primary, but not by as many replicas as needed
    └── SigningKeyError                  there is no key to verify a token with
        ├── UnknownKey                   the issuer does not list it, according to the last fetch
        ├── RetiredKey                   a rotation withdrew it
        ├── CompromisedKey               it leaked
        ├── KeysUnavailable              the issuer's keys could not be fetched; also Unavailable
        └── InvalidKeySet                the fetched document is not a set of public keys

A message names the problem and the limit, and never repeats a value that could be a secret. The data that a program
needs to react is on the instance.
"""

from jwt_events.errors._base import (
    Closed,
    InvalidOption,
    JWTEventsError,
    Unavailable,
    WrongLoop,
)
from jwt_events.errors._events import (
    DecodeError,
    EventTooLarge,
    InvalidEvent,
    OutlivesRetention,
)
from jwt_events.errors._keys import (
    CompromisedKey,
    InvalidKeySet,
    KeysUnavailable,
    RetiredKey,
    SigningKeyError,
    UnknownKey,
)
from jwt_events.errors._server import (
    ConnectionFailed,
    NotConfirmed,
    NotProven,
    NotReplicated,
    PublishError,
    PublishFailed,
    PublishOutcomeUnknown,
    ServerRefused,
    SubscriptionRefused,
    TransportError,
)
from jwt_events.errors._signals import (
    SignalRefused,
    TransmitterError,
    TransmitterRefused,
)
from jwt_events.errors._tokens import (
    AnotherSubject,
    ExpiredTokenError,
    InvalidClaims,
    NotLive,
    OlderToken,
    RenewalRefused,
    RevokedTokenError,
    StaleRevocationsError,
)

__all__ = [
    "AnotherSubject",
    "Closed",
    "CompromisedKey",
    "ConnectionFailed",
    "DecodeError",
    "EventTooLarge",
    "ExpiredTokenError",
    "InvalidClaims",
    "InvalidEvent",
    "InvalidKeySet",
    "InvalidOption",
    "JWTEventsError",
    "KeysUnavailable",
    "NotConfirmed",
    "NotLive",
    "NotProven",
    "NotReplicated",
    "OlderToken",
    "OutlivesRetention",
    "PublishError",
    "PublishFailed",
    "PublishOutcomeUnknown",
    "RenewalRefused",
    "RetiredKey",
    "RevokedTokenError",
    "ServerRefused",
    "SignalRefused",
    "SigningKeyError",
    "StaleRevocationsError",
    "SubscriptionRefused",
    "TransmitterError",
    "TransmitterRefused",
    "TransportError",
    "Unavailable",
    "UnknownKey",
    "WrongLoop",
]

for _name in __all__:  # what a traceback calls an error is where programs import it from
    globals()[_name].__module__ = __name__
del _name
