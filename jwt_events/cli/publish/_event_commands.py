"""The commands that publish one event: one for each type, with options that are made from its model."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jwt_events.cli import _output as output
from jwt_events.cli._options import (
    NOT_GIVEN,
    Channel,
    InForce,
    Json,
    Key,
    RetentionWithoutLedger,
    Timeout,
    Transport,
    TransportName,
    Url,
    make_transport,
    parse_in_force,
)
from jwt_events.cli._propagation import report
from jwt_events.cli._running import EXIT_CODES, run
from jwt_events.cli.publish._parsing import JSON_FIELDS, fields_from, is_instant
from jwt_events.events import EVENT_CLASSES, Event, EventType

if TYPE_CHECKING:
    from jwt_events.fleet import Fleet, Lease
    from jwt_events.publisher import Publisher, Receipt

# An entry of the section "Attributes" of a docstring.
_ATTRIBUTE = re.compile(r"^    (\w+): (.*(?:\n {8,}.*)*)", re.MULTILINE)


def _target(
    *,
    url: Url = NOT_GIVEN,
    transport: Transport = TransportName.STREAM,
    key: Key = None,
    channel: Channel = None,
    retention: RetentionWithoutLedger = None,
    timeout: Timeout = 5.0,
    in_force: InForce = None,
    as_json: Json = False,
) -> None:
    """Declare the options that all of these commands have."""


_SHARED = inspect.signature(_target, eval_str=True).parameters


def make_commands() -> typer.Typer:
    """Make the commands."""
    app = typer.Typer(rich_markup_mode=None)
    for kind, cls in EVENT_CLASSES.items():
        app.command(kind.replace("_", "-"), help=_summary(cls), epilog=EXIT_CODES)(_command(kind, cls))
    return app


def _command(kind: EventType, cls: type[Event]) -> Any:
    def publish(**given: Any) -> None:
        from jwt_events.publisher import Publisher

        shared = {name: given.pop(name) for name in _SHARED}
        as_json, timeout = shared.pop("as_json"), shared.pop("timeout")
        in_force = parse_in_force(shared.pop("in_force"))
        fields = fields_from(cls, given)
        publisher = Publisher(make_transport(shared.pop("transport"), **shared), timeout=timeout)
        receipt = run(_publish(publisher, kind, fields, in_force))
        if as_json:
            output.record(receipt)
        else:
            output.line(f"published {output.logfmt(event_id=receipt.event_id, position=receipt.position)}")
        if receipt.propagation is not None:
            report(receipt.propagation, as_json=as_json)

    parameters = [*_parameters(cls), *_SHARED.values()]
    publish.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what Typer reads
    publish.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return publish


async def _publish(
    publisher: Publisher, kind: EventType, fields: dict[str, Any], in_force: Lease | Fleet | None
) -> Receipt:
    async with publisher:
        return await publisher.publish(kind, fields, in_force=in_force)


def _parameters(cls: type[Event]) -> Iterator[inspect.Parameter]:
    """Yield a parameter, as Typer understands it, for each field of an event; its help is the field's docstring."""
    helps = _helps(Event) | _helps(cls)
    for name, field in cls.model_fields.items():
        if name == "type":
            continue
        is_flag = field.annotation is bool
        option = typer.Option(
            f"--{name.replace('_', '-')}",
            help=helps.get(name),
            show_default=False,
            **({} if is_flag else {"metavar": _metavar(cls, name)}),  # type: ignore[arg-type]  # any keyword
        )
        kind: Any = bool if is_flag else str if field.is_required() else str | None
        default = False if is_flag else inspect.Parameter.empty if field.is_required() else None
        yield inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
        )


def _summary(cls: type[Event]) -> str:
    """Return the docstring of an event without the section on its fields."""
    return inspect.cleandoc(cls.__doc__ or "").partition("\n\nAttributes:")[0].replace("``", "")


def _helps(cls: type[Event]) -> dict[str, str]:
    """Return the help of each field, from the docstring of an event."""
    listed = inspect.cleandoc(cls.__doc__ or "").partition("\nAttributes:\n")[2]
    texts = {name: " ".join(text.split()) for name, text in _ATTRIBUTE.findall(listed)}
    plain = {name: text.replace("``None``", "left out").replace("``", "") for name, text in texts.items()}
    return {name: text[:1].upper() + text[1:] for name, text in plain.items()}


def _metavar(cls: type[Event], name: str) -> str:
    if name in JSON_FIELDS:
        return "JSON"
    return "INSTANT" if is_instant(cls, name) else "TEXT"
