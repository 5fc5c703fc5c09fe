"""The demo: a server, a publisher and some subscribers, each a process of its own, and events that cross between them.

`perform` runs it and keeps a `Board` that can be drawn at any moment; it neither prints nor exits. What the processes
do is in `jwt_events.demo_process`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from math import inf
from pathlib import Path
from secrets import token_hex
from typing import cast

from jwt_events.demo_process import Latencies, Order, Report
from jwt_events.embedded import EmbeddedServer
from jwt_events.errors import ConnectionFailed, InvalidOption, JWTEventsError, ServerRefused, TransportError
from jwt_events.transport.connection import Connector

# Seconds between two looks at the processes, and so between two frames.
_BEAT = 0.1

# Seconds: for processes to start, without movement until the rest counts as lost, to leave, for the server to answer.
_STARTING, _PATIENCE, _LEAVING, _ANSWERING = 30.0, 5.0, 3.0, 5.0

# The last line of a long run holds many latencies; asyncio allows 64 KiB by default.
_LONGEST_LINE = 2**22

# The feed scrolls no faster than a person can read.
_FEED_LINES, _FEED_INTERVAL = 6, 0.3

_SERVICES = ("api", "billing", "websocket", "admin", "search", "mailer", "gateway", "reports")


class DemoFailed(JWTEventsError):
    """The demo could not be carried out; the message says why."""


@dataclass(slots=True)
class Row:
    """One process.

    Attributes:
        name: what it is called.
        pid: its process id, once it runs.
        report: its last report; ``None`` until it is ready.
        gone: whether it has ended.
    """

    name: str
    pid: int | None = None
    report: Report | None = None
    gone: bool = False
    _samples: deque[tuple[float, int]] = field(default_factory=lambda: deque([(0.0, 0)]), repr=False)

    def add(self, report: Report, now: float) -> None:
        """Take note of a report that came at this moment."""
        self.report = report
        self._samples.append((now, report.count))
        while now - self._samples[0][0] > 1.0:
            self._samples.popleft()

    @property
    def count(self) -> int:
        """How many events it has published or handled."""
        return self.report.count if self.report else 0

    @property
    def latencies(self) -> Latencies:
        """From publish to handler, once it is finished."""
        return Latencies(dict(self.report.latencies) if self.report else {})

    @property
    def finished(self) -> bool:
        """Whether nothing more is to come from it."""
        return self.gone or (self.report is not None and self.report.final)

    @property
    def died(self) -> bool:
        """Whether it ended without its last word."""
        return self.gone and (self.report is None or not self.report.final)

    @property
    def rate(self) -> float:
        """How many per second, over the last second."""
        (began, first), (ended, last) = self._samples[0], self._samples[-1]
        return (last - first) / (ended - began) if ended > began else 0.0


@dataclass(slots=True)
class Board:
    """All that there is to see while the demo runs.

    Attributes:
        events: how many will be published.
        publisher: the process that does it.
        services: the processes that handle them.
        server: what the server says that it is.
        phase: what is going on.
        feed: the last few events, oldest first: ``(time, type, fingerprint, remark)``.
    """

    events: int
    publisher: Row
    services: Sequence[Row]
    server: str = ""
    phase: str = "Looking for the server"
    feed: deque[tuple[str, ...]] = field(default_factory=lambda: deque(maxlen=_FEED_LINES))
    _fed: float = field(default=0.0, repr=False)

    @property
    def rows(self) -> list[Row]:
        """All processes."""
        return [self.publisher, *self.services]

    @property
    def published(self) -> int:
        """How many went out, as far as anybody knows: what was handled did, even if its receipt is on its way."""
        return max(row.count for row in self.rows)

    @property
    def latencies(self) -> Latencies:
        """Those of all services."""
        total = Latencies()
        for row in self.services:
            total.update(row.latencies)
        return total

    @property
    def lost(self) -> int:
        """How many are missing, over all services."""
        return sum(self.lost_by(row) for row in self.services)

    def lost_by(self, row: Row) -> int:
        """Return how many events a service is missing."""
        return max(self.publisher.count - row.count, 0)

    def take(self, row: Row, report: Report, now: float) -> None:
        """Take note of a report that came at this moment."""
        row.add(report, now)
        if report.recent and now - self._fed >= _FEED_INTERVAL:
            self._fed = now
            self.feed.append((f"{datetime.now().astimezone():%H:%M:%S.%f}"[:10], *report.recent))


class Child:
    """A process of the demo, seen from the one that started it. The end of its input is its leash."""

    def __init__(self, process: asyncio.subprocess.Process, row: Row) -> None:
        self._input = cast("asyncio.StreamWriter", process.stdin)  # both are pipes, which mypy cannot know
        self._output = cast("asyncio.StreamReader", process.stdout)
        self._row = row
        row.pid = process.pid

    @classmethod
    @asynccontextmanager
    async def started(cls, role: str, row: Row, order: Order, board: Board) -> AsyncIterator[Child]:
        """Start it; leaving makes it end, by force if need be."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "jwt_events.demo_process", role, row.name),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_LONGEST_LINE,
            start_new_session=True,  # Ctrl-C in the terminal is for the parent, which ends the others in order
            cwd=Path(__file__).parent.parent,  # so that "-m" finds this package, and nothing of the user's before it
        )
        child = cls(process, row)
        listening = asyncio.create_task(child._listen(board))
        try:
            child.tell(json.dumps(asdict(order)))
            yield child
        finally:
            child.hang_up()
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _LEAVING)
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            await listening

    def tell(self, line: str) -> None:
        """Send it a line."""
        self._input.write(line.encode() + b"\n")

    def hang_up(self) -> None:
        """End its input, which makes it leave."""
        self._input.close()

    async def _listen(self, board: Board) -> None:
        async for line in self._output:
            board.take(self._row, Report(**json.loads(line)), time.monotonic())
        self._row.gone = True


