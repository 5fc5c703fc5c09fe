"""Encoding and decoding: exact bytes, and lossless round trips."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jwt_events import Event, KeyRotated, SessionCreated, SessionDestroyed, TokenExpired, TokenRevoked, UnknownEvent
from jwt_events.envelope import Envelope, decode, encode
from tests.support.examples import COMPACT_JWT, EVENTS, NOON
from tests.support.strategies import json_values, known_events, unknown_events

_LATER = '"2026-03-01T13:30:15.250000Z"'


def _golden(kind: str, subject: str, *fields: str) -> bytes:
    header = '{"specversion":"1.0","id":"01961f7e-0000-7000-8000-000000000001","source":"auth",'
    header += f'"type":"jwt.{kind}.v1","time":"2026-03-01T12:00:00Z","subject":"{subject}","data":'
    return (header + ",".join(['{"metadata":{"ip":"192.0.2.1"}', *fields]) + "}}").encode()


# These bytes are in the streams of those who use the library. A change here breaks services that are not updated at
# the same time.
_GOLDEN = {
    TokenRevoked: _golden(
        "token_revoked",
        "token-1",
        '"token_id":"token-1"',
        '"user_id":"user-1"',
        '"session_id":"session-1"',
        '"client_id":"client-1"',
        '"issued_before":"2026-03-01T12:00:00Z"',
        f'"expires_at":{_LATER}',
        '"reason":"logout"',
    ),
    TokenExpired: _golden(
        "token_expired",
        "token-1",
        '"token_id":"token-1"',
        '"user_id":"user-1"',
        '"session_id":"session-1"',
        f'"expired_at":{_LATER}',
    ),
    KeyRotated: _golden(
        "key_rotated",
        "key-2",
        '"key_id":"key-2"',
        '"previous_key_id":"key-1"',
        '"issuer":"https://issuer.example"',
        '"algorithm":"ES256"',
        '"active_from":"2026-03-01T12:00:00Z"',
        f'"retire_at":{_LATER}',
    ),
    SessionCreated: _golden(
        "session_created",
        "session-1",
        '"session_id":"session-1"',
        '"user_id":"user-1"',
        '"client_id":"client-1"',
        f'"expires_at":{_LATER}',
    ),
    SessionDestroyed: _golden(
        "session_destroyed",
        "session-1",
        '"session_id":"session-1"',
        '"user_id":"user-1"',
        f'"expires_at":{_LATER}',
        '"reason":"logout"',
    ),
}

_examples = pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)


def _wire(**changes: Any) -> bytes:
    """Return a message as another implementation might have written it."""
    message: dict[str, Any] = {
        "specversion": "1.0",
        "id": "event-1",
        "source": "elsewhere",
        "type": "jwt.token_revoked.v1",
        "time": "2026-03-01T12:00:00Z",
        "data": {"token_id": "token-1"},
    }
    return json.dumps(message | changes).encode()


class TestBytes:
    """Exact bytes of messages."""

    @_examples
    def test_golden(self, event: Event) -> None:
        """Every type of event is encoded to exactly these bytes."""
        assert encode(Envelope(event), source="not used") == _GOLDEN[type(event)]

    @_examples
    def test_golden_back(self, event: Event) -> None:
        """These bytes are decoded to exactly that event."""
        assert decode(_GOLDEN[type(event)]) == Envelope(event)

    def test_smallest(self) -> None:
        """Fields that are not set are not encoded."""
        event = TokenRevoked(id="event-1", occurred_at=NOON, user_id="user-1")
        assert encode(Envelope(event), source="auth") == (
            b'{"specversion":"1.0","id":"event-1","source":"auth","type":"jwt.token_revoked.v1",'
            b'"time":"2026-03-01T12:00:00Z","subject":"user-1","data":{"user_id":"user-1"}}'
        )

    def test_no_leak(self) -> None:
        """A key is not compromised unless the message says so."""
        event = KeyRotated(id="event-1", occurred_at=NOON, key_id="key-1")
        assert encode(Envelope(event), source="auth").endswith(b'"data":{"key_id":"key-1"}}')
        assert decode(encode(Envelope(event), source="auth")).event == event.model_copy(update={"source": "auth"})

    def test_trace_context(self) -> None:
        """Trace context travels in the attributes of the distributed tracing extension."""
        event = SessionDestroyed(id="event-1", occurred_at=NOON, session_id="s")
        assert encode(Envelope(event, "00-aa-bb-01", "vendor=x"), source="auth") == (
            b'{"specversion":"1.0","id":"event-1","source":"auth","type":"jwt.session_destroyed.v1",'
            b'"time":"2026-03-01T12:00:00Z","subject":"s","traceparent":"00-aa-bb-01","tracestate":"vendor=x",'
            b'"data":{"session_id":"s"}}'
        )

    @given(known_events)
    def test_cloudevents(self, event: Event) -> None:
        """Every message is UTF-8 JSON with the attributes that CloudEvents requires, and data without any of them."""
        message = json.loads(encode(Envelope(event), source="auth").decode())
        assert list(message)[:5] == ["specversion", "id", "source", "type", "time"]
        assert list(message)[-1] == "data"
        assert message["specversion"] == "1.0"
        assert message["subject"] == event.subject
        assert not message["data"].keys() & {"type", "id", "source", "occurred_at"}
        assert None not in {value for value in message["data"].values() if not isinstance(value, dict)}

    @given(known_events)
    def test_one_line(self, event: Event) -> None:
        """A message holds no raw control character, so it can be a line of a log or of a file."""
        assert not [byte for byte in encode(Envelope(event), source="auth") if byte < 0x20]


class TestThereAndBack:
    """Decoding returns the encoded event."""

    @given(known_events, st.none() | st.text("0123456789abcdef-"), st.none() | st.text("abc=,", max_size=20))
    def test_known_events(self, event: Event, traceparent: str | None, tracestate: str | None) -> None:
        """Any event is decoded to an equal one, with the publisher's name if it had no source."""
        payload = encode(Envelope(event, traceparent, tracestate), source="auth")
        back = decode(payload)
        assert back == Envelope(event.model_copy(update={"source": event.source or "auth"}), traceparent, tracestate)
        assert type(back.event) is type(event)
        assert json.dumps(back.event.metadata) == json.dumps(event.metadata)

    @given(known_events)
    def test_again(self, event: Event) -> None:
        """Encoding a decoded message returns the same bytes."""
        payload = encode(Envelope(event), source="auth")
        assert encode(decode(payload), source="not used") == payload

    @given(unknown_events)
    def test_unknown_events(self, event: UnknownEvent) -> None:
        """An event of an unknown type is decoded to an equal one, including its data."""
        payload = encode(Envelope(event), source="not used")
        back = decode(payload)
        assert back == Envelope(event)
        assert isinstance(back.event, UnknownEvent)
        assert json.dumps(back.event.data) == json.dumps(event.data)
        assert encode(back, source="not used") == payload


