"""Running a command: until it is done, a signal stops it, or it fails with one line of advice and an exit code."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, Never, TypeVar

import typer
from typer.core import TyperGroup

from jwt_events._internal.cancellation import cancel_until_done
from jwt_events.cli._options import FROM_ENVIRONMENT, FROM_OPTION, url_source
from jwt_events.cli._output import redacted, writes
from jwt_events.errors import (
    ConnectionFailed,
    InvalidEvent,
    InvalidOption,
    JWTEventsError,
    NotProven,
    OutlivesRetention,
    PublishFailed,
    PublishOutcomeUnknown,
    ServerRefused,
    TransportError,
)

if TYPE_CHECKING:
    from jwt_events.transport.connection import Connector

_T = TypeVar("_T")

_WITHIN = 5.0  # seconds

NO = 1
"""The answer is no, or something was found."""

FAILED = 2
"""The command line was not understood, or the command could not be carried out."""

STALE = 3
"""It is unknown whether the token is revoked."""

EXIT_CODES = (
    "Exit codes: 0 done, or the answer is yes; 1 the answer is no, or something was found; 2 not understood, or it"
    " could not be carried out; 3 it is unknown whether the token is revoked; 128 and the number of the signal that"
    " ended it (130 for Ctrl-C)."
)

# Typer has click inside, or beside it, depending on its version, and offers this one class of its errors.
_UsageError: Any = typer.BadParameter.__mro__[1]

# The name of a field within a message: one that no other word can be, or one that stands in a list of names.
_FIELD = re.compile(r"\b[a-z]+(?:_[a-z]+)+\b|(?<=, )(?:claims|everyone)(?=, |$)")
_HAS_ADVICE = re.compile(r"; the nodes name |; if the server speaks |without \+cluster|hash tag")
_CODE = re.compile(r"refused: ([A-Z]+)\b")

# What to do about an error reply, by its code.
_ADVICE = {
    "CLUSTERDOWN": "The cluster is down, or no node has the slot of the key: look at CLUSTER NODES.",
    "LOADING": "The server is still reading its data; try again in a moment.",
    "MOVED": "The server is a node of a cluster; write {url} as redis+cluster://host:6379.",
    "MISCONF": "The server cannot write to its disk; look into its log.",
    "NOAUTH": "Put the user and password into {url}: redis://user:password@host:6379.",
    "NOPERM": "Ask for the right; 'jwt-events doctor' tells which are there.",
    "OOM": "The server's memory is full; 'jwt-events doctor' tells more.",
    "READONLY": "That is a replica; use the URL of its primary.",
    "WRONGPASS": "Are the user and password in {url} right?",
    "WRONGTYPE": "Something else is kept under that name; choose another by --key, or --ledger for a ledger.",
}
_WHOLE_EVENT = frozenset({"line", "payload"})
_REACH = {
    FROM_OPTION: "Is a server running there? Say where by --url or JWT_EVENTS_URL; 'jwt-events serve' starts one.",
    FROM_ENVIRONMENT: "Is a server running there? JWT_EVENTS_URL says so; 'jwt-events serve' starts one.",
}


class OneLineGroup(TyperGroup):
    """A group of commands that reports every error as one line."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run a command and exit; see `TyperGroup`."""
        url_source.set(FROM_OPTION)
        try:
            code = super().main(*args, **extra | {"standalone_mode": False})
        except _UsageError as error:
            path = "jwt-events" if error.ctx is None else error.ctx.command_path
            problem = error.format_message().replace("Value error, ", "").rstrip(".")
            say(f"{problem}{'' if problem.endswith('?') else '.'} See '{path} --help'.")
            code = FAILED
        except (typer.Abort, KeyboardInterrupt):
            code = 128 + signal.SIGINT
        except (JWTEventsError, OSError) as error:
            say(describe(error))
            code = FAILED
        sys.exit(code if isinstance(code, int) else 0)


