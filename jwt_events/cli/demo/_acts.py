"""What happens in the demo, act by act. `perform` neither prints nor exits."""

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
from jwt_events.cli.demo._messages import ALLOWED, KINDS, Begin, Finish, Issue, Order, Renew, Revoke
from jwt_events.cli.demo._processes import BEAT, Child
from jwt_events.cli.demo._server import DemoFailed, MortalServer, forget, name_of
from jwt_events.cli.demo._trial import Trial

# Seconds until what has not happened will not happen.
_PATIENCE = 5.0


class Watching:
    """Draws the board while something is awaited.

    Args:
        board: what to draw.
        draw: how.
        dwell: seconds to stay where there is something to see.
    """

    def __init__(self, board: Board, draw: Callable[[Board], None], *, dwell: float) -> None:
        self._board = board
        self._draw = draw
        self._dwell = dwell

    async def until(
        self,
        reached: Callable[[], bool],
        *,
        within: float = _PATIENCE,
        moving: Callable[[], int] = lambda: 0,
    ) -> bool:
        """Draw until something is reached, or nothing has moved for so many seconds; return whether it was reached."""
        seen, moved = moving(), time.monotonic()
        while not (done := reached()) and time.monotonic() - moved < within:
            _check(self._board)
            if (now := moving()) != seen:
                seen, moved = now, time.monotonic()
            self._draw(self._board)
            await asyncio.sleep(BEAT)
        _check(self._board)
        self._draw(self._board)
        return done

    async def require(self, reached: Callable[[], bool], failure: str, *, within: float = _PATIENCE) -> None:
        """Draw until something is reached.

        Raises:
            DemoFailed: not within so many seconds.
        """
        if not await self.until(reached, within=within):
            raise DemoFailed(f"{failure} within {within:.0f} s")

    def show(self) -> None:
        """Draw once, before something during which nothing is drawn."""
        self._draw(self._board)

    async def dwell(self) -> None:
        """Let people see."""
        await self.until(lambda: False, within=self._dwell)


def _check(board: Board) -> None:
    """Give up if a process cannot go on that the demo cannot do without."""
    for row in board.rows:
        if row.report and row.report.error:
            raise DemoFailed(f"{row.name}: {row.report.error}")
        if row.gone and board.needs(row):
            raise DemoFailed(f"{row.name}: the process ended too early")


# Seconds for processes to start.
_STARTING = 30.0

_SERVICES = ("api", "billing", "websocket", "admin", "search", "mailer", "gateway", "reports")


async def perform(
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
        dwell: seconds to stay where there is something to see.

    Raises:
        JWTEventsError: it could not be carried out.
    """
    if not (find_spec("jwt") and find_spec("cryptography")):
        raise DemoFailed("the demo signs tokens with PyJWT; get it with: pip install 'jwt_events[keys]'")
    more = (f"service-{number}" for number in range(len(_SERVICES) + 1, subscribers + 1))
    board = Board(events, Row("issuer"), [Row(name) for name in (*_SERVICES, *more)[:subscribers]])
    draw(board)
    async with AsyncExitStack() as stack:
        own = None
        if url is None:
            own = await stack.enter_async_context(MortalServer())
            url, board.server = own.url, f"{own.name} (embedded)"
        else:
            board.server = await name_of(url)
        order = Order(url, transport, f"jwt-events:demo:{token_hex(6)}", events, rate)
        if own is None:
            stack.push_async_callback(forget, url, order.destination, order.revocations)
        cast = await _gather(stack, order, board, Watching(board, draw, dwell=dwell))
        await _events_cross(cast)
        if revocations:
            if own is not None:
                await own.keep()
            cast = replace(cast, services=[child for child in cast.services if not child.row.gone])
            trial = await _tokens_stop_working(cast, revocations, order.max_staleness)
            if own is not None:
                await _the_server_dies(cast, trial, own)
        board.phase = "Sending everybody home"
        draw(board)
    return board


@dataclass(frozen=True, slots=True)
class Cast:
    """Who takes part.

    Attributes:
        board: where it can be seen.
        watching: how it is seen.
        issuer: the process that publishes, and issues tokens.
        services: the others.
    """

    board: Board
    watching: Watching
    issuer: Child
    services: Sequence[Child]


async def _gather(stack: AsyncExitStack, order: Order, board: Board, watching: Watching) -> Cast:
    """Start the processes. Leaving the stack sends all of them home at once, before each is waited for."""
    roles = [("issuer", board.issuer), *(("service", row) for row in board.services)]
    starting = (Child.started(role, row, order, board) for role, row in roles)
    issuer, *services = [await stack.enter_async_context(child) for child in starting]
    for child in (issuer, *services):
        stack.callback(child.hang_up)
    board.phase = "Starting the processes"
    ready = "the processes were not ready"
    await watching.require(lambda: all(row.report for row in board.rows), ready, within=_STARTING)
    return Cast(board, watching, issuer, services)


async def _events_cross(cast: Cast) -> None:
    """The first act: let every event cross, as far as they do."""
    board, watching = cast.board, cast.watching
    board.phase = "Publishing"
    cast.issuer.tell(Begin())
    await watching.until(lambda: board.issuer.finished, within=inf)
    board.phase = "Waiting for the last"
    await watching.until(
        lambda: all(row.gone or not board.lost_by(row) for row in board.services),
        moving=lambda: sum(row.count for row in board.services),
    )
    for child in cast.services:
        child.tell(Finish())
    await watching.until(lambda: all(row.finished for row in board.services))


async def _tokens_stop_working(cast: Cast, each: int, max_staleness: float) -> Trial:
    """The second act: issue tokens, see them accepted, revoke them, see them refused."""
    board, watching = cast.board, cast.watching
    board.phase = "Issuing tokens"
    cast.issuer.tell(Issue(each))
    await watching.require(lambda: bool(board.issued.tokens), "no tokens were issued")
    trial = board.trial = Trial((child.row.name for child in cast.services), each=each, max_staleness=max_staleness)
    for child in cast.services:
        child.tell(board.issued)
    await watching.require(lambda: trial.all_answer(ALLOWED), "the services did not accept the tokens")
    await watching.dwell()
    for kind in KINDS:
        await _revoke(kind, cast, trial)
    await watching.dwell()
    return trial


async def _revoke(kind: str, cast: Cast, trial: Trial) -> None:
    cast.board.phase = f"Revoking {kind}s"
    cast.issuer.tell(Revoke(kind))
    await cast.watching.until(
        lambda: trial.revoked(kind) == trial.each and not trial.not_refused,
        moving=trial.revoked,
    )


async def _the_server_dies(cast: Cast, trial: Trial, server: MortalServer) -> None:
    """The second act, continued: kill the server, see doubt, bring it back, see that nothing is forgotten."""
    board, watching = cast.board, cast.watching
    board.phase = "Killing the server"
    trial.killed_at = time.monotonic()
    server.kill()
    await watching.require(lambda: len(trial.stale_at) == len(trial.services), "the services did not turn stale")
    await watching.dwell()
    board.phase = "Bringing the server back"
    watching.show()
    await server.bring_back()
    trial.back_at = time.monotonic()
    await watching.require(lambda: len(trial.fresh_at) == len(trial.services), "the services did not recover")
    board.phase = "Starting the services anew"
    trial.renewing_at = time.monotonic()
    for child in cast.services:
        child.tell(Renew())
    await watching.require(lambda: trial.asked_anew, "not all tokens were tried again")
    await watching.dwell()
