"""Canonical messages: events as this library writes them, decoded and encoded by msgspec. Pure.

A message is canonical if encoding what was decoded from it returns the same bytes. That proves that nothing in it is
unknown, there twice, or written in another way. Nearly every message on a bus is canonical. Another one may still be
valid: the slower paths of ``envelope`` decide about it.

What msgspec checks is derived from the event classes: each type here accepts a subset of what the type of the same name
in ``_fields`` accepts, and produces the same value. What msgspec cannot express is checked by the functions that the
classes use: `check_conditions`, `looks_like_jwt`, `first_given`. A class with a field or a validator that has no
counterpart here is left to the slower paths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from itertools import chain
from typing import Annotated, Any, Literal, NotRequired, TypedDict, TypeVar, cast, get_type_hints

import msgspec
from pydantic.fields import FieldInfo

from jwt_events.events._conditions import MAX_CONDITIONS, Conditions, check_conditions
from jwt_events.events._event import Event, first_given, is_of_constructor, new_instance, set_values
from jwt_events.events._fields import (
    MAX_IDENTIFIER_LENGTH,
    MAX_TEXT_LENGTH,
    Identifier,
    Instant,
    Metadata,
    Text,
    TokenId,
    looks_like_jwt,
)
from jwt_events.events._models import TokenRevoked

_MAX_EXACT_INTEGER = 2**53
_ExactInteger = Annotated[int, msgspec.Meta(ge=-_MAX_EXACT_INTEGER, le=_MAX_EXACT_INTEGER)]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_IDENTIFIER_LENGTH)]

# What these types cannot express, `canonical_decoder` checks: white space, tokens, and that an instant is in UTC.
_TYPES: Mapping[Any, Any] = {
    Identifier: _Name,
    TokenId: _Name,
    Text: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TEXT_LENGTH)],
    Instant: Annotated[datetime, msgspec.Meta(tz=True)],
    Metadata: dict[str, str | _ExactInteger | bool | None],
    Conditions: Annotated[dict[str, str | _ExactInteger | bool], msgspec.Meta(max_length=MAX_CONDITIONS)],
    bool: bool,
}
# No message is too large that has no metadata: all of its parts are short.
_MAX_ATTRIBUTE = 1_024
_OPTIONAL = ("subject", "traceparent", "tracestate")
# The attributes in the order in which they are written, all but ``data``, which is the last.
_ATTRIBUTES: list[Any] = [
    *(("specversion", Literal["1.0"]), ("id", _Name), ("source", _Name), ("type", str), ("time", _TYPES[Instant])),
    *((name, Annotated[str, msgspec.Meta(max_length=_MAX_ATTRIBUTE)] | None, None) for name in _OPTIONAL),
]
_Written: Any = msgspec.defstruct(
    "Written",
    [*((name, Any, *default) for name, _, *default in _ATTRIBUTES), ("data", Any, None)],
    omit_defaults=True,
    gc=False,
)

_HEADER = {"id": Identifier, "occurred_at": Instant, "source": Identifier | None}
_BASE = {"type", "metadata", *_HEADER}

# Validators of whole events that refuse nothing of what is received, or no more than `first_given` does.
_EXPRESSED = ((Event, "_remember"), (TokenRevoked, "_check_subject"))

_MAX_SOURCES = 256
_plain_sources: set[str] = set()  # of messages that were decoded

_SCALARS = frozenset({str, int, bool, type(None)})
_TEXTS = frozenset({str})

_encode = msgspec.json.Encoder().encode
# One buffer for all messages that are encoded to be compared, as to make bytes takes longer. Where another thread has
# written to it in between, its message equals the payload only if both were decoded from the same.
_encode_into = msgspec.json.Encoder().encode_into
_written = bytearray(512)
_FAILURES = (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError)

# Of these kinds are the fields of messages that can be read without an event.
_READ = (Identifier, TokenId, Text, Instant)
_NONE: frozenset[str] = frozenset()

Read = tuple[type[Event], datetime, dict[str, Any]]
"""Class, ``occurred_at``, and the fields that are given."""

Decoded = TypeVar("Decoded")
_Decode = Callable[[bytes], Decoded]
_Result = Callable[[Event, str | None, str | None], Decoded]  # of an event, its ``traceparent``, its ``tracestate``


_Plan = tuple[type[Event], dict[str, Any], int, frozenset[str], tuple[str, ...], str]
"""How the fields of a message become an event. A tuple without names, as that takes half as long to unpack.

