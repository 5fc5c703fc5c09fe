"""Events of the last seconds, which are sent again when the server that accepted them was replaced.

What a primary confirmed, and no replica had, is gone after a failover. Its publisher still knows it, so it sends it
again, with the same ids, before anything new; who had read it skips the copy. What the new server has at the same
position is not sent again.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from jwt_events._internal.receipt import Receipt
from jwt_events.errors import ServerRefused, TransportError
from jwt_events.transport._redis.commands import Command
from jwt_events.transport._redis.connection import Connection
from jwt_events.transport._redis.multiplexer import MakeCommands, Multiplexer, RedisSender
from jwt_events.transport._redis.role import parse_info
from jwt_events.transport.base import Sent
from jwt_events.transport.optional import Keep

MAX_EVENTS = 10_000
MAX_BYTES = 8_388_608
"""How much is kept at most; the oldest is forgotten first."""

# How much is forgotten at once, so that of what was accepted together the newest is kept.
_MAX_PART = 500
_MAX_PART_BYTES = 65_536

# Seconds between looks at an idle connection, so that what it lost is sent again although nothing new is.
_LOOK_EVERY = 1.0

_WHICH: Command = ("INFO", "server")

_NOWHERE = "0-0"  # no entry has this position

_BATCH = 500

# How many payloads are counted together, and how large each may be, so that less is kept than the window allows.
# As many of the usual size are one part.
_MAX_NEW = 128
_MAX_NEW_BYTES = 4_096
_REPLY_WITHIN = 5.0


class Accepted(NamedTuple):
    """Payloads that were accepted, each with its position; ``None`` where it has none."""

    payloads: Sequence[bytes]
    positions: Sequence[str | None]


class RepublishWindow:
    """What was accepted lately. Pure: time is passed in.

    Args:
        seconds: how long it is kept.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._accepted: deque[tuple[float, Accepted, int]] = deque()
        self._events = self._bytes = 0

    def __len__(self) -> int:
        return self._events

    def add(self, accepted: Accepted, now: float) -> None:
        """Add what was accepted at this time."""
        for part, size in _parts(accepted):
            self._accepted.append((now, part, size))
            self._events += len(part.payloads)
            self._bytes += size
        self.prune(now)

    def prune(self, now: float) -> None:
        """Forget what is too old, or too much."""
        accepted, oldest = self._accepted, now - self._seconds
        while accepted and (accepted[0][0] < oldest or self._events > MAX_EVENTS or self._bytes > MAX_BYTES):
            _, (payloads, _), size = accepted.popleft()
            self._events -= len(payloads)
            self._bytes -= size

    def kept(self, now: float) -> list[tuple[bytes, str | None]]:
        """Return what is kept, in order: each payload, and its position."""
        self.prune(now)
        return [each for _, accepted, _ in self._accepted for each in zip(*accepted, strict=True)]


