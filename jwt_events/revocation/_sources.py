"""What a list follows: one transport, or the streams of several regions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import NamedTuple

from jwt_events.fleet import Announcer
from jwt_events.revocation._feed import require_replayable
from jwt_events.transport.base import Transport
from jwt_events.transport.optional import has_ledger
from jwt_events.transport.regions import RegionalStreams


class Sources(NamedTuple):
    """The transports that a list follows, by region; the only one of a list without regions has an empty name.

    Attributes:
        transports: the transports.
        tolerances: the seconds for which a list goes without each of them.
    """

    transports: Mapping[str, Transport]
    tolerances: Mapping[str, float]

    @classmethod
    def of(cls, transport: Transport | RegionalStreams) -> Sources:
        """Return the sources that an argument of a list means.

        Raises:
            InvalidOption: a list cannot follow it.
        """
        if isinstance(transport, RegionalStreams):
            return cls(transport.regions, transport.tolerances)
        return cls({"": require_replayable(transport)}, {"": 0.0})

    @property
    def retention(self) -> timedelta | None:
        """How long to keep a rule that does not say when it expires; ``None`` for ever."""
        kept = [None if has_ledger(one) else one.retention for one in self.transports.values()]
        known = [retention for retention in kept if retention is not None]
        return max(known) if len(known) == len(kept) else None

    def announcers(
        self, service: str | None, instance: str | None, *, max_staleness: float, allows_stale: bool
    ) -> Mapping[str, Announcer]:
        """Return what announces a list in the registry of each source; empty if it does not announce itself.

        An event of a region that is tolerated may be missing for so much longer, and its publishers are told so.

        Raises:
            InvalidOption: as `Announcer` does.
        """
        announcers = {}
        for region, transport in self.transports.items():
            lease = max_staleness + self.tolerances[region]
            announcer = Announcer.of(transport, service, instance, lease=lease, allows_stale=allows_stale)
            if announcer is not None:
                announcers[region] = announcer
        return announcers
