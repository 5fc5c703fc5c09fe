"""The command line: ``jwt-events``."""

from __future__ import annotations

import logging
import sys
from typing import Annotated, Any

try:
    import typer
except ImportError as _error:
    sys.exit(f"jwt-events needs {_error.name}; get it from a clone: pip install '.[cli,embedded,keys]'")

from jwt_events import __version__
from jwt_events.cli._check import check
from jwt_events.cli._dead import app as dead
from jwt_events.cli._fleet import fleet
from jwt_events.cli._groups import groups
from jwt_events.cli._ledger import app as ledger
from jwt_events.cli._options import DEFAULT_URL
from jwt_events.cli._running import EXIT_CODES, OneLineGroup
from jwt_events.cli._serve import serve
from jwt_events.cli._signals import app as signals
from jwt_events.cli._tail import tail
from jwt_events.cli.bench import bench
from jwt_events.cli.demo import demo
from jwt_events.cli.doctor import doctor
from jwt_events.cli.publish import app as publish

__all__ = ["app"]

# As an operator meets them, and as the page about the command line lists them.
_ORDER = (
    *("serve", "publish", "tail", "check", "dead", "signals"),  # about events
    *("groups", "fleet", "ledger", "doctor", "bench", "demo"),  # about those who read them, and about servers
)


class _Commands(OneLineGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the commands, in order."""
        return sorted(super().list_commands(ctx), key=_ORDER.index)


app: typer.Typer = typer.Typer(
    cls=_Commands,
    epilog=EXIT_CODES,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help reads well in a pipe, and is there a tenth of a second earlier
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"jwt_events {__version__}")
        raise typer.Exit


@app.callback()
def main(
    context: typer.Context,
    *,
    url: Annotated[
        str | None,
        typer.Option(
            "--url",
            show_default=False,
            metavar="URL",
            help=f"The server: redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://."
            " Else JWT_EVENTS_URL, else"
            f" {DEFAULT_URL}.",
        ),
    ] = None,
    _: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """JWT lifecycle events between services, over Redis: publish and watch them, check tokens, inspect servers."""
    if not (notices := logging.getLogger("jwt_events")).handlers:
        notices.addHandler(logging.NullHandler())  # the commands say it themselves
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


for _command in (demo, tail, check, groups, fleet, serve, doctor, bench):
    app.command(epilog=EXIT_CODES)(_command)
app.add_typer(publish, name="publish")
app.add_typer(dead, name="dead")
app.add_typer(signals, name="signals")
app.add_typer(ledger, name="ledger")
