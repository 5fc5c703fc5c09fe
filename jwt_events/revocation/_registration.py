"""Registration of the functions that a revocation list calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from jwt_events._internal.functions import function as checked
from jwt_events.events import classes_of
from jwt_events.revocation._view import RevocationView

_F = TypeVar("_F", bound=Callable[..., object])


class Registration:
    """Registers functions to be called with events, gaps and states, before the list is opened or while it is."""

    _view: RevocationView

    def on(self, *kinds: Any) -> Callable[[_F], _F]:
        """Register the decorated function for some kinds of events, named as in `Subscriber.on`.

        It is called with each event once its rule is in force, those of the history included, in order: a plain
        function on the event loop, which must not block, or a coroutine function as a task. For work that must be
        retried or limited, use a `Subscriber`; its handlers may run before this list has read their event, so those
        that call `check` belong here.
        """
        classes_of(kinds)

        def register(function: _F) -> _F:
            self._view.routes.add(function, kinds)
            return function

        return register

    def on_gap(self, function: _F) -> _F:
        """Register the decorated function to be called with every `Gap`: when revocations may have been missed.

        The list then reads again from the oldest event. Events that are lost for good are known to the source of truth
        only: query it, and `apply` the revocations that it reports.
        """
        self._view.on_gap.append(checked("on_gap", function, arguments=1))
        return function

    def on_state(self, function: _F) -> _F:
        """Register the decorated function to be called with every `ViewState` that the open list enters."""
        self._view.on_state.append(checked("on_state", function, arguments=1))
        return function
