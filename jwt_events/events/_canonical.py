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

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from itertools import chain
from typing import Annotated, Any, Literal, NotRequired, TypedDict, TypeVar, get_type_hints

import msgspec
from pydantic.fields import FieldInfo

from jwt_events.events._conditions import MAX_CONDITIONS, Conditions, check_conditions
from jwt_events.events._event import Event, first_given, is_of_constructor
from jwt_events.events._fast_path import new_instance, set_extra, set_fields_set, set_private, set_values
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
# The attributes in the order in which they are written, all but ``data``, which is the last.
_ATTRIBUTES: list[Any] = [
    *(("specversion", Literal["1.0"]), ("id", _Name), ("source", _Name), ("type", str), ("time", _TYPES[Instant])),
    *((name, str | None, None) for name in ("subject", "traceparent", "tracestate")),
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

_SCALARS = frozenset({str, int, bool, type(None)})
_TEXTS = frozenset({str})

_encode = msgspec.json.Encoder().encode
_FAILURES = (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError)

Decoded = TypeVar("Decoded", bound=tuple[Event, str | None, str | None, bool])
"""Event, its ``traceparent`` and its ``tracestate``, and whether it is to be confirmed, which is not canonical."""


def canonical_decoder(
    cls: type[Event], wire_type: str, result: type[Decoded]
) -> Callable[[bytes], Decoded | None] | None:
    """Return a function that decodes canonical messages of a class; ``None`` if a part of the class has no counterpart.

    The function returns ``None`` for a message that is not canonical, and for one that the class might refuse.

    Args:
        cls: the class.
        wire_type: the ``type`` of its messages.
        result: the class of what the function returns.
    """
    hints = get_type_hints(cls, include_extras=True)
    data_type = _data_type(cls, hints)
    if data_type is None or not _has_known_validators(cls):
        return None
    kinds = {name: _kind(hint) for name, hint in hints.items()}
    token_ids, conditions = ({name for name in kinds if kinds[name] == kind} for kind in (TokenId, Conditions))
    decode = msgspec.json.Decoder(_message_type(wire_type, data_type)).decode
    return _decoder(cls, decode, frozenset(token_ids), frozenset(conditions), result)


def _decoder(
    cls: type[Event],
    decode: Callable[[bytes], Any],
    token_ids: frozenset[str],
    conditions: frozenset[str],
    result: type[Decoded],
) -> Callable[[bytes], Decoded | None]:
    one_of, new_result = cls._ONE_OF, tuple.__new__
    defaults = {name: None if field.is_required() else field.default for name, field in cls.model_fields.items()}

    def decode_canonical(payload: bytes) -> Decoded | None:
        try:
            message = decode(payload)
            if _encode(message) != payload:
                return None
        except _FAILURES:
            return None
        event_id, source, time, data = message.id, message.source, message.time, message.data
        if time.tzinfo is not UTC or _is_doubtful_text(event_id) or _is_doubtful_source(source):
            return None
        if _is_doubtful(data, token_ids, conditions) or (one_of and first_given(one_of, data) is None):
            return None
        values = defaults | data
        values["id"], values["occurred_at"], values["source"] = event_id, time, source
        if "metadata" not in data:
            values["metadata"] = {}
        event = new_instance(cls)
        set_values(event, values)
        set_extra(event, None)
        set_fields_set(event, {"id", "occurred_at", "source", *data})
        set_private(event, None)
        return new_result(result, (event, message.traceparent, message.tracestate, False))

    return decode_canonical


def _is_doubtful(data: Mapping[str, Any], token_ids: frozenset[str], conditions: frozenset[str]) -> bool:
    """Return whether a class might refuse or convert a value: white space, a token, an instant not in UTC."""
    for name, value in data.items():
        if value.__class__ is str:
            if value.isspace() or (
                "." in value and (looks_like_jwt(value) or (name in token_ids and value.count(".") > 1))
            ):
                return True
        elif value.__class__ is datetime:
            if value.tzinfo is not UTC:
                return True
        elif value.__class__ is dict and not (
            _are_conditions(value) if name in conditions else _is_free_of_tokens(value)
        ):
            return True
    return False


def _is_doubtful_text(text: str) -> bool:
    return text.isspace() or ("." in text and looks_like_jwt(text))


_is_doubtful_source = lru_cache(maxsize=256)(_is_doubtful_text)  # there are few sources


def _is_free_of_tokens(value: Mapping[str, Any]) -> bool:
    for part in chain(value, value.values()):
        if part.__class__ is str and "." in part and looks_like_jwt(part):
            return False
    return True


def _are_conditions(value: object) -> bool:
    try:
        check_conditions(value)
    except ValueError:
        return False
    return True


def canonical_bytes(attributes: tuple[Any, ...], data: Mapping[str, Any]) -> bytes | None:
    """Encode a message; ``None`` if `pydantic_core.to_json` writes other bytes, or might.

    Args:
        attributes: the attributes in their order, all but ``data``; ``None`` for one that is absent.
        data: the fields that are given.
    """
    time = attributes[4]
    if time.__class__ is not datetime or time.tzinfo is not UTC:
        return None
    if attributes[1].__class__ is not str or attributes[2].__class__ is not str:
        return None
    for value in data.values():
        if value.__class__ is not str and not _is_canonical(value):
            return None
    try:
        return _encode(_Written(*attributes, data))
    except _FAILURES:
        return None


def _is_canonical(value: Any) -> bool:
    """Return whether msgspec writes a value exactly as `pydantic_core.to_json` does, or refuses to write it."""
    if value.__class__ is datetime:
        return value.tzinfo is UTC
    if value.__class__ is dict:
        return _TEXTS.issuperset(map(type, value)) and _SCALARS.issuperset(map(type, value.values()))
    return value is True


def _message_type(wire_type: str, data_type: Any) -> Any:
    """Return the type of whole messages of a class."""
    attributes = [
        *((name, Literal[wire_type] if name == "type" else kind, *default) for name, kind, *default in _ATTRIBUTES),
        ("data", data_type),
    ]
    return msgspec.defstruct("Message", attributes, kw_only=True, omit_defaults=True, gc=False)


def _data_type(cls: type[Event], hints: Mapping[str, Any]) -> Any:
    """Return the type of ``data``, derived from the fields of a class; ``None`` if one of them has no counterpart."""
    fields = cls.model_fields
    if Event.model_fields.keys() != _BASE or any(hints[name] != hint for name, hint in _HEADER.items()):
        return None
    if cls.model_config != Event.model_config:
        return None
    required: dict[str, Any] = {}
    optional: dict[str, Any] = {}
    for name, field in fields.items():
        if not _is_plain(name, field, hints[name]):
            return None
        if name == "metadata":
            optional[name] = _TYPES[Metadata]
        elif name not in _BASE:
            (required if field.is_required() else optional)[name] = _TYPES[_kind(hints[name])]
    make_type: Any = TypedDict  # for a type checker its arguments would have to be literals
    may_be_absent: Any = NotRequired
    return make_type("Data", {**required, **{name: may_be_absent[kind] for name, kind in optional.items()}})


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
