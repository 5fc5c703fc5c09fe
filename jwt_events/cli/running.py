"""How a command runs: until it is done, fails with one line, or is told to stop by a signal."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Coroutine
from typing import Any, Never, TypeVar

import typer
from typer.core import TyperGroup

from jwt_events.cli.wording import complaint, hidden
from jwt_events.errors import JWTEventsError

_T = TypeVar("_T")

NO = 1
"""The answer is no, or something was found."""

FAILED = 2
"""Not understood, or it could not be carried out."""

STALE = 3
"""Nobody knows."""

EXIT_CODES = (
    "Exit codes: 0 done, or the answer is yes; 1 the answer is no, or something was found; 2 not understood, or it"
    " could not be carried out; 3 nobody knows whether the token is revoked; 128 and the number of the signal that"
    " ended it (130 for Ctrl-C)."
)

# Typer has click inside, or beside it, depending on its version, and offers this one class of its errors.
_UsageError: Any = typer.BadParameter.__mro__[1]


class OneLineGroup(TyperGroup):
    """Commands whose every error is one line."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run a command and exit; see `TyperGroup`."""
        try:
            code = super().main(*args, **extra | {"standalone_mode": False})
        except _UsageError as error:
            path = "jwt-events" if error.ctx is None else error.ctx.command_path
            say(f"{error.format_message().replace('Value error, ', '').rstrip('.')}. See '{path} --help'.")
            code = FAILED
        except (typer.Abort, KeyboardInterrupt):
            code = 128 + signal.SIGINT
        except (JWTEventsError, OSError) as error:
            say(complaint(error))
            code = FAILED
        sys.exit(code if isinstance(code, int) else 0)


def say(text: str) -> None:
    """Tell the operator something, as one line on standard error."""
    typer.echo(f"jwt-events: {hidden(text)}", err=True)


def fail(problem: str) -> Never:
    """End with one line on standard error.

    Raises:
        typer.Exit: always.
    """
    say(problem)
    raise typer.Exit(FAILED)


def carry_out(work: Coroutine[None, None, _T]) -> _T:
    """Do the work to its end; the first signal to stop cancels it.

    Raises:
        typer.Exit: it was told to stop.
    """
    return asyncio.run(_until_signalled(work))


async def _until_signalled(work: Coroutine[None, None, _T]) -> _T:
    """Do the work; the first signal to stop cancels it, further ones change nothing."""
    loop = asyncio.get_running_loop()
    working = asyncio.ensure_future(work)
    received: list[int] = []

    def stop(number: int) -> None:
        received.append(number)
        if len(received) == 1:
            working.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop, number)
    try:
        return await working
    except asyncio.CancelledError:
        if not received:
            raise
        raise typer.Exit(128 + received[0]) from None
