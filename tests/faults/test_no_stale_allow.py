"""No stale allow: no failure lets a token in whose revocation was acknowledged longer than ``max_staleness`` ago."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
import redis
from redis.asyncio import Redis

from bench.ports import free_port
from jwt_events import Gap, TokenRevoked, Verdict
from jwt_events.envelope import Envelope, encode
from tests.faults.auditing import MAX_STALENESS, Auditor, audited
from tests.faults.restarting import ALL, MakeServer, Restartable
from tests.support.faults import frozen
from tests.support.proxy import Proxy
from tests.support.raw import call
from tests.support.waiting import wait_until

RIGHTS = ("+xread", "+xrange", "+xinfo|stream", "+info", "+zrange", "+zcount", "+zscan")


def block_the_loop(seconds: float) -> None:
    """Block the event loop, as no program should."""
    time.sleep(seconds)


@contextmanager
def clock_set(auditor: Auditor, by: float) -> Iterator[None]:
    """Set the wall clock that the list sees."""
    steady_clock = auditor.revocations._view._steady_clock
    steady_clock._wall = lambda: time.time() + by
    try:
        yield
    finally:
        steady_clock._wall = time.time


@contextmanager
def revoking_in_a_thread(url: str, auditor: Auditor) -> Iterator[None]:
    """Revoke tokens and check them from a thread, while the event loop may be blocked."""
    stop = threading.Event()

    def work() -> None:
        with redis.Redis.from_url(url) as client:
            number = 0
            while not stop.wait(0.003):
                number += 1
                token, sent_at = f"thread-{number}", time.monotonic()
                client.xadd("k", {"event": encode(Envelope(TokenRevoked(token_id=token)), source="thread")})
                auditor.note(token, sent_at=sent_at)
                auditor.check_all()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


class TestServer:
    """Failures of the server."""

    async def test_killed_and_restarted(self, restartable: Restartable) -> None:
        """While it is down, the verdict is stale; when it is back with all its data, the list goes on without a gap."""
        await restartable.start(ALL)
        async with audited(restartable.url) as auditor:
            await restartable.kill()
            await auditor.sees_it_stale()
            await restartable.start(ALL)
            await auditor.sees_it_fresh()
            assert auditor.revocations.stats.gaps == 0

    @pytest.mark.parametrize("seconds", [0.2, 1.0, 3.0])
    async def test_frozen(self, own_server: MakeServer, seconds: float) -> None:
        """A frozen server proves nothing, and its replies afterwards are as old as their requests."""
        async with own_server(port=0) as server, audited(server.url) as auditor:
            with frozen(server):
                until = time.monotonic() + seconds
                await wait_until(lambda: time.monotonic() > until)
            assert auditor.verdicts[Verdict.STALE] > 0 or seconds < MAX_STALENESS

    async def test_frozen_again_and_again(self, own_server: MakeServer) -> None:
        """The same, when it runs just long enough to count as fresh."""
        async with own_server(port=0) as server, audited(server.url) as auditor:
            for _ in range(5):
                with frozen(server):
                    until = time.monotonic() + MAX_STALENESS * 0.9
                    await wait_until(lambda until=until: time.monotonic() > until)
                before = auditor.verdicts[Verdict.ALLOW]
                await wait_until(lambda before=before: auditor.verdicts[Verdict.ALLOW] > before)

    async def test_demoted(self, own_server: MakeServer) -> None:
        """A replica that is cut off from its primary proves nothing, until it is a primary again."""
        async with own_server(port=0) as server, Redis.from_url(server.url) as client, audited(server.url) as auditor:
            await call(client, "REPLICAOF", "127.0.0.1", free_port())
            await auditor.sees_it_stale()
            await call(client, "REPLICAOF", "NO", "ONE")
            await auditor.sees_it_fresh()

    async def test_rights_taken_and_given_back(self, own_server: MakeServer) -> None:
        """A list that may not read any more tells why; when it may again, it reads everything anew."""
        async with own_server(port=0) as server, Redis.from_url(server.url) as client:
            await call(client, "ACL", "SETUSER", "reader", "on", ">secret", "~k", "~k:ledger", *RIGHTS)
            reader_url = server.url.replace("redis://", "redis://reader:secret@")
            async with audited(reader_url, publisher_url=server.url) as auditor:
                await call(client, "ACL", "SETUSER", "reader", "-xread")
                await auditor.sees_it_stale()
                assert "NOPERM" in str(auditor.revocations.failure)
                await call(client, "ACL", "SETUSER", "reader", "+xread")
                await auditor.sees_it_fresh()
                assert auditor.revocations.failure is None


class TestNetwork:
    """Failures of the network."""

    @pytest.mark.parametrize(
        "fault",
        [
            pytest.param(lambda proxy: proxy.to_client.lose(), id="replies are lost"),
            pytest.param(lambda proxy: proxy.to_server.lose(), id="requests are lost"),
            pytest.param(lambda proxy: proxy.to_client.hold(), id="replies are late"),
            pytest.param(lambda proxy: proxy.to_server.hold(), id="requests are late"),
        ],
    )
    async def test_half_open(self, own_server: MakeServer, fault: Callable[[Proxy], None]) -> None:
        """A half-open connection, which looks like one without events, proves nothing."""
        async with (
            own_server() as server,
            Proxy(server.url) as proxy,
            audited(proxy.url, publisher_url=server.url) as auditor,
        ):
            fault(proxy)
            await auditor.sees_it_stale()
            proxy.heal()
            await auditor.sees_it_fresh()

    @pytest.mark.parametrize("latency", [0.05, 0.3])
    async def test_slow(self, own_server: MakeServer, latency: float) -> None:
        """Late replies are as old as their requests, however many arrive."""
        async with (
            own_server() as server,
            Proxy(server.url) as proxy,
            audited(proxy.url, publisher_url=server.url) as auditor,
        ):
            proxy.to_client.latency = latency
            before = auditor.revocations.stats.events
            await wait_until(lambda: auditor.revocations.stats.events > before + 50)
            proxy.heal()


class TestStream:
    """Changes of the stream."""

    @pytest.mark.parametrize("words", [("FLUSHALL",), ("DEL", "k"), ("XTRIM", "k", "MAXLEN", "0")])
    async def test_removed(self, own_server: MakeServer, words: tuple[str, ...]) -> None:
        """If the stream is removed, that is a gap, known revocations stay known, and new ones arrive."""
        async with own_server(port=0) as server, Redis.from_url(server.url) as client, audited(server.url) as auditor:
            gaps: list[Gap] = []
            auditor.revocations.on_gap(gaps.append)
            for number in range(3):
                await auditor.sees_it_fresh()
                await call(client, *words)
                auditor.excuse()
                if words[0] != "XTRIM":
                    await wait_until(lambda number=number: len(gaps) > number, what="the gap")
            assert {gap.cause for gap in gaps} <= ({"trimmed"} if words[0] == "XTRIM" else {"deleted", "rewound"})

    async def test_trimmed_while_away(self, own_server: MakeServer) -> None:
        """Entries trimmed before they were read are lost and reported; the list goes on with those that are left."""
        async with (
            own_server() as server,
            Redis.from_url(server.url) as client,
            Proxy(server.url) as proxy,
            audited(proxy.url, publisher_url=server.url) as auditor,
        ):
            proxy.to_client.lose()
            await auditor.sees_it_stale()
            await call(client, "XTRIM", "k", "MAXLEN", "1")
            auditor.excuse()
            proxy.heal()
            await auditor.sees_it_fresh()
            assert auditor.revocations.stats.gaps == 1


class TestProcess:
    """Disturbances of the process itself."""

    async def test_the_loop_is_blocked(self, own_server: MakeServer) -> None:
        """While the loop is blocked, checks from other threads are stale, and so is a check right afterwards."""
        async with own_server(port=0) as server, audited(server.url) as auditor:
            in_thread = Auditor(auditor.revocations)
            with revoking_in_a_thread(server.url, in_thread):
                await wait_until(lambda: in_thread.verdicts[Verdict.REVOKED] > 0)
                for _ in range(2):
                    before = in_thread.verdicts[Verdict.STALE]
                    block_the_loop(3 * MAX_STALENESS)
                    auditor.check_all()
                    assert in_thread.verdicts[Verdict.STALE] > before
                    await auditor.sees_it_fresh()
                await in_thread.sees_it_fresh()
        in_thread.is_satisfied()

    @pytest.mark.parametrize("seconds", [-3600, 3600])
    async def test_the_wall_clock_is_set(self, own_server: MakeServer, seconds: int) -> None:
        """Setting the wall clock makes nothing fresh or stale, and expires no rule too early."""
        async with own_server(port=0) as server, audited(server.url) as auditor:
            auditor.revocations.apply(
                TokenRevoked(token_id="mine", expires_at=datetime.now(UTC) + timedelta(minutes=5))
            )
            auditor.note("mine", sent_at=time.monotonic())
            with clock_set(auditor, seconds):
                await auditor.revocations._view.sweep()
                await auditor.sees_it_fresh()
            await auditor.revocations._view.sweep()


class Troubles:
    """Failures of one list, chosen at random.

    Attributes:
        past: the failures so far.
    """

    def __init__(self, server: Restartable, proxy: Proxy, auditor: Auditor, chance: random.Random) -> None:
        self.past: list[str] = []
        self._server = server
        self._proxy = proxy
        self._auditor = auditor
        self._chance = chance
        self._all = [self._restart, self._freeze, self._half_open, self._reset, self._block, self._set_the_clock]

    async def happen(self) -> None:
        """Cause one failure and end it; perhaps before the list has recovered from the last one."""
        trouble = self._chance.choice(self._all)
        self.past.append(trouble.__name__)
        await trouble()
        await self._last()

    async def _last(self) -> None:
        """Wait for a while, short or long in comparison with ``max_staleness``."""
        until = time.monotonic() + self._chance.choice([0.0, 0.05, 0.3, 0.45, 0.7])
        await wait_until(lambda: time.monotonic() > until)

    async def _restart(self) -> None:
        await self._server.kill()
        await self._last()
        await self._server.start(ALL)

    async def _freeze(self) -> None:
        with frozen(self._server.running):
            await self._last()

    async def _half_open(self) -> None:
        way = self._chance.choice([self._proxy.to_client, self._proxy.to_server])
        self._chance.choice([way.lose, way.hold])()
        await self._last()
        self._proxy.heal()

    async def _reset(self) -> None:
        self._proxy.reset()

    async def _block(self) -> None:
        block_the_loop(self._chance.choice([0.1, 0.4, 0.7]))
        self._auditor.check_all()

    async def _set_the_clock(self) -> None:
        with clock_set(self._auditor, self._chance.choice([-3600, 3600])):
            await self._auditor.revocations._view.sweep()
            await self._last()


@pytest.mark.parametrize("seed", range(2))
async def test_one_trouble_after_the_other(restartable: Restartable, seed: int) -> None:
    """After failures in any order there is no stale allow, and at the end every revocation is known."""
    await restartable.start(ALL)
    async with Proxy(restartable.url) as proxy, audited(proxy.url, publisher_url=restartable.url) as auditor:
        troubles = Troubles(restartable, proxy, auditor, random.Random(seed))
        for _ in range(7):
            await troubles.happen()
        try:
            await auditor.sees_it_fresh()
        except AssertionError as error:
            error.add_note(f"after {troubles.past}")
            raise
