"""Encodes and decodes events: CloudEvents 1.0 JSON in structured mode, UTF-8.

Pure functions. Decoding tolerates what a newer version may add (unknown attributes, unknown fields in ``data``, unknown
types), because losing a revocation is worse than losing a detail of it; it is strict about everything else.

Source: CloudEvents 1.0.2 JSON event format and its distributed tracing extension (W3C Trace Context).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Never, cast, get_args

import jiter
import msgspec
from pydantic import ValidationError
from pydantic_core import to_json

from jwt_events.errors import DecodeError, InvalidEvent
from jwt_events.events import (
    EVENT_CLASSES,
    Event,
    Instant,
    Read,
    SessionDestroyed,
    TokenRevoked,
    UnknownEvent,
    canonical_bytes,
    canonical_decoder,
    canonical_reader,
    fast_builder,
    parse_instant,
    receive_event,
)

MAX_WIRE_BYTES = 1_048_576
"""Maximum size of a message. `decode` rejects a larger one; a publisher's ``max_event_bytes`` cannot exceed it."""

_WIRE_TYPES: Mapping[type[Event], str] = {cls: f"jwt.{kind}.v1" for kind, cls in EVENT_CLASSES.items()}
_CLASSES: Mapping[str, type[Event]] = {wire_type: cls for cls, wire_type in _WIRE_TYPES.items()}
_FAST_BUILDERS = {wire_type: _built for wire_type, cls in _CLASSES.items() if (_built := fast_builder(cls)) is not None}

