"""Signals of other systems: logout tokens and security event tokens, verified and turned into events.

Importing it needs no extra; constructing `LogoutTokens` or `SecurityEvents` needs ``keys``.
"""

from jwt_events.errors import SignalRefused
from jwt_events.signals._endpoint import Authorization, LogoutEndpoint, Response, SetEndpoint
from jwt_events.signals._global import GLOBAL_TOKEN_REVOCATION, GlobalRevocationEndpoint
from jwt_events.signals._logout import LOGOUT, LogoutTokens
from jwt_events.signals._mapping import CAEP, DEFAULT_MAPPING, RISC, SSF, Effect, Signal, Unless
from jwt_events.signals._resolution import Subject
from jwt_events.signals._security import STREAM_UPDATED, VERIFICATION, Received, SecurityEvents
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
    "Received",
    "Response",
    "SecurityEvents",
    "SetEndpoint",
    "Signal",
    "SignalRefused",
    "Subject",
    "SubjectId",
    "Unless",
]
