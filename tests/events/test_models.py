"""Events as values: fields, defaults, comparison and repr."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Required, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from jwt_events import (
    Event,
    EventType,
    KeyRotated,
    SessionCreated,
    SessionDestroyed,
    TokenExpired,
    TokenRevoked,
    UnknownEvent,
)
from jwt_events.events import _parameters
from jwt_events.events._fields import Instant
from tests.support.examples import EVENTS, FIELDS, LATER, NOON
from tests.support.strategies import known_events

_UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")

_SMALLEST: dict[type[Event], dict[str, Any]] = {
    TokenRevoked: {"user_id": "user-1"},
    TokenExpired: {"token_id": "token-1"},
    KeyRotated: {"key_id": "key-1"},
    SessionCreated: {"session_id": "session-1", "user_id": "user-1"},
    SessionDestroyed: {"session_id": "session-1"},
}

_TYPES = {
    TokenRevoked: EventType.TOKEN_REVOKED,
    TokenExpired: EventType.TOKEN_EXPIRED,
    KeyRotated: EventType.KEY_ROTATED,
    SessionCreated: EventType.SESSION_CREATED,
    SessionDestroyed: EventType.SESSION_DESTROYED,
}

_classes = pytest.mark.parametrize("cls", list(FIELDS), ids=lambda cls: cls.__name__)
_examples = pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)


class TestDefaults:
    """Defaults of the fields."""

    @_classes
    def test_type_is_fixed_by_the_class(self, cls: type[Event]) -> None:
        """Every class sets its own type."""
        assert cls(**_SMALLEST[cls]).type is _TYPES[cls]

    @_classes
    def test_id_is_a_new_uuid7(self, cls: type[Event]) -> None:
        """Each event gets a unique id, a UUID of version 7."""
        events = [cls(**_SMALLEST[cls]) for _ in range(100)]
        assert len({event.id for event in events}) == 100
        assert all(_UUID7.fullmatch(event.id) for event in events)

    def test_ids_sort_by_time(self) -> None:
        """An event that is constructed later has a greater id."""
        ids = [TokenRevoked(token_id="a").id for _ in range(1_000)]
        assert ids == sorted(ids)

    @_classes
    def test_occurred_at_is_now_in_utc(self, cls: type[Event]) -> None:
        """The default of occurred_at is the time of construction."""
        before = datetime.now(UTC)
        event = cls(**_SMALLEST[cls])
        assert before <= event.occurred_at <= datetime.now(UTC)
        assert event.occurred_at.tzinfo is UTC

    @_classes
    def test_everything_else_is_empty(self, cls: type[Event]) -> None:
        """Fields that are not set are None, an empty dictionary, or False."""
        event = cls(**_SMALLEST[cls])
        left = set(cls.model_fields) - _SMALLEST[cls].keys() - {"type", "id", "occurred_at"}
        assert {name: getattr(event, name) for name in left if getattr(event, name) not in (None, {}, False)} == {}

    def test_metadata_is_not_shared(self) -> None:
        """Two events do not share their metadata."""
        assert TokenRevoked(token_id="a").metadata is not TokenRevoked(token_id="a").metadata

    def test_metadata_is_a_copy(self) -> None:
        """Changing an argument afterwards does not change the event."""
        given_metadata: dict[str, Any] = {"list": [1], "object": {"a": 1}}
        event = TokenRevoked(token_id="a", metadata=given_metadata)
        given_metadata["list"].append(2)
        given_metadata["object"]["b"] = 2
        given_metadata["more"] = True
        assert event.metadata == {"list": [1], "object": {"a": 1}}


class TestValues:
    """Events compare by content and cannot be changed."""

    @_classes
    def test_all_fields_are_kept(self, cls: type[Event]) -> None:
        """Fields have the values that were passed."""
        event = cls(**FIELDS[cls])
        assert {name: getattr(event, name) for name in FIELDS[cls]} == FIELDS[cls]

    @_examples
    def test_fields_cannot_be_set(self, event: Event) -> None:
        """Assigning to a field of an event fails."""
        for name in type(event).model_fields:
            with pytest.raises(ValidationError, match="frozen"):
                setattr(event, name, getattr(event, name))

    @given(known_events)
    def test_equal_by_content(self, event: Event) -> None:
        """An event equals another with the same content, and has the same hash."""
        twin = type(event)(**{name: getattr(event, name) for name in type(event).model_fields})
        assert twin == event
        assert hash(twin) == hash(event)
        assert len({twin, event}) == 1

    @_classes
    def test_different_by_any_field(self, cls: type[Event]) -> None:
        """Events that differ in one field are not equal."""
        event = cls(**FIELDS[cls])
        # A key rotation needs the previous key for `retire_at`, and has nothing to say about a compromised one.
        for name in (
            FIELDS[cls].keys() - _SMALLEST[cls].keys() - {"id", "occurred_at", "previous_key_id", "compromised"}
        ):
            fields = {field: value for field, value in FIELDS[cls].items() if field != name}
            assert cls(**fields) != event, name

    def test_different_by_compromised(self) -> None:
        """Whether a key leaked makes a difference."""
        fields: dict[str, Any] = {"id": "a", "key_id": "k", "occurred_at": NOON}
        assert KeyRotated(**fields) != KeyRotated(compromised=True, **fields)

    def test_different_by_class(self) -> None:
        """Events of different classes differ, even with the same id."""
        fields: dict[str, Any] = {"id": "a", "session_id": "s", "occurred_at": NOON}
        events: list[Event] = [SessionDestroyed(**fields), TokenRevoked(**fields)]
        assert events[0] != events[1]


class TestInstants:
    """Instants in fields."""

    @pytest.mark.parametrize("seconds", [LATER.timestamp(), int(NOON.timestamp()), 0, 1.5])
    def test_numeric_date(self, seconds: float) -> None:
        """A NumericDate, as in the claims of a token, is accepted as an instant."""
        event = TokenRevoked.model_validate({"token_id": "a", "expires_at": seconds})
        assert event.expires_at == datetime.fromtimestamp(seconds, UTC)

    @given(st.floats(0, 1e11, exclude_max=True) | st.integers(0, 10**11 - 1))
    def test_any_numeric_date(self, seconds: float) -> None:
        """Seconds from 1970 to far beyond the lifetime of any token are accepted."""
        event = TokenExpired.model_validate({"token_id": "a", "expired_at": seconds, "occurred_at": seconds})
        assert event.expired_at == event.occurred_at == datetime.fromtimestamp(seconds, UTC)

    def test_other_timezones_become_utc(self) -> None:
        """Equal instants in different timezones make equal events."""
        there = NOON.astimezone(timezone(timedelta(hours=9)))
        event = TokenRevoked(id="a", token_id="a", occurred_at=there, expires_at=there)
        assert event == TokenRevoked(id="a", token_id="a", occurred_at=NOON, expires_at=NOON)
        assert event.expires_at is not None
        assert event.expires_at.tzinfo is UTC


class TestParameters:
    """Parameters of the constructors, as type checkers see them."""

    @pytest.mark.parametrize("cls", [*FIELDS, UnknownEvent], ids=lambda cls: cls.__name__)
    def test_same_as_the_fields(self, cls: type[Event]) -> None:
        """Every field is a parameter; those without a default are required; every instant may be a NumericDate."""
        parameters = getattr(_parameters, f"{cls.__name__}Parameters")
        assert set(get_type_hints(parameters)) == set(cls.model_fields)
        marked = get_type_hints(parameters, include_extras=True)
        required = {name for name, hint in marked.items() if get_origin(hint) is Required}
        assert required == {name for name, one in cls.model_fields.items() if one.is_required()}
        hints = get_type_hints(cls, include_extras=True)
        instants = {name for name in cls.model_fields if hints[name] in (Instant, Instant | None)}
        numeric = (datetime | float, datetime | float | None)
        assert {name for name, hint in get_type_hints(parameters).items() if hint in numeric} == instants
        assert "occurred_at" in instants


class TestTexts:
    """The repr of an event."""

    @_examples
    def test_no_identifier_text_or_metadata(self, event: Event) -> None:
        """Neither repr nor str nor format shows an identifier, a text or metadata."""
        secrets = [value for name, value in FIELDS[type(event)].items() if name.endswith("_id")]
        secrets += ["192.0.2.1", "logout", "https://issuer.example"]
        for shown in (repr(event), str(event), f"{event}", f"{[event]}"):
            assert not [secret for secret in secrets if secret in shown]

    @_examples
    def test_type_id_and_instants_are_shown(self, event: Event) -> None:
        """The class, the id and the instants are not secret and are shown."""
        assert repr(event).startswith(f"{type(event).__name__}(")
        assert event.id in repr(event)
        assert "2026-03-01 12:00:00+00:00" in repr(event)

    def test_fingerprints_distinguish_identifiers(self) -> None:
        """Equal identifiers have equal fingerprints, different ones different fingerprints."""
        one, same, other = (
            TokenRevoked(token_id=token, id="a", occurred_at=NOON) for token in ("one", "one", "another")
        )
        assert repr(one) == repr(same) != repr(other)

    def test_unknown_event_hides_its_data(self) -> None:
        """The data of an unknown event may be secret, so it is not shown."""
        assert "secret" not in repr(UnknownEvent(type="jwt.other.v1", data={"secret": "secret"}))


class TestFromClaims:
    """TokenRevoked.from_claims."""

    def test_all_claims(self) -> None:
        """Each claim sets its field, and other claims are ignored."""
        claims = {"jti": "token", "sub": "user", "sid": "session", "client_id": "client", "exp": 1_800_000_000}
        event = TokenRevoked.from_claims(claims | {"azp": "not this", "iss": "x", "aud": ["y"]}, reason="logout")
        assert (event.token_id, event.user_id, event.session_id) == ("token", "user", "session")
        assert (event.client_id, event.reason) == ("client", "logout")
        assert event.expires_at == datetime.fromtimestamp(1_800_000_000, UTC)

    @pytest.mark.parametrize("claims", [{"azp": "client"}, {"azp": "client", "client_id": None}])
    def test_azp_stands_in_for_client_id(self, claims: dict[str, Any]) -> None:
        """The claim azp of OpenID Connect is used as client_id."""
        assert TokenRevoked.from_claims(claims).client_id == "client"

    def test_what_is_wider_than_a_token_outlives_it(self) -> None:
        """Without a jti the event has no expires_at, as it revokes other tokens, too."""
        assert TokenRevoked.from_claims({"sub": "user", "exp": 1_800_000_000}).expires_at is None

    @pytest.mark.parametrize("claim", ["jti", "sub", "sid", "client_id", "azp"])
    def test_one_identifier_is_enough(self, claim: str) -> None:
        """Each identifying claim alone makes a revocation, and no other field is set."""
        event = TokenRevoked.from_claims({claim: "it"})
        assert event.subject == "it"
        assert (event.expires_at, event.reason) == (None, None)

    @pytest.mark.parametrize("claims", [{}, {"exp": 1_800_000_000}, {"jti": None}])
    def test_no_identifier(self, claims: dict[str, Any]) -> None:
        """Claims without an identifier are rejected."""
        with pytest.raises(ValidationError, match="give at least one of"):
            TokenRevoked.from_claims(claims)

    @pytest.mark.parametrize(
        ("claim", "value"),
        [("jti", 5), ("sub", b"user"), ("sid", ["s"]), ("client_id", {}), ("exp", "1800000000"), ("exp", True)],
    )
    def test_wrong_types(self, claim: str, value: object) -> None:
        """A claim of the wrong type is rejected, not converted."""
        with pytest.raises(ValidationError):
            TokenRevoked.from_claims({"jti": "token", claim: value})

    @pytest.mark.parametrize("claims", ["a.b.c", b"a.b.c", [("jti", "a")], None])
    def test_not_a_mapping(self, claims: Any) -> None:
        """A token that was not decoded is rejected with a hint."""
        with pytest.raises(TypeError, match="decoded payload of a token"):
            TokenRevoked.from_claims(claims)


class TestTargets:
    """The identifier that decides what is revoked."""

    @pytest.mark.parametrize(
        ("fields", "subject"),
        [
            ({"token_id": "t", "session_id": "s", "user_id": "u", "client_id": "c"}, "t"),
            ({"session_id": "s", "user_id": "u", "client_id": "c"}, "s"),
            ({"user_id": "u", "client_id": "c"}, "u"),
            ({"client_id": "c"}, "c"),
        ],
    )
    def test_the_narrowest_wins(self, fields: dict[str, Any], subject: str) -> None:
        """The subject is the narrowest identifier."""
        assert TokenRevoked(**fields).subject == subject

    @_examples
    def test_every_event_has_a_subject(self, event: Event) -> None:
        """Every event of a known type has a subject."""
        assert event.subject in FIELDS[type(event)].values()
