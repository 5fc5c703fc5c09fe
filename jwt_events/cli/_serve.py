"""``jwt-events serve``: run a server for development."""

from __future__ import annotations

from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Annotated

import typer

from jwt_events.cli import _output as output
from jwt_events.cli._running import fail, run, say
from jwt_events.errors import ConnectionFailed, JWTEventsError

_WITHIN = 5.0

# Data is on the disk before it is acknowledged, so that nothing is missing after a restart.
_PERSISTENT = {"appendonly": "yes", "appendfsync": "always"}


class ServerEnded(JWTEventsError):
    """The server ended without being told to."""


def serve(
    *,
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Its TCP port on this machine; 0 for a free one.")
    ] = 6379,
    data_dir: Annotated[
        Path | None,
        typer.Option(show_default=False, help="Where to keep what it holds; made if missing. Else nothing is kept."),
    ] = None,
) -> None:
    """Run a server for development until Ctrl-C, and print its URL.

    It listens on this machine only, and asks for no password. It is the Valkey of the 'embedded' extra, else a
    valkey-server or redis-server from the PATH.
    """
    if data_dir is not None:
        data_dir.mkdir(parents=True, exist_ok=True)
    run(_serve(port, data_dir))


async def _serve(port: int, data_dir: Path | None) -> None:
    from jwt_events.embedded import EmbeddedServer, ServerNotStarted
    from jwt_events.transport.connection import Connector

    config = {} if data_dir is None else _PERSISTENT
    async with AsyncExitStack() as stack:
        try:
            server = await stack.enter_async_context(EmbeddedServer(port=port, data_dir=data_dir, config=config))
        except ServerNotStarted as error:
            fail(f"the server did not start: {_reason(error.log)}. Choose another port by --port.")
        connection = await stack.enter_async_context(aclosing(await Connector(server.url).connect(within=_WITHIN)))
        output.line(server.url)
        say(f"{server.version} is ready; Ctrl-C ends it. Elsewhere: export JWT_EVENTS_URL={server.url}")
        try:
            await connection.pushed()  # the server sends nothing, and closes the connection when it ends
        except ConnectionFailed:
            raise ServerEnded("the server ended; was it killed?") from None


def _reason(log: str) -> str:
    """Return the warnings in the last two lines of a server's log."""
    warnings = [line.partition(" # ")[2] for line in log.splitlines()[-2:]]
    return "; ".join(warning.rstrip(".") for warning in warnings if warning) or "its log has no warning"
