"""``jwt-events demo``: a server, an issuer and some services, each a process of its own.

In the first act events cross between them; in the second, tokens stop working, also while the server is away.
"""

from __future__ import annotations

from typing import Annotated

import typer

from jwt_events.cli._options import Json, Transport, TransportName, url_before_command
from jwt_events.cli._running import NO, run

# Seconds to pause after each step of the second act, so that people can look.
_DWELL = 0.3


def demo(
    context: typer.Context,
    *,
    events: Annotated[int, typer.Option(min=1, help="How many events to publish.")] = 2_000,
    rate: Annotated[int, typer.Option(min=0, help="How many per second; 0 is as fast as possible.")] = 1_000,
    subscribers: Annotated[int, typer.Option(min=3, max=64, help="How many processes handle them.")] = 3,
    transport: Transport = TransportName.STREAM,
    revocations: Annotated[
        int, typer.Option(min=0, max=16, help="How many tokens, then users, then keys to revoke; 0 for none.")
    ] = 12,
    url: Annotated[
        str | None,
        typer.Option(show_default=False, help="A server to use instead of starting one. JWT_EVENTS_URL is ignored."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Watch events cross between processes, and tokens stop working.

    It starts a server and the processes, and leaves nothing behind. Ends with 0 if every process handled every event
    and refused every revoked token, 1 if not, 2 if the demo could not be carried out.
    """
    from rich.console import Console

    from jwt_events.cli.demo import _acts, _display

    console = Console(highlight=False)
    with _display.drawing(console, transport, quiet=as_json) as draw:
        work = _acts.run_demo(
            events=events,
            rate=rate,
            subscribers=subscribers,
            transport=transport.value,
            revocations=revocations,
            url=url if url is not None else url_before_command(context),
            draw=draw,
            dwell=0.0 if as_json else _DWELL,
        )
        board = run(work)
    if as_json:
        typer.echo(_display.to_json(board, transport))
    else:
        console.print(_display.summary(board, transport))
    raise typer.Exit(NO if board.failed else 0)
