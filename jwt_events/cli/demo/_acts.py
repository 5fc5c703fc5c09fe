"""The run of the demo: starts the processes and takes them through both acts. It neither prints nor exits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from importlib.util import find_spec
from math import inf
from secrets import token_hex

from jwt_events.cli.demo._board import Board, Row
from jwt_events.cli.demo._messages import ALLOWED, KINDS, Begin, Finish, Issue, Rebuild, Revoke, Setup
from jwt_events.cli.demo._processes import REPORT_INTERVAL, ChildProcess
from jwt_events.cli.demo._server import DemoFailed, RestartableServer, delete_streams, server_name
from jwt_events.cli.demo._trial import Trial

# Seconds for processes to start.
_START_WITHIN = 30.0

# Seconds without progress after which waiting ends.
_PROGRESS_WITHIN = 5.0

_SERVICES = ("api", "billing", "websocket", "admin", "search", "mailer", "gateway", "reports")


async def run_demo(
    *,
    events: int,
    rate: float,
    subscribers: int,
    transport: str,
    revocations: int,
    url: str | None,
    draw: Callable[[Board], None],
    dwell: float = 0.0,
) -> Board:
    """Run the demo and return the board as it stands at the end. Cancelling it leaves nothing running.

    Args:
        events: how many events to publish.
        rate: how many of them per second; 0 means as fast as possible.
        subscribers: how many processes handle them.
        transport: ``stream`` or ``pubsub``.
        revocations: how many tokens to revoke, then how many users and signing keys; 0 leaves the second act out.
        url: the server; ``None`` starts one.
        draw: called with the board ten times a second.
        dwell: seconds to pause after each step of the second act, so that people can look.

    Raises:
        JWTEventsError: it could not be carried out.
    """
    if not (find_spec("jwt") and find_spec("cryptography")):
        raise DemoFailed("the demo signs tokens with PyJWT; get it from a clone: pip install '.[keys]'")
    more = (f"service-{number}" for number in range(len(_SERVICES) + 1, subscribers + 1))
    board = Board(events, Row("issuer"), [Row(name) for name in (*_SERVICES, *more)[:subscribers]])
    draw(board)
    async with AsyncExitStack() as stack:
        own = None
        if url is None:
            own = await stack.enter_async_context(RestartableServer())
            url, board.server = own.url, f"{own.name} (embedded)"
        else:
            board.server = await server_name(url)
        setup = Setup(url, transport, f"jwt-events:demo:{token_hex(6)}", events, rate)
        if own is None:
            stack.push_async_callback(delete_streams, url, setup.destination, setup.revocations)
        run = await _start(stack, setup, board, _Watcher(board, draw, dwell=dwell))
        await _events_cross(run)
        if revocations:
            if own is not None:
                await own.enable_persistence()
            run = replace(run, services=[child for child in run.services if not child.row.exited])
            trial = await _tokens_stop_working(run, revocations, setup.max_staleness)
            if own is not None:
                await _server_restarts(run, trial, own)
        board.phase = "Stopping the processes"
        draw(board)
    return board


class _Watcher:
    """Draws the board again and again while it waits for a condition.

    Args:
        board: the board.
        draw: draws it.
        dwell: seconds to pause in `dwell`.
    """

    def __init__(self, board: Board, draw: Callable[[Board], None], *, dwell: float) -> None:
        self._board = board
        self._draw = draw
        self._dwell = dwell

    async def until(
        self,
        reached: Callable[[], bool],
        *,
        within: float = _PROGRESS_WITHIN,
        progress: Callable[[], int] = lambda: 0,
    ) -> bool:
        """Wait for a condition, for at most ``within`` seconds after the last change of ``progress``.

        Returns:
            Whether the condition was reached.

        Raises:
            DemoFailed: a process without which the demo cannot go on has failed.
        """
        seen, changed_at = progress(), time.monotonic()
        while not (done := reached()) and time.monotonic() - changed_at < within:
            _check(self._board)
            if (now := progress()) != seen:
                seen, changed_at = now, time.monotonic()
            self._draw(self._board)
            await asyncio.sleep(REPORT_INTERVAL)
        _check(self._board)
        self._draw(self._board)
        return done

    async def require(self, reached: Callable[[], bool], failure: str, *, within: float = _PROGRESS_WITHIN) -> None:
        """Wait for a condition.

        Raises:
            DemoFailed: it was not reached within this many seconds.
        """
        if not await self.until(reached, within=within):
            raise DemoFailed(f"{failure} within {within:.0f} s")

    def show(self) -> None:
        """Draw once, before something during which nothing is drawn."""
        self._draw(self._board)

    async def dwell(self) -> None:
        """Pause, so that people can look."""
        await self.until(lambda: False, within=self._dwell)


def _check(board: Board) -> None:
    """Raise `DemoFailed` if a process that the demo cannot do without has failed."""
    for row in board.rows:
        if row.report and row.report.error:
            raise DemoFailed(f"{row.name}: {row.report.error}")
        if row.exited and board.requires(row):
            raise DemoFailed(f"{row.name}: the process ended too early")


@dataclass(frozen=True, slots=True)
class _Run:
    """The processes of a run, and the board that shows them.

    Attributes:
        board: the board.
        watcher: draws it.
        issuer: the process that publishes, and issues tokens.
        services: the others.
    """

    board: Board
    watcher: _Watcher
    issuer: ChildProcess
    services: Sequence[ChildProcess]


async def _start(stack: AsyncExitStack, setup: Setup, board: Board, watcher: _Watcher) -> _Run:
    """Start the processes. Leaving the stack tells all of them to exit before it waits for each."""
    roles = [("issuer", board.issuer), *(("service", row) for row in board.services)]
    starting = (ChildProcess.start(role, row, setup, board) for role, row in roles)
    issuer, *services = [await stack.enter_async_context(child) for child in starting]
    for child in (issuer, *services):
        stack.callback(child.close_input)
    board.phase = "Starting the processes"
    ready = "the processes were not ready"
    await watcher.require(lambda: all(row.report for row in board.rows), ready, within=_START_WITHIN)
    return _Run(board, watcher, issuer, services)


async def _events_cross(run: _Run) -> None:
    """Run the first act: publish all events, and wait until every service has handled them or makes no progress."""
    board, watcher = run.board, run.watcher
    board.phase = "Publishing"
    run.issuer.send(Begin())
    await watcher.until(lambda: board.issuer.finished, within=inf)
    board.phase = "Waiting for the last"
    await watcher.until(
        lambda: all(row.exited or not board.lost_by(row) for row in board.services),
        progress=lambda: sum(row.count for row in board.services),
    )
    for child in run.services:
        child.send(Finish())
    await watcher.until(lambda: all(row.finished for row in board.services))


async def _tokens_stop_working(run: _Run, each: int, max_staleness: float) -> Trial:
    """Run the second act: issue tokens, wait until they are accepted, revoke them, wait until they are refused."""
    board, watcher = run.board, run.watcher
    board.phase = "Issuing tokens"
    run.issuer.send(Issue(each))
    await watcher.require(lambda: bool(board.issued.tokens), "no tokens were issued")
    trial = board.trial = Trial((child.row.name for child in run.services), each=each, max_staleness=max_staleness)
    for child in run.services:
        child.send(board.issued)
    await watcher.require(lambda: trial.all_respond(ALLOWED), "the services did not accept the tokens")
    await watcher.dwell()
    for kind in KINDS:
        await _revoke(kind, run, trial)
    await watcher.dwell()
    return trial


async def _revoke(kind: str, run: _Run, trial: Trial) -> None:
    run.board.phase = f"Revoking {kind}s"
    run.issuer.send(Revoke(kind))
    await run.watcher.until(
        lambda: trial.revoked(kind) == trial.each and not trial.not_refused,
        progress=trial.revoked,
    )


async def _server_restarts(run: _Run, trial: Trial, server: RestartableServer) -> None:
    """Go on with the second act: kill the server, wait for staleness, restart it, and let the services rebuild."""
    board, watcher = run.board, run.watcher
    board.phase = "Killing the server"
    trial.killed_at = time.monotonic()
    server.kill()
    await watcher.require(lambda: len(trial.stale_at) == len(trial.services), "the services did not turn stale")
    await watcher.dwell()
    board.phase = "Bringing the server back"
    watcher.show()
    await server.restart()
    trial.back_at = time.monotonic()
    await watcher.require(lambda: len(trial.fresh_at) == len(trial.services), "the services did not recover")
    board.phase = "Starting the services anew"
    trial.rebuilding_at = time.monotonic()
    for child in run.services:
        child.send(Rebuild())
    await watcher.require(lambda: trial.tried_again, "not all tokens were tried again")
    await watcher.dwell()
