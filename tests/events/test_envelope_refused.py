"""Invalid messages: each reason has a fixed word, and no error repeats the payload."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jwt_events import DecodeError, Event
from jwt_events.envelope import MAX_WIRE_BYTES, Envelope, decode, encode
from tests.support.examples import COMPACT_JWT, EVENTS, all_that_is_said
from tests.support.strategies import json_values, known_events

_REASONS = {"too_large", "not_json", "duplicate_key", "not_an_envelope", "invalid_event"}

_MESSAGE: dict[str, Any] = {
    "specversion": "1.0",
    "id": "event-1",
    "source": "elsewhere",
    "type": "jwt.token_revoked.v1",
    "time": "2026-03-01T12:00:00Z",
    "data": {"token_id": "token-1"},
}


def _wire(**changes: Any) -> bytes:
    return json.dumps(_MESSAGE | changes).encode()


def _without(attribute: str) -> bytes:
    return json.dumps({name: value for name, value in _MESSAGE.items() if name != attribute}).encode()


def _refusal(payload: bytes) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        decode(payload)
    assert caught.value.reason in _REASONS
    assert str(caught.value) == f"{caught.value.reason}: {caught.value.detail}"
    return caught.value


def _survives(payload: bytes) -> None:
    """Decode an arbitrary payload: it is an event that can be encoded again, or a DecodeError."""
    try:
        envelope = decode(payload)
    except DecodeError as refusal:
        error = refusal
    else:
        assert decode(encode(envelope, source="not used")) == envelope
        return
    assert error.reason in _REASONS
    assert len(str(error)) < 300


class TestReasons:
    """Each reason for a DecodeError, and the place that it names."""

    @pytest.mark.parametrize(
        ("payload", "detail"),
        [
            (b"", "character 0"),
            (b"not json", "character 0"),
            (b'{"id": 1', "character 8"),
            (b"{}{}", "character 2"),
            (b"\xff\xfe\xfd", "not UTF-8"),
            ("{}".encode("utf-16"), "not UTF-8"),
            (b"\xef\xbb\xbf\xef\xbb\xbf{}", "character 0"),
            (b'{"a": NaN}', "NaN"),
            (b'{"a": -Infinity}', "-Infinity"),
            (b"[" * 200_000, "too deep"),
            (b'{"a":' * 100_000, "too deep"),
            (b"1" * 5_000, "too many digits"),
            (_wire(type="\ud83d"), "lone surrogate"),
            (_wire(type="other", data={"a": ["\ud83d"]}), "lone surrogate"),
            (_wire(type="other", data={"\udc00": 1}), "lone surrogate"),
            (_wire(traceparent="\udc00"), "lone surrogate"),
        ],
        ids=lambda value: repr(value)[:25],
    )
    def test_not_json(self, payload: bytes, detail: str) -> None:
        """Bytes that are not JSON, or JSON that cannot be encoded again."""
        error = _refusal(payload)
        assert error.reason == "not_json"
        assert detail in error.detail

    def test_surrogate_pairs_are_characters(self) -> None:
        """A surrogate pair in JSON escapes is decoded to one character."""
        assert decode(_wire(data={"token_id": "key \U0001f511"})).event.subject == "key \U0001f511"

    @pytest.mark.parametrize("place", ["top", "data", "metadata", "unknown"])
    def test_duplicate_key(self, place: str) -> None:
        """A duplicate key in an object is rejected: two readers could see two different events."""
        twice = b'{"token_id":"a","token_id":"b"}'
        payload = {
            "top": _wire()[:-1] + b',"type":"jwt.token_expired.v1"}',
            "data": _wire(data=0).replace(b'"data": 0', b'"data":' + twice),
            "metadata": _wire(data={"token_id": "a", "metadata": 0}).replace(b'data": 0', b'data":' + twice),
            "unknown": _wire(type="other", data=0).replace(b'"data": 0', b'"data":' + twice),
        }[place]
        assert _refusal(payload).reason == "duplicate_key"

    @pytest.mark.parametrize("payload", [b"null", b"5", b'"text"', b"[]", b"true"])
    def test_no_object(self, payload: bytes) -> None:
        """JSON other than an object is not an envelope."""
        assert _refusal(payload).reason == "not_an_envelope"

    @pytest.mark.parametrize("attribute", ["specversion", "id", "source", "type"])
    def test_attribute_missing_or_no_text(self, attribute: str) -> None:
        """The attributes that CloudEvents requires must be present and be text."""
        for payload in (_without(attribute), _wire(**{attribute: None}), _wire(**{attribute: 5})):
            error = _refusal(payload)
            assert error.reason == "not_an_envelope"
            assert attribute in error.detail

    @pytest.mark.parametrize("time", [5, 1_772_366_400, True, [], {"a": 1}], ids=repr)
    def test_time_is_no_text(self, time: object) -> None:
        """A time that is neither text nor missing is rejected."""
        assert _refusal(_wire(time=time)).reason == "not_an_envelope"

    @pytest.mark.parametrize(
        "time",
        [
            *("2026-03-01T12:00:00", "2026-03-01", "", "now", "2026-03-01T12:00:61Z", "2026-03-01T12:60:60Z"),
            *("2026-03-01T24:01:00Z", "9999-12-31T23:59:60Z", "2026-02-30T12:00:00Z", "2026-03-01t12:00:00zz"),
        ],
    )
    def test_time_is_no_instant(self, time: str) -> None:
        """A time without an offset, or one that no clock shows, has no single meaning and is rejected."""
        assert _refusal(_wire(time=time)).reason == "invalid_event"
        assert _refusal(_wire(data={"token_id": "t", "expires_at": time})).reason == "invalid_event"

    @pytest.mark.parametrize("version", ["0.3", "1.1", "2.0", "", 1.0])
    def test_other_version(self, version: object) -> None:
        """Other versions of CloudEvents are rejected."""
        assert _refusal(_wire(specversion=version)).reason == "not_an_envelope"

    @pytest.mark.parametrize("data", [None, [], "text", 5, True], ids=repr)
    def test_data_is_no_object(self, data: object) -> None:
        """Data, if present, must be an object."""
        error = _refusal(_wire(data=data))
        assert (error.reason, error.detail) == ("not_an_envelope", "data is not an object")

    @pytest.mark.parametrize(
        ("changes", "place"),
        [
            ({"data": {}}, "TokenRevoked"),
            ({"id": ""}, "id"),
            ({"source": " "}, "source"),
            ({"time": "yesterday"}, "time"),
            ({"time": "2026-03-01T12:00:00"}, "occurred_at"),
            ({"time": "0001-01-01T00:00:00+14:00"}, "occurred_at"),
            ({"data": {"token_id": 5}}, "token_id"),
            ({"data": {"token_id": "a.b.c"}}, "token_id"),
            ({"data": {"user_id": COMPACT_JWT}}, "user_id"),
            ({"data": {"user_id": "a" * 513}}, "user_id"),
            ({"data": {"user_id": "a", "expires_at": "soon"}}, "expires_at"),
            ({"data": {"user_id": "a", "expires_at": True}}, "expires_at"),
            ({"data": {"user_id": "a", "expires_at": 10**400}}, "expires_at"),
            ({"data": {"user_id": "a", "expires_at": 1_772_366_400_000}}, "expires_at"),
            ({"data": {"user_id": "a", "expires_at": []}}, "expires_at"),
            ({"data": {"user_id": "a", "metadata": []}}, "metadata"),
            ({"data": {"user_id": "a", "metadata": {"a": 2**63}}}, "metadata"),
            ({"data": {"user_id": "a", "metadata": {"a": [[[[[[[[[]]]]]]]]]}}}, "metadata"),
            ({"type": "jwt.key_rotated.v1", "data": {"key_id": "a", "compromised": 1}}, "compromised"),
        ],
        ids=lambda value: str(value)[:40],
    )
    def test_invalid_event(self, changes: dict[str, Any], place: str) -> None:
        """An envelope with an invalid event: the detail names the field."""
        error = _refusal(_wire(**changes))
        assert error.reason == "invalid_event"
        assert error.detail.startswith(place)

    @pytest.mark.parametrize("number", [b"1e999", b"-1e999"])
    def test_number_beyond_a_float(self, number: bytes) -> None:
        """A number that overflows to infinity is rejected in every place."""
        for payload in (
            _wire(data={"user_id": "a", "expires_at": 0}),
            _wire(data={"user_id": "a", "metadata": {"a": 0}}),
            _wire(type="other", data={"a": 0}),
        ):
            assert _refusal(payload.replace(b": 0}", b": " + number + b"}")).reason == "invalid_event"


class TestSizes:
    """Maximum size of a message."""

    def test_largest(self) -> None:
        """A message of exactly the limit is decoded; one more byte is rejected without parsing."""
        room = MAX_WIRE_BYTES - len(_wire(type="other", data={"a": ""}))
        assert decode(_wire(type="other", data={"a": "x" * room})).event.type == "other"
        error = _refusal(_wire(type="other", data={"a": "x" * (room + 1)}))
        assert error.reason == "too_large"
        assert error.detail == f"more than {MAX_WIRE_BYTES} bytes"


class TestSecrets:
    """No error repeats a value of the payload."""

    @pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
    def test_no_value(self, event: Event) -> None:
        """With a secret in each place in turn, in every wrong form, no error contains it."""
        secret = "the-secret-itself"
        message = json.loads(encode(Envelope(event), source="auth"))
        forms: list[Any] = [secret * 200, [secret], {secret: secret}, f"eyJ{secret}.{secret}.{secret}"]
        forms += [f"{secret}\ud800", {secret: "\ud800"}, {secret: [[[[[[[[[secret]]]]]]]]]}]
        for part in (message, message["data"]):
            for name in list(part):
                kept = part[name]
                for value in forms:
                    part[name] = value
                    payload = json.dumps(message).encode()
                    for damaged in (payload, payload[:-1], payload + b"}", b"\xff" + payload):
                        with suppress(DecodeError):
                            decode(damaged)
                            continue
                        assert secret not in all_that_is_said(_refusal(damaged))
                part[name] = kept

    def test_no_key_of_unknown_data(self) -> None:
        """Errors do not repeat keys of unknown data, which may be secret or very long."""
        payload = _wire(type="other", data={"the-secret-itself" * 50: 0}).replace(b": 0}", b": 1e999}")
        assert "secret" not in all_that_is_said(_refusal(payload))


class TestAnything:
    """Every payload is decoded to an event or raises DecodeError."""

    @given(st.binary(max_size=500))
    def test_bytes(self, payload: bytes) -> None:
        """Arbitrary bytes."""
        _survives(payload)

    @given(json_values)
    def test_json(self, value: Any) -> None:
        """Arbitrary JSON."""
        _survives(json.dumps(value).encode())

    @given(known_events, st.data())
    def test_one_part_replaced(self, event: Event, data: st.DataObject) -> None:
        """A message in which arbitrary JSON replaces one part."""
        message = json.loads(encode(Envelope(event), source="auth"))
        part = data.draw(st.sampled_from([message, message["data"]]))
        part[data.draw(st.sampled_from(sorted(part)))] = data.draw(json_values)
        _survives(json.dumps(message).encode())

    @given(known_events, st.data())
    def test_a_few_bytes_changed(self, event: Event, data: st.DataObject) -> None:
        """A message with bytes changed, removed or added."""
        payload = bytearray(encode(Envelope(event), source="auth"))
        for _ in range(data.draw(st.integers(1, 4))):
            start = data.draw(st.integers(0, len(payload)))
            end = data.draw(st.integers(start, min(len(payload), start + 3)))
            payload[start:end] = data.draw(st.binary(max_size=3) | st.sampled_from([b"\\ud800", b"1e999", b"0" * 400]))
        _survives(bytes(payload))
