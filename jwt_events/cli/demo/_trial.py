"""The trial of the second act: when each service refused which token, and whether that was in time. Pure.

All times are those of `time.monotonic`, which is one clock for all processes of a machine.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from math import inf

from jwt_events.cli.demo._messages import ALLOWED, KINDS, REVOKED, STALE, Latencies, Rebuilt, Revoked


class ResponseLog:
    """The responses of one service to requests with one token.

    Attributes:
        latest: the status of the last one; ``None`` before the first.
        at: its time.
        reversals: how many responses after the first refusal were no refusals.
    """

    def __init__(self) -> None:
        self.latest: int | None = None
        self.at: float = -inf
        self.reversals: int = 0
        self._times: dict[int, list[float]] = {ALLOWED: [], REVOKED: [], STALE: []}

    def add(self, status: int, at: float) -> None:
        """Add a response; they come in order."""
        self.latest, self.at = status, at
        self.reversals += status != REVOKED and bool(self._times[REVOKED])
        self._times[status].append(at)

    def after(self, moment: float, status: int) -> list[float]:
        """Return the times of the responses with this status after a moment."""
        times = self._times[status]
        return times[bisect_right(times, moment) :]

    def refused_from(self) -> float | None:
        """Return the time of the first refusal after which the token was not let in; ``None`` without one."""
        allowed = self._times[ALLOWED]
        return next(iter(self.after(allowed[-1] if allowed else -inf, REVOKED)), None)


class Trial:
    """The second act as it was observed: revocations, responses, and the outage of the server.

    Args:
        services: their names.
        each: how many tokens there are for each of `KINDS`. One more, the last, is never revoked.
        max_staleness: seconds after which a service must not let a revoked token in.

    Attributes:
        killed_at: when the server was killed; ``None`` if it was not.
        back_at: when it answered again; ``None`` if it has not.
        rebuilding_at: when the services were told to rebuild their lists; ``None`` if they were not.
    """

    def __init__(self, services: Iterable[str], *, each: int, max_staleness: float) -> None:
        self.services: tuple[str, ...] = tuple(services)
        self.each = each
        self.killed_at: float | None = None
        self.back_at: float | None = None
        self.rebuilding_at: float | None = None
        self._good = len(KINDS) * each
        self._max_staleness = max_staleness
        self._revoked: dict[int, Revoked] = {}
        self._rebuilt_at = dict.fromkeys(self.services, -inf)
        self._responses = {name: [ResponseLog() for _ in range(self._good + 1)] for name in self.services}

    def add_revoked(self, revoked: Revoked) -> None:
        """Record a revocation that the server has accepted."""
        self._revoked[revoked.number] = revoked

    def add_responses(self, service: str, given: Iterable[tuple[int, int, float]]) -> None:
        """Record responses of a service: number of the token, status, time."""
        for number, status, at in given:
            self._responses[service][number].add(status, at)

    def add_rebuilt(self, service: str, rebuilt: Rebuilt) -> None:
        """Record that a service has rebuilt its list from the stream."""
        self._rebuilt_at[service] = rebuilt.at

    def numbers(self, kind: str) -> range:
        """Return the numbers of the tokens of a kind."""
        first = KINDS.index(kind) * self.each
        return range(first, first + self.each)

    def statuses(self, service: str) -> tuple[Sequence[int | None], ...]:
        """Return a service's latest status for each token: those of each of `KINDS` in turn, then the good one."""
        latest = [responses.latest for responses in self._responses[service]]
        return (*([latest[number] for number in self.numbers(kind)] for kind in KINDS), latest[self._good :])

    def revoked(self, kind: str | None = None) -> int:
        """Return how many revocations the server has accepted, of one kind or of all."""
        return sum(kind is None or number in self.numbers(kind) for number in self._revoked)

    def refused_after(self, *, service: str | None = None, kind: str | None = None) -> Latencies:
        """Return the milliseconds from the call of ``publish`` to the first refusal; of one service, kind, or all."""
        latencies = Latencies()
        for name in self.services if service is None else (service,):
            for number, revoked in self._revoked.items():
                refused_from = self._responses[name][number].refused_from()
                if refused_from is not None and (kind is None or number in self.numbers(kind)):
                    latencies.record((refused_from - revoked.published_at) * 1_000)
        return latencies

    @property
    def not_refused(self) -> int:
        """How many revocations have not led to a refusal, over all services."""
        return self.revoked() * len(self.services) - self.refused_after().total()

    @property
    def reversals(self) -> int:
        """How many times a token was not refused after it had been refused before."""
        return sum(log.reversals for logs in self._responses.values() for log in logs)

    @property
    def stale_allows(self) -> int:
        """How often a token was let in although its revocation had been accepted more than ``max_staleness`` before."""
        return sum(
            len(logs[number].after(revoked.acknowledged_at + self._max_staleness, ALLOWED))
            for logs in self._responses.values()
            for number, revoked in self._revoked.items()
        )

    def all_respond(self, status: int) -> bool:
        """Whether the latest status of every token that is not revoked, in all services, is this one."""
        return all(
            log.latest == status
            for name in self.services
            for number, log in enumerate(self._responses[name])
            if number not in self._revoked
        )

    @property
    def tried_again(self) -> bool:
        """Whether all services have rebuilt their lists, as told, and have then responded to every token."""
        return self.rebuilding_at is not None and all(
            log.at > self._rebuilt_at[name] > self.rebuilding_at
            for name, logs in self._responses.items()
            for log in logs
        )

    @property
    def stale_at(self) -> Sequence[float]:
        """When each service that noticed the end of the server first responded with `STALE`."""
        return self._first(STALE, after=self.killed_at)

    @property
    def fresh_at(self) -> Sequence[float]:
        """When each service that reached the new server first let the good token in again."""
        return self._first(ALLOWED, after=self.back_at)

    def _first(self, status: int, *, after: float | None) -> list[float]:
        if after is None:
            return []
        times = (self._responses[name][self._good].after(after, status) for name in self.services)
        return [found[0] for found in times if found]

    @property
    def stale_after_ms(self) -> float | None:
        """Milliseconds from the end of the server until the last service was stale; ``None`` until then."""
        return _span(self.killed_at, self.stale_at)

    @property
    def fresh_again_after_ms(self) -> float | None:
        """Milliseconds from the return of the server until the last service was fresh; ``None`` until then."""
        return _span(self.back_at, self.fresh_at)

    @property
    def stale_for_ms(self) -> float | None:
        """Milliseconds from the first stale service until all are fresh again; ``None`` until then."""
        return _span(min(self.stale_at, default=None), self.fresh_at)


def _span(began: float | None, ended: Sequence[float]) -> float | None:
    return round((max(ended) - began) * 1_000, 1) if began is not None and ended else None
