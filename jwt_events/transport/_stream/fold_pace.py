"""How fast a round of folding goes: with pauses, as long as there is time until the next one. Pure.

A publish that meets work of this program, or of the server, waits for the rest of it. So this work is done in short
pieces, and between two of them is a pause in which a publish can begin and end: none meets more than one. Without the
pauses every publish meets several while a round lasts.
"""

from __future__ import annotations

from jwt_events._internal.positions import sort_key

# Seconds between two pieces of work: several times what a publish takes.
_PAUSE = 0.001


class FoldPace:
    """The pace of one round.

    Args:
        interval: seconds after which the next round is due. Most of it may be spent on this one; one that is late, as
            there is too much to fold, makes no pauses until it is no longer late. With 0 there are no pauses at all.
        before: what was added before this is to be folded, in milliseconds since 1970.
        now: the time, by a clock that only goes forward.
    """

    def __init__(self, interval: float, *, before: int, now: float) -> None:
        self._interval = interval
        self._before = before
        self._began = now
        self._behind: int | None = None  # milliseconds of the stream that were left after the first batch
        self._done = 0.0  # which part of these is folded

    def reached(self, position: str) -> None:
        """Note up to which position the stream is folded now."""
        left = self._before - sort_key(position)[0]
        if self._behind is None:
            self._behind = left
        self._done = 1.0 if self._behind <= 0 else 1 - left / self._behind

    def pause(self, *, now: float) -> float:
        """Return the seconds to wait before each of the next pieces of work."""
        allowed = self._interval * (0.25 + 0.5 * self._done)
        return _PAUSE if now - self._began < allowed else 0.0
