"""When to fetch the signing keys: for whom at once, for whom not yet, and when without being asked. Pure."""

from __future__ import annotations

import math
from collections.abc import Container
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

LEAD = 5.0
"""Seconds before ``active_from`` at which an announced key is fetched, if it was not listed until then."""

PATIENCE = 600.0
"""Seconds after ``active_from`` for which an announced key is waited for. An issuer may publish it late."""

MAX_ANNOUNCED = 256

REFRESH_FRACTION = 0.5
"""The part of ``max_age`` after which the keys are fetched anew, while the old ones are still good."""


class Now(NamedTuple):
    """One instant, on both clocks.

    Attributes:
        monotonic: for ages, in seconds.
        wall: for what events say, in seconds since 1970.
    """

    monotonic: float
    wall: float


class Reason(Enum):
    """Why a fetch begins. Each of them can cause one fetch per cooldown, whatever the others do."""

    AWAITED = auto()  # a caller asks for a key that is not here
    ANNOUNCED = auto()  # a KeyRotated said that there is something new
    AGED = auto()  # the keys are not young any more


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """A fetch that began.

    Attributes:
        reason: why.
        at: when.
        sought: the kid that a caller asks for; ``None`` if it is not for a certain one.
    """

    reason: Reason
    at: Now
    sought: str | None = None


@dataclass(slots=True)
class _Announcement:
    heard_at: float
    expected_at: float  # on the wall clock: when tokens of this key appear
    due: float
    tries: int = 0


class FetchPlan:
    """Keeps account of fetches and announcements, and says when the next fetch may or must begin.

    Args:
        cooldown: seconds between two fetches for the same reason.
        max_age: seconds for which fetched keys are good.
    """

    def __init__(self, *, cooldown: float, max_age: float) -> None:
        self._cooldown = cooldown
        self._max_age = max_age
        self._open_from = dict.fromkeys(Reason, -math.inf)
        self._announced: dict[str, _Announcement] = {}
        self._fetched_at: float | None = None
        self.failure: BaseException | None = None
        """What the last fetch failed with; ``None`` if it did not."""

    def age(self, now: Now) -> float:
        """Return the seconds since the last successful fetch; infinite if there was none."""
        return math.inf if self._fetched_at is None else now.monotonic - self._fetched_at

    def is_good(self, now: Now) -> bool:
        """Return whether the keys that were fetched last may still be used."""
        return self.age(now) < self._max_age

    def begin(self, departure: FetchRequest) -> None:
        """Take note that a fetch begins."""
        self._open_from[departure.reason] = departure.at.monotonic + self._cooldown

    def succeed(self, departure: FetchRequest, now: Now, listed: Container[str]) -> None:
        """Take note that a fetch brought keys.

        A caller's fetch that found the key it was for leaves no cooldown behind: only the issuer can make that happen,
        and the next rotation must not wait for it.
        """
        self.failure = None
        self._fetched_at = now.monotonic
        if departure.reason is Reason.AWAITED and (departure.sought is None or departure.sought in listed):
            self._open_from[Reason.AWAITED] = now.monotonic
        self._settle(departure, now, listed)

    def fail(self, departure: FetchRequest, now: Now, failure: BaseException) -> None:
        """Take note that a fetch failed."""
        self.failure = failure
        self._settle(departure, now, ())

    def _settle(self, departure: FetchRequest, now: Now, listed: Container[str]) -> None:
        for kid, announcement in list(self._announced.items()):
            if announcement.heard_at > departure.at.monotonic:
                continue  # that fetch may have been answered before the key was there
            if kid in listed or now.wall > announcement.expected_at + PATIENCE:
                del self._announced[kid]
            else:
                announcement.tries += 1
                announcement.due = now.monotonic + self._pause(announcement, now)

    def _pause(self, announcement: _Announcement, now: Now) -> float:
        ahead = announcement.expected_at - now.wall
        pauses = [self._cooldown * 2.0 ** min(announcement.tries, 30), ahead - LEAD, ahead]
        return min(pause for pause in pauses if pause > 0)

    def announce(self, kid: str, expected_at: float, now: Now) -> None:
        """Take note that a fetch will bring this key, or that one is needed because of it.

        It is due at once, and again at growing intervals until the key is listed or long overdue. No more than 256
        are waited for at a time: one fetch serves them all.

        Args:
            kid: the name of the key.
            expected_at: when tokens of that key appear, in seconds since 1970.
            now: when this was heard.
        """
        if kid not in self._announced and len(self._announced) < MAX_ANNOUNCED:
            self._announced[kid] = _Announcement(now.monotonic, expected_at, due=now.monotonic)

    def was_announced_after(self, kid: str | None, departure: FetchRequest) -> bool:
        """Return whether a key is waited for that the fetch could not know of."""
        announcement = self._announced.get(kid) if kid is not None else None
        return announcement is not None and announcement.heard_at > departure.at.monotonic

    def opening(self, kid: str | None, now: Now) -> tuple[float, Reason]:
        """Return in how many seconds a fetch may begin for a caller who needs this key, and for which reason."""
        reasons = [Reason.ANNOUNCED, Reason.AWAITED] if kid in self._announced else [Reason.AWAITED]
        reason = min(reasons, key=self._open_from.__getitem__)
        return max(0.0, self._open_from[reason] - now.monotonic), reason

    def due(self) -> tuple[float, Reason]:
        """Return when a fetch is to begin without being asked, on the monotonic clock, and for which reason."""
        fetched_at = -math.inf if self._fetched_at is None else self._fetched_at
        aged = max(fetched_at + self._max_age * REFRESH_FRACTION, self._open_from[Reason.AGED])
        if self._announced:
            earliest = min(announcement.due for announcement in self._announced.values())
            announced = max(earliest, self._open_from[Reason.ANNOUNCED])
            if announced <= aged:
                return announced, Reason.ANNOUNCED
        return aged, Reason.AGED
