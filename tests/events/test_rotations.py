"""Rotations that can be misunderstood: refused by the constructor, and received so that no leaked key is trusted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from jwt_events import EventType, InvalidEvent, KeyRotated
from jwt_events.envelope import Envelope, decode, encode
from jwt_events.events import compromised_keys, make_event, retired_key
from tests.support.examples import LATER, NOON, received

INSTANT = LATER.isoformat().replace("+00:00", "Z")

# Fields that say two things at once, and the field that the error names.
AMBIGUOUS: list[tuple[dict[str, Any], str]] = [
    ({"key_id": "new", "previous_key_id": "leaked", "compromised": True}, "compromised"),
    ({"key_id": "leaked", "previous_key_id": "new", "compromised": True}, "compromised"),
    ({"key_id": "new", "previous_key_id": "leaked", "retire_at": LATER, "compromised": True}, "compromised"),
    ({"key_id": "new", "active_from": LATER, "compromised": True}, "compromised"),
    ({"key_id": "old", "retire_at": LATER}, "retire_at"),
    ({"key_id": "old", "retire_at": LATER, "compromised": True}, "retire_at"),
    ({"key_id": "old", "retire_at": LATER, "active_from": NOON}, "retire_at"),
    ({"key_id": "one", "previous_key_id": "one"}, "previous_key_id"),
    ({"key_id": "one", "previous_key_id": "one", "retire_at": LATER}, "previous_key_id"),
    ({"key_id": "one", "previous_key_id": "one", "compromised": True}, "previous_key_id"),
]
_ambiguous = pytest.mark.parametrize(("fields", "field"), AMBIGUOUS, ids="-".join)

# Whether a set of fields is clear, by the words of the documentation.
_names = st.sampled_from(["a", "b"])
_fields = st.fixed_dictionaries(
    {"key_id": _names},
    optional={
        "previous_key_id": st.none() | _names,
        "active_from": st.none() | st.just(NOON),
        "retire_at": st.none() | st.just(LATER),
        "compromised": st.booleans(),
    },
)


def is_clear(fields: dict[str, Any]) -> bool:
    """Return whether an event with these fields can be read in one way only."""
    previous = fields.get("previous_key_id")
    if fields.get("compromised"):
        return all(fields.get(name) is None for name in ("previous_key_id", "active_from", "retire_at"))
    return previous != fields["key_id"] and not (previous is None and fields.get("retire_at") is not None)


class TestConstructed:
    """The constructor and all that uses it."""

    @_ambiguous
    @pytest.mark.parametrize(
        "construct", [lambda fields: KeyRotated(**fields), KeyRotated.model_validate], ids=["class", "validate"]
    )
    def test_refused(self, construct: Callable[[dict[str, Any]], Any], fields: dict[str, Any], field: str) -> None:
        """What can be misunderstood is refused by the name of the field, with the ways to say it right."""
        with pytest.raises(ValidationError) as refused:
            construct(fields)
        problems = {problem["loc"]: problem["msg"] for problem in refused.value.errors()}
        assert list(problems) == [(field,)]
        assert problems[field,].count("name the ") + problems[field,].count("leave ") >= 1
        assert "as key_id" in problems[field,]
        assert ";" in problems[field,]  # two ways

    @_ambiguous
    def test_by_type_and_fields(self, fields: dict[str, Any], field: str) -> None:
        """The call of a publisher by type and fields is refused in the same way."""
        with pytest.raises(InvalidEvent) as refused:
            make_event(EventType.KEY_ROTATED, fields)
        assert [name for name, _ in refused.value.problems] == [field]

    @given(_fields)
    def test_what_is_clear(self, fields: dict[str, Any]) -> None:
        """Exactly what can be read in one way only is accepted."""
        try:
            KeyRotated(**fields)
        except ValidationError:
            assert not is_clear(fields)
        else:
            assert is_clear(fields)

    @pytest.mark.parametrize(
        "fields",
        [
            {"key_id": "new"},
            {"key_id": "new", "previous_key_id": "old"},
            {"key_id": "new", "previous_key_id": "old", "active_from": NOON, "retire_at": LATER},
            {"key_id": "new", "previous_key_id": None, "retire_at": None, "active_from": None, "compromised": False},
            {"key_id": "leaked", "compromised": True, "issuer": "https://issuer.example", "algorithm": "ES256"},
        ],
    )
    def test_accepted(self, fields: dict[str, Any]) -> None:
        """A rotation, and a leak, each by itself."""
        event = KeyRotated(**fields)
        assert decode(encode(Envelope(event), source="auth")).event == event.model_copy(update={"source": "auth"})


class TestReceived:
    """What another program, or an older version, published."""

    @_ambiguous
    def test_is_not_dropped(self, fields: dict[str, Any], field: str) -> None:
        """It is received with all its fields, so that handlers see it."""
        data = {name: INSTANT if value is LATER else value for name, value in fields.items() if value is not NOON}
        event = received(EventType.KEY_ROTATED, **data)
        assert isinstance(event, KeyRotated)
        assert event.retire_at == fields.get("retire_at")
        assert {name: getattr(event, name) for name in fields.keys() - {"active_from"}} == {
            name: value for name, value in fields.items() if name != "active_from"
        }
        assert field in fields

    @given(_fields)
    def test_is_never_less_secure(self, fields: dict[str, Any]) -> None:
        """Every key that is named beside ``compromised`` counts as leaked, and some key retires at ``retire_at``."""
        event = KeyRotated.model_construct(**fields)
        named = {fields["key_id"], fields.get("previous_key_id")} - {None}
        assert set(compromised_keys(event)) == (named if fields.get("compromised") else set())
        retired = retired_key(event)
        assert retired == (None if event.retire_at is None else event.previous_key_id or event.key_id)
