"""A service process: handles the events of the first act, and responds to requests with tokens in the second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Container, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import cycle

from jwt_events import RevocationList, RevokedTokenError, StaleRevocationsError, Subscriber
from jwt_events.cli.demo._messages import (
    ALLOWED,
    REVOKED,
    STALE,
    Finish,
    Issued,
    Latencies,
    Rebuild,
    Rebuilt,
    Report,
    Responses,
    Setup,
)
from jwt_events.cli.demo._processes import REPORT_INTERVAL, ParentProcess
from jwt_events.cli.demo._tokens import Verifier
from jwt_events.events import Event

# Seconds between two requests.
_INTERVAL = 0.001

# For each request with the tokens in turn, how many come with the first token that still works.
_REPEATED = 3


class Counters:
    """Counters of a subscriber: distinct events handled, and their latencies."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._latencies = Latencies()
        self._latest: float | None = None

    def add(self, event: Event, now: datetime) -> None:
        """Count an event, once."""
        if event.id not in self._ids:
            self._ids.add(event.id)
            self._latest = self._latencies.record((now - event.occurred_at).total_seconds() * 1_000)

    def report(self) -> Report:
        """Report the count and the latest latency."""
        return Report(count=len(self._ids), latency_ms=self._latest)

    def final_report(self) -> Report:
        """Report the count and all latencies."""
        return replace(self.report(), final=True, latencies=tuple(self._latencies.items()))


class Authenticator:
    """Decides the status of a response by the token of the request.

    Args:
        verifier: verifies the issuer's signature.
        revocations: knows the revoked tokens.
    """

    def __init__(self, verifier: Verifier, revocations: RevocationList) -> None:
        self._verifier = verifier
        self._revocations = revocations

    def status(self, token: str) -> int:
        """Return the status of the response to a request with this token."""
        claims = self._verifier.claims(token)
        try:
            self._revocations.ensure_live(claims)
        except RevokedTokenError:
            return REVOKED
        except StaleRevocationsError:
            return STALE
        return ALLOWED


def choose_tokens(count: int, refused: Container[int]) -> Iterator[int]:
    """Yield the number of the token for each request: mostly the first that still works, and all of them in turn.

    Args:
        count: how many tokens there are.
        refused: the numbers of those that were refused as revoked; may grow meanwhile.
    """
    for turn in cycle(range(count)):
        for _ in range(_REPEATED):
            yield next((number for number in range(count) if number not in refused), turn)
        yield turn


async def run(setup: Setup, parent: ParentProcess) -> None:
    """Run both acts, as the parent's messages say, until cancelled."""
    await _handle(setup, parent)
    issued = await parent.receive(Issued)
    verifier = Verifier(issued.keys)
    while True:
        async with RevocationList(setup.make_durable_transport(), max_staleness=setup.max_staleness) as revocations:
            parent.send(Rebuilt(time.monotonic()))
            rebuilding = asyncio.create_task(parent.receive(Rebuild))
            await _respond(Authenticator(verifier, revocations), issued.tokens, parent, until=rebuilding)


async def _handle(setup: Setup, parent: ParentProcess) -> None:
    counters = Counters()
    subscriber = Subscriber(setup.make_transport())

    @subscriber.on()
    async def count(event: Event) -> None:
        counters.add(event, datetime.now(UTC))

    async with subscriber:
        await parent.report_until(asyncio.create_task(parent.receive(Finish)), counters.report)
    parent.send(counters.final_report())


async def _respond(
    authenticator: Authenticator, tokens: Sequence[str], parent: ParentProcess, *, until: asyncio.Future[Rebuild]
) -> None:
    refused: set[int] = set()
    chosen = choose_tokens(len(tokens), refused)
    while not until.done():
        given: list[tuple[int, int, float]] = []
        due = time.monotonic() + REPORT_INTERVAL
        while time.monotonic() < due:
            number = next(chosen)
            status = authenticator.status(tokens[number])
            given.append((number, status, time.monotonic()))
            if status == REVOKED:
                refused.add(number)
            await asyncio.sleep(_INTERVAL)
        parent.send(Responses(given))
