"""How a revocation list is: fresh, stale or closed, and why."""

from __future__ import annotations

from jwt_events.revocation._following import Following
from jwt_events.revocation._view import RevocationView, ViewState


class Health:
    """Tells how a list is. It counts nothing, and may be asked at any time."""

    _view: RevocationView
    _following: Following | None

    @property
    def staleness(self) -> float:
        """Seconds since the list was last proven current, by a monotonic clock; infinite if it never was."""
        return self._view.staleness

    @property
    def is_fresh(self) -> bool:
        """Whether the list was proven current within ``max_staleness``: the condition for a readiness check."""
        return self._view.is_fresh

    @property
    def state(self) -> ViewState:
        """The state of the list now."""
        return ViewState.CLOSED if self._following is None else self._following.state

    @property
    def failure(self) -> Exception | None:
        """Why following fails, or proves nothing, now; ``None`` while it works.

        A `NotProven` if the server may be no primary any more. A lost connection alone is not a failure.
        """
        return None if self._following is None else self._following.feed.failure

    @property
    def cut_off(self) -> tuple[str, ...]:
        """The regions of `RegionalStreams` that have proven nothing for longer than ``max_staleness``.

        A list that tolerates them is fresh without them; any other is stale.
        """
        return () if self._following is None else self._following.feed.cut_off

    @property
    def _is_open(self) -> bool:
        return self._following is not None and self._following.feed.opened.done()
