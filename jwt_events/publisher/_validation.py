"""Validation of events before they are published. Pure: an event is accepted or refused before anything is sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from jwt_events._internal import options
from jwt_events.errors import InvalidEvent, InvalidOption, OutlivesRetention
from jwt_events.events import (
    EVENT_CLASSES,
    Event,
    EventType,
    UnknownEvent,
    is_uri_reference,
    looks_like_jwt,
    make_event,
    validated,
    validated_values,
)

_NO_URI_REFERENCE = "must be a URI-reference (RFC 3986), such as a host name, a path or a URL"
_PUBLISHABLE = frozenset({*EVENT_CLASSES.values(), UnknownEvent})


def check_retention(event: Event, retention: timedelta, now: datetime) -> None:
    """Refuse an event that would be forgotten while a token it covers can still live.

    Raises:
        OutlivesRetention: it expires later than ``retention`` from ``now``.
    """
    if (until := event.needed_until) is None:
        return
    needed = until - now
    if needed > retention:
        raise OutlivesRetention(retention.total_seconds(), needed.total_seconds())


def source_from(source: str) -> str:
    """Accept the name of a publisher.

    Raises:
        InvalidOption: it is no URI-reference, or a whole JWT.
    """
    options.name("source", source)
    if looks_like_jwt(source):
        raise InvalidOption("source", "looks like a whole JWT, which must not travel on a bus; give the service's name")
    if not is_uri_reference(source):
        raise InvalidOption("source", _NO_URI_REFERENCE)
    return source


def events_from(events: Iterable[object]) -> list[Event]:
    """Accept events, each as `event_from` does.

    Raises:
        InvalidEvent: they are not several, or one is none.
    """
    if isinstance(events, Event) or not isinstance(events, Iterable):
        raise InvalidEvent([("events", f"must be an iterable of events, not {type(events).__name__}")])
    return [event_from(event, None) for event in events]


def event_from(event: object, payload: Mapping[str, Any] | None) -> Event:
    """Accept an event, or a type of events and its fields. What is returned was validated as it is now.

    Raises:
        InvalidEvent: it is neither, or the fields are not those of that type.
    """
    try:
        if payload is None and validated_values(event) == event.__dict__:
            return event  # type: ignore[return-value]  # nothing else has such values
    except Exception:  # noqa: BLE001, S110 - not as a constructor left it, or a value that cannot even be compared
        pass
    if isinstance(event, Event):
        if payload is not None:
            raise InvalidEvent([("payload", "is for a type of event; this is an event already")])
        if type(event) not in _PUBLISHABLE:  # receivers would take it for an unknown event
            raise InvalidEvent([("event", "must be one of this library's classes, not a class derived from them")])
        event = validated(event)
        if event.source is not None and not is_uri_reference(event.source):
            raise InvalidEvent([("source", _NO_URI_REFERENCE)])
        return event
    if not isinstance(event, str):
        raise InvalidEvent([("event", f"must be an Event or an EventType, not {type(event).__name__}")])
    if event not in EVENT_CLASSES:
        raise InvalidEvent([("event", f"is no known type; known are {', '.join(EVENT_CLASSES)}")])
    if not isinstance(payload, Mapping):
        raise InvalidEvent([("payload", f"must be a mapping of the event's fields, not {type(payload).__name__}")])
    return make_event(EventType(event), payload)
