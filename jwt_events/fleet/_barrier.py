"""When an event is in force in every instance. Pure: no I/O, and the time is passed in.

The ground is the lease. A list relies on a proof for at most its ``max_staleness``, and a proof that was begun after
the server had accepted the event shows the event. So once that time has passed since the receipt, a list has applied
the event, or it is stale and refuses all tokens. It does not matter whether it is frozen, cut off, or was never heard.
An acknowledgement only makes the wait shorter. Silence never does: an instance that cannot announce itself may read and
be fresh all the same.

A list that is opened with ``on_stale="allow"`` has no lease: only its acknowledgement counts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Final

from jwt_events._internal.receipt import Propagation
from jwt_events.fleet._announcement import CLOSED, Announcement

_LEASES_UNTIL_COMPLETE: Final = 1.5
"""Leases after a loss of the registry until each list has announced itself again, which it does four times in a lease,
or is stale."""
_DRIFT: Final = 1e-3
_LEAST: Final = 0.01


def lease_ends(accepted_at: float, lease: float) -> float:
    """Return when every proof that was begun before ``accepted_at`` has lost its force.

    Both by one clock, in seconds. The clocks of two machines do not run equally fast: a thousandth of the lease, and a
    hundredth of a second, are added.
    """
    return accepted_at + lease * (1 + _DRIFT) + _LEAST


class Barrier:
    """Follows who has an event in force.

    Args:
        position: the position of the event.
        accepted_at: when the server had surely accepted it, by a monotonic clock.
        services: the services that are waited for; empty for all that are registered.
        timeout: seconds to wait for the acknowledgement of an instance that has no lease.
        lease: the longest lease of an instance whose entry may be lost, in seconds.
    """

    def __init__(
        self, position: str, accepted_at: float, services: Collection[str], *, timeout: float, lease: float = 0.0
    ) -> None:
        self._position = position
        self._accepted_at = accepted_at
        self._services = tuple(dict.fromkeys(services))
        self._timeout = timeout
        self._incomplete_for = lease * _LEASES_UNTIL_COMPLETE
        self._is_incomplete = False
        self._leases: dict[str, Announcement] = {}  # by entry: the least of its promises
        self._acknowledged: dict[str, Announcement] = {}
        self._closed: set[str] = set()
        self._waits_until: dict[str, float] = {}  # of each that has neither acknowledged nor closed

    def read(self, announcements: Iterable[Announcement], history: str = "", clock: float | None = None) -> None:
        """Take in what the registry holds. Call it at least once.

        Args:
            announcements: what the instances say.
            history: the history of writes of the server that it was read from.
            clock: that server's clock; ``None`` if it is not known.
        """
        for said in announcements:
            if clock is not None and said.lost_at is not None:
                self._is_incomplete |= abs(clock - said.lost_at) < self._incomplete_for
            if self._services and said.service not in self._services:
                continue
            field = said.field
            if said.state == CLOSED:
                self._closed.add(field)
            elif field not in self._acknowledged and said.has_applied(self._position, history):
                self._acknowledged[field] = said
            before = self._leases.get(field)
            # A list keeps its lease as long as it is open. What claims to have a better one now may be another.
            if before is None or _promise(said) >= _promise(before):
                self._leases[field] = said
                self._waits_until[field] = self._end_of(said)
            if field in self._acknowledged or field in self._closed:
                self._waits_until.pop(field, None)

    def pending(self, now: float) -> list[Announcement]:
        """Return the instances that are waited for now."""
        return [self._leases[field] for field, until in self._waits_until.items() if now < until]

    def wait_until(self, now: float) -> float | None:
        """Return when the last instance that is waited for will be waited for no more; ``None`` if there is none."""
        return max((until for until in self._waits_until.values() if now < until), default=None)

    def result(self, as_of: datetime) -> Propagation:
        """Return what is known, once nobody is waited for."""
        open_fields = [field for field in self._leases if field not in self._closed]
        silent = [self._leases[field] for field in open_fields if field not in self._acknowledged]
        return Propagation(
            by="fleet" if self.knows_all else "lease",
            as_of=as_of,
            acknowledged=_names(said for field, said in self._acknowledged.items() if field not in self._closed),
            expired=_names(said for said in silent if not said.allows_stale),
            unsafe=_names(self._leases[field] for field in open_fields if self._leases[field].allows_stale),
            missing=[*_names(said for said in silent if said.allows_stale), *self.unheard()],
        )

    @property
    def knows_all(self) -> bool:
        """Whether an instance is registered of each service that is waited for, and of at least one.

        Not if the registry has lost entries lately: an instance that is cut off since cannot have come back.
        """
        return (
            not self._is_incomplete and not self.unheard() and any(field not in self._closed for field in self._leases)
        )

    def unheard(self) -> list[str]:
        """Return the services that are waited for and of which no instance is registered."""
        heard = {said.service for field, said in self._leases.items() if field not in self._closed}
        return [service for service in self._services if service not in heard]

    def _end_of(self, said: Announcement) -> float:
        """Return when an instance that says nothing more is waited for no more."""
        if said.allows_stale:
            return self._accepted_at + self._timeout
        return lease_ends(self._accepted_at, said.lease)


def _promise(said: Announcement) -> tuple[bool, float]:
    """Return what a list promises when it is silent, so that the greatest is the least of promises."""
    return said.allows_stale, said.lease


def _names(announcements: Iterable[Announcement]) -> list[str]:
    return sorted(said.name for said in announcements)
