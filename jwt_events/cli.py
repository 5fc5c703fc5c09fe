"""The command line: ``jwt-events demo``."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Coroutine
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

try:
    import typer
    from rich.console import Console
except ImportError as error:
    sys.exit(f"jwt-events needs {error.name}; get it with: pip install 'jwt_events[cli,embedded,keys]'")

from jwt_events import __version__

if TYPE_CHECKING:
    from jwt_events.demo.board import Board

# Seconds to stay where there is something to see.
_DWELL = 0.3

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


class TransportName(StrEnum):
    """What can carry the events of the demo."""

    STREAM = "stream"
    PUBSUB = "pubsub"


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"jwt_events {__version__}")
        raise typer.Exit


@app.callback()
def main(
    _: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """JWT lifecycle events between services, over Redis."""


@app.command()
def demo(
    *,
    events: Annotated[int, typer.Option(min=1, help="How many events to publish.")] = 2_000,
    rate: Annotated[int, typer.Option(min=0, help="How many per second; 0 is as fast as possible.")] = 1_000,
    subscribers: Annotated[int, typer.Option(min=3, max=64, help="How many processes handle them.")] = 3,
    transport: Annotated[TransportName, typer.Option(help="What carries them.")] = TransportName.STREAM,
    revocations: Annotated[
        int, typer.Option(min=0, max=16, help="How many tokens, then users, then keys to revoke; 0 for none.")
    ] = 12,
    url: Annotated[
        str | None, typer.Option(help="A Redis or Valkey server to use instead of starting one.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Start a server and some processes, watch events cross between them, and see tokens stop working.

    Ends with 0 if every process handled every event and refused every revoked token, 1 if not, 2 if the demo could not
    be carried out.
    """
    from jwt_events.demo import acts, picture, summary  # noqa: PLC0415 - "--help" should not wait for it
    from jwt_events.errors import JWTEventsError  # noqa: PLC0415 - the same

    console = Console(highlight=False)
    try:
        with picture.drawing(console, transport, quiet=as_json) as draw:
            work = acts.perform(
                events=events,
                rate=rate,
                subscribers=subscribers,
                transport=transport.value,
                revocations=revocations,
                url=url,
                draw=draw,
                dwell=0.0 if as_json else _DWELL,
            )
            board = asyncio.run(_until_signalled(work))
    except (JWTEventsError, OSError) as error:
        typer.echo(f"jwt-events: {error}", err=True)
        raise typer.Exit(2) from None
    if as_json:
        typer.echo(summary.to_json(board, transport))
    else:
        console.print(summary.picture_of(board, transport))
    raise typer.Exit(1 if summary.failed(board) else 0)


async def _until_signalled(work: Coroutine[None, None, Board]) -> Board:
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


if __name__ == "__main__":
    app()
