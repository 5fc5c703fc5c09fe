"""Limit on requests per second, with time passed in. Pure."""

from __future__ import annotations


class RateLimit:
    """A token bucket that holds one second's worth of requests.

    Args:
        rate: requests per second.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._capacity = max(rate, 1.0)
        self._left = self._capacity
        self._last: float | None = None

    def admit(self, now: float) -> bool:
        """Return whether a request may pass at this time, on a clock that is never set."""
        if self._last is not None:
            self._left = min(self._capacity, self._left + max(0.0, now - self._last) * self._rate)
        self._last = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
