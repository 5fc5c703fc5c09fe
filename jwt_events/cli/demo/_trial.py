"""What becomes of tokens that are revoked: collects what all services answered, and judges it. Pure.

All times are those of `time.monotonic`, which is one clock for all processes of a machine.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from math import inf

from jwt_events.cli.demo._messages import ALLOWED, KINDS, REVOKED, STALE, Latencies, Renewed, Revoked


class Answered:
    """When a service gave which answers to requests with one token.

    Attributes:
        latest: the status of the last one; ``None`` before the first.
        at: its time.
        wavered: how often it was another one after a refusal.
    """

    def __init__(self) -> None:
        self.latest: int | None = None
        self.at: float = -inf
        self.wavered: int = 0
        self._times: dict[int, list[float]] = {ALLOWED: [], REVOKED: [], STALE: []}

    def add(self, status: int, at: float) -> None:
        """Note an answer; they come in order."""
        self.latest, self.at = status, at
        self.wavered += status != REVOKED and bool(self._times[REVOKED])
        self._times[status].append(at)

    def after(self, moment: float, status: int) -> list[float]:
        """Return when this was the answer, after a moment."""
        times = self._times[status]
        return times[bisect_right(times, moment) :]

    def refused_from(self) -> float | None:
        """Return from when on it was refused for good; ``None`` if it was not."""
        allowed = self._times[ALLOWED]
        return next(iter(self.after(allowed[-1] if allowed else -inf, REVOKED)), None)


class Trial:
    """The second act as it was observed.

    Args:
        services: their names.
        each: how many tokens there are for each of `KINDS`. One more, the last, stays good.
        max_staleness: seconds after which a service must not let a revoked token in.

    Attributes:
        killed_at: when the server was killed; ``None`` if it was not.
        back_at: when it answered again; ``None`` if it does not.
        renewing_at: when the services were told to learn everything anew; ``None`` if they were not.
    """

    def __init__(self, services: Iterable[str], *, each: int, max_staleness: float) -> None:
        self.services: tuple[str, ...] = tuple(services)
        self.each = each
        self.killed_at: float | None = None
        self.back_at: float | None = None
        self.renewing_at: float | None = None
        self._good = len(KINDS) * each
        self._max_staleness = max_staleness
        self._revoked: dict[int, Revoked] = {}
        self._renewed_at = dict.fromkeys(self.services, -inf)
        self._answered = {name: [Answered() for _ in range(self._good + 1)] for name in self.services}

    def revoke(self, revoked: Revoked) -> None:
        """Note a revocation that the server has accepted."""
        self._revoked[revoked.number] = revoked

    def hear(self, service: str, given: Iterable[tuple[int, int, float]]) -> None:
        """Note what a service has answered."""
        for number, status, at in given:
            self._answered[service][number].add(status, at)

    def renew(self, service: str, renewed: Renewed) -> None:
        """Note that a service answers from what the server remembers."""
        self._renewed_at[service] = renewed.at

    def numbers(self, kind: str) -> range:
        """Return the numbers of the tokens of a kind."""
        first = KINDS.index(kind) * self.each
        return range(first, first + self.each)

    def statuses(self, service: str) -> tuple[Sequence[int | None], ...]:
        """Return the last answers of a service: for each of `KINDS` in turn, and for the good token."""
        latest = [answered.latest for answered in self._answered[service]]
        return (*([latest[number] for number in self.numbers(kind)] for kind in KINDS), latest[self._good :])

    def revoked(self, kind: str | None = None) -> int:
        """Return how many revocations the server has accepted, of one kind or of all."""
        return sum(kind is None or number in self.numbers(kind) for number in self._revoked)

    def refused_after(self, *, service: str | None = None, kind: str | None = None) -> Latencies:
        """Return the milliseconds from the call of ``publish`` to the first refusal; of one service, kind, or all."""
        latencies = Latencies()
        for name in self.services if service is None else (service,):
            for number, revoked in self._revoked.items():
                refused_from = self._answered[name][number].refused_from()
                if refused_from is not None and (kind is None or number in self.numbers(kind)):
                    latencies.note((refused_from - revoked.published_at) * 1_000)
        return latencies

    @property
    def not_refused(self) -> int:
        """How many revocations have not led to a refusal, over all services."""
        return self.revoked() * len(self.services) - self.refused_after().total()

    @property
    def wavered(self) -> int:
        """How often a token was not refused after it had been refused before."""
        return sum(answered.wavered for tokens in self._answered.values() for answered in tokens)

    @property
    def stale_allows(self) -> int:
        """How often a token was let in although its revocation had been accepted more than ``max_staleness`` before."""
        return sum(
            len(answered[number].after(revoked.acknowledged_at + self._max_staleness, ALLOWED))
            for answered in self._answered.values()
            for number, revoked in self._revoked.items()
        )

    def all_answer(self, status: int, *, since: float = -inf) -> bool:
        """Whether all services now give this answer to all tokens that are not revoked, as asked since then."""
        return all(
            answered.latest == status and answered.at > since
            for name in self.services
            for number, answered in enumerate(self._answered[name])
            if number not in self._revoked
        )

    @property
    def asked_anew(self) -> bool:
        """Whether all services have been renewed, as they were told to, and then been asked with all tokens."""
        return self.renewing_at is not None and all(
            answered.at > self._renewed_at[name] > self.renewing_at
            for name, tokens in self._answered.items()
            for answered in tokens
        )

    @property
    def stale_at(self) -> Sequence[float]:
        """When each service that noticed the end of the server first let nobody in."""
        return self._first(STALE, after=self.killed_at)

    @property
    def fresh_at(self) -> Sequence[float]:
        """When each service that found the new server first let the good token in again."""
        return self._first(ALLOWED, after=self.back_at)

    def _first(self, status: int, *, after: float | None) -> list[float]:
        if after is None:
            return []
        times = (self._answered[name][self._good].after(after, status) for name in self.services)
        return [found[0] for found in times if found]

    @property
    def stale_after_ms(self) -> float | None:
        """Milliseconds from the end of the server until the last service let nobody in; ``None`` until then."""
        return _span(self.killed_at, self.stale_at)

    @property
    def fresh_again_after_ms(self) -> float | None:
        """Milliseconds from the return of the server until the last service was fresh; ``None`` until then."""
        return _span(self.back_at, self.fresh_at)

    @property
    def stale_for_ms(self) -> float | None:
        """For how many milliseconds at least one service let nobody in; ``None`` until that is over."""
        return _span(min(self.stale_at, default=None), self.fresh_at)


def _span(began: float | None, ended: Sequence[float]) -> float | None:
    return round((max(ended) - began) * 1_000, 1) if began is not None and ended else None
