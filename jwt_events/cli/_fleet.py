"""``jwt-events fleet``: show which instances have applied which events, or wait until all of them have."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated

import typer

from jwt_events._internal.clock import boottime
from jwt_events.cli import _output as output
from jwt_events.cli._options import DEFAULT_NAME, NOT_GIVEN, Json, Key, Url, named_as
from jwt_events.cli._propagation import report
from jwt_events.cli._running import NO, describe, recognize, run, say
from jwt_events.errors import InvalidOption, TransportError

if TYPE_CHECKING:
    from jwt_events.fleet import Fleet, Propagation, Standing
    from jwt_events.transport.stream import RedisStream

_WITHIN = 5.0
_REFRESH = 1.0


Services = Annotated[
    list[str] | None,
    typer.Option("--service", metavar="NAME", show_default=False, help="Only this service; may be repeated."),
]
Wait = Annotated[
    str | None,
    typer.Option(
        "--wait",
        show_default=False,
        metavar="POSITION",
        help="Wait until the event at this position is in force in all of them, or their leases have ended.",
    ),
]
Within = Annotated[
    float, typer.Option("--within", help="Seconds to wait for lists with on_stale=allow, which have no lease.")
]
Port = Annotated[
    int | None,
    typer.Option(
        "--serve", min=0, max=65_535, show_default=False, metavar="PORT", help="Serve metrics for Prometheus there."
    ),
]
Host = Annotated[str, typer.Option("--host", help="The address for --serve.")]


def fleet(
    *,
    services: Services = None,
    wait: Wait = None,
    within: Within = 10.0,
    port: Port = None,
    host: Host = "127.0.0.1",
    url: Url = NOT_GIVEN,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Show how each instance stands that announces itself.

    An instance is a RevocationList with service= and instance=. Ends with 1 if one of them is stale, silent or unsafe,
    or, with --wait, if the event may not be in force somewhere.
    """
    from jwt_events.transport.stream import RedisStream

    stream = RedisStream(url, key or DEFAULT_NAME)
    if wait is not None:
        if port is not None:
            raise InvalidOption("serve", "shows how a fleet stands, and does not end: give it without --wait")
        propagation = run(_wait(stream, wait, _fleet_of(services or [], within)))
        if as_json:
            output.record(propagation)
        report(propagation, as_json=as_json)
        return
    if port is not None:
        run(_serve(stream, (host, port), services or []))
        return
    found = _of(run(_survey(stream)), services)
    if as_json:
        for standing in found:
            output.record(standing)
    elif not found:
        whose = f" of {', '.join(services)}" if services else ""
        where = f"beside {key or DEFAULT_NAME!r}"
        say(f"no instance{whose} has announced itself {where}; see service= and instance= of a list")
    else:
        columns = ("instance", "status", "behind", "heard", "staleness", "lease", "position", "version", "trouble")
        output.table(columns, [_row(standing) for standing in found])
    if any(standing.status.is_trouble or standing.is_double for standing in found):
        raise typer.Exit(NO)


def _of(standings: Sequence[Standing], services: Sequence[str] | None) -> list[Standing]:
    return [standing for standing in standings if not services or standing.service in services]


def _row(standing: Standing) -> Sequence[object]:
    name = f"{standing.service}/{standing.instance}"
    return (
        f"{name} (used twice)" if standing.is_double else name,
        standing.status,
        _seconds(standing.behind) if standing.behind else None,
        _seconds(standing.heard),
        _seconds(standing.staleness),
        _seconds(standing.lease),
        standing.position,
        standing.version,
        standing.trouble,
    )


def _seconds(value: float | None) -> str | None:
    return None if value is None else f"{value:.1f} s" if value < 100 else f"{value:.0f} s"


async def _survey(stream: RedisStream) -> list[Standing]:
    """Return how the instances of a stream stand.

    Raises:
        TransportError: no reply, or no right to ask.
    """
    from jwt_events.fleet import standings

    # The registry comes last: otherwise an event of the meantime would be one that was not applied.
    newest = await _newest(stream)
    async with stream.registry() as registry:
        return standings(await registry.entries(within=_WITHIN), newest)


async def _newest(stream: RedisStream) -> str:
    """Return the newest position of a stream.

    Raises:
        TransportError: no reply, or no right to ask.
    """
    from jwt_events.transport.stream import StreamInfo, stream_info

    await recognize(stream.connector)
    async with aclosing(await stream.connector.connect(within=_WITHIN)) as connection:
        (reply,) = await connection.execute_many([("XINFO", "STREAM", stream.destination)], within=_WITHIN)
    return (stream_info(reply) or StreamInfo()).last


def _fleet_of(services: Sequence[str], within: float) -> Fleet:
    """Return what the options say to wait for.

    Raises:
        InvalidOption: one of them is not valid.
    """
    from jwt_events.fleet import Fleet

    with named_as(services="service", timeout="within"):
        return Fleet(*services, timeout=within)


async def _wait(stream: RedisStream, position: str, fleet: Fleet) -> Propagation:
    """Wait until the event at a position is in force.

    Raises:
        InvalidOption: it is no position, or no event has come there: nothing is known of when one will.
        TransportError: no reply, or no right to ask.
    """
    from jwt_events._internal.positions import is_position, sort_key

    if not is_position(position):
        raise InvalidOption("wait", "must be a position, as 'jwt-events publish' prints it: 1767225600000-0")
    if sort_key(position) > sort_key(newest := await _newest(stream)):
        raise InvalidOption("wait", f"is beyond the newest event of {stream.destination!r}, which is at {newest}")
    return await fleet.wait(stream, position, boottime())


async def _serve(stream: RedisStream, address: tuple[str, int], services: Sequence[str]) -> None:
    from jwt_events.metrics import serve_fleet

    with serve_fleet(*address) as (metrics, port):
        output.line(f"http://{address[0]}:{port}/metrics")
        told = ""
        while True:
            try:
                metrics.show(_of(await _survey(stream), services))
            except TransportError as error:
                metrics.show(())  # no number is better than an old one
                if (problem := describe(error)) != told:
                    say(problem)
                told = problem
            else:
                told = ""
            await asyncio.sleep(_REFRESH)
