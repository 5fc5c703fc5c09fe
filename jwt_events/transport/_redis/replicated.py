"""Commands that count as done when replicas have what they wrote: one WAIT for all that went before on a connection.

While a WAIT lasts the server takes nothing else from its connection. So what is published meanwhile is held back, and
sent together when the WAIT has ended, with one of its own: the busier the publisher, the fewer there are. A WAIT that
found too few replicas is sent again for those whose time is not up.

Source: https://redis.io/docs/latest/commands/wait/
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from jwt_events.errors import NotConfirmed, TransportError
from jwt_events.transport._redis.commands import Command
from jwt_events.transport._redis.connection import Connection, Connector
from jwt_events.transport._redis.multiplexer import Maintenance, Multiplexer
from jwt_events.transport._redis.protocol import ErrorReply, Request
from jwt_events.transport._redis.replies import ReplyParser
from jwt_events.transport._redis.role import RoleRule
from jwt_events.transport.base import Sent

# Seconds that one WAIT lasts at most.
_WAIT_WITHIN = 0.5

_LOST = "the connection was lost before replicas were known to have it"


class _WriteRequest(Request):
    """Commands that write; settled when their WAIT has ended, or when their caller gives up.

    Attributes:
        replicas: how many replicas were last known to have what was written.
        problem: why that is not known.
        is_final: whether sending again to the same server cannot help.
        is_written: whether the replies have arrived.
    """

    replicas: int = 0
    problem: str = ""
    is_final: bool = True
    is_written: bool = False

    def settle(self) -> None:
        """Take the replies; the second call wakes the caller, or the first one if replies are missing."""
        if not self.is_written and len(self.replies) == len(self.commands):
            self.is_written = True
        else:
            super().settle()


class _WaitRequest(Request, kw_only=True):
    """A WAIT.

    Attributes:
        written: the requests that it is for.
        judge: called when it is settled.
    """

    written: Sequence[_WriteRequest]
    judge: Callable[[_WaitRequest], None]

    def settle(self) -> None:
        """Judge the reply, or that there is none."""
        if not self.settled.done():
            super().settle()
            self.judge(self)


class ReplicatedMultiplexer(Multiplexer):
    """Runs commands that write, and waits until replicas have what they wrote.

    Args:
        connector: opens the connection.
        maintenance: as for `Multiplexer`.
        role: as for `Multiplexer`.
        replicas: how many replicas must have it.
    """

    _request_type = _WriteRequest

    def __init__(
        self,
        connector: Connector,
        maintenance: Maintenance | None = None,
        *,
        role: RoleRule | None = None,
        replicas: int,
    ) -> None:
        super().__init__(connector, maintenance, role=role)
        self._replicas = replicas
        self._wait: Command = ("WAIT", replicas, int(_WAIT_WITHIN * 1000))
        self._written: list[_WriteRequest] = []  # sent, and no WAIT after them yet
        self._waiting: _WaitRequest | None = None
        self._is_batching = False
        self._decode = self._decode_written

    def _can_send(self, connection: Connection, count: int, now: float) -> bool:
        return self._waiting is None and super()._can_send(connection, count, now)

    def _send(self, connection: Connection, request: Request, now: float) -> None:
        assert isinstance(request, _WriteRequest)  # noqa: S101 - for the type checker
        if not self._is_batching and not self._written and self._watchdog is not None and now < self._role_due_at:
            self._waiting = wait = self._wait_for([request])  # most often it is alone: then both share a packet
            connection.protocol.send_together((request, wait), now)
            return
        super()._send(connection, request, now)
        self._written.append(request)
        if not self._is_batching:
            self._send_wait(connection)

    async def _send_queued(self, connection: Connection) -> None:
        self._is_batching = True
        try:
            await super()._send_queued(connection)
        finally:
            self._is_batching = False
            if self._waiting is None:
                self._send_wait(connection)

    def _send_wait(self, connection: Connection) -> None:
        """Send a WAIT for all that was written on this connection; what was written on an earlier one is lost."""
        written, self._written = self._written, []
        lost = [request for request in written if connection.is_closed or request.protocol is not connection.protocol]
        for request in lost:
            _drop(request)
        if rest := [request for request in written if request not in lost]:
            self._waiting = self._wait_for(rest)
            connection.protocol.send(self._waiting, self._loop.time())

    def _wait_for(self, written: Sequence[_WriteRequest]) -> _WaitRequest:
        settled = self._loop.create_future()
        return _WaitRequest((self._wait,), settled, written=written, judge=self._judge_wait)

    def _judge_wait(self, wait: _WaitRequest) -> None:
        self._waiting = None
        reply = wait.replies[0] if wait.replies else None
        if type(reply) is int and reply >= self._replicas:
            for request in wait.written:
                request.replicas = reply
                request.settle()
        elif type(reply) is int:
            self._wait_again(wait, reply)
        else:
            problem = ""
            if isinstance(reply, ErrorReply):
                problem = f"{self._decoder.error_reply(reply, 'WAIT')}; replicas= needs the right +wait"
            for request in wait.written:
                _drop(request, problem)

    def _wait_again(self, wait: _WaitRequest, replicas: int) -> None:
        """Wait again for those whose callers still do, together with what was held back."""
        for request in wait.written:
            request.replicas = replicas
        self._written = [request for request in wait.written if not request.settled.done()] + self._written
        connection = self._connection
        if self._written and not self._queue and connection is not None:
            self._send_wait(connection)

    def _decode_written(self, request: Request, parse: ReplyParser | None = None) -> list[Any]:
        assert isinstance(request, _WriteRequest)  # noqa: S101 - for the type checker
        outcomes = self._decoder.decode(request, parse)
        replicas = request.replicas
        if replicas >= self._replicas:
            return [Sent(sent.position, sent.receivers, replicas) if type(sent) is Sent else sent for sent in outcomes]
        problem = request.problem or f"{replicas} replicas have it in time, and {self._replicas} are needed"
        return [
            outcome
            if isinstance(outcome, TransportError)
            else NotConfirmed(
                f"accepted by {self.address}, but {problem}",
                position=outcome.position,
                replicas=replicas,
                retryable=not request.is_final,
            )
            for outcome in outcomes
        ]


def _drop(request: _WriteRequest, problem: str = "") -> None:
    """Settle a request of which it cannot be known how many replicas have it.

    Args:
        request: the request.
        problem: what the server replied to WAIT; empty if the connection was lost, so that sending again may help.
    """
    request.problem, request.is_final = problem or _LOST, bool(problem)
    if len(request.replies) == len(request.commands):
        request.settle()
