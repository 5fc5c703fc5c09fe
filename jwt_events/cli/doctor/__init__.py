"""``jwt-events doctor``: find out whether a server is fit to carry revocations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from jwt_events.cli import _output as output
from jwt_events.cli._options import (
    NOT_GIVEN,
    Channel,
    Json,
    Key,
    Ledger,
    Retention,
    Transport,
    TransportName,
    Url,
    duration,
    make_transport,
)
from jwt_events.cli._running import NO, fail, run
from jwt_events.errors import ConnectionFailed

if TYPE_CHECKING:
    from jwt_events.cli.doctor._facts import Facts
    from jwt_events.cli.doctor._finding import Finding
    from jwt_events.transport.pubsub import RedisPubSub
    from jwt_events.transport.stream import RedisStream

__all__ = ["doctor"]

Replicas = Annotated[
    int, typer.Option("--replicas", min=0, metavar="N", help="How many replicas publishers and lists ask for.")
]
MaxStaleness = Annotated[float, typer.Option("--max-staleness", min=0.05, metavar="SECONDS", help="That of the lists.")]


def doctor(
    *,
    url: Url = NOT_GIVEN,
    transport: Transport = TransportName.STREAM,
    key: Key = None,
    channel: Channel = None,
    ledger: Ledger = None,
    retention: Retention = "1d",
    replicas: Replicas = 0,
    max_staleness: MaxStaleness = 5.0,
    as_json: Json = False,
) -> None:
    """Look at a server, and give advice.

    It looks at the rights of the user in the URL, too, and changes nothing. What this user may not see is reported
    as unknown, which is no warning. Ends with 0 if all is well, 1 if there are warnings or problems, 2 if the server
    cannot be reached.
    """
    from jwt_events.cli.doctor._facts import collect_facts
    from jwt_events.cli.doctor._finding import Level
    from jwt_events.cli.doctor._findings import findings

    target = make_transport(transport, url, key=key, channel=channel, ledger=ledger)
    kept = duration("retention", retention)
    collecting = collect_facts(url, target, retention=kept, replicas=replicas, max_staleness=max_staleness)
    facts = run(_examine(collecting, url, target))
    found = findings(facts, durable=target.guarantees.durable)
    if as_json:
        for finding in found:
            output.record(finding)
    else:
        _show(found)
    raise typer.Exit(NO if any(finding.level in {Level.WARNING, Level.PROBLEM} for finding in found) else 0)


async def _examine(collecting: Coroutine[None, None, Facts], url: str, target: RedisStream | RedisPubSub) -> Facts:
    from jwt_events.cli.doctor._port import mismatch

    try:
        return await collecting
    except ConnectionFailed as error:
        port = target.connector.port
        advice = "" if port is None else await mismatch(urlsplit(url).scheme, target.connector.host, port)
        if advice:
            fail(f"{error}. {advice}")
        raise


def _show(found: Sequence[Finding]) -> None:
    from jwt_events.cli.doctor._finding import Level

    columns = ("level", "topic", "text", "advice")
    output.table(columns, [(one.level, one.topic, one.text, one.advice or None) for one in found])
    counts = Counter(finding.level for finding in found)
    output.line(", ".join(f"{counts[level]} {level}" for level in Level if counts[level]))
