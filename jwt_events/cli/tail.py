"""``jwt-events tail``: what travels on the bus, as it happens."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from jwt_events._internal.event_type import EventType
from jwt_events.cli import output
from jwt_events.cli.options import NOT_SAID, Channel, Json, Key, Transport, TransportName, Url, transport_from
from jwt_events.cli.running import carry_out, say
from jwt_events.cli.wording import fields, instant
from jwt_events.errors import DecodeError, InvalidOption

if TYPE_CHECKING:
    from jwt_events.events import Event
    from jwt_events.transport.base import Delivery, Gap
    from jwt_events.transport.pubsub import RedisPubSub
    from jwt_events.transport.stream import RedisStream

_SAID_FIRST = frozenset({"type", "id", "occurred_at", "source"})


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events to show.

    Attributes:
        types: those of these types; empty for all.
        identifiers: those with these identifiers, by field.
    """

    types: Sequence[EventType]
    identifiers: Mapping[str, str]

    def passes(self, event: Event) -> bool:
        """Whether to show an event."""
        if self.types and event.type not in self.types:
            return False
        return all(getattr(event, name, None) == value for name, value in self.identifiers.items())


def tail(
    *,
    types: Annotated[
        list[EventType] | None,
        typer.Option(
            "--type", metavar="TYPE", show_default=False, help="Only this type, such as token_revoked; may be repeated."
        ),
    ] = None,
    user_id: Annotated[str | None, typer.Option(show_default=False, help="Only events about this user.")] = None,
    token_id: Annotated[str | None, typer.Option(show_default=False, help="Only events about this token.")] = None,
    session_id: Annotated[str | None, typer.Option(show_default=False, help="Only events about this session.")] = None,
    client_id: Annotated[str | None, typer.Option(show_default=False, help="Only events about this client.")] = None,
    start: Annotated[
        str,
        typer.Option(help="Where to begin: new, all, an instant (ISO 8601 or NumericDate), or after a position."),
    ] = "new",
    count: Annotated[
        int | None, typer.Option(min=1, show_default=False, help="End after so many events were shown.")
    ] = None,
    until_current: Annotated[
        bool, typer.Option("--until-current", help="End when everything that a stream holds was read.")
    ] = False,
    url: Url = NOT_SAID,
    transport: Transport = TransportName.STREAM,
    key: Key = None,
    channel: Channel = None,
    as_json: Json = False,
) -> None:
    """Show events as they happen, one on each line, until Ctrl-C.

    This is for whoever operates the bus: identifiers of users, tokens, sessions and clients are shown as they are.
    Whole tokens never are. Gaps, and what is no event, are told on standard error. With --json each line is the
    envelope, with its position; publish --file takes such lines.
    """
    source = transport_from(transport, url, key=key, channel=channel, start=start)
    if until_current and not source.guarantees.durable:
        raise InvalidOption("until_current", "is for --transport stream; pubsub has no end")
    named = {"user_id": user_id, "token_id": token_id, "session_id": session_id, "client_id": client_id}
    wanted = Filter(types or (), {name: value for name, value in named.items() if value is not None})
    carry_out(_follow(source, wanted, count=count, until_current=until_current, as_json=as_json))


async def _follow(
    source: RedisStream | RedisPubSub, wanted: Filter, *, count: int | None, until_current: bool, as_json: bool
) -> None:
    shown = 0
    async with source.receiver() as receiver:
        while True:
            page = await receiver.receive()
            output.ensure_read()
            for gap in page.gaps:
                say(_told(gap))
            for delivery in page.deliveries:
                shown += _show(delivery, wanted, as_json=as_json)
                if shown == count:
                    return
            if until_current and page.current_as_of is not None:
                return


def _show(delivery: Delivery, wanted: Filter, *, as_json: bool) -> bool:
    """Show an event if it is wanted, and return whether it was."""
    from jwt_events.envelope import decode

    try:
        event = decode(delivery.payload).event
    except DecodeError as error:
        say(f"no event{_at(delivery.position)}: {error}")
        return False
    if not wanted.passes(event):
        return False
    if as_json:
        output.record(json.loads(delivery.payload) | {"position": delivery.position})
    else:
        output.line(one_line(event))
    return True


def one_line(event: Event) -> str:
    """Write an event as one line: when, what, about whom, by whom."""
    content = {name: value for name, value in event if name not in _SAID_FIRST}
    for name in ("data", "metadata"):
        if content.pop(name, None):
            content[name] = json.dumps(getattr(event, name))
    return f"{instant(event.occurred_at)} {event.type} {fields(**content, source=event.source, id=event.id)}"


def _told(gap: Gap) -> str:
    lost = "" if gap.lost is None else f", {gap.lost} lost"
    return f"events may have been missed ({gap.cause}{lost}){_at(gap.since, 'after')}"


def _at(position: str | None, word: str = "at") -> str:
    return "" if position is None else f" {word} {position}"
