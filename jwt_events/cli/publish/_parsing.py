"""A line of a file as an event. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from jwt_events.cli.publish._fields import event_class, payload_of
from jwt_events.envelope import MAX_WIRE_BYTES, decode
from jwt_events.errors import DecodeError, InvalidEvent, InvalidOption
from jwt_events.events import Event, EventType, make_event


def event_on(line: bytes) -> Event:
    """Read an event: its envelope, as ``tail --json`` prints it, or its ``type`` and fields side by side.

    Raises:
        InvalidEvent: the line is neither. The message holds no value from it.
    """
    if len(line) > MAX_WIRE_BYTES:
        raise InvalidEvent([("line", f"is longer than {MAX_WIRE_BYTES} bytes")])
    content = _parsed(line)
    if "specversion" in content:
        try:
            return decode(line).event
        except DecodeError as error:
            raise InvalidEvent([(error.reason, error.detail)]) from None
    kind = content.pop("type", None)
    cls = event_class(kind)
    if cls is None:
        raise InvalidEvent([("type", f"must be one of {', '.join(EventType)}")])
    try:
        return make_event(EventType(kind), payload_of(cls, content))
    except InvalidOption as error:
        raise InvalidEvent([(error.option, str(error).partition(": ")[2])]) from None


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        content = json.loads(line, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError):
        raise InvalidEvent([("line", "is not JSON, or has the same key twice")]) from None
    if not isinstance(content, Mapping):
        raise InvalidEvent([("line", "is no JSON object")])
    return dict(content)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("the same key twice")
    return members
