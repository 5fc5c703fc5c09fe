"""``jwt-events publish``: one event, from options that are made from its model, or a file of them."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

import typer

from jwt_events.cli import fields, output
from jwt_events.cli.batch import Batch
from jwt_events.cli.options import (
    NOT_SAID,
    Channel,
    Json,
    Key,
    Retention,
    Transport,
    TransportName,
    Url,
    transport_from,
)
from jwt_events.cli.running import EXIT_CODES, carry_out
from jwt_events.cli.wording import fields as named
from jwt_events.events import EVENT_CLASSES, Event, EventType
from jwt_events.publisher import Publisher
from jwt_events.shipment import Receipt

app = typer.Typer(help="Publish one event, or a file of them.", epilog=EXIT_CODES, rich_markup_mode=None)

Timeout = Annotated[
    float, typer.Option("--timeout", help="Seconds that publishing may take, tries and pauses included.")
]


def _where(
    *,
    url: Url = NOT_SAID,
    transport: Transport = TransportName.STREAM,
    key: Key = None,
    channel: Channel = None,
    retention: Retention = "1d",
    timeout: Timeout = 5.0,
    as_json: Json = False,
) -> None:
    """Hold the options that say where to publish."""


_WHERE = inspect.signature(_where, eval_str=True).parameters


def _command(kind: EventType, cls: type[Event]) -> None:
    def publish(**given: Any) -> None:
        where = {name: given.pop(name) for name in _WHERE}
        as_json, timeout = where.pop("as_json"), where.pop("timeout")
        payload = fields.payload(cls, given)
        publisher = Publisher(transport_from(where.pop("transport"), **where), timeout=timeout)
        receipt = carry_out(_publish(publisher, kind, payload))
        if as_json:
            output.record(receipt)
        else:
            output.line(f"published {named(event_id=receipt.event_id, position=receipt.position)}")

    parameters = [*fields.parameters(cls), *_WHERE.values()]
    publish.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what Typer reads
    publish.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    app.command(kind.replace("_", "-"), help=fields.summary(cls), epilog=EXIT_CODES)(publish)


for _kind, _cls in EVENT_CLASSES.items():
    _command(_kind, _cls)


@app.command(epilog=EXIT_CODES)
def file(
    path: Annotated[str, typer.Argument(metavar="FILE", help="A JSON object on each line; - for standard input.")],
    *,
    from_line: Annotated[int, typer.Option(min=1, help="Pass over the lines before this one.")] = 1,
    source: Annotated[
        str | None, typer.Option(show_default=False, help="Who says so, for events that do not name their own source.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=10_000, help="How many to publish at a time.")] = 500,
    url: Url = NOT_SAID,
    transport: Transport = TransportName.STREAM,
    key: Key = None,
    channel: Channel = None,
    retention: Retention = "1d",
    timeout: Timeout = 5.0,
    as_json: Json = False,
) -> None:
    """Publish the events of a file, in order.

    A line holds an envelope, as tail --json prints it, or the type of an event and its fields side by side:
    {"type": "token_revoked", "token_id": "…", "expires_at": 1767225600}. When it fails, it says with which line to go
    on. Give events an id of their own, and those that are published twice are handled once.
    """
    target = transport_from(transport, url, key=key, channel=channel, retention=retention)
    batch = Batch(Publisher(target, source=source, timeout=timeout), path, from_line=from_line, size=batch_size)
    try:
        carry_out(batch.publish())
    finally:
        batch.close()
    done = {"published": batch.published, "next_line": batch.next_line}
    if as_json:
        output.record(done)
    else:
        output.line(named(**done))


async def _publish(publisher: Publisher, kind: EventType, payload: dict[str, Any]) -> Receipt:
    async with publisher:
        return await publisher.publish(kind, payload)
