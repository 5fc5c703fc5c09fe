"""One command for each type of event, with options that are made from its model."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import typer

from jwt_events.cli import output
from jwt_events.cli.options import (
    NOT_SAID,
    Channel,
    Json,
    Key,
    Retention,
    Timeout,
    Transport,
    TransportName,
    Url,
    transport_from,
)
from jwt_events.cli.publish._fields import parameters_of, payload_of, summary
from jwt_events.cli.running import EXIT_CODES, carry_out
from jwt_events.cli.wording import fields as named
from jwt_events.events import EVENT_CLASSES, Event, EventType

if TYPE_CHECKING:
    from jwt_events.publisher import Publisher, Receipt


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


def commands() -> typer.Typer:
    """Make the commands."""
    app = typer.Typer(rich_markup_mode=None)
    for kind, cls in EVENT_CLASSES.items():
        app.command(kind.replace("_", "-"), help=summary(cls), epilog=EXIT_CODES)(_command(kind, cls))
    return app


def _command(kind: EventType, cls: type[Event]) -> Any:
    def publish(**given: Any) -> None:
        from jwt_events.publisher import Publisher

        where = {name: given.pop(name) for name in _WHERE}
        as_json, timeout = where.pop("as_json"), where.pop("timeout")
        payload = payload_of(cls, given)
        publisher = Publisher(transport_from(where.pop("transport"), **where), timeout=timeout)
        receipt = carry_out(_publish(publisher, kind, payload))
        if as_json:
            output.record(receipt)
        else:
            output.line(f"published {named(event_id=receipt.event_id, position=receipt.position)}")

    parameters = [*parameters_of(cls), *_WHERE.values()]
    publish.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what Typer reads
    publish.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return publish


async def _publish(publisher: Publisher, kind: EventType, payload: dict[str, Any]) -> Receipt:
    async with publisher:
        return await publisher.publish(kind, payload)
