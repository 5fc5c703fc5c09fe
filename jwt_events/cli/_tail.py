"""``jwt-events tail``: show events as they happen."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from jwt_events._internal.event_type import EventType
from jwt_events.cli import _output as output
from jwt_events.cli._options import NOT_GIVEN, Channel, Json, Key, Transport, TransportName, Url, make_transport
from jwt_events.cli._running import run, say
from jwt_events.errors import DecodeError, InvalidOption

if TYPE_CHECKING:
    from jwt_events.events import Event
    from jwt_events.transport.base import Delivery, Gap
    from jwt_events.transport.pubsub import RedisPubSub
    from jwt_events.transport.stream import RedisStream

# Fields of every event, which have a fixed place in the line.
_ENVELOPE = frozenset({"type", "id", "occurred_at", "source"})


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter of events by type and identifiers.

    Attributes:
        types: the types to show; empty for all.
        identifiers: the values that fields must have.
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
        int | None, typer.Option(min=1, show_default=False, help="End after this many events were shown.")
    ] = None,
    until_current: Annotated[
        bool, typer.Option("--until-current", help="End when everything that a stream holds was read.")
    ] = False,
    url: Url = NOT_GIVEN,
    transport: Transport = TransportName.STREAM,
    key: Key = None,
    channel: Channel = None,
    as_json: Json = False,
) -> None:
    """Show events as they happen, one on each line, until Ctrl-C.

    This is for operators: identifiers of users, tokens, sessions and clients are shown as they are, whole tokens
    never. Standard error says where it listens, and reports gaps and entries that are not events. With --json each
    line is the envelope, with its position; publish --file takes such lines.
    """
    source = make_transport(transport, url, key=key, channel=channel, start=start)
    if until_current and not source.guarantees.durable:
        raise InvalidOption("until_current", "is for --transport stream; pubsub has no end")
    named = {"user_id": user_id, "token_id": token_id, "session_id": session_id, "client_id": client_id}
    wanted = Filter(types or (), {name: value for name, value in named.items() if value is not None})
    run(_follow(source, wanted, count=count, until_current=until_current, as_json=as_json))


async def _follow(
    source: RedisStream | RedisPubSub, wanted: Filter, *, count: int | None, until_current: bool, as_json: bool
) -> None:
    shown = 0
    async with source.receiver() as receiver:
        kind = "stream" if source.guarantees.durable else "channel"
        verb = "reading" if until_current else "listening to"
        say(f"{verb} the {kind} {source.destination!r} at {source.connector.address}")
        while True:
            batch = await receiver.receive()
            output.ensure_read()
            for gap in batch.gaps:
                say(_gap_text(gap))
            for delivery in batch.deliveries:
                shown += _show(delivery, wanted, as_json=as_json)
                if shown == count:
                    return
            if until_current and batch.current_as_of is not None:
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
    """Format an event as one line: time, type, fields, source, id."""
    content = {name: value for name, value in event if name not in _ENVELOPE}
    for name in ("data", "metadata"):
        if content.pop(name, None):
            content[name] = json.dumps(getattr(event, name))
    content |= {"source": event.source, "id": event.id}
    return f"{output.rfc3339(event.occurred_at)} {event.type} {output.logfmt(**content)}"


def _gap_text(gap: Gap) -> str:
    lost = "" if gap.lost is None else f", {gap.lost} lost"
    return f"events may have been missed ({gap.cause}{lost}){_at(gap.since, 'after')}"


def _at(position: str | None, word: str = "at") -> str:
    return "" if position is None else f" {word} {position}"
