"""Deadlines of requests: one timer for all of them, as a timer for each costs as much as sending the request."""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from math import inf

from jwt_events.transport._redis.protocol import Request

# Seconds by which a request may be settled after its deadline: deadlines that differ by less count as in order. Those
# of callers with the same timeout differ by how long each took to get here.
_SLACK = 0.002


class Deadlines:
    """Settles each request at its deadline.

    Args:
        loop: the event loop, whose clock the deadlines refer to.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[tuple[float, Request]] = deque()  # the earliest deadline first
        self._timer: asyncio.Handle | None = None
        self._timer_ends = inf  # kept here, as not every loop's handle tells it

    def wait(self, request: Request, deadline: float) -> None:
        """Settle this request at its deadline, unless it is settled before."""
        waiting = self._waiting
        while waiting and waiting[0][1].settled.done():
            waiting.popleft()
        if waiting and deadline < (latest := waiting[-1][0]):
            if deadline < latest - _SLACK:  # rare, and worth a timer of its own
                timer = self._loop.call_at(deadline, request.settle)
                # Not a lambda, for which each call would make a cell.
                request.settled.add_done_callback(partial(_cancel, timer))
                return
            deadline = latest  # or a row of them, each a little earlier, would add up
        waiting.append((deadline, request))
        if deadline < self._timer_ends:
            self._start_timer(deadline)

    def _start_timer(self, time: float) -> None:
        if self._timer is not None:  # it was for a request that is settled
            self._timer.cancel()
        self._timer, self._timer_ends = self._loop.call_at(time, self._settle_due), time

    def _settle_due(self) -> None:
        self._timer, self._timer_ends = None, inf
        now = self._loop.time()
        while self._waiting:
            deadline, request = self._waiting[0]
            if deadline > now and not request.settled.done():
                self._start_timer(deadline)
                return
            self._waiting.popleft()
            request.settle()

    def close(self) -> None:
        """Forget all requests and cancel the timer."""
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._timer_ends = None, inf


def _cancel(timer: asyncio.TimerHandle, _: object) -> None:
    timer.cancel()
