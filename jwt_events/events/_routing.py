"""Routes events to handlers by event class. Pure: it calls no handler."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from jwt_events._internal.functions import function as checked_function
from jwt_events._internal.functions import is_coroutine_function
from jwt_events.errors import InvalidOption
from jwt_events.events._event import Event
from jwt_events.events._models import EVENT_CLASSES, EventType, UnknownEvent

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
    function: Callable[[Any], Any]
    is_async: bool

    @classmethod
    def of(cls, function: EventHandler) -> Handler:
        """Return the handler for a function, a method, a ``functools.partial`` or a callable object.

        The outermost callable decides whether it is awaited: a decorator that is a plain function, around a coroutine
        function, runs in a thread. What it returns is awaited then.

        Raises:
            InvalidOption: it is not callable with one argument, or a call of it would run nothing, as it is a generator
                function.
        """
        named: Any = inspect.unwrap(checked_function("handler", function, arguments=1))
        while isinstance(named, functools.partial):
            named = named.func
        name = getattr(named, "__qualname__", type(named).__qualname__)
        return cls(name, function, is_coroutine_function(function))


class Routes:
    """Table of handlers by event class, in the order of their registration."""

    def __init__(self) -> None:
        self._registered: dict[type[Event], list[Handler]] = {}
        self._for_every_event: list[Handler] = []
        self.by_class: dict[type[Event], tuple[Handler, ...]] = _HandlersByClass(self._find)
        """Handlers of each class of events: those for the class, then those for every event."""

    def __bool__(self) -> bool:
        return bool(self._registered or self._for_every_event)

    def add(self, function: EventHandler, kinds: Iterable[object] = ()) -> None:
        """Register a handler for these kinds of events, or for every event if there are no kinds.

        Args:
            function: the handler.
            kinds: event classes or `EventType` values.

        Raises:
            InvalidOption: a kind is not an event class or type, or the handler is not callable.
        """
        classes = classes_of(kinds)
        handler = Handler.of(function)
        if not classes:
            self._for_every_event.append(handler)
        for cls in dict.fromkeys(classes):
            self._registered.setdefault(cls, []).append(handler)
        self.by_class.clear()

    def to(self, event: Event) -> tuple[Handler, ...]:
        """Return the handlers of an event."""
        return self.by_class[type(event)]

    def _find(self, cls: type[Event]) -> tuple[Handler, ...]:
        return (*self._registered.get(cls, ()), *self._for_every_event)


class _HandlersByClass(dict[type[Event], tuple[Handler, ...]]):
    """A dictionary that finds what it does not have: no function of Python is called for what it has."""

    def __init__(self, find: Callable[[type[Event]], tuple[Handler, ...]]) -> None:
        super().__init__()
        self._find = find

    def __missing__(self, cls: type[Event]) -> tuple[Handler, ...]:
        found = self[cls] = self._find(cls)
        return found


def classes_of(kinds: Iterable[object]) -> list[type[Event]]:
    """Return the classes of some kinds of events.

    Args:
        kinds: event classes or `EventType` values.

    Raises:
        InvalidOption: a kind is not an event class or type; or it is the function that was to be decorated.
    """
    return [_class_of(kind) for kind in kinds]


def _class_of(kind: object) -> type[Event]:
    if isinstance(kind, type) and kind in EVENT_CLASSES.values():
        return kind
    if isinstance(kind, str) and kind in EVENT_CLASSES:
        return EVENT_CLASSES[EventType(kind)]
    if kind in (Event, UnknownEvent):
        raise InvalidOption("kinds", "to handle every event, unknown ones too, name none")
    if callable(kind) and not isinstance(kind, type):
        raise InvalidOption("kinds", "are missing: decorate with parentheses, `on()` for every event")
    known = ", ".join(f"{cls.__name__} ({name.value!r})" for name, cls in EVENT_CLASSES.items())
    raise InvalidOption("kinds", f"must be classes of events of this library or EventType values: {known}")
