"""What fan-out costs a server and its readers, as a formula; and how many servers it takes. Pure: no I/O, no clock.

Costs are those that were measured with Valkey 9.1.2 on the machine of the other figures, where a core is half of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from jwt_events.transport._stream.pacing import AIM, MAX_SPACING, MIN_RATE, MIN_SPACING

PER_PUBLISH = 35e-6
"""Seconds of processor of the server for each event that is published alone."""

PER_WAKEUP = 27e-6
"""The same for each time that a reader is woken and asks again."""

PER_DELIVERY = 0.6e-6
"""The same for each event that is sent to a reader."""

PER_PROOF = 25e-6
"""The same for each proof that a reader asks for, once a second; the primary gives one where a replica is read."""

BYTES = 450
"""Bytes of an event on the network."""

_FULL = 0.6  # the part of a core that a server should spend at most, so that there is room for a burst
_LINK = 110e6  # bytes a second of a network link of a gigabit


@dataclass(frozen=True)
class Cost:
    """What readers of a stream cost.

    Attributes:
        core: the part of a core that the server spends, the busiest replica if readers read from replicas; at most 1.
        wakeups: how often a second each reader is woken.
        p50: milliseconds from a publish until half of the readers have the event.
        p99: the same for 99 of a hundred.
        rate: events a second that each reader gets; fewer than were asked for where the machine is too busy to measure.
        primary: the part of a core that the primary spends.
        writes: the part of a core that the primary spends on what is published when there are no readers. No pause
            makes it less.
    """

    core: float
    wakeups: float
    p50: float
    p99: float
    rate: float
    primary: float
    writes: float

    @property
    def reading(self) -> float:
        """The part of a core that readers cost the server they read from, which is what pauses lower."""
        return self.core - self.writes

    def at(self, wakeups: float, rate: float, readers: int) -> float:
        """Return the part of a core if readers were woken so often, and got so many events; one core at most.

        Each wake-up costs what it was found to cost. Readers that a busy machine keeps from asking again are woken less
        often than events come, also without pauses: so they cost their server less than they would.

        Args:
            wakeups: how often a second each reader is woken.
            rate: events a second.
            readers: how many readers there are.
        """
        waking = max(0.0, self.reading - readers * self.rate * PER_DELIVERY) / self.wakeups
        return min(1.0, self.writes + waking * wakeups + readers * rate * PER_DELIVERY)


def fan_out(readers: int, rate: float, *, paced: bool = True, replicas: int = 0) -> Cost:
    """Return what readers of so many events a second cost one server.

    Args:
        readers: how many.
        rate: events a second.
        paced: whether they pause; only a measurement does without.
        replicas: how many replicas share them; 0 for the primary alone.
    """
    if replicas:
        share = fan_out(math.ceil(readers / replicas), rate, paced=paced)
        return replace(share, primary=rate * PER_PUBLISH + readers * PER_PROOF)
    fixed = rate * PER_PUBLISH + readers * (rate * PER_DELIVERY + PER_PROOF)
    once = readers * PER_WAKEUP  # what it costs to wake each of them
    spacing = 0.0
    if paced and rate >= MIN_RATE and fixed + rate * once > AIM:
        spacing = min(MAX_SPACING, once / (AIM - fixed)) if fixed < AIM else MAX_SPACING
        spacing = spacing if spacing > max(MIN_SPACING, 1 / rate) else 0.0
    if fixed < 1 and (least := once / (1 - fixed)) > max(1 / rate, spacing):  # in less it cannot wake each of them
        return Cost(1.0, 1 / least, 1e3 * least, 2e3 * least, rate, 1.0, rate * PER_PUBLISH)
    wakeups = 1 / max(1 / rate, spacing)
    core = fixed + wakeups * once
    late = 1e3 * (spacing + once)
    return Cost(core, wakeups, late / 2, late, rate, core, rate * PER_PUBLISH)


def servers(readers: int, rate: float) -> int:
    """Return how many servers these readers take: the primary alone, or replicas that share them."""
    for count in range(1, readers + 1):
        share = math.ceil(readers / count)
        if fan_out(share, rate).core <= _FULL and share * rate * BYTES <= _LINK:
            return count
    raise ValueError("one reader alone is too many")


def row(readers: int, rate: float) -> str:
    """Return a row of the table in ``docs/operations.md``."""
    unpaced, one, count = fan_out(readers, rate, paced=False), fan_out(readers, rate), servers(readers, rate)
    share = fan_out(math.ceil(readers / count), rate)
    cells = (
        f"{readers:,}",
        f"{rate:,.0f}",
        "more than it has" if unpaced.core >= 1 else f"{unpaced.core:.2f}",
        "more than it has" if one.core >= 1 else f"{one.core:.2f}",
        f"{readers * rate * BYTES / 1e6:,.1f} MB/s",
        "one" if count == 1 else f"{count} replicas",
        f"{share.p99:.0f} ms",
    )
    return f"| {' | '.join(cells)} |"


def table() -> list[str]:
    """Return the rows of that table."""
    return [row(readers, rate) for readers in (10, 100, 300, 1_000, 10_000) for rate in (10, 100, 1_000)]
