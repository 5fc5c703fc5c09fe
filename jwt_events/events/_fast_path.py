"""Fast path from a parsed message to its event: validated inside pydantic-core, without a Python call for each field.

It covers nearly every event on a bus: no identifier resembles a token, and every instant is RFC 3339 in UTC. Each
schema here accepts a subset of what the type of the same name in ``_fields`` accepts, and produces the same value. A
message that the fast path does not cover may still be valid: the event class decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, get_type_hints

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import CoreConfig, CoreSchema, SchemaValidator, core_schema

from jwt_events.events._conditions import Conditions
from jwt_events.events._event import Event, new_instance, set_fields_set, set_values
from jwt_events.events._fields import (
    MAX_IDENTIFIER_LENGTH,
    MAX_TEXT_LENGTH,
    Identifier,
    Instant,
    Metadata,
    Text,
    TokenId,
)
from jwt_events.events._models import EventType

# A whole token has at least two dots and begins with "eyJ" or "Bearer" in any case, possibly after white space. An
# identifier must contain a character that is not white space: here it is the first one.
_AT_MOST_ONE_DOT = r"[^.\s][^.]*\.?[^.]*$"
_NOT_A_JWT = rf"^(?:[^\seEbB]|[eE][^yY]|[bB][^eE]|{_AT_MOST_ONE_DOT})"
_UTC_INSTANT = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?Z$"

_SAFE_TEXT = core_schema.str_schema(pattern=_NOT_A_JWT)
_MAX_EXACT_INTEGER = 2**53

_SCHEMAS: Mapping[Any, CoreSchema] = {
    Identifier: core_schema.str_schema(max_length=MAX_IDENTIFIER_LENGTH, pattern=_NOT_A_JWT),
    TokenId: core_schema.str_schema(max_length=MAX_IDENTIFIER_LENGTH, pattern=f"^{_AT_MOST_ONE_DOT}"),
    Text: core_schema.str_schema(max_length=MAX_TEXT_LENGTH, pattern=_NOT_A_JWT),
    Instant: core_schema.no_info_after_validator_function(
        datetime.fromisoformat, core_schema.str_schema(pattern=_UTC_INSTANT)
    ),
    Metadata: core_schema.dict_schema(
        _SAFE_TEXT,
        core_schema.union_schema(
            [
                _SAFE_TEXT,
                core_schema.int_schema(ge=-_MAX_EXACT_INTEGER, le=_MAX_EXACT_INTEGER),
                core_schema.bool_schema(),
                core_schema.none_schema(),
            ],
            mode="left_to_right",
        ),
    ),
    bool: core_schema.bool_schema(),
}

# On the wire these fields are attributes of the envelope, and required.
_HEADER: Mapping[str, CoreSchema] = {
    "id": _SCHEMAS[Identifier],
    "occurred_at": _SCHEMAS[Instant],
    "source": _SCHEMAS[Identifier],
}


def fast_builder(cls: type[Event]) -> Callable[[Mapping[str, Any]], Event | None] | None:
    """Return a function that builds events of a class from messages: CloudEvents as parsed JSON.

    There is none for a class with a field of a kind that has no schema here.

    The function returns ``None`` for a message that the fast path does not cover, for an invalid one, and for an event
    without a subject.
    """
    hints = get_type_hints(cls, include_extras=True)
    fields = {}
    for name, field in cls.model_fields.items():
        if (schema := _field(name, hints[name], field)) is None:
            return None
        fields[name] = core_schema.model_field(schema)
    # A schema of type "model" would use the validator of the class in place of these fields, as for a nested model.
    validate = SchemaValidator(
        core_schema.model_fields_schema(fields), CoreConfig(strict=True, extra_fields_behavior="ignore")
    ).validate_python

    def build(message: Mapping[str, Any]) -> Event | None:
        try:
            if message["specversion"] != "1.0":
                return None
            values, _, fields_set = validate(
                {**message["data"], "id": message["id"], "source": message["source"], "occurred_at": message["time"]}
            )
        except (KeyError, TypeError, ValidationError):
            return None
        event = new_instance(cls)
        set_values(event, values)
        set_fields_set(event, fields_set)
        return None if event.subject is None else event

    return build


def _field(name: str, hint: Any, field: FieldInfo) -> CoreSchema | None:
    if name in _HEADER:
        return _HEADER[name]
    if name == "type":  # parsed JSON never holds an EventType, so a message cannot set it
        return core_schema.with_default_schema(core_schema.is_instance_schema(EventType), default=field.default)
    schema = _data_schema(hint)
    if schema is None or field.is_required():
        return schema
    if field.default_factory is not None:
        return core_schema.with_default_schema(schema, default_factory=dict)
    return core_schema.with_default_schema(schema, default=field.default)


def _data_schema(hint: Any) -> CoreSchema | None:
    kind = next((kind for kind in (Conditions, *_SCHEMAS) if hint in (kind, kind | None)), None)
    if kind is None:
        return None
    if kind == Conditions:  # these are rare here, so the class validates them
        return core_schema.none_schema()
    return _SCHEMAS[kind] if hint == kind else core_schema.nullable_schema(_SCHEMAS[kind])