async def _play(order: Order, board: Board, draw: Callable[[Board], None]) -> None:
    """Start the processes, let every event cross between them, as far as they do, and send them home."""
    async with AsyncExitStack() as stack:
        roles = [("publisher", board.publisher), *(("subscriber", row) for row in board.services)]
        starting = (Child.started(role, row, order, board) for role, row in roles)
        publisher, *subscribers = [await stack.enter_async_context(child) for child in starting]
        for child in (publisher, *subscribers):
            stack.callback(child.hang_up)  # all at once, before each is waited for
        board.phase = "Starting the processes"
        if not await _watch(board, draw, lambda: all(row.report for row in board.rows), _STARTING):
            raise DemoFailed(f"the processes were not ready within {_STARTING:.0f} s")
        board.phase = "Publishing"
        publisher.tell("begin")
        await _watch(board, draw, lambda: board.publisher.finished, inf)
        board.phase = "Waiting for the last"
        await _watch(board, draw, lambda: all(row.gone or not board.lost_by(row) for row in board.services), _PATIENCE)
        for child in subscribers:
            child.hang_up()
        await _watch(board, draw, lambda: all(row.finished for row in board.services), _PATIENCE)


async def _watch(board: Board, draw: Callable[[Board], None], reached: Callable[[], bool], patience: float) -> bool:
    """Draw until something is reached, or nothing has moved for so many seconds."""
    seen, moved = -1, time.monotonic()
    while not (done := reached()) and time.monotonic() - moved < patience:
        _check(board)
        if (total := sum(row.count for row in board.rows)) != seen:
            seen, moved = total, time.monotonic()
        draw(board)
        await asyncio.sleep(_BEAT)
    _check(board)
    draw(board)
    return done


def _check(board: Board) -> None:
    """Give up if a process cannot go on that the demo cannot do without."""
    for row in board.rows:
        if row.report and row.report.error:
            raise DemoFailed(f"{row.name}: {row.report.error}")
        if row.died and (row is board.publisher or row.report is None):
            raise DemoFailed(f"{row.name}: the process ended too early")


async def perform(
    *, events: int, rate: float, subscribers: int, transport: str, url: str | None, draw: Callable[[Board], None]
) -> Board:
    """Run the demo and return the board as it stands at the end. Cancelling it leaves nothing running.

    Args:
        events: how many events to publish.
        rate: how many of them per second; 0 means as fast as possible.
        subscribers: how many processes handle them.
        transport: ``stream`` or ``pubsub``.
        url: the server; ``None`` starts one.
        draw: called with the board ten times a second.

    Raises:
        JWTEventsError: it could not be carried out.
    """
    more = (f"service-{number}" for number in range(len(_SERVICES) + 1, subscribers + 1))
    board = Board(events, Row("publisher"), [Row(name) for name in (*_SERVICES, *more)[:subscribers]])
    draw(board)
    async with AsyncExitStack() as stack:
        if url is None:
            server = await stack.enter_async_context(EmbeddedServer())
            url, board.server = server.url, f"{server.version} (embedded)"
        else:
            board.server = await _ask_server(url)
        order = Order(url, transport, f"jwt-events:demo:{token_hex(6)}", events, rate)
        stack.push_async_callback(_forget, order)
        await _play(order, board, draw)
    return board


async def _ask_server(url: str) -> str:
    """Return the server's name and version."""
    try:
        async with aclosing(await Connector(url).connect(within=_ANSWERING)) as connection:
            answer = await connection.call("INFO", "server", within=_ANSWERING)
    except InvalidOption as error:
        raise DemoFailed(f"--url: {str(error).partition(': ')[2]}") from None
    except ConnectionFailed as error:
        raise DemoFailed(f"{error}. Is a server running there? Without --url, the demo starts its own.") from None
    except ServerRefused as error:
        if error.code == "NOPERM":  # logged in, but not allowed to ask
            return "unnamed server"
        raise DemoFailed(f"{error}. Are the user and password in the URL right?") from None
    info = dict(line.split(":", 1) for line in answer.decode().splitlines() if ":" in line)
    return f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {info.get('redis_version', '')}"


async def _forget(order: Order) -> None:
    """Leave no stream behind; a channel leaves nothing by itself."""
    if order.transport == "stream":
        with suppress(TransportError):
            async with aclosing(await Connector(order.url).connect(within=_ANSWERING)) as connection:
                await connection.call("DEL", order.destination, within=_ANSWERING)
