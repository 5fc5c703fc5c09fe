"""The mapping from types of security events to effects, as data. Pure.

No effect enables anything: the worst that an entry can do is to revoke too much, or nothing.

Sources: CAEP 1.0 §3, RISC 1.0 §2, and the documents of Google ("Cross-Account Protection") and Apple ("Processing
changes for Sign in with Apple accounts").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeAlias

from jwt_events._internal.functions import awaited, function
from jwt_events.errors import InvalidOption
from jwt_events.signals._subjects import SubjectId

CAEP = "https://schemas.openid.net/secevent/caep/event-type/"
RISC = "https://schemas.openid.net/secevent/risc/event-type/"
OAUTH = "https://schemas.openid.net/secevent/oauth/event-type/"
SSF = "https://schemas.openid.net/secevent/ssf/event-type/"
APPLE = "https://appleid.apple.com/event-type/"
"""Prefix that this library gives to Apple's types, which are words without one."""


class Effect(StrEnum):
    """What an event does here."""

    IGNORE = "ignore"
    """Nothing: it is accepted, and no event is published."""
    REVOKE = "revoke"
    """Revoke the narrowest that the subject names: the token, else the session, else all tokens of the user."""
    REVOKE_USER = "revoke_user"
    """Revoke all tokens of the user that were issued up to then, also if the subject names a session."""
    CREATE_SESSION = "create_session"
    """Publish `SessionCreated`, if the subject names the session and its user."""


@dataclass(frozen=True, slots=True)
class Signal:
    """A verified security event, as a function of the mapping gets it.

    Attributes:
        issuer: the ``iss``.
        jti: the ``jti``.
        type: the URI of the event's type.
        payload: its content.
        subject: who it is about; ``None`` for events about the stream.
        occurred_at: when it happened: ``event_timestamp``, else ``toe``, else ``iat``.
        txn: the ``txn``.
    """

    issuer: str
    jti: str
    type: str
    payload: Mapping[str, Any] = field(repr=False)
    subject: SubjectId | None
    occurred_at: datetime
    txn: str | None


@dataclass(frozen=True, slots=True)
class Unless:
    """An effect that does not take place if a member of the event says that all is well.

    Attributes:
        member: the name of the member.
        values: the values for which nothing is done. Whatever else it says, or if it is absent, the effect takes place.
        effect: the effect.
    """

    member: str
    values: frozenset[str]
    effect: Effect = Effect.REVOKE_USER


Entry: TypeAlias = Effect | Unless | Callable[[Signal], Any]
"""What a mapping has for a type of events: an effect, a condition, or a function of yours, plain or async, from the
`Signal` to an `Effect`."""

DEFAULT_MAPPING: Mapping[str, Entry] = {
    f"{CAEP}session-revoked": Effect.REVOKE,
    f"{CAEP}credential-change": Unless("change_type", frozenset({"create"})),
    f"{CAEP}token-claims-change": Effect.REVOKE,
    f"{CAEP}assurance-level-change": Unless("change_direction", frozenset({"increase"}), Effect.REVOKE),
    f"{CAEP}device-compliance-change": Unless("current_status", frozenset({"compliant"}), Effect.REVOKE),
    f"{CAEP}risk-level-change": Unless("current_level", frozenset({"LOW", "MEDIUM"}), Effect.REVOKE),
    f"{CAEP}session-established": Effect.CREATE_SESSION,
    f"{CAEP}session-presented": Effect.IGNORE,
    f"{RISC}account-credential-change-required": Effect.REVOKE_USER,
    f"{RISC}account-purged": Effect.REVOKE_USER,
    f"{RISC}account-disabled": Effect.REVOKE_USER,
    f"{RISC}account-enabled": Effect.IGNORE,
    f"{RISC}identifier-changed": Effect.REVOKE_USER,
    f"{RISC}identifier-recycled": Effect.REVOKE_USER,
    f"{RISC}credential-compromise": Effect.REVOKE_USER,
    f"{RISC}opt-in": Effect.IGNORE,
    f"{RISC}opt-out-initiated": Effect.IGNORE,
    f"{RISC}opt-out-cancelled": Effect.IGNORE,
    f"{RISC}opt-out-effective": Effect.IGNORE,
    f"{RISC}recovery-activated": Effect.IGNORE,
    f"{RISC}recovery-information-changed": Effect.IGNORE,
    f"{RISC}sessions-revoked": Effect.REVOKE_USER,
    f"{OAUTH}tokens-revoked": Effect.REVOKE_USER,
    f"{OAUTH}token-revoked": Effect.IGNORE,  # a refresh token at the issuer, which no service sees
    f"{APPLE}consent-revoked": Effect.REVOKE_USER,
    f"{APPLE}account-delete": Effect.REVOKE_USER,
    f"{APPLE}account-deleted": Effect.REVOKE_USER,
    f"{APPLE}email-disabled": Effect.IGNORE,
    f"{APPLE}email-enabled": Effect.IGNORE,
}
"""What each type of event does, unless a mapping of yours says otherwise."""

OTHER = "other"
_STREAM = (f"{SSF}verification", f"{SSF}stream-updated", f"{RISC}verification")
_KINDS = {uri: uri.rpartition("/")[2] for uri in (*DEFAULT_MAPPING, *_STREAM)}


def kind_of(uri: str) -> str:
    """Return the short name of a type for metrics, from a fixed set: ``other`` for types that are not in it."""
    return _KINDS.get(uri, OTHER)


def merge(mapping: Mapping[str, Entry] | None) -> Mapping[str, Entry]:
    """Return the default mapping, changed as a program says.

    Raises:
        InvalidOption: an entry is neither an effect, nor a condition, nor a function.
    """
    if mapping is None:
        return DEFAULT_MAPPING
    if not isinstance(mapping, Mapping):
        raise InvalidOption("mapping", f"must map types of events to effects, not be a {type(mapping).__name__}")
    for uri, entry in mapping.items():
        if not isinstance(uri, str):
            raise InvalidOption("mapping", "must have URIs of types of events as keys")
        if not isinstance(entry, Effect | Unless):
            function("mapping", entry)
    return {**DEFAULT_MAPPING, **mapping}


async def effect_of(entry: Entry | None, signal: Signal) -> Effect:
    """Return what a signal does. Types without an entry do nothing (RFC 8417 §2: events that are not understood).

    Raises:
        InvalidOption: a function of the mapping returned something else than an effect.
    """
    if entry is None:
        return Effect.IGNORE
    if isinstance(entry, Effect):
        return entry
    if isinstance(entry, Unless):
        said = signal.payload.get(entry.member)
        return Effect.IGNORE if isinstance(said, str) and said in entry.values else entry.effect
    effect = await awaited("mapping", entry(signal))
    if not isinstance(effect, Effect):
        raise InvalidOption("mapping", f"a function must return an Effect, not {type(effect).__name__}")
    return effect