_HEADER = frozenset(Event.model_fields) - {"metadata"}
_FIELDS: Mapping[type[Event], frozenset[str]] = {cls: frozenset(cls.model_fields) - _HEADER for cls in _WIRE_TYPES}
# Of each class the type on the wire, the fields that may be the subject, and the fields in ``data``.
_WRITTEN: Mapping[type[Event], tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    cls: (wire_type, cls._SUBJECT, tuple(name for name in cls.model_fields if name not in _HEADER))
    for cls, wire_type in _WIRE_TYPES.items()
}
_ATTRIBUTES = ("specversion", "id", "source", "type", "time", "subject", "traceparent", "tracestate")
# Where these are null, they are absent. The other optional fields may hold null.
_ABSENT_IF_NULL = ("metadata", "compromised")
_UUID_V7 = re.compile(r"([0-9a-f]{8})-([0-9a-f]{4})-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.IGNORECASE)

# JSON has instants as text, so these fields are parsed before the model validates them.
_INSTANTS: Mapping[type[Event], tuple[str, ...]] = {
    cls: tuple(name for name, field in cls.model_fields.items() if Instant in get_args(field.annotation))
    for cls in _WIRE_TYPES
}


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """Event together with the trace context of its publish.

    Attributes:
        event: the event.
        traceparent: W3C trace context of the publish, or ``None``.
        tracestate: vendor part of the trace context, or ``None``.
        confirm: whether the publisher waits until each registered instance has said that it applied the event.
    """

    event: Event
    traceparent: str | None = None
    tracestate: str | None = None
    confirm: bool = False

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the attributes, to unpack them."""
        return iter(msgspec.structs.astuple(self))


def encode(envelope: Envelope, *, source: str) -> bytes:
    """Encode an envelope; see `encode_event`."""
    payload = encode_event(envelope.event, source, envelope.traceparent, envelope.tracestate)
    return ask_to_confirm(payload) if envelope.confirm else payload


def ask_to_confirm(payload: bytes) -> bytes:
    """Return an encoded message with the attribute ``confirm``: see `Envelope`."""
    return payload[:-1] + b',"confirm":true}'


def encode_event(event: Event, source: str, traceparent: str | None = None, tracestate: str | None = None) -> bytes:
    """Encode an event and its trace context as a message.

    Args:
        event: the event.
        source: name of the publisher, used if the event has no ``source`` of its own.
        traceparent: see `Envelope`.
        tracestate: see `Envelope`.

    Raises:
        InvalidEvent: an `UnknownEvent` has a type that this version knows.
    """
    fields = event.__dict__
    source = fields["source"] or source
    if (written := _WRITTEN.get(type(event))) is not None:
        wire_type, subject_names, names = written
        payload = canonical_bytes(fields, source, wire_type, subject_names, names, traceparent, tracestate)
        if payload is not None:
            return payload
    return _encode_any(event, source, traceparent, tracestate)


def _encode_any(event: Event, source: str, traceparent: str | None, tracestate: str | None) -> bytes:
    fields = event.__dict__
    if (written := _WRITTEN.get(type(event))) is None:
        wire_type, data = fields["type"], _unknown_data(cast("UnknownEvent", event))
    else:
        wire_type, _, names = written
        data = {name: value for name in names if (value := fields[name])}  # None, False and {} are omitted
    attributes = ("1.0", fields["id"], source, wire_type, fields["occurred_at"], event.subject, traceparent, tracestate)
    message = dict(zip(_ATTRIBUTES, attributes, strict=True))
    return to_json({name: value for name, value in message.items() if value is not None} | {"data": data})


def _unknown_data(event: UnknownEvent) -> dict[str, Any]:
    if event.type in _CLASSES or event.type in EVENT_CLASSES:
        raise InvalidEvent([("type", "is one that this version knows: publish an event of its own class")])
    return {**event.data, "metadata": event.metadata} if event.metadata else event.data


def decode_any(payload: bytes) -> Envelope:
    """Decode a message, canonical or not, in the way that covers all of them: `decode` is quicker."""
    message = _parse(payload)
    wire_type = message.get("type")
    build = _FAST_BUILDERS.get(wire_type) if isinstance(wire_type, str) else None
    event = build(message) if build is not None else None
    if event is None:
        event = _build_event(_text(message, "type"), message)
    if "traceparent" in message or "tracestate" in message or "confirm" in message:
        traceparent, tracestate = _optional_text(message, "traceparent"), _optional_text(message, "tracestate")
        return Envelope(event, traceparent, tracestate, message.get("confirm") is True)
    return Envelope(event)


decode: Callable[[bytes], Envelope] = canonical_decoder(_CLASSES, Envelope, decode_any, max_bytes=MAX_WIRE_BYTES)
"""Decode a message.

Raises `DecodeError` where the bytes are not an event. It names the reason and the place, and holds no value from the
payload.
"""

read_revocation: Callable[[bytes], Read | None] = canonical_reader(
    {wire_type: cls for wire_type, cls in _CLASSES.items() if cls in (TokenRevoked, SessionDestroyed)}
)
"""Read a revocation without making an event: its class, when it occurred, and the fields that are given.

Returns ``None`` for what `decode` must decide about: other events, what a newer version wrote, and what is no event.
"""


def _build_event(wire_type: str, message: Mapping[str, Any]) -> Event:
    if message.get("specversion") != "1.0":
        raise DecodeError("not_an_envelope", "specversion is not 1.0")
    data = message.get("data", {})
    if not isinstance(data, dict):
        raise DecodeError("not_an_envelope", "data is not an object")
    event_id = _text(message, "id")
    header: dict[str, Any] = {"id": event_id, "source": _text(message, "source")}
    if (time := _time(message, event_id)) is not None:
        header["occurred_at"] = time
    cls = _CLASSES.get(wire_type)
    if cls is not None:
        return _build(cls, header | _known_fields(cls, data))
    if isinstance(data.get("metadata"), dict):
        header["metadata"] = data.pop("metadata")
    return _build(UnknownEvent, header | {"type": wire_type, "data": data})


def _time(message: Mapping[str, Any], event_id: str) -> object:
    """Return when an event happened; ``None`` if neither its ``time``, which may be missing, nor its id says so."""
    if message.get("time") is not None:
        return _instant(_text(message, "time"), "time")
    if (match := _UUID_V7.fullmatch(event_id)) is None:
        return None
    try:
        return datetime.fromtimestamp(int(match[1] + match[2], 16) / 1000, UTC)
    except (OverflowError, ValueError):
        return None


def _parse(payload: bytes) -> dict[str, Any]:
    if len(payload) > MAX_WIRE_BYTES:
        raise DecodeError("too_large", f"more than {MAX_WIRE_BYTES} bytes")
    try:
        message = jiter.from_json(payload, catch_duplicate_keys=True, allow_inf_nan=False, cache_mode="keys")
    except ValueError:
        message = _parse_again(payload)
    if not isinstance(message, dict):
        raise DecodeError("not_an_envelope", "not an object")
    return message


def _parse_again(payload: bytes) -> Any:
    """Parse with the standard library, which accepts deeper nesting and reports problems without repeating values."""
    try:
        message = _decoder.decode(payload.decode("utf-8-sig"))  # RFC 8259, 8.1: a byte order mark may be ignored
        if b"\\u" in payload:  # an escape can be half of a surrogate pair, which cannot be encoded again
            json.dumps(message, ensure_ascii=False).encode()
    except UnicodeDecodeError:
        raise DecodeError("not_json", "not UTF-8") from None
    except UnicodeEncodeError:
        raise DecodeError("not_json", "a lone surrogate") from None
    except json.JSONDecodeError as error:
        raise DecodeError("not_json", f"{error.msg} at character {error.pos}") from None
    except RecursionError:
        raise DecodeError("not_json", "nests too deep") from None
    except ValueError:
        raise DecodeError("not_json", "a number has too many digits") from None
    return message


def _reject_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Reject an object with a duplicate key: two readers could read two different events from it."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise DecodeError("duplicate_key", "an object has the same key twice")
    return members


def _reject_constant(name: str) -> Never:
    raise DecodeError("not_json", f"{name} is not JSON")


_decoder = json.JSONDecoder(object_pairs_hook=_reject_duplicates, parse_constant=_reject_constant)


def _text(message: Mapping[str, Any], attribute: str) -> str:
    value = message.get(attribute)
    if not isinstance(value, str):
        raise DecodeError("not_an_envelope", f"{attribute} is {'missing' if value is None else 'not text'}")
    return value


def _optional_text(message: Mapping[str, Any], attribute: str) -> str | None:
    """Return an attribute if it is text. Trace context is optional: the event is valid even if it is malformed."""
    value = message.get(attribute)
    return value if isinstance(value, str) else None


def _instant(value: object, field: str) -> object:
    if not isinstance(value, str):
        return value
    try:
        return parse_instant(value)
    except ValueError:
        raise DecodeError("invalid_event", f"{field} is not an RFC 3339 time") from None


def _known_fields(cls: type[Event], data: dict[str, Any]) -> dict[str, Any]:
    known = _FIELDS[cls]
    fields = data if known.issuperset(data) else {name: value for name, value in data.items() if name in known}
    for name in _INSTANTS[cls]:
        if name in fields:
            fields[name] = _instant(fields[name], name)
    for name in _ABSENT_IF_NULL:
        if fields.get(name, name) is None:
            del fields[name]
    return fields


def _build(cls: type[Event], fields: dict[str, Any]) -> Event:
    try:
        return receive_event(cls, fields)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = next(iter(problem["loc"]), cls.__name__)  # the rest of the location could hold keys from the payload
        raise DecodeError("invalid_event", f"{field}: {problem['msg']}") from None
