"""How long questions are waited for: each until its own deadline, with one timer for all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from jwt_events.transport._redis.deadlines import Deadlines
from jwt_events.transport._redis.protocol import Request
from tests.support.handling import soon


class _Clock:
    """The loop of a test, but for its time, which stands still until it is moved: what is due is then called."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: dict[asyncio.Handle, float] = {}
        self.made = 0
        self._loop = asyncio.get_running_loop()

    def time(self) -> float:
        """Tell the time."""
        return self.now

    def create_future(self) -> asyncio.Future[None]:
        """Make one of the loop's futures."""
        return self._loop.create_future()

    def call_at(self, when: float, callback: Callable[[], object]) -> asyncio.Handle:
        """Keep a timer, which is no more than a handle: uvloop makes such ones of what is due already."""
        self.made += 1
        handle = asyncio.Handle(callback, (), self._loop)
        self.timers[handle] = when
        return handle

    @property
    def ticking(self) -> list[float]:
        """When the timers end that were neither cancelled nor due."""
        return sorted(when for handle, when in self.timers.items() if not handle.cancelled())

    def move_to(self, now: float) -> None:
        """Let time pass."""
        while due := [h for h, when in self.timers.items() if when <= now and not h.cancelled()]:
            first = min(due, key=self.timers.__getitem__)
            self.now = max(self.now, self.timers.pop(first))
            first._run()
        self.now = now


@pytest.fixture
async def clock() -> _Clock:
    """Tells the time."""
    return _Clock()


@pytest.fixture
async def patience(clock: _Clock) -> AsyncIterator[Deadlines]:
    """What is under test."""
    patience = Deadlines(clock)  # type: ignore[arg-type]  # as much of a loop as it needs
    yield patience
    patience.close()


@pytest.fixture
def ask(clock: _Clock, patience: Deadlines) -> Callable[[float], Request]:
    """Asks something that is not answered by itself, and waits for it until then."""

    def ask(deadline: float) -> Request:
        question = Request([("PING",)], clock)  # type: ignore[arg-type]  # as above
        patience.wait(question, deadline)
        return question

    return ask


Ask = Callable[[float], Request]


async def test_each_at_its_deadline(clock: _Clock, ask: Ask) -> None:
    """Questions are settled when their time is up, neither before nor after, in whatever order they were asked."""
    deadlines = [5.0, 5.0, 7.0, 3.0, 6.0, 1.0, 9.0, 2.0, 9.0, 4.0]
    questions = {ask(deadline): deadline for deadline in deadlines}
    for now in (0.5, *sorted(set(deadlines)), 10.0):
        clock.move_to(now - 0.001)
        assert {q for q in questions if q.settled.done()} == {q for q, deadline in questions.items() if deadline < now}
        clock.move_to(now)
        assert {q for q in questions if q.settled.done()} == {q for q, deadline in questions.items() if deadline <= now}
    assert clock.ticking == []


async def test_one_timer_for_many(clock: _Clock, ask: Ask) -> None:
    """Questions that are asked one after another, with as much time each, and answered, need a timer now and then."""
    for n in range(1_000):
        clock.move_to(n / 1_000)
        question = ask(clock.now + 5.0)
        assert len(clock.ticking) == 1
        if n % 10:
            question.settle()
    assert clock.made == 1
    clock.move_to(10.0)
    assert clock.ticking == []


async def test_answered_ones_are_forgotten(patience: Deadlines, ask: Ask) -> None:
    """What was answered is not kept until its deadline."""
    for _ in range(1_000):
        ask(5.0).settle()
    assert len(patience._waiting) == 1


async def test_less_time_than_those_that_were_answered(clock: _Clock, ask: Ask) -> None:
    """A question with little time, asked when those with much have been answered, is settled when it is due."""
    for _ in range(3):
        ask(60.0).settle()
    question = ask(1.0)
    clock.move_to(1.0)
    assert question.settled.done()


async def test_less_time_than_those_that_wait(clock: _Clock, ask: Ask) -> None:
    """A question with less time than others is settled when it is due; its timer goes when it is answered before."""
    long, short, answered = ask(60.0), ask(1.0), ask(2.0)
    answered.settle()
    await asyncio.sleep(0)
    assert clock.ticking == [1.0, 60.0]
    clock.move_to(1.0)
    assert short.settled.done()
    assert not long.settled.done()


async def test_a_little_less_time_each(clock: _Clock, ask: Ask) -> None:
    """A row of questions, each with a little less time than the one before, is settled on time."""
    deadlines = [5.0 - 0.0015 * n for n in range(200)]
    questions = [ask(deadline) for deadline in deadlines]
    for question, deadline in reversed(list(zip(questions, deadlines, strict=True))):
        clock.move_to(deadline + 0.003)
        assert question.settled.done()


async def test_jitter_makes_no_timers(clock: _Clock, ask: Ask) -> None:
    """Deadlines that differ by less than a clock can tell need one timer."""
    for n in range(1_000):
        ask(5.0 - 0.000_001 * n)
    assert clock.made == 1


async def test_no_time_at_all(clock: _Clock, ask: Ask) -> None:
    """A question whose time is over is settled at once, and those after it are not."""
    clock.move_to(10.0)
    over, other, also_over = ask(9.0), ask(20.0), ask(3.0)
    clock.move_to(10.0)
    assert (over.settled.done(), other.settled.done(), also_over.settled.done()) == (True, False, True)


async def test_whoever_gave_up_is_left_alone(clock: _Clock, ask: Ask) -> None:
    """A question that was cancelled stays so."""
    questions = [ask(1.0), ask(0.5)]
    for question in questions:
        question.settled.cancel()
    clock.move_to(2.0)
    assert all(question.settled.cancelled() for question in questions)


async def test_closed(clock: _Clock, patience: Deadlines, ask: Ask) -> None:
    """Closing it forgets what it waits for; what is asked later has its deadline all the same."""
    before = ask(1.0)
    patience.close()
    assert clock.ticking == []
    after = ask(2.0)
    clock.move_to(3.0)
    assert (before.settled.done(), after.settled.done()) == (False, True)


async def test_on_the_loop_of_the_program() -> None:
    """By the clock of a real loop it is the same, with deadlines that are over, near and far."""
    loop = asyncio.get_running_loop()
    patience = Deadlines(loop)
    questions = []
    for seconds in (0.02, -1.0, 60.0, 0.0001, 0.01, 0.0, 0.03):
        question = Request([("PING",)], loop)
        patience.wait(question, loop.time() + seconds)
        questions.append(question)
    far = questions.pop(2)
    for question in questions:
        await soon(question.settled)
    assert not far.settled.done()
    patience.close()
