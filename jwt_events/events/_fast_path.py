"""The short way from a parsed message to its event: decided inside pydantic-core, without a Python call for each field.

Nearly every event on a bus is plain: no identifier resembles a token, and every instant is RFC 3339 in UTC.
Each schema here accepts only what the type of the same name in ``values`` accepts, and makes the same of it.
What is not plain is not wrong by that: the class decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import CoreConfig, CoreSchema, SchemaValidator, core_schema

from jwt_events.events._fields import (
    MAX_IDENTIFIER_LENGTH,
    MAX_TEXT_LENGTH,
    Identifier,
    Instant,
    Metadata,
    Text,
    TokenId,
)
from jwt_events.events._models import Event, EventType

# A whole token has two dots at least, and begins with "eyJ" or "Bearer" in any case, maybe after white space. An
# identifier needs a character that is not white space: here it is the first one.
_AT_MOST_ONE_DOT = r"[^.\s][^.]*\.?[^.]*$"
_NO_JWT = rf"^(?:[^\seEbB]|[eE][^yY]|[bB][^eE]|{_AT_MOST_ONE_DOT})"
_IN_UTC = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?Z$"

_NO_SECRET = core_schema.str_schema(pattern=_NO_JWT)
_EXACT = 2**53

_SCHEMAS: Mapping[Any, CoreSchema] = {
    Identifier: core_schema.str_schema(max_length=MAX_IDENTIFIER_LENGTH, pattern=_NO_JWT),
    TokenId: core_schema.str_schema(max_length=MAX_IDENTIFIER_LENGTH, pattern=f"^{_AT_MOST_ONE_DOT}"),
    Text: core_schema.str_schema(max_length=MAX_TEXT_LENGTH, pattern=_NO_JWT),
    Instant: core_schema.no_info_after_validator_function(
        datetime.fromisoformat, core_schema.str_schema(pattern=_IN_UTC)
    ),
    Metadata: core_schema.dict_schema(
        _NO_SECRET,
        core_schema.union_schema(
            [
                _NO_SECRET,
                core_schema.int_schema(ge=-_EXACT, le=_EXACT),
                core_schema.bool_schema(),
                core_schema.none_schema(),
            ],
            mode="left_to_right",
        ),
    ),
    bool: core_schema.bool_schema(),
}

# On the wire these are attributes of the envelope, and required.
_HEADER: Mapping[str, CoreSchema] = {
    "id": _SCHEMAS[Identifier],
    "occurred_at": _SCHEMAS[Instant],
    "source": _SCHEMAS[Identifier],
}

_new = object.__new__
# An event is frozen, and these do not ask it.
_set_values = BaseModel.__dict__["__dict__"].__set__
_set_extra = BaseModel.__dict__["__pydantic_extra__"].__set__
_set_given = BaseModel.__dict__["__pydantic_fields_set__"].__set__
_set_private = BaseModel.__dict__["__pydantic_private__"].__set__


def fast_builder(cls: type[Event]) -> Callable[[Mapping[str, Any]], Event | None]:
    """Return a function that makes events of this class from messages, as CloudEvents in parsed JSON.

    The function returns ``None`` for a message that is not plain; also for one that is wrong, and for an event without
    a subject.
    """
    hints = get_type_hints(cls, include_extras=True)
    fields = {
        name: core_schema.model_field(_field(name, hints[name], cls.model_fields[name])) for name in cls.model_fields
    }
    # A schema of type "model" would ask the class in place of these fields, as it would for a model within a model.
    validate = SchemaValidator(
        core_schema.model_fields_schema(fields), CoreConfig(strict=True, extra_fields_behavior="ignore")
    ).validate_python

    def read(message: Mapping[str, Any]) -> Event | None:
        try:
            if message["specversion"] != "1.0":
                return None
            values, extra, given = validate(
                {**message["data"], "id": message["id"], "source": message["source"], "occurred_at": message["time"]}
            )
        except (KeyError, TypeError, ValidationError):
            return None
        event = _new(cls)
        _set_values(event, values)
        _set_extra(event, extra)
        _set_given(event, given)
        _set_private(event, None)
        return None if event.subject is None else event

    return read


def _field(name: str, hint: Any, field: FieldInfo) -> CoreSchema:
    if name in _HEADER:
        return _HEADER[name]
    if name == "type":  # no JSON is an EventType, so a message cannot bring one
        return core_schema.with_default_schema(core_schema.is_instance_schema(EventType), default=field.default)
    schema = _SCHEMAS[hint] if hint in _SCHEMAS else core_schema.nullable_schema(_SCHEMAS[get_args(hint)[0]])
    if field.is_required():
        return schema
    if field.default_factory is not None:
        return core_schema.with_default_schema(schema, default_factory=dict)
    return core_schema.with_default_schema(schema, default=field.default)
