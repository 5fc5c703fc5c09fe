"""Makes events from fields: those of a caller, which must be clear, and those that another program published. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from jwt_events.errors import InvalidEvent
from jwt_events.events._models import EVENT_CLASSES, RECEIVED, Event, EventType


def make_event(kind: EventType, fields: Mapping[str, Any]) -> Event:
    """Return an event of a type with these fields.

    Raises:
        InvalidEvent: the fields are not valid for the type. The message names them, and never their values.
    """
    try:
        return EVENT_CLASSES[kind].model_validate(dict(fields))
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        raise InvalidEvent([(_field_path(problem["loc"]), problem["msg"]) for problem in problems]) from None


def receive_event(cls: type[Event], fields: Mapping[str, Any]) -> Event:
    """Return an event that another program published, perhaps an older version of this library.

    What the constructor refuses because it can be misunderstood is accepted here: it is published already, and a
    receiver that drops it would revoke less than anybody meant.

    Raises:
        pydantic.ValidationError: the fields are not valid for the type.
    """
    return cls.model_validate(fields, context=RECEIVED)


def _field_path(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part)[:80] for part in location) or "payload"