class TestTolerance:
    """Additions and omissions of newer versions and other implementations."""

    @given(st.dictionaries(st.text(min_size=1).map(lambda name: f"x{name}"), json_values))
    def test_unknown_attributes(self, more: dict[str, Any]) -> None:
        """Attributes that this version does not know are ignored."""
        assert decode(_wire(**more)) == decode(_wire())

    @given(st.dictionaries(st.text(min_size=1).map(lambda name: f"x{name}"), json_values))
    def test_unknown_data(self, more: dict[str, Any]) -> None:
        """Fields of data that this version does not know are ignored."""
        assert decode(_wire(data={"token_id": "token-1"} | more)) == decode(_wire())

    def test_data_cannot_change_the_header(self) -> None:
        """An id or a type inside data is ignored like any unknown field."""
        data = {"token_id": "token-1", "id": "other", "type": "other", "source": "other", "occurred_at": 5}
        assert decode(_wire(data=data)) == decode(_wire())

    def test_null_is_absent(self) -> None:
        """A null field of data counts as not set."""
        assert decode(_wire(data={"token_id": "token-1", "user_id": None, "expires_at": None})) == decode(_wire())

    @pytest.mark.parametrize(
        "time",
        [
            *("2026-03-01T12:00:00+00:00", "2026-03-01T13:00:00+01:00", "2026-03-01T12:00:00.000Z"),
            *("2026-03-01T12:00:00Z", "2026-03-01t12:00:00z", "2026-03-01T12:00:00z", "2026-03-01t12:00:00Z"),
            *("2026-03-01 12:00:00Z", "2026-03-01T12:00:00-00:00", "2026-03-01T11:59:60Z", "2026-03-01t11:59:60.000z"),
            *("2026-03-01T12:59:60+01:00", "2026-03-01T12:00:00.0000000001Z"),
        ],
    )
    def test_forms_of_time(self, time: str) -> None:
        """Every form that RFC 3339 allows for an instant is accepted."""
        assert decode(_wire(time=time)).event.occurred_at == NOON
        event = decode(_wire(data={"token_id": "token-1", "expires_at": time})).event
        assert isinstance(event, TokenRevoked)
        assert event.expires_at == NOON

    def test_a_leap_second(self) -> None:
        """Second 60 is the second that follows, with its fraction."""
        event = decode(_wire(time="2016-12-31T23:59:60.25Z")).event
        assert event.occurred_at == datetime(2017, 1, 1, 0, 0, 0, 250_000, tzinfo=UTC)

    @pytest.mark.parametrize("time", [{}, {"time": None}], ids=["missing", "null"])
    def test_without_a_time(self, time: dict[str, None]) -> None:
        """CloudEvents does not require a time: the id tells it if it is a UUIDv7, else it is the time of reading."""
        message = json.loads(_wire())
        del message["time"]
        before = datetime.now(UTC)
        assert before <= decode(json.dumps(message | time).encode()).event.occurred_at <= datetime.now(UTC)
        message["id"] = "019ca940-f000-7abc-8def-000000000000"
        assert decode(json.dumps(message | time).encode()).event.occurred_at == datetime.fromtimestamp(
            0x019CA940F000 / 1000, UTC
        )
        message["id"] = "ffffffff-ffff-7abc-8def-000000000000"  # after the year 9999
        assert decode(json.dumps(message | time).encode()).event.occurred_at >= before

    def test_byte_order_mark(self) -> None:
        """A byte order mark, which RFC 8259 lets a reader ignore, is ignored."""
        assert decode(b"\xef\xbb\xbf" + _wire()).event == decode(_wire()).event

    @pytest.mark.parametrize("name", ["metadata", "compromised"])
    def test_null_where_no_null_can_be(self, name: str) -> None:
        """A field of data that is null is absent, also where the event cannot hold null."""
        wire = {"type": "jwt.key_rotated.v1", "data": {"key_id": "k", "metadata": {"a": 1}}}
        without = {"type": "jwt.key_rotated.v1", "data": {"key_id": "k"}}
        assert decode(_wire(**without | {"data": {"key_id": "k", name: None}})).event == decode(_wire(**without)).event
        assert decode(_wire(**wire)).event.metadata == {"a": 1}

    def test_metadata_of_an_unknown_type(self) -> None:
        """It travels as that of a known one does, and is not part of the data."""
        event = UnknownEvent(type="jwt.other.v1", source="s", data={"a": 1}, metadata={"b": [2]})
        assert decode(encode(Envelope(event), source="s")).event == event
        odd = UnknownEvent(type="jwt.other.v1", source="s", data={"metadata": "text"})
        assert decode(encode(Envelope(odd), source="s")).event == odd

    def test_numeric_dates_in_data(self) -> None:
        """An instant in data may be a NumericDate."""
        event = decode(_wire(data={"token_id": "token-1", "expires_at": NOON.timestamp()})).event
        assert isinstance(event, TokenRevoked)
        assert event.expires_at == NOON

    @pytest.mark.parametrize("trace", [5, True, ["00-aa-bb-01"], {"a": 1}, None], ids=repr)
    def test_malformed_trace_context(self, trace: object) -> None:
        """Trace context that is not text is ignored; the event is decoded."""
        assert decode(_wire(traceparent=trace, tracestate=trace)) == decode(_wire())

    def test_unknown_type(self) -> None:
        """An event of an unknown type keeps its type and data unchanged, even whole tokens."""
        data = {"token": COMPACT_JWT, "deep": [[[[[[[[[[["down here"]]]]]]]]]]], "large": 10**40}
        event = decode(_wire(type="jwt.token_revoked.v2", data=data)).event
        assert isinstance(event, UnknownEvent)
        assert (event.type, event.data) == ("jwt.token_revoked.v2", data)
        assert (event.id, event.source, event.occurred_at) == ("event-1", "elsewhere", NOON)

    def test_unknown_type_without_data(self) -> None:
        """Data is optional for an unknown type."""
        message = json.loads(_wire(type="other"))
        del message["data"]
        event = decode(json.dumps(message).encode()).event
        assert isinstance(event, UnknownEvent)
        assert event.data == {}

    def test_order_and_spaces(self) -> None:
        """The order of attributes and white space are ignored."""
        message = dict(reversed(json.loads(_wire()).items()))
        assert decode(json.dumps(message, indent=4).encode()) == decode(_wire())
