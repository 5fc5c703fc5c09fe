"""A service: handles the events of the first act, and answers requests with tokens in the second."""

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
    Answers,
    Finish,
    Issued,
    Latencies,
    Order,
    Renew,
    Renewed,
    Report,
)
from jwt_events.cli.demo._processes import BEAT, Parent, report_until
from jwt_events.cli.demo._tokens import Verifier
from jwt_events.events import Event


class Counters:
    """What a subscriber has handled."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._latencies = Latencies()
        self._latest: float | None = None

    def add(self, event: Event, now: datetime) -> None:
        """Count an event, once."""
        if event.id not in self._ids:
            self._ids.add(event.id)
            self._latest = self._latencies.note((now - event.occurred_at).total_seconds() * 1_000)

    def report(self) -> Report:
        """Say how far it has come."""
        return Report(count=len(self._ids), latency_ms=self._latest)

    def final_report(self) -> Report:
        """Say everything."""
        return replace(self.report(), final=True, latencies=tuple(self._latencies.items()))


# Seconds between two requests.
_INTERVAL = 0.001

# How many requests come from the client in a hurry for one of another.
_HURRIED = 3


async def play(order: Order, parent: Parent) -> None:
    """Do what the parent says, act by act."""
    await _handle(order, parent)
    issued = await parent.receive(Issued)
    verifier = Verifier(issued.keys)
    while True:
        async with RevocationList(order.make_durable_transport(), max_staleness=order.max_staleness) as revocations:
            parent.send(Renewed(time.monotonic()))
            renewing = asyncio.create_task(parent.receive(Renew))
            await _serve(Gate(verifier, revocations), issued.tokens, parent, until=renewing)


async def _handle(order: Order, parent: Parent) -> None:
    tally = Counters()
    subscriber = Subscriber(order.make_transport())

    @subscriber.on()
    async def count(event: Event) -> None:
        tally.add(event, datetime.now(UTC))

    async with subscriber:
        await report_until(asyncio.create_task(parent.receive(Finish)), parent, tally.report)
    parent.send(tally.final_report())


class Gate:
    """What every request has to pass.

    Args:
        verifier: tells whether the issuer has signed a token.
        revocations: tells whether it is still good.
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


def choose(size: int, refused: Container[int]) -> Iterator[int]:
    """Choose the token for each request: mostly the first that still works, now and then one of all in turn.

    Args:
        size: how many tokens there are.
        refused: the numbers of those that were refused for good, as they become known.
    """
    for turn in cycle(range(size)):
        for _ in range(_HURRIED):
            yield next((number for number in range(size) if number not in refused), turn)
        yield turn


async def _serve(gate: Gate, tokens: Sequence[str], parent: Parent, *, until: asyncio.Future[Renew]) -> None:
    refused: set[int] = set()
    chosen = choose(len(tokens), refused)
    while not until.done():
        given: list[tuple[int, int, float]] = []
        due = time.monotonic() + BEAT
        while time.monotonic() < due:
            number = next(chosen)
            status = gate.status(tokens[number])
            given.append((number, status, time.monotonic()))
            if status == REVOKED:
                refused.add(number)
            await asyncio.sleep(_INTERVAL)
        parent.send(Answers(given))
