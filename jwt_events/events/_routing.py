"""Routes events to handlers by event class. Pure: it calls no handler."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from jwt_events.errors import InvalidOption
from jwt_events.events._models import EVENT_CLASSES, Event, EventType, UnknownEvent

EventHandler = Callable[[Any], Awaitable[object] | object]
"""Function that takes one event: a coroutine function, or a plain function, which runs in a thread."""


@dataclass(frozen=True, slots=True)
class Handler:
    """Registered handler.

    Attributes:
        name: qualified name, used in logs and metrics.
        function: the function to call.
        is_async: whether it is awaited; otherwise it runs in a thread.
    """

    name: str
    function: EventHandler
    is_async: bool

    @classmethod
    def of(cls, function: EventHandler) -> Handler:
        """Return the handler for a function, a method, a ``functools.partial`` or a callable object.

        Raises:
            InvalidOption: it is not callable.
        """
        if not callable(function):
            raise InvalidOption("handler", f"must be callable, not {type(function).__name__}")
        plain = inspect.unwrap(function)
        while isinstance(plain, functools.partial):
            plain = plain.func
        call = plain if inspect.isroutine(plain) else type(plain).__call__
        name = getattr(plain, "__qualname__", type(plain).__qualname__)
        return cls(name, function, inspect.iscoroutinefunction(call))


class Routes:
    """Table of handlers by event class, in the order of their registration."""

    def __init__(self) -> None:
        self._by_class: dict[type[Event], list[Handler]] = {}
        self._for_every_event: list[Handler] = []
        self._cache: dict[type[Event], tuple[Handler, ...]] = {}

    def __bool__(self) -> bool:
        return bool(self._by_class or self._for_every_event)

    def add(self, function: EventHandler, kinds: Iterable[object] = ()) -> None:
        """Register a handler for these kinds of events, or for every event if there are no kinds.

        Args:
            function: the handler.
            kinds: event classes or `EventType` values.

        Raises:
            InvalidOption: a kind is not an event class or type, or the handler is not callable.
        """
        handler = Handler.of(function)
        classes = [_class_of(kind) for kind in kinds]
        if not classes:
            self._for_every_event.append(handler)
        for cls in dict.fromkeys(classes):
            self._by_class.setdefault(cls, []).append(handler)
        self._cache.clear()

    def to(self, event: Event) -> tuple[Handler, ...]:
        """Return the handlers of an event: those for its class, then those for every event."""
        cls = type(event)
        if cls not in self._cache:
            self._cache[cls] = (*self._by_class.get(cls, ()), *self._for_every_event)
        return self._cache[cls]


def _class_of(kind: object) -> type[Event]:
    if isinstance(kind, type) and kind in EVENT_CLASSES.values():
        return kind
    if isinstance(kind, str) and kind in EVENT_CLASSES:
        return EVENT_CLASSES[EventType(kind)]
    if kind in (Event, UnknownEvent):
        raise InvalidOption("kinds", "to handle every event, unknown ones too, name none")
    raise InvalidOption("kinds", "must be classes of events of this library or EventType values")
