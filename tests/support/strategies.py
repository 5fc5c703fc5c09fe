"""Hypothesis strategies for events."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import strategies as st

from jwt_events import (
    Event,
    KeyRotated,
    SessionCreated,
    SessionDestroyed,
    TokenExpired,
    TokenRevoked,
    UnknownEvent,
)

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)

identifiers = _TEXT.filter(lambda text: bool(text.strip()) and text.count(".") < 2)
"""Identifiers in any script, none of which resembles a token."""

texts = _TEXT.filter(lambda text: bool(text) and text.count(".") < 2)

instants = st.datetimes(
    min_value=datetime(2, 1, 1),  # noqa: DTZ001 - hypothesis adds the timezone
    max_value=datetime(9998, 12, 31),  # noqa: DTZ001 - the same
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=45)), timezone(timedelta(hours=-11))]),
)

past_instants = st.datetimes(
    min_value=datetime(2, 1, 1),  # noqa: DTZ001 - hypothesis adds the timezone
    max_value=datetime(2020, 12, 31),  # noqa: DTZ001 - the same
    timezones=st.just(UTC),
)
"""Instants until which tokens can be revoked."""

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)

json_objects = st.dictionaries(texts, json_values, max_size=4)

_COMMON = {
    "id": identifiers,
    "occurred_at": instants,
    "source": st.none() | identifiers,
    "metadata": json_objects,
}


def _events(
    cls: type[Event],
    *,
    required: tuple[str, ...] = (),
    others: tuple[str, ...] = (),
    names: tuple[str, ...] = (),
    times: tuple[str, ...] = (),
    flags: tuple[str, ...] = (),
) -> st.SearchStrategy[Event]:
    fields: dict[str, st.SearchStrategy[Any]] = dict.fromkeys(required, identifiers)
    fields |= dict.fromkeys(others, identifiers.map(lambda name: f"other {name}"))  # not a required one
    fields |= dict.fromkeys(names, st.none() | identifiers)
    fields |= dict.fromkeys(times, st.none() | instants)
    fields |= dict.fromkeys(flags, st.booleans())
    if "reason" in cls.model_fields:
        fields["reason"] = st.none() | texts
    if cls in (TokenRevoked, SessionDestroyed):
        fields["occurred_at"] = past_instants
    if "issued_before" in fields:
        fields["issued_before"] = st.none() | past_instants
    return st.builds(cls, **_COMMON | fields)


known_events: st.SearchStrategy[Event] = st.one_of(
    _events(
        TokenRevoked,
        required=("token_id",),
        names=("user_id", "session_id", "client_id"),
        times=("issued_before", "expires_at"),
    ),
    _events(TokenRevoked, required=("user_id",), names=("client_id",), times=("issued_before", "expires_at")),
    _events(TokenExpired, required=("token_id",), names=("user_id", "session_id"), times=("expired_at",)),
    _events(KeyRotated, required=("key_id",), names=("issuer", "algorithm"), times=("active_from",)),
    _events(
        KeyRotated,
        required=("key_id",),
        others=("previous_key_id",),
        names=("issuer", "algorithm"),
        times=("active_from", "retire_at"),
    ),
    _events(KeyRotated, required=("key_id",), names=("issuer", "algorithm"), flags=("compromised",)),
    _events(SessionCreated, required=("session_id", "user_id"), names=("client_id",), times=("expires_at",)),
    _events(SessionDestroyed, required=("session_id",), names=("user_id",), times=("expires_at",)),
)
"""Events of the five types, with any of their fields."""

unknown_events: st.SearchStrategy[UnknownEvent] = st.builds(
    UnknownEvent,
    id=identifiers,
    occurred_at=instants,
    source=identifiers,
    type=identifiers.map(lambda name: f"other.{name}"),
    data=json_objects,
)
"""Events of types that this version does not know."""
