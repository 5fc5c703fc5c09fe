"""`Pacing`: readers of a busy server pause while events come fast, for a moment, and never without a reason."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from jwt_events import RedisStream, ServerRefused
from jwt_events.transport._stream.cursor import CursorReceiver
from jwt_events.transport._stream.pacing import (
    AIM,
    MAX_SPACING,
    MIN_RATE,
    MIN_SPACING,
    Pacing,
    ServerLoad,
    processor_time_of,
)
from tests.support.raw import call
from tests.support.waiting import scaled, wait_until

_PER_WAKEUP, _PER_PUBLISH = 20e-6, 30e-6
_SETTLED = 10.0  # seconds after which readers have found their spacing
_WHOLE = 20.0


class Found(NamedTuple):
    """What a simulation found after it had settled.

    Attributes:
        core: the part of a core that the server spent.
        rate: wake-ups of each reader per second.
        delays: seconds by which the pauses delayed each event.
        asked: how often the processor time of the server was asked for.
    """

    core: float
    rate: float
    delays: list[float]
    asked: int


def simulate(readers: int, events: Iterator[float], *, others: float = 0.0, maximum: float = MAX_SPACING) -> Found:
    """Let readers follow events, all in step, on a server that spends what it does on real ones.

    Args:
        readers: how many.
        events: the times of the events.
        others: the part of a core that the server spends on something else.
        maximum: the largest spacing.
    """
    pacing, chance = Pacing(maximum), random.Random(1)
    spent, asked_at, sampled_at = 0.0, 0.0, 0.0
    wakeups, asked, began, before = 0, 0, 0.0, 0.0
    delays: list[float] = []
    pacing.sample(0.0, None, 0.0)
    waiting: list[float] = []
    for at in events:
        if waiting and at > asked_at:
            spent += readers * _PER_WAKEUP
            wakeups += 1
            delays += [asked_at - one for one in waiting if asked_at > _SETTLED]
            pacing.wake(asked_at, len(waiting))
            waiting.clear()
            asked_at += pacing.pause(asked_at)
        spent += _PER_PUBLISH
        is_audit = at > sampled_at + 1.0
        if pacing.must_ask(at, chance.random(), is_audit=is_audit):
            pacing.hear(at, spent + others * at, chance.random())
            asked += 1
            sampled_at = at
        elif is_audit:
            sampled_at = at
        if not began and at > _SETTLED:
            began, before, wakeups = at, spent + others * at, 0
        if at >= asked_at:  # it waits for an event
            spent += readers * _PER_WAKEUP
            wakeups += 1
            delays += [0.0] if at > _SETTLED else []
            pacing.wake(at, 1)
            asked_at = at + pacing.pause(at)
        else:
            waiting.append(at)
    took = at - began
    return Found((spent + others * at - before) / took, wakeups / took, delays, asked)


def evenly(rate: float) -> Iterator[float]:
    """Events at equal intervals."""
    return (number / rate for number in range(1, int(_WHOLE * rate)))


def randomly(rate: float, seed: int = 0) -> Iterator[float]:
    """Events at any time, as of many independent users."""
    chance, at = random.Random(seed), 0.0
    while (at := at + chance.expovariate(rate)) < _WHOLE:
        yield at


class TestPacing:
    """How often it asks."""

    @settings(deadline=None)
    @given(
        st.integers(1, 1_000), st.floats(MIN_RATE * 1.5, 2_000), st.sampled_from([0.0, 0.05, 0.5]), st.integers(0, 9)
    )
    @example(100, 1_000.0, 0.0, 0)
    @example(1_000, 100.0, 0.0, 0)
    def test_a_busy_server(self, readers: int, rate: float, others: float, seed: int) -> None:
        """The server spends no more than the aim, where the longest pauses suffice and those needed are not tiny."""
        found = simulate(readers, randomly(rate, seed), others=others)
        fixed = rate * _PER_PUBLISH + others
        least = fixed + readers * _PER_WAKEUP / MAX_SPACING
        assert found.core <= 1.25 * max(AIM, least, AIM * MIN_SPACING * rate)
        assert max(found.delays) <= MAX_SPACING

    @settings(deadline=None)
    @given(st.integers(1, 10_000), st.floats(0.5, MIN_RATE - 1), st.floats(0, 1))
    def test_rare_events(self, readers: int, rate: float, others: float) -> None:
        """Where events are rare, none is delayed, however busy the server is, and no processor time is asked for."""
        found = simulate(readers, evenly(rate), others=others)
        assert max(found.delays) == 0
        assert found.asked == 0

    @settings(deadline=None)
    @given(st.integers(1, 10), st.floats(1, 200), st.integers(0, 9))
    def test_an_idle_server(self, readers: int, rate: float, seed: int) -> None:
        """Where the server has no reason, none is delayed, however close events are to each other."""
        assert max(simulate(readers, randomly(rate, seed)).delays) == 0

    @pytest.mark.parametrize("events", [1, 100])
    def test_few_wakeups(self, events: int) -> None:
        """A publisher of large batches is no reason to pause, whatever the server spends."""
        pacing = Pacing()
        for number in range(100):
            pacing.wake(number * 0.1, events)
            assert not pacing.is_fast(number * 0.1 + 0.09)
            if number % 10 == 9:
                pacing.sample(number * 0.1, None, 0.0)

    def test_an_audit_with_every_read(self) -> None:
        """A server that is audited with every read is sampled no more often, so that it is found busy as well."""
        pacing = Pacing()
        pacing.restart(0.0)
        for number in range(1, 101):
            pacing.wake(now := number * 0.01, 1)
            pacing.sample(now, now if pacing.is_fast(now) else None, 0.0)  # a whole core
        assert pacing.spacing > 0
        pacing.restart(1.0)
        assert pacing.spacing == 0

    def test_pauses_begin_soon(self) -> None:
        """Half a second after events begin to come fast readers pause, as two samples are soon taken."""
        pacing = Pacing()
        pacing.sample(0.0, None, 0.0)
        sampled = []
        for number in range(500):
            now = number / 1_000
            pacing.wake(now, 1)
            if pacing.must_ask(now, 0.0, is_audit=False):
                pacing.hear(now, now, 0.0)  # a whole core
                sampled.append(now)
        assert len(sampled) == 2
        assert pacing.spacing > 0

    def test_one_reader_of_a_thousand_events_a_second(self) -> None:
        """A reader that has the server for itself does not pause."""
        assert max(simulate(1, evenly(1_000)).delays) == 0

    def test_a_hundred_readers_of_a_thousand_events_a_second(self) -> None:
        """They save nine parts in ten of what waking them costs, and half of the events wait for 30 ms at most."""
        found = simulate(100, evenly(1_000))
        assert found.core < 0.05 * (1_000 * _PER_PUBLISH + 100 * 1_000 * _PER_WAKEUP)
        assert sorted(found.delays)[len(found.delays) // 2] <= 0.03

    @given(st.integers(0, 99))
    def test_events_after_a_quiet_time(self, seed: int) -> None:
        """A pause is due only where wake-ups follow each other closely."""
        pacing, chance, now = Pacing(), random.Random(seed), 100.0
        pacing.spacing = MAX_SPACING
        for _ in range(50):
            now += MAX_SPACING * (1 + chance.random())
            pacing.wake(now, 1)
            assert pacing.pause(now) == 0

    def test_the_mean_holds(self) -> None:
        """Wake-ups that are a little late do not make all that follow later."""
        pacing, now, count = Pacing(), 0.0, 1_000
        pacing.spacing = 0.01
        for _ in range(count):
            pacing.wake(now, 1)
            now += pacing.pause(now) + 0.002
        assert now == pytest.approx(count * 0.01, rel=0.01)

    def test_another_server(self) -> None:
        """A processor time that went back, or is from long ago, tells nothing; and without one there is no pause."""
        pacing = Pacing()
        for at, spent, spacing in ((1.0, 50.0, 0), (2.0, 50.9, MAX_SPACING), (3.0, 1.0, MAX_SPACING), (4.0, None, 0)):
            for _ in range(100):
                pacing.wake(at, 1)
            pacing.sample(at, spent, 0.0)
            assert pacing.spacing == pytest.approx(spacing)
        for at, spent in ((5.0, 50.0), (50.0, 95.0)):
            pacing.wake(at, 1)
            pacing.sample(at, spent, 0.0)
            assert pacing.spacing == 0

    @given(st.lists(st.tuples(st.floats(0, 10), st.none() | st.floats(0, 1e9), st.integers(0, 50), st.floats(0, 1))))
    def test_whatever_is_told(self, steps: list[tuple[float, float | None, int, float]]) -> None:
        """Spacing and pauses are bounded, whatever the server tells and whenever it is asked."""
        pacing, now = Pacing(0.03), 0.0
        for passed, spent, wakeups, chance in steps:
            now += passed
            for _ in range(wakeups):
                pacing.wake(now, 1)
                assert 0 <= pacing.pause(now) <= 0.03 + 1e-9
                now += pacing.pause(now)
            pacing.sample(now, spent, chance)
            assert 0 <= pacing.spacing <= 0.03

    def test_a_maximum_of_nothing(self) -> None:
        """With 0 there is no pause, and the server is not asked."""
        found = simulate(1_000, evenly(1_000), maximum=0.0)
        assert max(found.delays) == 0
        assert found.rate == pytest.approx(1_000, rel=0.01)


def _sharing(count: int) -> list[Pacing]:
    """Return how so many readers of one server, in one process, pace themselves."""
    load, all_pacing = ServerLoad(), [Pacing() for _ in range(count)]
    for pacing in all_pacing:
        pacing.restart(0.0, load)
    return all_pacing


class TestServerLoad:
    """What the readers of a process share."""

    @pytest.mark.parametrize("late", [0, 3])
    @pytest.mark.parametrize("readers", [1, 2, 50])
    def test_one_asks(self, readers: int, late: int) -> None:
        """However many readers find out that events come fast, the server is asked as often as by one."""
        all_pacing, asked = _sharing(readers), list[float]()
        answers: list[tuple[Pacing, float, int]] = []
        for number in range(1_000):
            now = number / 1_000
            for pacing, asked_at, due in [*answers]:
                if due == number:
                    pacing.hear(asked_at, asked_at, 0.0)  # a whole core
            for pacing in all_pacing:
                pacing.wake(now, 1)
                if pacing.must_ask(now, 0.0, is_audit=False):
                    asked.append(now)
                    answers.append((pacing, now, number + late))
                    if not late:
                        pacing.hear(now, now, 0.0)
        assert len(asked) == 2
        for pacing in all_pacing:
            assert pacing.spacing == pytest.approx(all_pacing[0].spacing, rel=0.1)
            assert pacing.spacing > 0

    def test_no_answer(self) -> None:
        """While a reader that has asked gets no answer, another one asks a second later."""
        all_pacing, asked = _sharing(3), list[float]()
        for number in range(3_000):
            for pacing in all_pacing:
                pacing.wake(now := number / 1_000, 1)
                if pacing.must_ask(now, 0.0, is_audit=False):
                    asked.append(now)
        assert asked == pytest.approx([0.2, 1.2, 2.2], abs=0.01)

    def test_an_audit_while_events_are_slow(self) -> None:
        """It ends the pauses, and asks for nothing."""
        pacing = Pacing()
        pacing.spacing = MAX_SPACING
        pacing.wake(1.0, 1)
        assert not pacing.must_ask(1.5, 0.0, is_audit=True)
        assert pacing.spacing == 0

    def test_a_server_that_does_not_tell(self) -> None:
        """None of its readers pauses, and it is asked once until the next audit."""
        all_pacing, asked = _sharing(10), 0
        for number in range(2_000):
            for pacing in all_pacing:
                pacing.wake(now := number / 1_000, 1)
                if pacing.must_ask(now, 0.0, is_audit=False):
                    pacing.hear(now, None, 0.0)
                    asked += 1
        assert asked == 1
        assert all(pacing.spacing == 0 for pacing in all_pacing)

    def test_a_late_reply(self) -> None:
        """A reply that is known later than one that was asked for after it changes nothing."""
        load = ServerLoad()
        load.tell(2.0, 20.0)
        load.tell(1.0, 10.0)
        assert (load.as_of, load.spent) == (2.0, 20.0)

    def test_two_servers_behind_one_address(self) -> None:
        """More processor time than a server can have spent says nothing."""
        load, pacing = ServerLoad(), Pacing()
        pacing.restart(0.0, load)
        for at, spent in ((1.0, 10.0), (2.0, 5_000.0), (3.0, 11.0)):
            for _ in range(100):
                pacing.wake(at, 1)
            load.asked_at = at
            load.tell(at, spent)
            assert not pacing.must_ask(at, 0.0, is_audit=True)
            assert pacing.spacing == 0

    @pytest.mark.parametrize("rate", [100, 400])
    def test_readers_that_are_audited_together(self, rate: int) -> None:
        """All of them pause soon after their server begins to be busy, and none soon after it is idle again.

        The same event wakes all of them, so that their audits are due at the same moment; and a reader knows the reply
        when its read has returned, with the next event.
        """
        load, chance = ServerLoad(), random.Random(rate)
        readers = [_Reader(load, chance.uniform(0, 0.002)) for _ in range(50)]
        paced = freed = 0.0
        for number in range(1, 30 * rate):
            now = number / rate
            for reader in readers:
                reader.follow(now, min(max(now - 5.0, 0.0), 10.0))  # a whole core from the 5th second to the 15th
            if 5.0 < now < 15.0 and not paced and all(reader.pacing.spacing for reader in readers):
                paced = now
            if now > 15.0 and not freed and not any(reader.pacing.spacing for reader in readers):
                freed = now
        assert 5.0 < paced < 8.0
        assert 15.0 < freed < 20.0


class _Reader:
    """A reader that is audited once a second, and knows a reply when the next event has come.

    Attributes:
        pacing: when it asks again.
    """

    def __init__(self, load: ServerLoad, late: float) -> None:
        self.pacing = Pacing()
        self.pacing.restart(0.0, load)
        self._late = late  # seconds after which an event wakes it
        self._audited_at = 0.0
        self._asks_at = 0.0
        self._asked: tuple[float, float] | None = None  # when, and the reply
        self._events = 0

    def follow(self, now: float, spent: float) -> None:
        """Take an event, now or after the pause, and read on."""
        now += self._late
        self._events += 1
        if now < self._asks_at:
            return
        if self._asked is not None:
            self.pacing.hear(*self._asked, 0.0)
            self._asked = None
        self.pacing.wake(now, self._events)
        self._events = 0
        self._asks_at = now + self.pacing.pause(now)
        if is_audit := now >= self._audited_at + 1.0:
            self._audited_at = now
        if self.pacing.must_ask(now, 0.0, is_audit=is_audit):
            self._asked = now, spent


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (b"# CPU\r\nused_cpu_sys:1.5\r\nused_cpu_user:2.25\r\nused_cpu_sys_children:9.0\r\n", 3.75),
        (b"# CPU\r\nused_cpu_user:2.25\r\n", None),
        (b"used_cpu_sys:\r\nused_cpu_user:2\r\n", None),
        (b"used_cpu_sys:nan\r\nused_cpu_user:2\r\n", None),
        (b"used_cpu_sys:inf\r\nused_cpu_user:2\r\n", None),
        (b"", None),
        (ServerRefused("no", code="NOPERM"), None),
    ],
)
def test_processor_time(reply: Any, expected: float | None) -> None:
    """It is the sum of both, and a server that does not tell it, or nonsense, has none."""
    assert processor_time_of(reply) == expected
    assert expected is None or math.isfinite(expected)


@asynccontextmanager
async def opened(url: str, key: str, **options: Any) -> AsyncIterator[CursorReceiver]:
    """Open a reader that has read all there is."""
    async with RedisStream(url, key, **options).receiver(from_oldest=True) as receiver:
        assert isinstance(receiver, CursorReceiver)
        while not receiver.is_at_end:
            await receiver.receive()
        yield receiver


async def add(client: Redis, key: str, payload: str) -> None:
    """Add an entry with this payload."""
    await call(client, "XADD", key, "*", "event", payload)


async def receive(receiver: CursorReceiver, count: int) -> list[str]:
    """Receive so many payloads."""
    received: list[str] = []
    async with asyncio.timeout(scaled(10)):
        while len(received) < count:
            received += [delivery.payload.decode() for delivery in (await receiver.receive()).deliveries]
    return received


# Two hundred events at once, so that they come fast on any machine, and work for the server: little, many times
# in a row, as on a slow machine there are too few wake-ups for a pause if each takes a tenth of a second.
_BUSY = """
for number = 1, 200 do
    for i = 1, 1000 do end
    redis.call("XADD", KEYS[1], "*", "event", "an event")