- its class
- the values of all fields of the class, in its order: the defaults, and ``None`` where there is none
- how many fields it has
- the names of those that must be given
- the names of those of which one must say something; empty if there are none
- the first of them, if it says something wherever it is given
"""

_Plans = Mapping[str, _Plan]
_Doubt = Callable[[bytes, Mapping[str, Any]], bool]  # of a message and its ``data``


def _plan(cls: type[Event], kinds: Mapping[str, Any]) -> _Plan:
    """Return the plan for a class, from the kind of each field in ``data``."""
    fields, one_of = cls.model_fields, cls._ONE_OF
    has_default = {name: not field.is_required() and field.default_factory is None for name, field in fields.items()}
    values = {name: field.default if has_default[name] else None for name, field in fields.items()}
    required = frozenset(name for name, field in fields.items() if field.is_required())
    speaks = one_of[0] if one_of and kinds[one_of[0]] is not bool else ""
    return cls, values, len(fields), required, one_of, speaks


def canonical_decoder(
    classes: Mapping[str, type[Event]], result: _Result[Decoded], otherwise: _Decode[Decoded], *, max_bytes: int
) -> _Decode[Decoded]:
    """Return a function that decodes messages, canonical ones in the quickest way.

    Args:
        classes: the class of each ``type`` of messages. One of which a part has no counterpart here is left out.
        result: makes what the function returns, from an event, its ``traceparent`` and its ``tracestate``.
        otherwise: decodes a message that is not canonical, and one that its class might refuse.
        max_bytes: the size of the largest message, of which only ``metadata`` can take that much.
    """
    kinds: dict[str, Any] = {}
    plans: dict[str, _Plan] = {}
    for wire_type, cls in classes.items():
        found = _kinds(cls)
        if found is not None and all(kinds.get(name, kind) == kind for name, kind in found.items()):
            kinds |= found
            plans[wire_type] = _plan(cls, found)
    if not plans:
        return otherwise
    token_ids, conditions = (frozenset(name for name in kinds if kinds[name] == kind) for kind in (TokenId, Conditions))

    def is_doubtful(payload: bytes, data: Mapping[str, Any]) -> bool:
        return len(payload) > max_bytes or _is_doubtful(data, token_ids, conditions)

    return _decoder(msgspec.json.Decoder(_message_type(plans, kinds)).decode, plans, is_doubtful, result, otherwise)


def _decoder(  # noqa: C901 - of the function inside
    decode: _Decode[Any], plans: _Plans, is_doubtful: _Doubt, result: _Result[Decoded], otherwise: _Decode[Decoded]
) -> _Decode[Decoded]:
    def decode_canonical(payload: bytes) -> Decoded:  # noqa: C901, PLR0911 - a call takes as long as a check
        try:
            message = decode(payload)
            _encode_into(message, _written)
        except _FAILURES:
            message = None
        if message is None:  # not above, where an error would have that of msgspec as its context, with a value
            return otherwise(payload)
        event_id, source, time, data = message.id, message.source, message.time, message.data
        if _written != payload or time.tzinfo is not UTC or not (source in _plain_sources or _keep_if_plain(source)):
            return otherwise(payload)
        if event_id.isspace() or ("." in event_id and looks_like_jwt(event_id)):
            return otherwise(payload)
        for value in data.values():
            if type(value) is str:
                if not ("." in value or value.isspace()):
                    continue
            elif type(value) is datetime and value.tzinfo is UTC:
                continue
            if is_doubtful(payload, data):
                return otherwise(payload)
            break
        cls, defaults, size, required, one_of, speaks = plans[message.type]
        values = defaults | data
        if len(values) != size or (required and not required <= data.keys()):  # a field of another class, or too few
            return otherwise(payload)
        if one_of and speaks not in data and first_given(one_of, data) is None:
            return otherwise(payload)
        values["id"], values["occurred_at"], values["source"] = event_id, time, source
        if "metadata" not in data:
            values["metadata"] = {}  # no two events have the same
        event = new_instance(cls)
        set_values(event, values)
        return result(event, message.traceparent, message.tracestate)

    return decode_canonical


def canonical_reader(classes: Mapping[str, type[Event]]) -> Callable[[bytes], Read | None]:
    """Return a function that reads what canonical messages say, without an event, at half the cost of one.

    The function returns ``None`` for a message that is not canonical, that its class might refuse, or that holds more
    than texts and instants.

    Args:
        classes: the class of each ``type`` of messages. All of them must have a counterpart here.
    """
    known = {wire_type: _kinds(cls) or {} for wire_type, cls in classes.items()}
    plans = {wire_type: _plan(cls, known[wire_type]) for wire_type, cls in classes.items()}
    kinds = {name: kind for found in known.values() for name, kind in found.items() if kind in _READ}
    token_ids = frozenset(name for name in kinds if kinds[name] == TokenId)
    decode = msgspec.json.Decoder(_message_type(plans, kinds)).decode

    def read(payload: bytes) -> Read | None:
        try:
            message = decode(payload)
            _encode_into(message, _written)
        except _FAILURES:
            return None
        event_id, source, time, data = message.id, message.source, message.time, message.data
        if _written != payload or time.tzinfo is not UTC or _is_doubtful_text(event_id):
            return None
        if source not in _plain_sources and not _keep_if_plain(source):
            return None
        cls, values, _, required, one_of, speaks = plans[message.type]
        if not required <= data.keys() <= values.keys() or _is_doubtful(data, token_ids, _NONE):
            return None
        if one_of and speaks not in data and first_given(one_of, data) is None:
            return None
        return cls, time, data

    return read


def _keep_if_plain(source: str) -> bool:
    """Return whether no class refuses a source, and remember it then: there are few, and all messages have one."""
    if source.isspace() or looks_like_jwt(source):
        return False
    if len(_plain_sources) >= _MAX_SOURCES:
        _plain_sources.clear()
    _plain_sources.add(source)
    return True


def _is_doubtful(data: Mapping[str, Any], token_ids: frozenset[str], conditions: frozenset[str]) -> bool:
    """Return whether a class might refuse or convert a value: white space, a token, an instant not in UTC.

    A value that is given although it says nothing is doubtful, too, as `Event` does not remember that it was given.
    """
    for name, value in data.items():
        if not value:
            return True
        if type(value) is str:
            if value.isspace() or (
                "." in value and (looks_like_jwt(value) or (name in token_ids and value.count(".") > 1))
            ):
                return True
        elif type(value) is datetime:
            if value.tzinfo is not UTC:
                return True
        elif type(value) is dict and not (_are_conditions(value) if name in conditions else _is_free_of_tokens(value)):
            return True
    return False


def _is_doubtful_text(text: str) -> bool:
    return text.isspace() or ("." in text and looks_like_jwt(text))


def _is_free_of_tokens(value: Mapping[str, Any]) -> bool:
    for part in chain(value, value.values()):
        if type(part) is str and "." in part and looks_like_jwt(part):
            return False
    return True


def _are_conditions(value: object) -> bool:
    try:
        check_conditions(value)
    except ValueError:
        return False
    return True


def canonical_bytes(  # noqa: PLR0917 - to pack them and unpack them again takes as long as a field
    fields: Mapping[str, Any],
    source: str,
    wire_type: str,
    subject_names: Iterable[str],
    names: Iterable[str],
    traceparent: str | None,
    tracestate: str | None,
) -> bytes | None:
    """Encode a message; ``None`` if `pydantic_core.to_json` writes other bytes, or might.

    Args:
        fields: the values of the fields.
        source: the attribute of this name.
        wire_type: the attribute ``type``.
        subject_names: the names of the fields of which the first that is given is the attribute ``subject``.
        names: the names of those in ``data``, of which the empty ones are omitted.
        traceparent: the attribute of this name; ``None`` if it is absent.
        tracestate: likewise.
    """
    event_id, time = fields["id"], fields["occurred_at"]
    if type(time) is not datetime or time.tzinfo is not UTC or type(event_id) is not str or type(source) is not str:
        return None
    subject = None
    for name in subject_names:
        if value := fields[name]:
            subject = value
            break
    data = {}
    for name in names:
        if value := fields[name]:
            if type(value) is not str and not _is_canonical(value):
                return None
            data[name] = value
    try:
        return _encode(_Written("1.0", event_id, source, wire_type, time, subject, traceparent, tracestate, data))
    except _FAILURES:
        return None


def _is_canonical(value: Any) -> bool:
    """Return whether msgspec writes a value exactly as `pydantic_core.to_json` does, or refuses to write it."""
    if type(value) is datetime:
        return value.tzinfo is UTC
    if type(value) is dict:
        return _TEXTS.issuperset(map(type, value)) and _SCALARS.issuperset(map(type, value.values()))
    return value is True


def _message_type(wire_types: Iterable[str], kinds: Mapping[str, Any]) -> Any:
    """Return the type of whole messages of these types, which may give any of these fields."""
    literal, make_type, may_be_absent = (cast("Any", form) for form in (Literal, TypedDict, NotRequired))
    data_type = make_type("Data", {name: may_be_absent[_TYPES[kind]] for name, kind in kinds.items()})
    attributes = [
        *((name, literal[*wire_types] if name == "type" else kind, *default) for name, kind, *default in _ATTRIBUTES),
        ("data", data_type),
    ]
    return msgspec.defstruct("Message", attributes, kw_only=True, omit_defaults=True, gc=False)


def _kinds(cls: type[Event]) -> dict[str, Any] | None:
    """Return the kind of each field of a class that is in ``data``; ``None`` if a part of it has no counterpart."""
    hints = get_type_hints(cls, include_extras=True)
    if Event.model_fields.keys() != _BASE or any(hints[name] != hint for name, hint in _HEADER.items()):
        return None
    if cls.model_config != Event.model_config or not _has_known_validators(cls):
        return None
    if not all(_is_plain(name, field, hints[name]) for name, field in cls.model_fields.items()):
        return None
    return {name: _kind(hints[name]) for name in cls.model_fields if name != "type" and name not in _HEADER}


def _is_plain(name: str, field: FieldInfo, hint: Any) -> bool:
    """Return whether a field is no more than its type and its default say."""
    if field.alias is not None or field.validation_alias is not None or field.exclude or name == "type":
        return name == "type"
    if field.metadata != FieldInfo.from_annotation(hint).metadata:
        return False
    if name in _HEADER:
        return True
    if name == "metadata":
        return hint == Metadata and field.default_factory is dict
    if field.default_factory is not None or not (field.is_required() or field.default in (None, False)):
        return False
    return _kind(hint) in _TYPES and _kind(hint) != Metadata


def _kind(hint: Any) -> Any:
    """Return the type of a field without the ``None`` that it may hold."""
    return next((kind for kind in _TYPES if hint in (kind, kind | None)), hint)


def _has_known_validators(cls: type[Event]) -> bool:
    """Return whether no validator of a class refuses anything of what is received that is not refused here as well."""
    found = cls.__pydantic_decorators__
    if found.validators or found.root_validators or cls.__pydantic_post_init__ is not None:
        return False
    expressed = [getattr(owner, name) for owner, name in _EXPRESSED]
    return all(is_of_constructor(validator.func) for validator in found.field_validators.values()) and all(
        validator.info.mode == "after" and validator.func in expressed for validator in found.model_validators.values()
    )
