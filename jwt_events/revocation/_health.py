"""How a revocation list is: fresh, stale or closed, and why; and whether it has come far enough."""

from __future__ import annotations

from jwt_events._internal import options
from jwt_events.revocation._following import Following
from jwt_events.revocation._view import RevocationView, ViewState


class Health:
    """Tells how a list is. It counts nothing, and may be asked at any time."""

    _view: RevocationView
    _following: Following | None
    _max_staleness: float

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

    def has_applied(self, position: str) -> bool:
        """Return whether all events up to a position, as in `Receipt.position`, are in force here.

        Raises:
            InvalidOption: it is no position.
        """
        return self._view.progress.has_applied(position)

    async def wait_for(self, position: str, *, timeout: float | None = None) -> bool:
        """Wait until all events up to a position are in force here: usually some milliseconds. Cancelling is safe.

        A position behind the end of the stream, made up or of an event that a failover has lost, is not waited for
        longer than it takes to show this: by a proof that was begun after the call, within half of ``max_staleness``.
        In another event loop than that of the list nothing is waited for.

        Args:
            position: as in `Receipt.position`.
            timeout: seconds; ``None`` for ``max_staleness``.

        Returns:
            Whether they are in force, or do not exist. ``False`` if neither could be shown in time: then refuse a
            token as if it was stale, whatever `check` returns.

        Raises:
            InvalidOption: an argument cannot work.
        """
        within = self._max_staleness if timeout is None else options.seconds("timeout", timeout)
        if not self._view.loop.is_current():
            return self.has_applied(position)
        return await self._view.progress.wait_for(position, within=within)

    @property
    def cut_off(self) -> tuple[str, ...]:
        """The regions of `RegionalStreams` that have proven nothing for longer than ``max_staleness``.

        A list that tolerates them is fresh without them; any other is stale.
        """
        return () if self._following is None else self._following.feed.cut_off

    @property
    def _is_open(self) -> bool:
        return self._following is not None and self._following.feed.opened.done()
