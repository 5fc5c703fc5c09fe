"""A task that checks tokens against a revocation list all the time, and knows the right verdicts."""

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
    """Checks tokens whose revocation was acknowledged, and records every wrong verdict.

    The promise: `Verdict.ALLOW` means that every revocation acknowledged longer than ``max_staleness`` ago is known.
    No tolerance is needed: an acknowledgement is timed after it arrived, a check before it is made.

    Attributes:
        stale_allows: the age of the acknowledgement, in seconds, for each token that was wrongly allowed.
        forgotten: tokens that were known to be revoked, and later were not.
        verdicts: how often each verdict was given.
        acknowledged: all tokens whose revocation was acknowledged.
    """

    def __init__(self, revocations: RevocationList, *, max_staleness: float = MAX_STALENESS) -> None:
        self.revocations = revocations
        self.stale_allows: list[float] = []
        self.forgotten: list[str] = []
        self.verdicts: Counter[Verdict] = Counter()
        self.acknowledged: list[str] = []
        self._max_staleness = max_staleness
        self._unknown: dict[str, float] = {}
        self._known: list[str] = []
        self._excused_until = 0.0

    def note(self, token: str, *, sent_at: float) -> None:
        """Record, at this moment, that a revocation was acknowledged."""
        if sent_at >= self._excused_until:
            self._unknown[token] = time.monotonic()
            self.acknowledged.append(token)

    def excuse(self) -> None:
        """Stop checking tokens that were sent by now and are not known: they were removed from the stream."""
        self._excused_until = time.monotonic()
        self._unknown.clear()

    def check_all(self) -> None:
        """Check every token that was not known yet, some of the others, and one that is not revoked."""
        for token, acknowledged_at in list(self._unknown.items()):
            checked_at = time.monotonic()
            verdict = self._check(token)
            if verdict is Verdict.REVOKED:
                self._unknown.pop(token, None)
                self._known.append(token)
            elif verdict is Verdict.ALLOW and checked_at - acknowledged_at > self._max_staleness:
                self.stale_allows.append(checked_at - acknowledged_at)
        for token in random.sample(self._known, min(_SAMPLE, len(self._known))):
            if self._check(token) is not Verdict.REVOKED:
                self.forgotten.append(token)
        self._check("good")

    def _check(self, token: str) -> Verdict:
        verdict = self.revocations.check({"jti": token, "sub": "alice", "iat": 1})
        self.verdicts[verdict] += 1
        return verdict

    async def check_all_the_time(self) -> None:
        """Check until cancelled."""
        while True:
            self.check_all()
            await asyncio.sleep(_INTERVAL)

    async def revoke_all_the_time(self, publisher: Publisher, *, prefix: str = "token-") -> None:
        """Revoke one token after the other until cancelled; revocations without acknowledgement do not count."""
        number = 0
        while True:
            number += 1
            token, sent_at = f"{prefix}{number}", time.monotonic()
            with suppress(PublishError):
                await publisher.publish(TokenRevoked(token_id=token))
                self.note(token, sent_at=sent_at)
            await asyncio.sleep(_INTERVAL)

    async def sees_it_stale(self) -> None:
        """Wait until the list gives the verdict stale."""
        before = self.verdicts[Verdict.STALE]
        await wait_until(lambda: self.verdicts[Verdict.STALE] > before + 10, what="verdicts that are stale")

    async def sees_it_fresh(self, *, within: float = 20.0) -> None:
        """Wait until the list allows good tokens and knows every revocation acknowledged by now."""
        missing = set(self._unknown)

        def knows_all() -> bool:
            return not missing & self._unknown.keys() and self._check("good") is Verdict.ALLOW

        await wait_until(knows_all, within=within, what=lambda: f"{len(missing & self._unknown.keys())} revocations")

    def is_satisfied(self) -> None:
        """Fail if a verdict was wrong, or if there were too few."""
        assert not self.stale_allows, f"{len(self.stale_allows)} stale, the worst by {max(self.stale_allows):.3f} s"
        assert not self.forgotten
        assert len(self._known) > 10
        assert self.verdicts[Verdict.ALLOW] > 10


@asynccontextmanager
async def audited(
    url: str,
    *,
    key: str = "k",
    publisher_url: str | None = None,
    max_staleness: float = MAX_STALENESS,
    read_from: str = "primary",
) -> AsyncIterator[Auditor]:
    """Run a list, a publisher and an auditor; at the end every revocation must be known and no verdict wrong.

    Args:
        url: the server of the list.
        key: the stream.
        publisher_url: the server of the publisher; ``None`` for the same.
        max_staleness: of the list, in seconds.
        read_from: where the list reads.
    """
    revocations = RevocationList(RedisStream(url, key, read_from=read_from), max_staleness=max_staleness)
    publisher = Publisher(RedisStream(publisher_url or url, key), source="tests", timeout=scaled(5))
    auditor = Auditor(revocations, max_staleness=max_staleness)
    async with (
        revocations,
        publisher,
        running(auditor.check_all_the_time()) as checking,
        running(auditor.revoke_all_the_time(publisher)) as revoking,
    ):
        await wait_until(lambda: len(auditor.acknowledged) > 10)
        await auditor.sees_it_fresh()
        yield auditor
        await auditor.sees_it_fresh()
        assert not checking.done()
        assert not revoking.done()
    auditor.is_satisfied()
