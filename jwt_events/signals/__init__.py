"""Signals of other systems: logout tokens and security event tokens, verified and turned into events.

Importing it needs no extra; constructing `LogoutTokens` or `SecurityEvents` needs ``keys``, `SetPoller` or `SetStream`
``signals``.
"""

from jwt_events.errors import SignalRefused, TransmitterError, TransmitterRefused
from jwt_events.signals._configuration import StreamConfiguration, StreamStatus, TransmitterConfiguration
from jwt_events.signals._endpoint import Authorization, LogoutEndpoint, Response, SetEndpoint
from jwt_events.signals._global import GLOBAL_TOKEN_REVOCATION, GlobalRevocationEndpoint
from jwt_events.signals._logout import LOGOUT, LogoutTokens
from jwt_events.signals._mapping import CAEP, DEFAULT_MAPPING, RISC, SSF, Effect, Signal, Unless
from jwt_events.signals._poller import PollerState, SetPoller
from jwt_events.signals._resolution import Subject
from jwt_events.signals._security import STREAM_UPDATED, VERIFICATION, Received, SecurityEvents
from jwt_events.signals._stream import SetStream
from jwt_events.signals._subjects import SubjectId
from jwt_events.signals._token import MAX_TOKEN_BYTES

__all__ = [
    "CAEP",
    "DEFAULT_MAPPING",
    "GLOBAL_TOKEN_REVOCATION",
    "LOGOUT",
    "MAX_TOKEN_BYTES",
    "RISC",
    "SSF",
    "STREAM_UPDATED",
    "VERIFICATION",
    "Authorization",
    "Effect",
    "GlobalRevocationEndpoint",
    "LogoutEndpoint",
    "LogoutTokens",
    "PollerState",
    "Received",
    "Response",
    "SecurityEvents",
    "SetEndpoint",
    "SetPoller",
    "SetStream",
    "Signal",
    "SignalRefused",
    "StreamConfiguration",
    "StreamStatus",
    "Subject",
    "SubjectId",
    "TransmitterConfiguration",
    "TransmitterError",
    "TransmitterRefused",
    "Unless",
]
