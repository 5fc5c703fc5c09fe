"""How long questions are waited for: one timer for all of them, as making one for each costs as much as sending it."""

from __future__ import annotations

import asyncio
from collections import deque

from jwt_events.transport.wire import Question


class Patience:
    """Settles questions whose time is up.

    Args:
        loop: what the time is told by.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[tuple[float, Question]] = deque()  # the earliest deadline first
        self._timer: asyncio.TimerHandle | None = None

    def wait(self, question: Question, deadline: float) -> None:
        """Settle this question at that time, unless it is settled by then."""
        waiting = self._waiting
        while waiting and waiting[0][1].settled.done():
            waiting.popleft()
        if waiting and deadline < waiting[-1][0]:  # somebody has less time than those before: rare, and worth a timer
            timer = self._loop.call_at(deadline, question.settle)
            question.settled.add_done_callback(lambda _: timer.cancel())
            return
        waiting.append((deadline, question))
        if self._timer is not None and deadline < self._timer.when():  # it was for one that is settled
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_at(deadline, self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._waiting:
            deadline, question = self._waiting[0]
            if deadline > now and not question.settled.done():
                self._timer = self._loop.call_at(deadline, self._look)
                return
            self._waiting.popleft()
            question.settle()

    def close(self) -> None:
        """Forget them."""
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
