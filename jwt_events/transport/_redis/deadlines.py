"""How long questions are waited for: one timer for all of them, as making one for each costs as much as sending it."""

from __future__ import annotations

import asyncio
from collections import deque
from math import inf

from jwt_events.transport._redis.protocol import Request

# So much later than it asked for, in seconds, a question may be settled: deadlines that differ by less count as in
# order. Those of callers with the same timeout differ by how long each took to get here.
_SLACK = 0.002


class Deadlines:
    """Settles questions whose time is up.

    Args:
        loop: what the time is told by.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[tuple[float, Request]] = deque()  # the earliest deadline first
        self._timer: asyncio.Handle | None = None
        self._looks_at = inf  # when the timer ends; it does not say so itself on every loop

    def wait(self, question: Request, deadline: float) -> None:
        """Settle this question at that time, unless it is settled by then."""
        waiting = self._waiting
        while waiting and waiting[0][1].settled.done():
            waiting.popleft()
        # Somebody has less time than those before: rare, and worth a timer.
        if waiting and deadline < waiting[-1][0] - _SLACK:
            timer = self._loop.call_at(deadline, question.settle)
            question.settled.add_done_callback(lambda _: timer.cancel())
            return
        if waiting:
            deadline = max(deadline, waiting[-1][0])  # or a row of them, each with a little less, would add up
        waiting.append((deadline, question))
        if deadline < self._looks_at:
            self._look_at(deadline)

    def _look_at(self, time: float) -> None:
        if self._timer is not None:  # it was for one that is settled
            self._timer.cancel()
        self._timer, self._looks_at = self._loop.call_at(time, self._look), time

    def _look(self) -> None:
        self._timer, self._looks_at = None, inf
        now = self._loop.time()
        while self._waiting:
            deadline, question = self._waiting[0]
            if deadline > now and not question.settled.done():
                self._look_at(deadline)
                return
            self._waiting.popleft()
            question.settle()

    def close(self) -> None:
        """Forget them."""
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._looks_at = None, inf
