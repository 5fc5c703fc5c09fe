"""Lists that start in the middle of everything, at a real server, against a model that forgets nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from jwt_events import Event, KeyRotated, RedisStream, RevocationList, SessionDestroyed, TokenRevoked, Verdict
from jwt_events.embedded import EmbeddedServer
from jwt_events.envelope import encode_event
from jwt_events.errors import TransportError
from jwt_events.revocation import Folding
from jwt_events.revocation._rules import Rules
from jwt_events.transport._stream.keys import StreamKeys
from jwt_events.transport._stream.ledger import Ledger
from tests.support.raw import call, counts
from tests.support.waiting import scaled
from tests.transport.test_ledger import connected
from tests.transport.test_ledger_model import Cut

NOW = time.time()
NAMES = st.sampled_from(["a", "b"])
TIMES = st.sampled_from([None, *(datetime.fromtimestamp(NOW + hours * 3600, UTC) for hours in (-2, 1, 48))])
CUTOFFS = st.integers(-200, -1).map(lambda seconds: datetime.fromtimestamp(NOW + seconds, UTC))

EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.builds(TokenRevoked, token_id=NAMES, expires_at=TIMES),
    st.builds(TokenRevoked, user_id=NAMES, issued_before=CUTOFFS, expires_at=TIMES),
    st.builds(TokenRevoked, user_id=NAMES, client_id=NAMES, issued_before=CUTOFFS, expires_at=TIMES),
    st.builds(TokenRevoked, user_id=NAMES, except_session_id=NAMES, issued_before=CUTOFFS, expires_at=TIMES),
    st.builds(TokenRevoked, claims=st.fixed_dictionaries({"iss": NAMES}), issued_before=CUTOFFS, expires_at=TIMES),
    st.builds(SessionDestroyed, session_id=NAMES, occurred_at=CUTOFFS, expires_at=TIMES),
    st.builds(KeyRotated, key_id=NAMES, compromised=st.just(value=True)),
)

TOKENS: list[dict[str, object]] = [
    {"jti": jti, "sub": sub, "sid": sid, "azp": azp, "iss": issuer, "kid": kid, "iat": int(NOW) + age}
    for jti, sub, sid, azp, issuer, kid in [
        ("a", "x", "x", "x", "x", "x"),
        ("x", "a", "x", "x", "x", "x"),
        ("x", "b", "a", "x", "x", "x"),
        ("x", "a", "b", "b", "x", "x"),
        ("x", "x", "x", "x", "a", "x"),
        ("x", "x", "x", "x", "x", "b"),
        ("x", "x", "x", "x", "x", "x"),
    ]
    for age in (-150, -50, 0)
]

STEPS = st.one_of(
    st.tuples(st.just("publish"), st.lists(EVENTS, min_size=1, max_size=4)),
    st.tuples(st.just("fold"), st.integers(0, 4)),
    st.tuples(st.just("crash"), st.integers(0, 4), st.integers(0, 2), st.booleans()),
    st.tuples(st.just("trim"), st.integers(1, 3)),
    st.tuples(st.just("lose_ledger")),
    st.tuples(st.just("start"), st.integers(0, 4)),
)


class History:
    """A stream with its ledger, and the rules of every event that was ever published.

    Attributes:
        must: the rules in force.
        may: those, and the ones that are over, which may be forgotten.
        is_touched: whether anybody else than a folder removed something.
    """

    def __init__(self, client: Redis, url: str) -> None:
        self.client = client
        self.url = url
        self.must = Rules(epoch=NOW, retention=None)
        self.may = Rules(epoch=NOW, retention=None)
        self.is_touched = False
        self.count = 0

    async def publish(self, events: list[Event]) -> None:
        """Publish events."""
        for event in events:
            self.count += 1
            self.may.apply(event, now=NOW)
            if not _is_over(event):
                self.must.apply(event, now=NOW)
            await call(self.client, "XADD", "k", f"{self.count}-0", "event", encode_event(event, source="tests"))

    async def fold(self, keep: int, requests: int = 1_000, *, is_carried_out: bool = False) -> None:
        """Fold all but the newest events, and be cut off after some requests."""
        async with connected(self.url) as connection:
            cut = Cut(connection.protocol, connection._decoder)
            cut.requests_left, cut.is_carried_out = requests, is_carried_out
            try:
                await Ledger(StreamKeys("k")).fold_batch(
                    cut, Folding(), before=self.count - keep + 1, now=NOW, vanished=self.is_touched
                )
            except TransportError:
                assert requests < 1_000, "only a fold that is cut off fails"

    async def crash(self, keep: int, requests: int, is_carried_out: bool) -> None:
        """Be cut off while folding."""
        await self.fold(keep, requests, is_carried_out=is_carried_out)

    async def trim(self, count: int) -> None:
        """Remove the oldest events, as no publisher does."""
        length = await self.client.xlen("k")
        self.is_touched |= bool(await call(self.client, "XTRIM", "k", "MAXLEN", max(0, length - count)))

    async def lose_ledger(self) -> None:
        """Remove the ledger."""
        self.is_touched |= bool(await self.client.delete("k:ledger"))

    async def start(self, keep: int) -> None:
        """Start a list while events are folded, and compare it with the model."""
        revocations = RevocationList(RedisStream(self.url, "k"), max_staleness=scaled(5))
        folding = asyncio.create_task(self.fold(keep))
        async with revocations:
            await folding
            for token in TOKENS:
                verdict = revocations.check(token)
                if self.must.revokes(token):
                    assert verdict is Verdict.REVOKED or revocations.stats.gaps, token
                if not self.may.revokes(token):
                    assert verdict is Verdict.ALLOW, token
            assert self.is_touched or not revocations.stats.gaps


def _is_over(event: Event) -> bool:
    return (
        getattr(event, "expires_at", None) is not None
        and event.needed_until is not None
        and (event.needed_until < datetime.fromtimestamp(NOW, UTC) - timedelta(hours=1))
    )


@pytest.mark.timeout(300)
async def test_every_list_knows_or_tells(own_server: Callable[..., EmbeddedServer]) -> None:
    """Whatever happened before, a list that starts knows every rule in force and no other, or reports a gap."""
    loop = asyncio.get_running_loop()
    async with own_server(port=0) as server, Redis.from_url(server.url) as client:
        await call(client, "XADD", "k", "1-0", "event", "x")
        if not await counts(client, "k"):
            return  # servers before Redis 7 do not count what was removed

        async def run(steps: list[tuple[Any, ...]]) -> None:
            await client.flushall()
            history = History(client, server.url)
            for name, *arguments in steps:
                await getattr(history, name)(*arguments)
            await history.start(1)

        @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=False)
        @given(st.lists(STEPS, max_size=12))
        def check(steps: list[tuple[Any, ...]]) -> None:
            asyncio.run_coroutine_threadsafe(run(steps), loop).result(60)

        await asyncio.to_thread(check)
