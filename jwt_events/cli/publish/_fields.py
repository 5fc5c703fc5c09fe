"""The fields of events as options of a command, and back."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, get_args

import typer

from jwt_events.cli.options import instant
from jwt_events.errors import InvalidOption
from jwt_events.events import EVENT_CLASSES, Event, EventType, Instant

_ATTRIBUTE = re.compile(r"^    (\w+): (.*(?:\n {8,}.*)*)", re.MULTILINE)


def parameters_of(cls: type[Event]) -> Iterator[inspect.Parameter]:
    """Make a parameter, as Typer understands it, of each field of an event; its help is the field's docstring."""
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


def summary(cls: type[Event]) -> str:
    """Return what the docstring of an event says, but for its fields."""
    return inspect.cleandoc(cls.__doc__ or "").partition("\n\nAttributes:")[0].replace("``", "")


def payload_of(cls: type[Event], options: Mapping[str, Any]) -> dict[str, Any]:
    """Turn options, or the members of a JSON object, into what the event is made of; what was not given is left out.

    Raises:
        InvalidOption: an instant is none, or the metadata is no JSON.
    """
    given = {name: value for name, value in options.items() if value is not None}
    for name, value in given.items():
        if isinstance(value, str) and _is_instant(cls, name):
            given[name] = instant(name, value)
        elif isinstance(value, str) and name == "metadata":
            given[name] = _metadata(value)
    return given


def event_class(kind: object) -> type[Event] | None:
    """Return the class of a type of events; ``None`` if there is no such type."""
    return EVENT_CLASSES.get(EventType(kind)) if isinstance(kind, str) and kind in list(EventType) else None


def _helps(cls: type[Event]) -> dict[str, str]:
    listed = inspect.cleandoc(cls.__doc__ or "").partition("\nAttributes:\n")[2]
    texts = {name: " ".join(text.split()) for name, text in _ATTRIBUTE.findall(listed)}
    plain = {name: text.replace("``None``", "left out").replace("``", "") for name, text in texts.items()}
    return {name: text[:1].upper() + text[1:] for name, text in plain.items()}


def _metavar(cls: type[Event], name: str) -> str:
    if name == "metadata":
        return "JSON"
    return "INSTANT" if _is_instant(cls, name) else "TEXT"


def _is_instant(cls: type[Event], name: str) -> bool:
    field = cls.model_fields.get(name)
    return field is not None and (Instant in get_args(field.annotation) or field.annotation is get_args(Instant)[0])


def _metadata(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidOption("metadata", "must be a JSON object") from None
