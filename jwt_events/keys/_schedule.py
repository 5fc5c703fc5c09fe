"""The plan of key fetches: when one may start for a caller, and when one starts by itself. Pure."""

from __future__ import annotations

import math
from collections.abc import Container
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

PREFETCH_LEAD = 5.0
"""Seconds before ``active_from`` at which an announced key is fetched, if it was not listed by then."""

PUBLICATION_GRACE = 600.0
"""Seconds after ``active_from`` for which an announced key is still expected. An issuer may publish it late."""

MAX_ANNOUNCED = 256

REFRESH_FRACTION = 0.5
"""The part of ``max_age`` after which the keys are refreshed, while the old ones are still valid."""


class Now(NamedTuple):
    """One instant, on both clocks.

    Attributes:
        monotonic: seconds on the monotonic clock, for ages.
        wall: seconds since 1970, for the instants in events.
    """

    monotonic: float
    wall: float


class Reason(Enum):
    """Why a fetch starts. Each reason allows one fetch per cooldown, independently of the others."""

    REQUESTED = auto()  # a caller needs a key that is not in the keyring
    ANNOUNCED = auto()  # a KeyRotated announced a key
    REFRESH = auto()  # the keys have reached REFRESH_FRACTION of their maximum age


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """Why and when a fetch starts.

    Attributes:
        reason: why it starts.
        at: when it starts.
        kid: the key that a caller needs; ``None`` if the fetch is not for a particular one.
    """

    reason: Reason
    at: Now
    kid: str | None = None


@dataclass(slots=True)
class _Announcement:
    heard_at: float
    expected_at: float  # on the wall clock: when tokens signed with this key appear
    due: float
    attempts: int = 0


class FetchPlan:
    """Records fetches and announcements, and computes when the next fetch may or must start.

    Args:
        cooldown: seconds between two fetches for the same reason.
        max_age: seconds for which fetched keys are valid.
    """

    def __init__(self, *, cooldown: float, max_age: float) -> None:
        self._cooldown = cooldown
        self._max_age = max_age
        self._allowed_from = dict.fromkeys(Reason, -math.inf)
        self._announced: dict[str, _Announcement] = {}
        self._fetched_at: float | None = None
        self.failure: BaseException | None = None
        """The error of the last fetch; ``None`` if it succeeded."""

    def age(self, now: Now) -> float:
        """Return the seconds since the last successful fetch; infinite if there was none."""
        return math.inf if self._fetched_at is None else now.monotonic - self._fetched_at

    def is_valid(self, now: Now) -> bool:
        """Return whether the keys of the last successful fetch may still be used."""
        return self.age(now) < self._max_age

    def record_start(self, request: FetchRequest) -> None:
        """Record that a fetch starts."""
        self._allowed_from[request.reason] = request.at.monotonic + self._cooldown

    def record_success(self, request: FetchRequest, now: Now, listed: Container[str]) -> None:
        """Record that a fetch succeeded, and which keys it listed.

        A caller's fetch that found the key it was for leaves no cooldown behind: only the issuer can cause that, by
        listing a new key, and the next rotation must not wait for it.
        """
        self.failure = None
        self._fetched_at = now.monotonic
        if request.reason is Reason.REQUESTED and (request.kid is None or request.kid in listed):
            self._allowed_from[Reason.REQUESTED] = now.monotonic
        self._update_announcements(request, now, listed)

    def record_failure(self, request: FetchRequest, now: Now, failure: BaseException) -> None:
        """Record that a fetch failed."""
        self.failure = failure
        self._update_announcements(request, now, ())

    def _update_announcements(self, request: FetchRequest, now: Now, listed: Container[str]) -> None:
        """Remove the announcements that are fulfilled or overdue; schedule the next fetch for the others."""
        for kid, announcement in list(self._announced.items()):
            if announcement.heard_at > request.at.monotonic:
                continue  # the issuer may have replied before the key was listed
            if kid in listed or now.wall > announcement.expected_at + PUBLICATION_GRACE:
                del self._announced[kid]
            else:
                announcement.attempts += 1
                announcement.due = now.monotonic + self._retry_delay(announcement, now)

    def _retry_delay(self, announcement: _Announcement, now: Now) -> float:
        ahead = announcement.expected_at - now.wall
        delays = [self._cooldown * 2.0 ** min(announcement.attempts, 30), ahead - PREFETCH_LEAD, ahead]
        return min(delay for delay in delays if delay > 0)

    def announce(self, kid: str, expected_at: float, now: Now) -> None:
        """Record that a rotation named this key, so that the keys must be fetched.

        A fetch is due at once, and again at growing intervals until the key is listed or long overdue. At most 256
        announcements are kept: one fetch serves them all.

        Args:
            kid: the name of the key.
            expected_at: when tokens signed with that key appear, in seconds since 1970.
            now: when the rotation was received.
        """
        if kid not in self._announced and len(self._announced) < MAX_ANNOUNCED:
            self._announced[kid] = _Announcement(now.monotonic, expected_at, due=now.monotonic)

    def was_announced_after(self, kid: str | None, request: FetchRequest) -> bool:
        """Return whether this key is expected since a time after the fetch started."""
        announcement = self._announced.get(kid) if kid is not None else None
        return announcement is not None and announcement.heard_at > request.at.monotonic

    def next_allowed(self, kid: str | None, now: Now) -> tuple[float, Reason]:
        """Return the seconds until a fetch may start for a caller who needs this key, and its reason."""
        reasons = [Reason.ANNOUNCED, Reason.REQUESTED] if kid in self._announced else [Reason.REQUESTED]
        reason = min(reasons, key=self._allowed_from.__getitem__)
        return max(0.0, self._allowed_from[reason] - now.monotonic), reason

    def due(self) -> tuple[float, Reason]:
        """Return when the next fetch starts without a caller, on the monotonic clock, and its reason."""
        fetched_at = -math.inf if self._fetched_at is None else self._fetched_at
        refresh = max(fetched_at + self._max_age * REFRESH_FRACTION, self._allowed_from[Reason.REFRESH])
        if self._announced:
            earliest = min(announcement.due for announcement in self._announced.values())
            announced = max(earliest, self._allowed_from[Reason.ANNOUNCED])
            if announced <= refresh:
                return announced, Reason.ANNOUNCED
        return refresh, Reason.REFRESH