def say(text: str) -> None:
    """Print one line for the operator on standard error."""
    with writes.to(sys.stderr):
        typer.echo(f"jwt-events: {redacted(text)}", err=True)


def fail(problem: str) -> Never:
    """Exit with one line on standard error.

    Raises:
        typer.Exit: always.
    """
    say(problem)
    raise typer.Exit(FAILED)


def run(work: Coroutine[None, None, _T]) -> _T:
    """Run a coroutine to its end; the first SIGINT, SIGTERM or SIGHUP cancels it, further ones change nothing.

    Raises:
        typer.Exit: a signal has cancelled it.
    """
    return asyncio.run(_until_signalled(work))


async def _until_signalled(work: Coroutine[None, None, _T]) -> _T:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)
    received: list[int] = []

    def stop(number: int) -> None:
        received.append(number)
        if len(received) == 1:
            cancel_until_done(task)

    writes.reset()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop, number)
        signal.signal(number, writes.handle)  # the loop is woken all the same
    try:
        return await task
    except asyncio.CancelledError:
        if not received:
            raise
        raise typer.Exit(128 + received[0]) from None


def describe(error: Exception) -> str:
    """Describe an error in one line, with advice where there is some."""
    text = _message(error)
    advice = _advice(error)
    return redacted(f"{text.rstrip('.')}. {advice}" if advice else text)


def problems(error: InvalidEvent, named: Callable[[str], str] = str) -> str:
    """List the problems of an event by field; those of the event as a whole have no name in front."""
    listed = [(field, problem.removeprefix("Value error, ")) for field, problem in error.problems]
    return "; ".join(problem if field in _WHOLE_EVENT else f"{named(field)}: {problem}" for field, problem in listed)


def _message(error: Exception) -> str:
    """Return the message of an error with names as on the command line: ``--expires-at``, not ``expires_at``."""
    if isinstance(error, InvalidEvent):
        return _FIELD.sub(lambda name: _option(name[0]), problems(error, _option))
    if isinstance(error, InvalidOption):
        return f"{_option(error.option)}: {str(error).partition(': ')[2]}"
    return str(error)


def _advice(error: Exception) -> str:
    """Return what to do about an error; empty if the message is enough."""
    if isinstance(error, InvalidOption) and error.option == "client_or_url":
        return "For example: redis://localhost:6379."
    if isinstance(error, OutlivesRetention):
        return "Say by --retention what all publishers of this stream use."
    if isinstance(error, PublishOutcomeUnknown):
        return f"Publishing again is safe with the same id: {', '.join(error.event_ids[:3])}."
    if not isinstance(error, TransportError | PublishFailed):
        return ""
    if (code := _CODE.search(str(error))) is not None:
        return _ADVICE.get(code[1], "").format(url="the URL" if url_source.get() == FROM_OPTION else url_source.get())
    # Where it proves nothing, or the message has advice, the server is there.
    is_unreached = isinstance(error, ConnectionFailed | PublishFailed) and not isinstance(error, NotProven)
    return _REACH[url_source.get()] if is_unreached and not _HAS_ADVICE.search(str(error)) else ""


def _option(name: str) -> str:
    """Return the name of a parameter or field on the command line."""
    names = {"client_or_url": url_source.get(), "letter_id": "ID", "event": "the event"}
    names |= {name: name.upper() for name in ("status", "subject")}
    return names.get(name, "--" + name.replace("_", "-"))


async def recognize(connector: Connector) -> bool:
    """Find out whether a server is a node of a cluster, and return whether that was known of its URL.

    There the keys beside a stream have other names, and a node may own both: an empty reply would say nothing.

    Raises:
        TransportError: the server does not reply, or refuses this user.
    """
    from jwt_events.transport.connection import is_node, parse_info

    if connector.is_cluster:
        return True
    async with aclosing(await connector.connect(within=_WITHIN)) as connection:
        with suppress(ServerRefused):  # without the right its replies may tell
            if is_node(parse_info(await connection.call("INFO", "server", within=_WITHIN))):
                connector.follow()
    return False
