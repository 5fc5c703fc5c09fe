"""How often a reader asks again when events come fast and its server is busy. Pure: no I/O, no clock.

Each event wakes all readers that wait for one, and what it costs the server to wake a reader is about 27 µs: a hundred
readers of a thousand events a second take more than a core. A reader that lets a moment pass finds several events at
once. A pause delays events, so there has to be a reason: readers pace themselves while their server spends more than
0.08 of a core, so far that it spends no more, and by 50 ms at most. Where events are rare, there is no pause.

What a server spends is the same for all of its readers: of those of one process one asks, and all of them learn of it.
"""

from __future__ import annotations

import math
from typing import Any, Final

from jwt_events.transport._redis.role import parse_info

MAX_SPACING: Final = 0.05
"""Seconds that lie between two wake-ups at most."""

AIM: Final = 0.08
"""The part of a core that a server may spend before its readers pace themselves."""

MIN_RATE: Final = 50.0
"""Events a second below which a reader never pauses, as there is little to save."""

MIN_WAKEUPS: Final = 15.0
"""Wake-ups a second below which a reader never pauses, however many events each brings; fewer than with pauses."""

MIN_SPACING: Final = 0.0025
"""Seconds of the shortest spacing, as timers are not more precise; a shorter one is none."""

# By how much of the spacing readers differ, so that they do not all ask at the same moment.
_SPREAD: Final = 0.1

# Seconds between two samples: in less the processor time says little, and in more the reader was not woken often.
_MIN_SAMPLE: Final = 0.2
_MAX_SAMPLE: Final = 5.0

# Seconds for which nobody else asks after a reader has asked. It knows the reply when its read has returned, too.
_REPLY_WITHIN: Final = 1.0

# More cores than a server spends: a greater difference is that of two servers behind one address.
_MAX_CORES: Final = 64.0


class ServerLoad:
    """What a server has spent, as far as the readers that share this know.

    Attributes:
        asked_at: when a reader asked last.
        as_of: when the server was asked for the latest reply that is known.
        spent: processor time of the server by then, in seconds; ``None`` if it does not tell.
    """

    def __init__(self) -> None:
        self.asked_at: float = -math.inf
        self.as_of: float = -math.inf
        self.spent: float | None = None

    def tell(self, as_of: float, spent: float | None) -> None:
        """Note a reply, unless a later one is known."""
        if as_of > self.as_of:
            self.as_of, self.spent = as_of, spent


class Pacing:
    """When a reader may ask again.

    Args:
        maximum: the largest spacing, in seconds; 0 for none.

    Attributes:
        maximum: the same.
        spacing: seconds between two wake-ups, in the mean; 0 for no pauses.
    """

    def __init__(self, maximum: float = MAX_SPACING) -> None:
        self.maximum: float = maximum
        self.spacing: float = 0.0
        self._due = 0.0  # when to ask again
        self._wakeups = 0  # since the last sample
        self._events = 0  # since then
        self._load = ServerLoad()
        self._spent: float | None = None  # by the server at the last sample; ``None`` if it was not asked
        self._spent_at = 0.0  # as of when
        self._sampled_at = 0.0
        # Whether to take a sample as soon as events come fast: they were slow up to the last one, or the one before it,
        # or it was due and another reader had asked.
        self._is_due = True

    def wake(self, now: float, events: int) -> None:
        """Count a read that had to wait for events, or would have had to without the pause before it."""
        self._wakeups += 1
        self._events += events
        # Times that are due are one spacing apart; a wake-up that is later than that has no pause after it.
        self._due = max(self._due + self.spacing, now) if self.spacing else 0.0

    def pause(self, now: float) -> float:
        """Return the seconds to wait before asking again."""
        return max(0.0, self._due - now)

    def is_fast(self, now: float) -> bool:
        """Whether events come so fast that the next sample needs the processor time of the server."""
        elapsed = now - self._sampled_at
        # The first event of a sample begins an interval, and ends none.
        return self.maximum > 0 and self._wakeups >= MIN_WAKEUPS * elapsed and self._events > MIN_RATE * elapsed + 1

    def must_ask(self, now: float, chance: float, *, is_audit: bool) -> bool:
        """Take a sample if it is due; return whether the server is to be asked for it, with the read that is sent now.

        It is due with each audit, and at once when events have just begun to come fast. It stays due while another
        reader waits for the reply.

        Args:
            now: the time.
            chance: a random number from 0 to 1.
            is_audit: whether the server is audited with this read.
        """
        if not self.is_fast(now):
            if is_audit:
                self.sample(now, None, chance)
            return False
        if now < self._sampled_at + _MIN_SAMPLE or not (is_audit or self._is_due):
            return False
        load = self._load
        if load.as_of > max(self._spent_at, now - _MIN_SAMPLE):
            self.sample(now, load.spent, chance, as_of=load.as_of)
            return False
        if load.asked_at > max(load.as_of, now - _REPLY_WITHIN):
            self._is_due = True
            return False
        load.asked_at = now
        return True

    def hear(self, asked_at: float, spent: float | None, chance: float) -> None:
        """Take what the server has answered; see `sample`."""
        self._load.tell(asked_at, spent)
        self.sample(asked_at, spent, chance)

    def restart(self, at: float, load: ServerLoad | None = None) -> None:
        """Begin anew with another server: what this one has spent says nothing of the one before."""
        self._load = load or ServerLoad()
        self.spacing, self._spent, self._is_due = 0.0, None, True
        self._begin(at)

    def sample(self, at: float, spent: float | None, chance: float, *, as_of: float | None = None) -> None:
        """Choose the spacing, unless it was chosen a moment ago.

        Args:
            at: when events were counted.
            spent: processor time of the server in seconds; ``None`` if it was not asked, or does not tell.
            chance: a random number from 0 to 1.
            as_of: when the server was asked; ``None`` for `at`.
        """
        elapsed, as_of = at - self._sampled_at, at if as_of is None else as_of
        if elapsed < _MIN_SAMPLE:  # some servers are audited with every read
            return
        # A server that was asked and does not tell is not asked more often.
        self._is_due = self._spent is None if spent is not None else not self.is_fast(at)
        if spent is None:
            self.spacing = 0.0
        elif self._spent is not None and self._wakeups and as_of > self._spent_at and elapsed <= _MAX_SAMPLE:
            busy = (spent - self._spent) / (as_of - self._spent_at)
            if 0 <= busy <= _MAX_CORES:
                self._choose(elapsed / self._wakeups, busy, chance)
        self._spent, self._spent_at = spent, as_of
        self._begin(at)

    def _begin(self, at: float) -> None:
        self._sampled_at, self._wakeups, self._events = at, 0, 0

    def _choose(self, found: float, busy: float, chance: float) -> None:
        """Choose the spacing, given the one that was found and the part of a core that the server spent."""
        # What readers cost is inversely proportional to it. With more than the aim the spacing grows from what was
        # found; with less it shrinks from what was chosen, which is nothing if there was no pause.
        wanted = (found if busy > AIM else min(found, self.spacing)) * busy / AIM
        self.spacing = 0.0 if wanted < MIN_SPACING else min(wanted, self.maximum) * (1 - _SPREAD * chance)


def processor_time_of(reply: Any) -> float | None:
    """Parse the reply to INFO cpu: seconds that the server has spent; ``None`` if it does not tell."""
    fields = parse_info(reply)
    try:
        spent = float(fields["used_cpu_user"]) + float(fields["used_cpu_sys"])
    except (KeyError, ValueError):
        return None
    return spent if math.isfinite(spent) else None