class Republisher:
    """Keeps what a publisher had accepted, and sends it again on a connection to another server.

    Args:
        seconds: how long it is kept.
        make_commands: makes the commands that send payloads.
        lookup: makes the command that returns the entry at a position.
        look: called now and then while something is kept: connects again if the connection is lost, else returns it.
        report: called with the number of events that were sent again.
    """

    def __init__(
        self,
        seconds: float,
        *,
        make_commands: MakeCommands,
        lookup: Callable[[str], Command],
        look: Callable[[], Connection | None],
        report: Callable[[int], None],
    ) -> None:
        self._window = RepublishWindow(seconds)
        # What was accepted since the last look: nothing that costs the garbage collector, as it lives for a while.
        self._payloads: list[bytes] = []
        self._receipts: list[Receipt] = []
        self._make_commands = make_commands
        self._lookup = lookup
        self._look = look
        self._report = report
        self._run_id = ""  # of the server that accepted what is kept; empty if it was not asked yet, or did not say
        self._asked: Connection | None = None  # the connection on which it was asked
        self._timer: asyncio.TimerHandle | None = None

    def add(self, payloads: Sequence[bytes], receipts: Sequence[Receipt]) -> None:
        """Keep payloads that were accepted, each with its receipt."""
        self._payloads += payloads
        self._receipts += receipts
        if len(payloads) != 1 or len(self._payloads) >= _MAX_NEW or len(payloads[0]) > _MAX_NEW_BYTES:
            self._absorb()
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_LOOK_EVERY, self._look_again)

    def _absorb(self) -> None:
        """Put what is new into the window."""
        if self._payloads:
            positions = [receipt.position for receipt in self._receipts]
            self._window.add(Accepted(self._payloads, positions), time.monotonic())
            self._payloads, self._receipts = [], []

    def _look_again(self) -> None:
        self._timer = None
        self._absorb()
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
        self._absorb()
        if kept := self._window.kept(time.monotonic()):
            (reply,) = await connection.execute_many([_WHICH], within=_REPLY_WITHIN)
            if isinstance(reply, TransportError) and not isinstance(reply, ServerRefused):
                raise reply
            run_id = _run_id(reply)
            if not run_id or run_id != self._run_id:
                await self._send_again(connection, await self._lacking(connection, kept))
        self._run_id, self._asked = run_id, connection if kept else None

    async def _lacking(self, connection: Connection, kept: Sequence[tuple[bytes, str | None]]) -> list[bytes]:
        """Return what the server has not, or may not be asked for."""
        lacking: list[bytes] = []
        for start in range(0, len(kept), _BATCH):
            batch = kept[start : start + _BATCH]
            lookups = [self._lookup(position or _NOWHERE) for _, position in batch]
            replies = await connection.execute_many(lookups, within=_REPLY_WITHIN)
            for (payload, _), reply in zip(batch, replies, strict=True):
                if isinstance(reply, TransportError) and not isinstance(reply, ServerRefused):
                    raise reply
                if not _holds(reply, payload):
                    lacking.append(payload)
        return lacking

    async def _send_again(self, connection: Connection, payloads: Sequence[bytes]) -> None:
        for start in range(0, len(payloads), _BATCH):
            commands = self._make_commands(payloads[start : start + _BATCH])
            for reply in await connection.execute_many(commands, within=_REPLY_WITHIN):
                if isinstance(reply, TransportError):
                    raise reply
        if payloads:
            self._report(len(payloads))

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class RepublishingSender(RedisSender):
    """Sends payloads to a stream, and again what a server lacks that took over; a `Republishing` sender.

    Args:
        multiplexer: runs the commands.
        make_commands: makes the commands that send payloads.
        lookup: makes the command that returns the entry at a position.
        parse: the parser of a reply to the first.
    """

    _republisher: Republisher | None = None

    def __init__(
        self,
        multiplexer: Multiplexer,
        *,
        make_commands: MakeCommands,
        lookup: Callable[[str], Command],
        parse: Callable[[Any], Sent],
    ) -> None:
        super().__init__(multiplexer, make_commands=make_commands, parse=parse)
        self._lookup = lookup

    def keep(self, seconds: float, report: Callable[[int], None]) -> Keep:
        """Send again what was accepted in the last seconds when the server is replaced; see `Republishing.keep`."""
        self._republisher = kept = Republisher(
            seconds, make_commands=self._make_commands, lookup=self._lookup, look=self._multiplexer.look, report=report
        )
        self._multiplexer.on_connect = kept.on_connect
        return kept.add

    def close(self) -> None:
        """Keep nothing any more."""
        if self._republisher is not None:
            self._republisher.close()


def _parts(accepted: Accepted) -> Iterator[tuple[Accepted, int]]:
    """Yield it in parts that are small enough to be forgotten at once, each with the bytes of its payloads."""
    payloads, positions = accepted
    size = sum(map(len, payloads))
    if len(payloads) <= _MAX_PART and size <= _MAX_PART_BYTES:
        yield accepted, size
        return
    start = size = 0
    for end, payload in enumerate(payloads, 1):
        size += len(payload)
        if end == len(payloads) or end - start == _MAX_PART or size >= _MAX_PART_BYTES:
            yield Accepted(payloads[start:end], positions[start:end]), size
            start, size = end, 0


def _run_id(reply: object) -> str:
    """Return the run id of a server; empty if it may not be asked, or did not reply."""
    return parse_info(reply).get("run_id", "")


def _holds(reply: Any, payload: bytes) -> bool:
    """Whether the entry that was looked up is the one with this payload: at its position may be another one by now."""
    return not isinstance(reply, ServerRefused) and any(payload in fields for _, fields in reply)
