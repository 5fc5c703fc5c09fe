"""The canonical path: the same events, the same bytes and the same refusals as without it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Annotated, Any, ClassVar, Self
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_core import to_json

from jwt_events import Event, EventType, KeyRotated, TokenRevoked, UnknownEvent
from jwt_events.envelope import Envelope, decode, decode_any, encode
from jwt_events.envelope import _codec as envelope
from jwt_events.events import EVENT_CLASSES, canonical_decoder, fast_builder, parse_instant, receive_event
from jwt_events.events._conditions import Conditions
from jwt_events.events._event import of_constructor
from jwt_events.events._fields import MAX_IDENTIFIER_LENGTH, MAX_TEXT_LENGTH, Identifier, Instant
from tests.support.decoding import decoded, differences, forms, is_covered
from tests.support.examples import NOON
from tests.support.mutations import ORIGINALS, VALUES, compact, mutated
from tests.support.strategies import identifiers, known_events, past_instants, texts

_each = pytest.mark.parametrize("event", ORIGINALS, ids=lambda event: f"{type(event).__name__}-{event.subject}")


_INSTANTS = {"issued_before", "expires_at", "expired_at", "active_from", "retire_at"}


_scopes: st.SearchStrategy[Event] = st.one_of(
    st.builds(TokenRevoked, user_id=identifiers, except_session_id=identifiers, occurred_at=past_instants),
    st.builds(TokenRevoked, everyone=st.just(True), reason=texts, occurred_at=past_instants),
    st.builds(
        TokenRevoked,
        claims=st.dictionaries(
            st.sampled_from(["tenant", "act.sub", "https://c.example/d", "x-y", "\u00e9"]),
            st.booleans()
            | st.integers(-(2**63) + 1, 2**63 - 1)
            | st.floats(allow_nan=False, allow_infinity=False)
            | texts,
            min_size=1,
        ),
        user_id=st.none() | identifiers,
        occurred_at=past_instants,
    ),
)
_events = known_events | _scopes


# What is behind ``source`` in the messages of these events, in two parts.
VECTORS = [
    (
        '"type":"jwt.token_revoked.v1","time":"2026-03-01T12:00:00Z","subject":"token-1",',
        (
            '"data":{"metadata":{"ip":"192.0.2.1"},"token_id":"token-1","user_id":"user-1",'
            '"session_id":"session-1","client_id":"client-1","issued_before":"2026-03-01T12:00:00Z",'
            '"expires_at":"2026-03-01T13:30:15.250000Z","reason":"logout"}}'
        ),
    ),
    (
        '"type":"jwt.token_expired.v1","time":"2026-03-01T12:00:00Z","subject":"token-1",',
        (
            '"data":{"metadata":{"ip":"192.0.2.1"},"token_id":"token-1","user_id":"user-1",'
            '"session_id":"session-1","expired_at":"2026-03-01T13:30:15.250000Z"}}'
        ),
    ),
    (
        '"type":"jwt.key_rotated.v1","time":"2026-03-01T12:00:00Z","subject":"key-2",',
        (
            '"data":{"metadata":{"ip":"192.0.2.1"},"key_id":"key-2","previous_key_id":"key-1",'
            '"issuer":"https://issuer.example","algorithm":"ES256","active_from":"2026-03-01T12:00:00Z",'
            '"retire_at":"2026-03-01T13:30:15.250000Z"}}'
        ),
    ),
    (
        '"type":"jwt.session_created.v1","time":"2026-03-01T12:00:00Z","subject":"session-1",',
        (
            '"data":{"metadata":{"ip":"192.0.2.1"},"session_id":"session-1","user_id":"user-1",'
            '"client_id":"client-1","expires_at":"2026-03-01T13:30:15.250000Z"}}'
        ),
    ),
    (
        '"type":"jwt.session_destroyed.v1","time":"2026-03-01T12:00:00Z","subject":"session-1",',
        (
            '"data":{"metadata":{"ip":"192.0.2.1"},"session_id":"session-1","user_id":"user-1",'
            '"expires_at":"2026-03-01T13:30:15.250000Z","reason":"logout"}}'
        ),
    ),
    (
        '"type":"jwt.token_revoked.v1","time":"2026-03-01T13:30:15.250000Z","subject":"user-1",',
        (
            '"data":{"metadata":{"n":1},"user_id":"user-1","client_id":"client-1",'
            '"except_session_id":"session-1","issued_before":"2026-03-01T12:00:00Z"}}'
        ),
    ),
    (
        '"type":"jwt.token_revoked.v1","time":"2026-03-01T13:30:15.250000Z",',
        '"data":{"metadata":{"n":1},"claims":{"tenant":"a","act.sub":"b","https://c.example/d":1,"admin":true}}}',
    ),
    (
        '"type":"jwt.token_revoked.v1","time":"2026-03-01T13:30:15.250000Z",',
        '"data":{"metadata":{"n":1},"everyone":true,"reason":"a reason"}}',
    ),
    (
        '"type":"jwt.key_rotated.v1","time":"2026-03-01T13:30:15.250000Z","subject":"key-1",',
        '"data":{"metadata":{"n":1},"key_id":"key-1","compromised":true}}',
    ),
]


def _not_covered(payload: bytes) -> None:
    """Decode nothing."""


def _decoder(cls: type[Event]) -> Callable[[bytes], Envelope | None]:
    return canonical_decoder(
        {envelope._WIRE_TYPES.get(cls, "jwt.token_revoked.v1"): cls},
        Envelope,
        _not_covered,
        max_bytes=envelope.MAX_WIRE_BYTES,
    )


def _written_by_pydantic(event: Event, traceparent: str | None = None, tracestate: str | None = None) -> bytes:
    with patch.object(envelope, "canonical_bytes", lambda *parts: None):
        return encode(Envelope(event, traceparent, tracestate), source="auth")


def _message(event: Event) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(encode(Envelope(event), source="auth"))
    return found


class TestCoverage:
    """Which messages and classes the path covers."""

    @pytest.mark.parametrize("cls", EVENT_CLASSES.values(), ids=lambda cls: cls.__name__)
    def test_every_class(self, cls: type[Event]) -> None:
        """Every class has a counterpart. A new field or validator without one fails here, and takes the slower path."""
        examples = [encode(Envelope(event), source="auth") for event in ORIGINALS if type(event) is cls]
        assert examples
        assert None not in map(_decoder(cls), examples)

    @_each
    def test_examples(self, event: Event) -> None:
        """What the library writes is covered, with and without trace context."""
        assert is_covered(encode(Envelope(event), source="auth"))
        assert is_covered(encode(Envelope(event, "00-aa-bb-01", "a=b"), source="https://auth.eu.example"))

    @_each
    def test_every_field(self, event: Event) -> None:
        """Each field alone, and all but each, is covered if the class accepts it."""
        message = json.loads(encode(Envelope(event), source="auth"))
        alone = [{name: value} for name, value in message["data"].items()]
        without = [
            {name: message["data"][name] for name in message["data"] if name != left} for left in message["data"]
        ]
        payloads = [compact(message | {"data": data}) for data in (*alone, *without)]
        assert differences(payloads)[0] == []
        valid = [payload for payload in payloads if isinstance(decoded(payload)[0], type)]
        assert len(valid) >= 2
        assert all(map(is_covered, valid))

    @_each
    def test_fields_of_other_classes(self, event: Event) -> None:
        """A field that only other classes have is passed over; one that is missing is told."""
        others = {name: value for other in ORIGINALS for name, value in _message(other)["data"].items()}
        message = _message(event)
        data = message["data"]
        foreign = others.keys() - type(event).model_fields
        assert foreign
        payloads = [compact(message | {"data": {**data, name: others[name]}}) for name in foreign]
        payloads += [compact(message | {"data": {name: others[name]} | data}) for name in foreign]
        payloads += [compact(message | {"data": {name: others[name]}}) for name in others]
        assert not any(map(is_covered, payloads[: 2 * len(foreign)]))
        assert differences(payloads)[0] == []

    @_each
    def test_every_limit(self, event: Event) -> None:
        """A text as long as the class accepts is covered, with any characters; one that is longer is not."""
        message = json.loads(encode(Envelope(event), source="auth"))
        names = [name for name, value in message["data"].items() if isinstance(value, str) and name not in _INSTANTS]
        for part, name in [(message, "id"), (message, "source"), *((message["data"], name) for name in names)]:
            limit = MAX_TEXT_LENGTH if name == "reason" else MAX_IDENTIFIER_LENGTH
            kept = part[name]
            for character in ("a", "\u00e9", "\U0001f511", '"', "\x1f"):
                part[name] = character * limit
                assert is_covered(compact(message)) is (character != "\x1f"), name  # that counts as white space
                part[name] += character
                assert not is_covered(compact(message)), name
            part[name] = kept


class _Odd(TokenRevoked):
    odd: float | None = None


class _Narrower(TokenRevoked):
    narrow: Annotated[Identifier, Field(max_length=3)] = "a"


class _ByDefault(TokenRevoked):
    limited: Identifier | None = Field(default=None, max_length=3)


class _Renamed(TokenRevoked):
    renamed: Identifier | None = Field(default=None, alias="other")


class _NotFalse(TokenRevoked):
    everyone: bool = True


class _Nested(TokenRevoked):
    nested: dict[str, str] | None = None


class _FieldChecked(TokenRevoked):
    @field_validator("reason")
    @classmethod
    def _check(cls, value: str | None) -> str | None:
        return value


class _Overridden(TokenRevoked):
    @model_validator(mode="after")
    def _check_subject(self, info: ValidationInfo) -> Self:
        return self


class _CheckedAfter(TokenRevoked):
    @model_validator(mode="after")
    def _check(self) -> Self:
        return self


class _CheckedBefore(TokenRevoked):
    @model_validator(mode="before")
    @classmethod
    def _check(cls, value: Any) -> Any:
        return value


class _PostInit(TokenRevoked):
    def model_post_init(self, context: Any) -> None:
        """Do nothing."""


class _Grown(TokenRevoked):
    _ONE_OF: ClassVar[tuple[str, ...]] = ("user_id", "whole")

    whole: bool = False
    until: Instant | None = None
    within: Conditions | None = None

    @field_validator("until")
    @classmethod
    @of_constructor
    def _check(cls, value: object, info: ValidationInfo) -> None:
        raise ValueError("is not for constructors")


class TestNewFields:
    """A class that grows."""

    @pytest.mark.parametrize(
        "cls",
        [
            *(_Odd, _Narrower, _ByDefault, _Renamed, _NotFalse, _Nested),
            *(_FieldChecked, _Overridden, _CheckedAfter, _CheckedBefore, _PostInit),
        ],
        ids=lambda cls: cls.__name__,
    )
    def test_without_counterpart(self, cls: type[Event]) -> None:
        """A class with a part that msgspec does not check is left to the slower paths."""
        payload = encode(Envelope(TokenRevoked(user_id="u", occurred_at=NOON)), source="auth")
        assert _decoder(cls)(payload) is None
        assert _decoder(TokenRevoked)(payload) is not None

    def test_unknown_kind(self) -> None:
        """A class with a field of a new kind has no fast path either, and is decoded by the class itself."""
        assert fast_builder(_Odd) is None
        assert fast_builder(TokenRevoked) is not None

    @pytest.mark.parametrize(
        ("data", "covered"),
        [
            ({"whole": True}, True),
            ({"user_id": "u", "until": "9000-01-01T00:00:00Z"}, True),
            ({"user_id": "u", "whole": False}, False),
            ({"whole": True, "within": {"act.sub": "a"}}, True),
            ({"whole": False}, False),
            ({"token_id": "t"}, False),
            ({"user_id": "u" * 513}, False),
            ({"user_id": "u", "until": "9000-01-01T00:00:00+01:00"}, False),
            ({"user_id": "u", "within": {}}, False),
            ({"user_id": "u", "within": {"a.b.c.d": "a"}}, False),
        ],
    )
    def test_with_counterpart(self, data: dict[str, Any], covered: bool) -> None:
        """New fields of known kinds are covered, with what the class demands of all that is received."""
        message = json.loads(encode(Envelope(TokenRevoked(user_id="u", occurred_at=NOON)), source="auth"))
        found = _decoder(_Grown)(compact(message | {"data": data}))
        assert (found is not None) is covered
        if found is not None:
            header = {"id": message["id"], "source": "auth", "occurred_at": NOON}
            instants = {name: parse_instant(value) for name, value in data.items() if name == "until"}
            expected = receive_event(_Grown, {**header, **data, **instants})
            assert found.event == expected
            assert list(found.event.__dict__) == list(expected.__dict__)


class TestDecoding:
    """The same outcome as without the path."""

    @_each
    def test_every_value(self, event: Event) -> None:
        """Each part replaced by values at, below and above every limit and pattern."""
        message = json.loads(encode(Envelope(event), source="auth"))
        payloads = []
        for part in (message, message["data"], message["data"]["metadata"]):
            for name in {*message, *type(event).model_fields, "new"}:
                kept = dict(part)
                for value in VALUES:
                    part[name] = value
                    payloads.append(compact(message))
                part.clear()
                part.update(kept)
        different, covered = differences(payloads)
        assert different == []
        assert covered > len(payloads) // 50

    @given(_events, st.none() | st.text(max_size=9), st.none() | st.text(max_size=9))
    def test_events(self, event: Event, traceparent: str | None, tracestate: str | None) -> None:
        """Any event that the library encodes, down to its pickle."""
        payload = encode(Envelope(event, traceparent, tracestate), source="auth")
        assert differences([payload])[0] == []
        found = forms(payload)
        assert forms(payload, decode_any) == found

    @given(st.text(), st.text(), st.text(), st.datetimes(timezones=st.just(UTC)), st.dictionaries(st.text(), st.text()))
    def test_any_text(self, token: str, user: str, reason: str, instant: datetime, metadata: dict[str, str]) -> None:
        """Texts and instants of any kind, valid or not."""
        time = json.loads(to_json(instant))
        data = {"metadata": metadata, "token_id": token, "user_id": user, "expires_at": time, "reason": reason}
        message = {"specversion": "1.0", "id": user, "source": reason, "type": "jwt.token_revoked.v1", "time": time}
        header_only = {**message, "id": "i", "source": "s"}
        payloads = [compact({**message, "data": data}), compact({**header_only, "data": data})]
        assert differences([*payloads, compact({**header_only, "data": {"token_id": token}})])[0] == []

    def test_mutated(self) -> None:
        """Several thousand mutated messages; the stress lane has two million."""
        different, covered = differences(mutated(4_000, seed=1))
        assert different == []
        assert covered > 200

    def test_too_large(self) -> None:
        """A canonical message above the limit of size is refused."""
        metadata: dict[str, Any] = {str(number): "x" * 1_000 for number in range(1_100)}
        payload = encode(Envelope(TokenRevoked(token_id="t", metadata=metadata)), source="auth")
        assert decoded(payload) == ("too_large", f"more than {envelope.MAX_WIRE_BYTES} bytes")

    def test_values_of_their_own(self) -> None:
        """No two events share their metadata or their set of fields, and neither can be assigned to."""
        payload = encode(Envelope(TokenRevoked(token_id="t", occurred_at=NOON)), source="auth")
        one, other = decode(payload).event, decode(payload).event
        assert one == other
        one.metadata["a"] = 1
        one.model_fields_set.add("reason")
        assert (other.metadata, decode(payload).event.metadata) == ({}, {})
        assert "reason" not in other.model_fields_set
        with pytest.raises(ValueError, match="frozen"):
            one.id = "new"  # type: ignore[misc]  # it is frozen
        assert json.loads(one.model_copy(deep=True).model_dump_json())["metadata"] == {"a": 1}


class TestEncoding:
    """The same bytes as `pydantic_core.to_json` writes."""

    @pytest.mark.parametrize(("event", "parts"), list(zip(ORIGINALS, VECTORS, strict=True)))
    def test_wire_format(self, event: Event, parts: tuple[str, str]) -> None:
        """The bytes of each kind of event, which programs of every version read."""
        start = f'{{"specversion":"1.0","id":"{event.id}","source":"auth",'
        assert encode(Envelope(event), source="auth").decode() == start + "".join(parts)
        trace = '"traceparent":"00-aa-bb-01","tracestate":"a=b",'
        message = encode(Envelope(event, "00-aa-bb-01", "a=b"), source="auth").decode()
        assert message == start + parts[0] + trace + parts[1]

    @given(_events, st.none() | st.text(max_size=9))
    def test_events(self, event: Event, trace: str | None) -> None:
        """Any event."""
        assert encode(Envelope(event, trace, trace), source="auth") == _written_by_pydantic(event, trace, trace)

    def test_every_character(self) -> None:
        """Every character of Unicode, escaped or not."""
        for start in (*range(0, 0xD800, 1_024), *range(0xE000, 0x110000, 1_024)):
            text = "".join(map(chr, range(start, min(start + 1_024, 0x110000))))
            event = TokenRevoked.model_construct(
                id="i", occurred_at=NOON, token_id="t", reason=text, metadata={text: text}
            )
            event = event.model_copy(update={"source": None, "metadata": {text: text}})
            assert encode(Envelope(event), source="auth") == _written_by_pydantic(event)

    @given(st.datetimes(timezones=st.just(UTC)), st.integers(-86_399, 86_399))
    def test_instants(self, instant: datetime, offset: int) -> None:
        """Instants with any offset, which only an event that was not validated holds."""
        for time in (
            instant,
            instant.replace(tzinfo=timezone(timedelta(seconds=offset))),
            instant.replace(tzinfo=None),
        ):
            event = KeyRotated(key_id="k").model_copy(update={"occurred_at": time, "retire_at": time})
            assert encode(Envelope(event), source="auth") == _written_by_pydantic(event)

    @pytest.mark.parametrize(
        "value",
        [b"x", 5, 2**64, 1.5, 1e16, timedelta(hours=1), (1,), {"a": 1e16}, {"a": [1]}, {1: 2}, EventType.KEY_ROTATED],
    )
    def test_not_validated(self, value: object) -> None:
        """A value that no validated event holds."""
        for name in ("id", "source", "metadata", "algorithm", "retire_at", "compromised"):
            event = KeyRotated(key_id="k", occurred_at=NOON).model_copy(update={name: value})
            assert encode(Envelope(event), source="auth") == _written_by_pydantic(event)

    def test_unknown(self) -> None:
        """An event of an unknown type is written as before."""
        event = UnknownEvent(type="x", id="i", occurred_at=NOON, data={"a": 1.5})
        assert encode(Envelope(event), source="auth") == (
            b'{"specversion":"1.0","id":"i","source":"auth","type":"x","time":"2026-03-01T12:00:00Z","data":{"a":1.5}}'
        )
