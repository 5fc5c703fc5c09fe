"""`Deadlines`: each request is settled at its own deadline, with one timer for all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from jwt_events.transport._redis.deadlines import Deadlines
from jwt_events.transport._redis.protocol import Request
from tests.support.handling import soon


class _Clock:
    """An event loop whose time stands still until the test moves it; due timers are then called."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: dict[asyncio.Handle, float] = {}
        self.made = 0
        self._loop = asyncio.get_running_loop()

    def time(self) -> float:
        """Return the time."""
        return self.now

    def create_future(self) -> asyncio.Future[None]:
        """Make a future of the real loop."""
        return self._loop.create_future()

    def call_at(self, when: float, callback: Callable[[], object]) -> asyncio.Handle:
        """Keep a timer as a plain handle, as uvloop does with one that is already due."""
        self.made += 1
        handle = asyncio.Handle(callback, (), self._loop)
        self.timers[handle] = when
        return handle

    @property
    def ticking(self) -> list[float]:
        """The end times of the timers that are neither cancelled nor over."""
        return sorted(when for handle, when in self.timers.items() if not handle.cancelled())

    def move_to(self, now: float) -> None:
        """Move the time forward and call the timers that are due."""
        while due := [h for h, when in self.timers.items() if when <= now and not h.cancelled()]:
            first = min(due, key=self.timers.__getitem__)
            self.now = max(self.now, self.timers.pop(first))
            first._run()
        self.now = now


@pytest.fixture
async def clock() -> _Clock:
    """A clock that the test moves."""
    return _Clock()


@pytest.fixture
async def deadlines(clock: _Clock) -> AsyncIterator[Deadlines]:
    """The object under test."""
    deadlines = Deadlines(clock)  # type: ignore[arg-type]  # as much of a loop as it needs
    yield deadlines
    deadlines.close()


@pytest.fixture
def wait(clock: _Clock, deadlines: Deadlines) -> Callable[[float], Request]:
    """Makes a request that waits for its replies until a deadline."""

    def wait(deadline: float) -> Request:
        request = Request([("PING",)], clock.create_future())
        deadlines.wait(request, deadline)
        return request

    return wait


Wait = Callable[[float], Request]


async def test_each_at_its_deadline(clock: _Clock, wait: Wait) -> None:
    """Requests are settled at their deadlines, neither before nor after, in whatever order they were made."""
    times = [5.0, 5.0, 7.0, 3.0, 6.0, 1.0, 9.0, 2.0, 9.0, 4.0]
    requests = {wait(deadline): deadline for deadline in times}
    for now in (0.5, *sorted(set(times)), 10.0):
        clock.move_to(now - 0.001)
        assert {q for q in requests if q.settled.done()} == {q for q, deadline in requests.items() if deadline < now}
        clock.move_to(now)
        assert {q for q in requests if q.settled.done()} == {q for q, deadline in requests.items() if deadline <= now}
    assert clock.ticking == []


async def test_one_timer_for_many(clock: _Clock, wait: Wait) -> None:
    """Successive requests with the same timeout share one timer."""
    for n in range(1_000):
        clock.move_to(n / 1_000)
        request = wait(clock.now + 5.0)
        assert len(clock.ticking) == 1
        if n % 10:
            request.settle()
    assert clock.made == 1
    clock.move_to(10.0)
    assert clock.ticking == []


async def test_settled_requests_are_forgotten(deadlines: Deadlines, wait: Wait) -> None:
    """A settled request is not kept until its deadline."""
    for _ in range(1_000):
        wait(5.0).settle()
    assert len(deadlines._waiting) == 1


async def test_earlier_than_settled_ones(clock: _Clock, wait: Wait) -> None:
    """A request with an early deadline, made after those with later ones were settled, is settled on time."""
    for _ in range(3):
        wait(60.0).settle()
    request = wait(1.0)
    clock.move_to(1.0)
    assert request.settled.done()


async def test_earlier_than_waiting_ones(clock: _Clock, wait: Wait) -> None:
    """A request with an earlier deadline is settled on time; its timer is cancelled if it is settled before."""
    late, early, replied = wait(60.0), wait(1.0), wait(2.0)
    replied.settle()
    await asyncio.sleep(0)
    assert clock.ticking == [1.0, 60.0]
    clock.move_to(1.0)
    assert early.settled.done()
    assert not late.settled.done()


async def test_each_a_little_earlier(clock: _Clock, wait: Wait) -> None:
    """A row of requests, each with a slightly earlier deadline, is settled on time."""
    deadlines = [5.0 - 0.0015 * n for n in range(200)]
    requests = [wait(deadline) for deadline in deadlines]
    for request, deadline in reversed(list(zip(requests, deadlines, strict=True))):
        clock.move_to(deadline + 0.003)
        assert request.settled.done()


async def test_jitter_needs_one_timer(clock: _Clock, wait: Wait) -> None:
    """Deadlines that differ by a microsecond share one timer."""
    for n in range(1_000):
        wait(5.0 - 0.000_001 * n)
    assert clock.made == 1


async def test_deadline_has_passed(clock: _Clock, wait: Wait) -> None:
    """A request whose deadline has passed is settled at once; later ones are not."""
    clock.move_to(10.0)
    passed, later, also_passed = wait(9.0), wait(20.0), wait(3.0)
    clock.move_to(10.0)
    assert (passed.settled.done(), later.settled.done(), also_passed.settled.done()) == (True, False, True)


async def test_cancelled_requests(clock: _Clock, wait: Wait) -> None:
    """A cancelled request stays cancelled."""
    requests = [wait(1.0), wait(0.5)]
    for request in requests:
        request.settled.cancel()
    clock.move_to(2.0)
    assert all(request.settled.cancelled() for request in requests)


async def test_closed(clock: _Clock, deadlines: Deadlines, wait: Wait) -> None:
    """Closing forgets the waiting requests; a later request is settled at its deadline."""
    before = wait(1.0)
    deadlines.close()
    assert clock.ticking == []
    after = wait(2.0)
    clock.move_to(3.0)
    assert (before.settled.done(), after.settled.done()) == (False, True)


async def test_on_a_real_loop() -> None:
    """On a real loop requests are settled at their deadlines: passed, near and far ones."""
    loop = asyncio.get_running_loop()
    deadlines = Deadlines(loop)
    requests = []
    for seconds in (0.02, -1.0, 60.0, 0.0001, 0.01, 0.0, 0.03):
        request = Request([("PING",)], loop.create_future())
        deadlines.wait(request, loop.time() + seconds)
        requests.append(request)
    far = requests.pop(2)
    for request in requests:
        await soon(request.settled)
    assert not far.settled.done()
    deadlines.close()
