"""Somebody who asks a revocation list all the time, and knows what it must know."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from jwt_events import Publisher, PublishError, RedisStream, RevocationList, TokenRevoked, Verdict
from tests.support.handling import running
from tests.support.waiting import scaled, wait_until

MAX_STALENESS = 0.5
_INTERVAL = 0.003
_SAMPLE = 20


class Auditor:
    """Asks for tokens whose revocation was acknowledged, and notes every answer that may not be.

    The promise: `Verdict.ALLOW` means that everything is known that was acknowledged longer than ``max_staleness`` ago.
    No tolerance is needed: the acknowledgement is noted after it came, the question before it is asked.

    Attributes:
        stale_allows: how old each acknowledgement was, in seconds, of a token that should not have been let in.
        forgotten: tokens that were known to be revoked, and then were not.
        answers: how often there was each verdict.
        acknowledged: all tokens whose revocation was acknowledged.
    """

    def __init__(self, revocations: RevocationList, *, max_staleness: float = MAX_STALENESS) -> None:
        self.revocations = revocations
        self.stale_allows: list[float] = []
        self.forgotten: list[str] = []
        self.answers: Counter[Verdict] = Counter()
        self.acknowledged: list[str] = []
        self._max_staleness = max_staleness
        self._unknown: dict[str, float] = {}
        self._known: list[str] = []
        self._excused_until = 0.0

    def note(self, token: str, *, sent_at: float) -> None:
        """Take note, right now, that a revocation was acknowledged."""
        if sent_at >= self._excused_until:
            self._unknown[token] = time.monotonic()
            self.acknowledged.append(token)

    def excuse(self) -> None:
        """Do not ask for what was sent by now and is not known: somebody has removed it from the stream."""
        self._excused_until = time.monotonic()
        self._unknown.clear()

    def ask(self) -> None:
        """Ask for every token that was not known yet, for some of the others, and for one that nobody revoked."""
        for token, acknowledged_at in list(self._unknown.items()):
            asked_at = time.monotonic()
            verdict = self._check(token)
            if verdict is Verdict.REVOKED:
                self._unknown.pop(token, None)
                self._known.append(token)
            elif verdict is Verdict.ALLOW and asked_at - acknowledged_at > self._max_staleness:
                self.stale_allows.append(asked_at - acknowledged_at)
        for token in random.sample(self._known, min(_SAMPLE, len(self._known))):
            if self._check(token) is not Verdict.REVOKED:
                self.forgotten.append(token)
        self._check("good")

    def _check(self, token: str) -> Verdict:
        verdict = self.revocations.check({"jti": token, "sub": "alice", "iat": 1})
        self.answers[verdict] += 1
        return verdict

    async def ask_all_the_time(self) -> None:
        """Ask until cancelled."""
        while True:
            self.ask()
            await asyncio.sleep(_INTERVAL)

    async def revoke_all_the_time(self, publisher: Publisher) -> None:
        """Revoke one token after the other until cancelled; what is not acknowledged is not counted."""
        number = 0
        while True:
            number += 1
            token, sent_at = f"token-{number}", time.monotonic()
            with suppress(PublishError):
                await publisher.publish(TokenRevoked(token_id=token))
                self.note(token, sent_at=sent_at)
            await asyncio.sleep(_INTERVAL)

    async def sees_it_stale(self) -> None:
        """Wait until the list says that nobody knows."""
        before = self.answers[Verdict.STALE]
        await wait_until(lambda: self.answers[Verdict.STALE] > before + 10, what="answers that nobody knows")

    async def sees_it_fresh(self, *, within: float = 20.0) -> None:
        """Wait until the list lets good tokens in, knowing of everything that has been acknowledged by now."""
        awaited = set(self._unknown)

        def knows_it() -> bool:
            return not awaited & self._unknown.keys() and self._check("good") is Verdict.ALLOW

        await wait_until(knows_it, within=within, what=lambda: f"{len(awaited & self._unknown.keys())} revocations")

    def is_satisfied(self) -> None:
        """Fail if there was an answer that may not be, or nothing to see."""
        assert not self.stale_allows, f"{len(self.stale_allows)} stale, the worst by {max(self.stale_allows):.3f} s"
        assert not self.forgotten
        assert len(self._known) > 10
        assert self.answers[Verdict.ALLOW] > 10


@asynccontextmanager
async def audited(
    url: str, *, key: str = "k", publisher_url: str | None = None, max_staleness: float = MAX_STALENESS
) -> AsyncIterator[Auditor]:
    """Keep a list of revocations, publish and ask all the time; afterwards everything is known, and nothing was wrong.

    Args:
        url: where the list connects to.
        key: the stream.
        publisher_url: where the publisher connects to, if elsewhere.
        max_staleness: of the list, in seconds.
    """
    revocations = RevocationList(RedisStream(url, key), max_staleness=max_staleness)
    publisher = Publisher(RedisStream(publisher_url or url, key), source="tests", timeout=scaled(5))
    auditor = Auditor(revocations, max_staleness=max_staleness)
    async with (
        revocations,
        publisher,
        running(auditor.ask_all_the_time()) as asking,
        running(auditor.revoke_all_the_time(publisher)) as revoking,
    ):
        await wait_until(lambda: len(auditor.acknowledged) > 10)
        await auditor.sees_it_fresh()
        yield auditor
        await auditor.sees_it_fresh()
        assert not asking.done()
        assert not revoking.done()
    auditor.is_satisfied()