end
"""


class TestReader:
    """A reader with a server."""

    async def test_a_busy_server(self, client: Redis, url: str, key: str) -> None:
        """While the server is busy and events come fast, the reader pauses; when it is idle again, it does not."""
        async with opened(url, key) as receiver, asyncio.TaskGroup() as group:

            async def follow() -> None:
                while True:
                    await receiver.receive()

            following = group.create_task(follow())

            async def is_paced() -> bool:
                for _ in range(10):
                    await call(client, "EVAL", _BUSY, 1, key)
                return receiver.pacing.spacing > 0

            async def is_unpaced() -> bool:
                await add(client, key, "an event")
                return receiver.pacing.spacing == 0

            await wait_until(is_paced, within=20)
            await wait_until(is_unpaced, within=20)
            following.cancel()

    async def test_one_of_many_asks(self, client: Redis, url: str, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of many readers of one process one asks what the server has spent, and all of them know it."""
        told: list[float] = []
        tell = ServerLoad.tell

        def note(load: ServerLoad, as_of: float, spent: float | None) -> None:
            told.append(as_of)
            tell(load, as_of, spent)

        async def follow(receiver: CursorReceiver) -> None:
            while True:
                await receiver.receive()

        monkeypatch.setattr(ServerLoad, "tell", note)
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            receivers = [await stack.enter_async_context(opened(url, key)) for _ in range(20)]
            following = [group.create_task(follow(receiver)) for receiver in receivers]

            async def all_know() -> bool:
                await call(client, "EVAL", _BUSY, 1, key)
                return all(receiver.pacing._spent is not None for receiver in receivers)

            await wait_until(all_know, within=20)
            for task in following:
                task.cancel()
        assert all(later - earlier >= 0.2 for earlier, later in pairwise(told))

    async def test_nothing_is_lost_in_a_pause(self, client: Redis, url: str, key: str) -> None:
        """Cancelling a reader while it pauses loses nothing, and closes nothing."""
        async with opened(url, key) as receiver:
            connection = receiver.reconnecting.connection
            for number in range(20):
                receiver.pacing.spacing = 1e6  # so long that it is surely cancelled
                receiver.pacing.wake(time.monotonic(), 1)
                await add(client, key, f"{number}")
                task = asyncio.create_task(receiver.receive())
                await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                receiver.pacing.spacing = 0.0
                receiver.pacing.wake(time.monotonic(), 1)
                assert await receive(receiver, 1) == [f"{number}"]
            assert receiver.reconnecting.connection is connection

    async def test_a_backlog_has_no_pauses(self, client: Redis, url: str, key: str) -> None:
        """A full page is followed by the next one at once, however long the spacing is."""
        async with opened(url, key, batch_size=10) as receiver:
            for number in range(100):
                await add(client, key, f"{number}")
            receiver.pacing.spacing = 1e6
            assert len(await receive(receiver, 100)) == 100
            assert receiver.pacing.pause(time.monotonic()) == 0

    async def test_proofs_come_no_later(self, client: Redis, url: str, key: str) -> None:
        """The audit that would fall into a pause is made before it."""
        async with opened(url, key) as receiver:
            before = (await receiver.receive()).current_as_of
            receiver.pacing.spacing = 1.0  # no audit was due a second ago, so that one is due now
            await add(client, key, "an event")
            batch = await receiver.receive()
            assert batch.deliveries
            assert before is not None
            assert batch.current_as_of is not None
            assert batch.current_as_of > before

    @pytest.mark.parametrize(("block", "longest"), [(0.05, 0.0125), (0.3, 0.05), (1.0, 0.05)])
    async def test_the_longest_pause(self, url: str, key: str, block: float, longest: float) -> None:
        """A list that asks for frequent proofs has short pauses."""
        async with opened(url, key, block=block) as receiver:
            assert receiver.pacing.maximum == pytest.approx(longest)
