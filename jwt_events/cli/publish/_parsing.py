"""Parsing of events: from the options of a command, or from a line of a file. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, get_args

from jwt_events.cli._options import instant
from jwt_events.errors import DecodeError, InvalidEvent, InvalidOption
from jwt_events.events import EVENT_CLASSES, Event, EventType, Instant, make_event

JSON_FIELDS = frozenset({"claims", "metadata"})
"""Fields that an option gives as a JSON object."""


def event_from_line(line: bytes) -> Event:
    """Parse a line: an envelope, as ``tail --json`` prints it, or the ``type`` of an event and its fields side by side.

    Raises:
        InvalidEvent: the line is neither. The message contains no value from it.
    """
    from jwt_events.envelope import MAX_WIRE_BYTES, decode

    if len(line) > MAX_WIRE_BYTES:
        raise InvalidEvent([("line", f"is longer than {MAX_WIRE_BYTES} bytes")])
    content = _object(line)
    if "specversion" in content:
        try:
            return decode(line).event
        except DecodeError as error:
            raise InvalidEvent([(error.reason, error.detail)]) from None
    kind = content.pop("type", None)
    if not isinstance(kind, str) or kind not in list(EventType):
        raise InvalidEvent([("type", f"must be one of {', '.join(EventType)}")])
    event_type = EventType(kind)
    try:
        return make_event(event_type, fields_from(EVENT_CLASSES[event_type], content))
    except InvalidOption as error:
        raise InvalidEvent([(error.option, str(error).partition(": ")[2])]) from None


def fields_from(cls: type[Event], values: Mapping[str, Any]) -> dict[str, Any]:
    """Convert options, or the members of a JSON object, to the fields of an event, without those that are ``None``.

    Raises:
        InvalidOption: an instant or a JSON object cannot be parsed.
    """
    given = {name: value for name, value in values.items() if value is not None}
    for name, value in given.items():
        if isinstance(value, str) and is_instant(cls, name):
            given[name] = instant(name, value)
        elif isinstance(value, str) and name in JSON_FIELDS:
            given[name] = _json(name, value)
    return given


def is_instant(cls: type[Event], name: str) -> bool:
    """Whether a field of an event is an instant."""
    field = cls.model_fields.get(name)
    return field is not None and (Instant in get_args(field.annotation) or field.annotation is get_args(Instant)[0])


def _json(name: str, text: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError):
        raise InvalidOption(name, "must be a JSON object, without the same key twice") from None


def _object(line: bytes) -> dict[str, Any]:
    try:
        content = json.loads(line, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError):
        raise InvalidEvent([("line", "is not JSON, or has the same key twice")]) from None
    if not isinstance(content, Mapping):
        raise InvalidEvent([("line", "is not a JSON object")])
    return dict(content)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("the same key twice")
    return members
