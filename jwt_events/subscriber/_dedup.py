"""Which events were there already. Pure."""

from __future__ import annotations

WINDOW = 100_000


class SeenIds:
    """Remembers the ids of at least the last 100,000 events, and at most twice as many.

    A publish that is tried again after a lost answer reuses the event's id; this is what makes it one event again.
    """

    def __init__(self, window: int = WINDOW) -> None:
        self._window = window
        self._recent: set[str] = set()
        self._older: set[str] = set()

    def is_new(self, event_id: str) -> bool:
        """Return whether this id was not seen in the window, and remember it."""
        if event_id in self._recent or event_id in self._older:
            return False
        if len(self._recent) >= self._window:
            # Two generations forget in one step what a queue would forget one by one.
            self._older, self._recent = self._recent, set()
        self._recent.add(event_id)
        return True

    def forget(self, event_id: str) -> None:
        """Count this id as new when it comes again."""
        self._recent.discard(event_id)
        self._older.discard(event_id)
