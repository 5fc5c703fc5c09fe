"""``jwt-events publish``: publish a file of events, or one event by the command of its type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_group

from jwt_events.cli import _output as output
from jwt_events.cli._options import (
    NOT_GIVEN,
    Channel,
    Json,
    Key,
    RetentionWithoutLedger,
    Timeout,
    Transport,
    TransportName,
    Url,
    make_transport,
)
from jwt_events.cli._running import EXIT_CODES, fail, run

if TYPE_CHECKING:
    from jwt_events.cli.publish._file import FilePublisher

__all__ = ["app"]


class _EventCommands(TyperGroup):
    """A group that makes its commands when one is needed, because that imports the models of the events."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the commands."""
        self._make()
        return super().list_commands(ctx)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command of this name; ``None`` if there is none."""
        self._make()
        return super().get_command(ctx, cmd_name)

    def _make(self) -> None:
        if not self.commands:
            from jwt_events.cli.publish._event_commands import make_commands

            self.commands.update(get_group(make_commands()).commands)


app: typer.Typer = typer.Typer(
    cls=_EventCommands, invoke_without_command=True, epilog=EXIT_CODES, rich_markup_mode=None
)


@app.callback()
def publish(
    context: typer.Context,
    *,
    file: Annotated[
        str | None,
        typer.Option(
            "--file", show_default=False, metavar="FILE", help="A JSON object on each line; - for standard input."
        ),
    ] = None,
    from_line: Annotated[int, typer.Option(min=1, help="Pass over the lines of the file before this one.")] = 1,
    source: Annotated[
        str | None, typer.Option(show_default=False, help="Who says so, for events that do not name their own source.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=10_000, help="How many to publish at a time.")] = 500,
    url: Url = NOT_GIVEN,
    transport: Transport = TransportName.STREAM,
    key: Key = None,
    channel: Channel = None,
    retention: RetentionWithoutLedger = None,
    timeout: Timeout = 5.0,
    as_json: Json = False,
) -> None:
    """Publish one event, or a file of them.

    One event is published by the command of its type, the events of a file by --file, in order. A line of the file
    holds an envelope, as tail --json prints it, or the type of an event and its fields side by side: {"type":
    "token_revoked", "token_id": "…", "expires_at": 1767225600}. When it fails, it says with which line to go on.
    Give events an id of their own, and those that are published twice are handled once.
    """
    if context.invoked_subcommand is not None:
        _refuse_options_before(context, context.invoked_subcommand)
        return
    if file is None:
        fail("name the type of the event, such as token-revoked, or a file by --file. See 'jwt-events publish --help'.")
    from jwt_events.cli.publish._file import FilePublisher
    from jwt_events.publisher import Publisher

    target = make_transport(transport, url, key=key, channel=channel, retention=retention)
    publisher = Publisher(target, source=source, timeout=timeout)
    _publish(FilePublisher(publisher, file, from_line=from_line, batch_size=batch_size), as_json=as_json)


def _publish(file: FilePublisher, *, as_json: bool) -> None:
    try:
        run(file.publish())
    finally:
        file.close()
    done = {"published": file.published, "next_line": file.next_line}
    if as_json:
        output.record(done)
    else:
        output.line(output.logfmt(**done))


def _refuse_options_before(context: typer.Context, command: str) -> None:
    """Refuse options before the name of a command, where they would have no effect."""
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            advice = "give it, or" if name == "file" else "say it after"
            fail(f"{parameter.opts[0]}: is for a file here; {advice} {command}.")
