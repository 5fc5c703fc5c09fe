"""Random histories of a stream and its ledger at a real server, against a model that forgets nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from jwt_events.embedded import EmbeddedServer
from jwt_events.errors import ConnectionFailed, TransportError
from jwt_events.transport._redis.connection import Connection
from jwt_events.transport._stream.cursor import stream_info
from jwt_events.transport._stream.keys import StreamKeys
from jwt_events.transport._stream.ledger import Ledger
from jwt_events.transport._stream.position import StreamInfo
from tests.support.raw import call
from tests.support.waiting import scaled
from tests.transport.test_ledger import NOW, connected, contents, fold

STEPS = st.one_of(
    st.tuples(st.just("add"), st.integers(1, 5)),
    st.tuples(st.just("fold"), st.integers(0, 6)),
    st.tuples(st.just("crash"), st.integers(0, 6), st.integers(0, 2), st.booleans()),
    st.tuples(st.just("both"), st.integers(0, 6)),
    st.tuples(st.just("trim"), st.integers(1, 3)),
    st.tuples(
        st.just("delete"),
    ),
    st.tuples(
        st.just("start"),
    ),
)


class Cut(Connection):
    """Fails at one of its requests: before it is sent, or after it was carried out and before the reply came."""

    requests_left = 1_000
    is_carried_out = False

    async def execute_many(self, commands: Any, **options: Any) -> list[Any]:
        """Send commands, or fail."""
        self.requests_left -= 1
        if self.requests_left >= 0:
            return await super().execute_many(commands, **options)
        if self.is_carried_out:
            await super().execute_many(commands, **options)
        self.abort()
        return [ConnectionFailed("cut", maybe_done=True)] * len(commands)


class History:
    """A stream with its ledger, and what a model knows about it.

    Attributes:
        published: every event that was ever accepted.
        is_touched: whether anybody else than a publisher removed any since there is a ledger.
        is_anew: whether the stream was deleted.
    """

    def __init__(self, client: Redis, url: str) -> None:
        self.client = client
        self.url = url
        self.published: list[bytes] = []
        self.is_touched = False
        self.is_anew = False
        self.last = 0

    async def add(self, count: int) -> None:
        """Publish events."""
        for _ in range(count):
            self.last += 1
            self.published.append(b"e%d" % self.last)
            await call(self.client, "XADD", "k", f"{self.last}-0", "event", self.published[-1])

    async def fold(self, keep: int, requests: int = 1_000, *, is_carried_out: bool = False) -> None:
        """Fold all but the newest events, and be cut off after some requests."""
        async with connected(self.url) as connection:
            cut = Cut(connection.protocol, connection._decoder)
            cut.requests_left, cut.is_carried_out = requests, is_carried_out
            try:
                await Ledger(StreamKeys("k")).fold_batch(cut, fold, before=self.last - keep + 1, now=NOW)
            except TransportError:
                assert requests < 1_000, "only a fold that is cut off fails"

    async def both(self, keep: int) -> None:
        """Fold twice at the same time."""
        await asyncio.gather(self.fold(keep), self.fold(keep))

    async def crash(self, keep: int, requests: int, is_carried_out: bool) -> None:
        """Be cut off while folding."""
        await self.fold(keep, requests, is_carried_out=is_carried_out)

    async def trim(self, count: int) -> None:
        """Remove the oldest events, as no publisher does."""
        if self.is_anew:  # and as many were removed as had been folded before: no count can tell the two streams apart
            return
        length = await self.client.xlen("k")
        if await call(self.client, "XTRIM", "k", "MAXLEN", max(0, length - count)):
            await self._remember()

    async def delete(self) -> None:
        """Delete the stream; what it held is lost, and a new one begins."""
        if await self.client.delete("k"):
            self.is_anew = True
            await self._remember()

    async def _remember(self) -> None:
        """Note that events were removed; before there is a ledger, nobody can know of them."""
        if await self.client.exists("k:ledger"):
            self.is_touched = True
        else:
            rows = await call(self.client, "XRANGE", "k", "-", "+")
            self.published = [fields[1] if isinstance(fields, list) else fields[b"event"] for _, fields in rows]

    async def start(self) -> None:
        """Compare what a reader that starts now finds with what was published."""
        ledger = Ledger(StreamKeys("k"))
        async with connected(self.url) as connection:
            (reply,) = await connection.execute_many([("XINFO", "STREAM", "k")], within=scaled(5.0))
            stream = stream_info(reply) or StreamInfo()
            rows = await connection.call("XRANGE", "k", "-", "+", within=scaled(5.0))
            kept = [content[1:] for content in await contents(ledger, connection)]
            head = await ledger.read_head(connection)
        found = {fields[1] for _, fields in rows} | set(kept)
        is_suspicious = head is not None and (head.missing(stream) != 0 or head.lost_at > 0)
        if not self.is_touched:
            assert found == set(self.published)
            assert not is_suspicious
        elif set(self.published) - found and (head is None or head.counted is not None):  # older servers do not count
            assert is_suspicious


@pytest.mark.timeout(300)
async def test_nothing_is_lost(own_server: Callable[..., EmbeddedServer]) -> None:
    """Whatever happens in whichever order, a reader that starts finds every event, or can know that some are gone."""
    loop = asyncio.get_running_loop()
    async with own_server(port=0) as server, Redis.from_url(server.url) as client:

        async def run(steps: list[tuple[Any, ...]]) -> None:
            await client.flushall()
            history = History(client, server.url)
            for name, *arguments in steps:
                await getattr(history, name)(*arguments)
            await history.start()

        @settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck), derandomize=False)
        @given(st.lists(STEPS, max_size=15))
        def check(steps: list[tuple[Any, ...]]) -> None:
            asyncio.run_coroutine_threadsafe(run(steps), loop).result(scaled(60))

        await asyncio.to_thread(check)
