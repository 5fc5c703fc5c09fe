"""Events of the last seconds, which are sent again when the server that accepted them was replaced.

What a primary confirmed, and no replica had, is gone after a failover. Its publisher still knows it, so it sends it
again, with the same ids, before anything new; who had read it skips the copy.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence

from jwt_events.errors import ServerRefused, TransportError
from jwt_events.transport._redis.connection import Connection
from jwt_events.transport._redis.protocol import Command
from jwt_events.transport._redis.role import parse_info

MAX_EVENTS = 10_000
MAX_BYTES = 8_388_608
"""How much is kept at most; the oldest is forgotten first."""

# Seconds between looks at an idle connection, so that what it lost is sent again although nothing new is.
_LOOK_EVERY = 1.0

_WHICH: Command = ("INFO", "server")

_BATCH = 500
_REPLY_WITHIN = 5.0


class RepublishWindow:
    """What was accepted lately. Pure: time is passed in.

    Args:
        seconds: how long it is kept.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._accepted: deque[tuple[float, Sequence[bytes], int]] = deque()
        self._events = self._bytes = 0

    def __len__(self) -> int:
        return self._events

    def add(self, payloads: Sequence[bytes], now: float) -> None:
        """Add what was accepted at this time."""
        size = len(payloads[0]) if len(payloads) == 1 else sum(map(len, payloads))
        self._accepted.append((now, payloads, size))
        self._events += len(payloads)
        self._bytes += size
        if self._events > MAX_EVENTS or self._bytes > MAX_BYTES or self._accepted[0][0] < now - self._seconds:
            self.prune(now)

    def prune(self, now: float) -> None:
        """Forget what is too old, or too much."""
        accepted, oldest = self._accepted, now - self._seconds
        while accepted and (accepted[0][0] < oldest or self._events > MAX_EVENTS or self._bytes > MAX_BYTES):
            _, payloads, size = accepted.popleft()
            self._events -= len(payloads)
            self._bytes -= size

    def payloads(self, now: float) -> list[bytes]:
        """Return what is kept, in order."""
        self.prune(now)
        return [payload for _, payloads, _ in self._accepted for payload in payloads]


class Republisher:
    """Keeps what a publisher had accepted, and sends it again on a connection to another server.

    Args:
        seconds: how long it is kept.
        command: makes the command that sends a payload.
        look: called now and then while something is kept: connects again if the connection is lost, else returns it.
        report: called with the number of events that were sent again.
    """

    def __init__(
        self,
        seconds: float,
        *,
        command: Callable[[bytes], Command],
        look: Callable[[], Connection | None],
        report: Callable[[int], None],
    ) -> None:
        self._window = RepublishWindow(seconds)
        self._command = command
        self._look = look
        self._report = report
        self._run_id = ""  # of the server that accepted what is kept; empty if it was not asked yet, or did not say
        self._asked: Connection | None = None  # the connection on which it was asked
        self._timer: asyncio.TimerHandle | None = None

    def add(self, payloads: Sequence[bytes]) -> None:
        """Keep payloads that were accepted."""
        self._window.add(payloads, time.monotonic())
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_LOOK_EVERY, self._look_again)

    def _look_again(self) -> None:
        self._timer = None
        self._window.prune(time.monotonic())
        if self._window:
            self._timer = asyncio.get_running_loop().call_later(_LOOK_EVERY, self._look_again)
            connection = self._look()
            if connection is not None and connection is not self._asked:
                self._learn(connection)

    def _learn(self, connection: Connection) -> None:
        """Ask the server which one it is; nothing waits for the reply."""
        self._asked = connection
        request = connection.send([_WHICH])

        def take(_: object) -> None:
            if connection is self._asked:
                self._run_id = _run_id(connection.decode(request)[0])

        request.settled.add_done_callback(take)

    async def on_connect(self, connection: Connection) -> None:
        """Send again what is kept, if this is not the server that accepted it.

        Raises:
            TransportError: it was not sent, and is kept.
        """
        run_id = ""
        if payloads := self._window.payloads(time.monotonic()):
            (reply,) = await connection.execute_many([_WHICH], within=_REPLY_WITHIN)
            if isinstance(reply, TransportError) and not isinstance(reply, ServerRefused):
                raise reply
            run_id = _run_id(reply)
            if not run_id or run_id != self._run_id:
                await self._send_again(connection, payloads)
        self._run_id, self._asked = run_id, connection if payloads else None

    async def _send_again(self, connection: Connection, payloads: Sequence[bytes]) -> None:
        for start in range(0, len(payloads), _BATCH):
            commands = [self._command(payload) for payload in payloads[start : start + _BATCH]]
            for reply in await connection.execute_many(commands, within=_REPLY_WITHIN):
                if isinstance(reply, TransportError):
                    raise reply
        self._report(len(payloads))

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _run_id(reply: object) -> str:
    """Return the run id of a server; empty if it may not be asked, or did not reply."""
    return parse_info(reply).get("run_id", "")
