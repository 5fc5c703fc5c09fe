"""``jwt-events signals``: streams of security events at their transmitter."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jwt_events.cli import _output as output
from jwt_events.cli._options import Json
from jwt_events.cli._running import EXIT_CODES, fail, run, say

if TYPE_CHECKING:
    from jwt_events.signals import SetStream, StreamConfiguration

app: typer.Typer = typer.Typer(
    help="Manage streams of security events. The value of the Authorization header is taken from"
    " JWT_EVENTS_AUTHORIZATION.",
    epilog=EXIT_CODES,
    rich_markup_mode=None,
)

_FROM_ENVIRONMENT = "JWT_EVENTS_AUTHORIZATION"

Issuer = Annotated[
    str, typer.Option("--issuer", metavar="URL", help="The transmitter, exactly as it writes its issuer.")
]
Address = Annotated[
    str | None,
    typer.Option(
        "--configuration-url", show_default=False, metavar="URL", help="Its configuration, if not well known."
    ),
]
StreamId = Annotated[
    str | None,
    typer.Option("--stream-id", show_default=False, metavar="ID", help="Which stream; the only one if not given."),
]
Timeout = Annotated[float, typer.Option("--timeout", help="Seconds that a request may take.")]
Requested = Annotated[
    list[str] | None,
    typer.Option("--events-requested", show_default=False, metavar="URI", help="A type of events; may be repeated."),
]
PushUrl = Annotated[
    str | None,
    typer.Option("--push-url", show_default=False, metavar="URL", help="Where to push; polled if not given."),
]
Description = Annotated[
    str | None, typer.Option("--description", show_default=False, metavar="TEXT", help="A text for people.")
]
SubjectArgument = Annotated[
    str,
    typer.Argument(metavar="SUBJECT", help='A subject identifier: \'{"format": "email", "email": "a@b.example"}\'.'),
]


@app.command(epilog=EXIT_CODES)
def discover(
    *, issuer: Issuer, configuration_url: Address = None, timeout: Timeout = 10.0, as_json: Json = False
) -> None:
    """Show what a transmitter says of itself."""

    async def work(stream: SetStream) -> None:
        _show(asdict(await stream.discover()), as_json=as_json)

    _run(work, issuer, configuration_url, None, timeout)


@app.command("list", epilog=EXIT_CODES)
def list_streams(
    *, issuer: Issuer, configuration_url: Address = None, timeout: Timeout = 10.0, as_json: Json = False
) -> None:
    """List the streams that the transmitter has for this receiver."""

    async def work(stream: SetStream) -> None:
        rows = [asdict(one) for one in await stream.streams()]
        if not rows:
            say("there are no streams")
        elif as_json:
            for row in rows:
                output.record(row)
        else:
            columns = ["stream_id", "delivery_method", "endpoint_url", "description"]
            output.table(columns, [[row[column] for column in columns] for row in rows])

    _run(work, issuer, configuration_url, None, timeout)


@app.command(epilog=EXIT_CODES)
def create(
    *,
    events_requested: Requested = None,
    push_url: PushUrl = None,
    description: Description = None,
    issuer: Issuer,
    configuration_url: Address = None,
    timeout: Timeout = 10.0,
    as_json: Json = False,
) -> None:
    """Create a stream, which is polled, or pushed to an address."""

    async def work(stream: SetStream) -> None:
        created = await stream.create(events_requested=events_requested, push_url=push_url, description=description)
        _show_stream(created, as_json=as_json)

    _run(work, issuer, configuration_url, None, timeout)


@app.command(epilog=EXIT_CODES)
def show(
    *,
    issuer: Issuer,
    stream_id: StreamId = None,
    configuration_url: Address = None,
    timeout: Timeout = 10.0,
    as_json: Json = False,
) -> None:
    """Show the configuration of a stream."""

    async def work(stream: SetStream) -> None:
        _show_stream(await stream.read(), as_json=as_json)

    _run(work, issuer, configuration_url, stream_id, timeout)


@app.command(epilog=EXIT_CODES)
def update(
    *,
    events_requested: Requested = None,
    push_url: PushUrl = None,
    description: Description = None,
    issuer: Issuer,
    stream_id: StreamId = None,
    configuration_url: Address = None,
    timeout: Timeout = 10.0,
    as_json: Json = False,
) -> None:
    """Change what is given of a stream, and leave the rest as it is."""
    if not (events_requested or push_url or description):
        fail("say what to change: --events-requested, --push-url or --description.")

    async def work(stream: SetStream) -> None:
        changed = await stream.update(events_requested=events_requested, push_url=push_url, description=description)
        _show_stream(changed, as_json=as_json)

    _run(work, issuer, configuration_url, stream_id, timeout)


@app.command(epilog=EXIT_CODES)
def delete(
    *,
    yes: Annotated[bool, typer.Option("--yes", help="I mean it.")] = False,
    issuer: Issuer,
    stream_id: StreamId = None,
    configuration_url: Address = None,
    timeout: Timeout = 10.0,
    as_json: Json = False,
) -> None:
    """Delete a stream, with the events in it."""
    if not yes:
        fail("the events that wait in the stream are lost. Add --yes if that is meant.")

    async def work(stream: SetStream) -> None:
        deleted = stream.stream_id or (await stream.read()).stream_id
        await stream.delete()
        _show({"deleted": deleted}, as_json=as_json)

    _run(work, issuer, configuration_url, stream_id, timeout)


@app.command(epilog=EXIT_CODES)
def status(
    new: Annotated[
        str | None, typer.Argument(metavar="[STATUS]", help="enabled, paused or disabled; only shown if not given.")
    ] = None,
    *,
    reason: Annotated[str | None, typer.Option(show_default=False, metavar="TEXT", help="Why.")] = None,
    issuer: Issuer,
    stream_id: StreamId = None,
    configuration_url: Address = None,
    timeout: Timeout = 10.0,
    as_json: Json = False,
) -> None:
    """Show the status of a stream, or set it. A paused stream keeps events, a disabled one loses them."""

    async def work(stream: SetStream) -> None:
        found = await (stream.status() if new is None else stream.set_status(new, reason=reason))
        _show(asdict(found), as_json=as_json)

    _run(work, issuer, configuration_url, stream_id, timeout)


@app.command(epilog=EXIT_CODES)
def verify(
    *,
    state: Annotated[str | None, typer.Option(show_default=False, metavar="TEXT", help="What it contains.")] = None,
    issuer: Issuer,
    stream_id: StreamId = None,
    configuration_url: Address = None,
    timeout: Timeout = 10.0,
) -> None:
    """Ask for a verification event. A receiver refuses one with a state that it did not ask for itself."""

    async def work(stream: SetStream) -> None:
        await stream.verify(state)
        say("a verification event is under way")

    _run(work, issuer, configuration_url, stream_id, timeout)


@app.command(epilog=EXIT_CODES)
def add_subject(
    subject: SubjectArgument,
    *,
    verified: Annotated[bool, typer.Option("--verified", help="You have verified that it is who it says.")] = False,
    issuer: Issuer,
    stream_id: StreamId = None,
    configuration_url: Address = None,
    timeout: Timeout = 10.0,
) -> None:
    """Add a subject to a stream."""
    parsed = _parse(subject)

    async def work(stream: SetStream) -> None:
        await stream.add_subject(parsed, verified=verified or None)
        say("added")

    _run(work, issuer, configuration_url, stream_id, timeout)


@app.command(epilog=EXIT_CODES)
def remove_subject(
    subject: SubjectArgument,
    *,
    issuer: Issuer,
    stream_id: StreamId = None,
    configuration_url: Address = None,
    timeout: Timeout = 10.0,
) -> None:
    """Remove a subject from a stream."""
    parsed = _parse(subject)

    async def work(stream: SetStream) -> None:
        await stream.remove_subject(parsed)
        say("removed")

    _run(work, issuer, configuration_url, stream_id, timeout)


def _run(
    work: Callable[[SetStream], Awaitable[None]],
    issuer: str,
    configuration_url: str | None,
    stream_id: str | None,
    timeout: float,
) -> None:
    from jwt_events.signals import SetStream

    async def open_and_work() -> None:
        async with SetStream(
            issuer,
            authorization=os.environ.get(_FROM_ENVIRONMENT) or None,
            stream_id=stream_id,
            configuration_url=configuration_url,
            timeout=timeout,
        ) as stream:
            await work(stream)

    try:
        run(open_and_work())
    except ImportError as error:
        fail(str(error))


def _parse(subject: str) -> dict[str, Any]:
    try:
        parsed = json.loads(subject)
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        fail("SUBJECT must be a JSON object: a subject identifier of RFC 9493.")
    return parsed


def _show_stream(stream: StreamConfiguration, *, as_json: bool) -> None:
    _show(asdict(stream), as_json=as_json)


def _show(content: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        output.record(content)
    else:
        output.table(["field", "value"], [[name, _text(value)] for name, value in content.items()])


def _text(value: object) -> object:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(map(str, value)) or None
    return value
