"""Registration of the handlers of a subscriber."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar, overload

from jwt_events.events import Event, EventHandler, EventType, Handler, classes_of
from jwt_events.subscriber._subscription import SubscriberRecord

_A = TypeVar("_A", bound=Event)
_B = TypeVar("_B", bound=Event)
_R = TypeVar("_R")
_F = TypeVar("_F", bound=Callable[..., object])


class Registration(ABC):
    """Registers handlers of events and of gaps, before a subscriber is started or while it runs."""

    _state: SubscriberRecord

    @abstractmethod
    def _check_can_register(self) -> None:
        """Raise if a handler cannot be registered now, or not from here."""

    @overload
    def on(self) -> Callable[[Callable[[Event], _R]], Callable[[Event], _R]]: ...
    @overload
    def on(self, kind: type[_A], /) -> Callable[[Callable[[_A], _R]], Callable[[_A], _R]]: ...
    @overload
    def on(self, a: type[_A], b: type[_B], /) -> Callable[[Callable[[_A | _B], _R]], Callable[[_A | _B], _R]]: ...
    @overload
    def on(self, a: type[Event], b: type[Event], c: type[Event], /, *more: type[Event]) -> Callable[[_F], _F]: ...
    @overload
    def on(self, kind: EventType, /, *more: EventType) -> Callable[[_F], _F]: ...
    def on(self, *kinds: Any) -> Callable[[Any], Any]:
        """Register the decorated function for some kinds of events; with no arguments, for every event.

        Only handlers of every event see an `UnknownEvent`. An ``async`` function is awaited; a plain one is run in
        a thread. A function may be registered several times, and while the subscriber is running.

        The outermost callable decides which it is: a decorator that is a plain function, around a coroutine function,
        runs in a thread, and what it returns is awaited.

        Args:
            kinds: classes of events, or `EventType` values.

        Raises:
            InvalidOption: a kind is no event; or the parentheses are missing.
            WrongLoop: it was opened in another thread.
        """
        classes_of(kinds)

        def register(function: Any) -> Any:
            self._register(function, kinds)
            return function

        return register

    def register_handler(self, kind: type[Event] | EventType | str, handler: EventHandler) -> None:
        """Register a handler for one kind of events, given as a class or an `EventType`; otherwise like `on`."""
        self._register(handler, (kind,))

    def on_gap(self, function: _F) -> _F:
        """Register the decorated function to be called with every `Gap`: when events may have been missed."""
        self._check_can_register()
        self._state.gap_handlers.append(Handler.of(function))
        return function

    def _register(self, function: EventHandler, kinds: tuple[object, ...]) -> None:
        self._check_can_register()
        self._state.routes.add(function, kinds)
        self._state.has_consumer.set()
