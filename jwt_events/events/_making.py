"""Makes events from fields: from arguments, from the wire, and again from an event that may have changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from jwt_events._internal.event_type import EventType
from jwt_events.errors import InvalidEvent
from jwt_events.events._event import Event
from jwt_events.events._fields import FROM_WIRE
from jwt_events.events._models import EVENT_CLASSES


def make_event(kind: EventType, fields: Mapping[str, Any]) -> Event:
    """Return an event of a type with these fields.

    Raises:
        InvalidEvent: the fields are not valid for the type. The message names them, and never their values.
    """
    return _validate(EVENT_CLASSES[kind], dict(fields))


def validated(event: Event) -> Event:
    """Return an event with the values that this one has now, validated as the constructor does.

    Raises:
        InvalidEvent: a value is not valid any more, or never was. The message names it, and never its value.
    """
    values = event.__dict__
    if missing := [name for name in type(event).model_fields if name not in values]:
        raise InvalidEvent([(name, "is missing") for name in missing])
    made = _validate(type(event), dict(values))
    made.model_fields_set.intersection_update(event.model_fields_set)
    return made


def _validate(cls: type[Event], values: dict[str, Any]) -> Event:
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        raise InvalidEvent([(_field_path(one["loc"]), _problem(cls, one)) for one in problems]) from None
    except Exception as error:  # noqa: BLE001 - whatever a value of a foreign class raises when it is looked at
        raise InvalidEvent([("event", f"a value raises {type(error).__name__} when it is validated")]) from None


def _problem(cls: type[Event], found: ErrorDetails) -> str:
    """Return what pydantic says; of a field that is misspelt, which there are."""
    if found["type"] != "extra_forbidden":
        return found["msg"]
    return f"is no field of {cls.__name__}, which has {', '.join(name for name in cls.model_fields if name != 'type')}"


def receive_event(cls: type[Event], fields: Mapping[str, Any]) -> Event:
    """Return an event that another program published, perhaps an older version of this library.

    What the constructor refuses because it can be misunderstood is accepted here: it is published already, and a
    receiver that drops it would revoke less than anybody meant.

    Raises:
        pydantic.ValidationError: the fields are not valid for the type.
    """
    return cls.model_validate(fields, context=FROM_WIRE)


def _field_path(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part)[:80] for part in location) or "payload"
