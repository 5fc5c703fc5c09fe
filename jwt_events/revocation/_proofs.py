"""As of when a list of several regions is current. Pure: all times are passed in."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping


class Proofs:
    """The last proof of each region, and what they prove together.

    All times are by one monotonic clock, in seconds.

    Args:
        tolerances: for each region, the seconds by which its proof may be older than those of the others.
        max_staleness: seconds for which a proof is good.
    """

    def __init__(self, tolerances: Mapping[str, float], *, max_staleness: float) -> None:
        self._tolerances = tolerances
        self._max_staleness = max_staleness
        self._proven_at = dict.fromkeys(tolerances, -math.inf)

    def record(self, region: str, proven_at: float) -> None:
        """Record that no event of a region is missing of those that existed at that time."""
        self._proven_at[region] = max(self._proven_at[region], proven_at)

    @property
    def current_as_of(self) -> float:
        """The least of all proofs, each with its tolerance; never later than a real proof. Minus infinity for none."""
        least = min(proven_at + self._tolerances[region] for region, proven_at in self._proven_at.items())
        return min(least, self._newest)

    def cut_off(self) -> Collection[str]:
        """Return the regions that proved something once, and nothing for ``max_staleness`` before the newest proof."""
        before = self._newest - self._max_staleness
        return [region for region, proven_at in self._proven_at.items() if -math.inf < proven_at < before]

    def age(self, region: str, now: float) -> float:
        """Return the seconds since the last proof of a region; infinite without one."""
        return now - self._proven_at[region]

    @property
    def _newest(self) -> float:
        return max(self._proven_at.values())
