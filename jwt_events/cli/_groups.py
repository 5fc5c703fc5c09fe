"""``jwt-events groups``: show the consumer groups of a stream, their lag and their pending events."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jwt_events.cli import _output as output
from jwt_events.cli._options import DEFAULT_NAME, NOT_GIVEN, Json, Key, Url
from jwt_events.cli._running import NO, recognize, run, say
from jwt_events.errors import ServerRefused

if TYPE_CHECKING:
    from jwt_events.transport.connection import Connection

_WITHIN = 5.0


@dataclass(frozen=True, slots=True)
class Consumer:
    """A consumer of a group.

    Attributes:
        name: its name.
        pending: how many events were delivered to it and are not acknowledged.
        idle: seconds since its last attempted interaction.
    """

    name: str
    pending: int
    idle: float


@dataclass(frozen=True, slots=True)
class Group:
    """A consumer group of a stream.

    Attributes:
        name: its name.
        lag: how many events were not delivered to it yet; ``None`` if the server does not know.
        pending: how many were delivered to it and are not acknowledged.
        last_delivered: the position up to which events were delivered to it.
        consumers: its consumers.
    """

    name: str
    lag: int | None
    pending: int
    last_delivered: str
    consumers: Sequence[Consumer]

    def idle_for(self, seconds: float) -> list[Consumer]:
        """Return the consumers that have been idle for at least this many seconds."""
        return [consumer for consumer in self.consumers if consumer.idle >= seconds]


def groups(
    *,
    idle_after: Annotated[float, typer.Option(min=0, help="Seconds without a sign of life that count as idle.")] = 60.0,
    url: Url = NOT_GIVEN,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Show lag, pending events and idle consumers of groups.

    A living consumer polls the server every second. The pending events of an idle one go to another after claim_after.
    Ends with 1 if a consumer is dead: idle, with pending events.
    """
    name = key or DEFAULT_NAME
    found = run(_find(url, name))
    if found is None:
        say(f"there is no stream {name!r} yet; it comes with the first event")
        return
    if as_json:
        for group in found:
            output.record(asdict(group) | {"idle": [consumer.name for consumer in group.idle_for(idle_after)]})
    elif not found:
        say(f"no group reads the stream {name!r}")
    else:
        columns = ("name", "lag", "pending", "last_delivered", "consumers", "idle")
        output.table(columns, [_row(group, idle_after) for group in found])
    if any(consumer.pending for group in found for consumer in group.idle_for(idle_after)):
        raise typer.Exit(NO)


def _row(group: Group, idle_after: float) -> Sequence[object]:
    idle = ", ".join(
        f"{consumer.name} ({consumer.pending} pending, {consumer.idle:.0f} s)"
        for consumer in group.idle_for(idle_after)
    )
    return group.name, group.lag, group.pending, group.last_delivered, len(group.consumers), idle or None


async def _find(url: str, key: str) -> list[Group] | None:
    from jwt_events.transport.connection import Connector

    connector = Connector(url, destination=key)
    await recognize(connector)
    async with aclosing(await connector.connect(within=_WITHIN)) as connection:
        return await groups_of(connection, key)


async def groups_of(connection: Connection, key: str) -> list[Group] | None:
    """Return the consumer groups of a stream; ``None`` if there is no such stream.

    Raises:
        TransportError: no reply, or no right to ask.
    """
    try:
        rows = await connection.call("XINFO", "GROUPS", key, within=_WITHIN)
    except ServerRefused as error:
        if "no such key" in str(error):
            return None
        raise
    return [await _group(connection, key, _fields(row)) for row in rows]


async def _group(connection: Connection, key: str, fields: dict[bytes, Any]) -> Group:
    rows = await connection.call("XINFO", "CONSUMERS", key, fields[b"name"], within=_WITHIN)
    consumers = [
        Consumer(_text(member[b"name"]), member[b"pending"], member[b"idle"] / 1000) for member in map(_fields, rows)
    ]
    last_delivered = _text(fields[b"last-delivered-id"])
    return Group(_text(fields[b"name"]), fields.get(b"lag"), fields[b"pending"], last_delivered, consumers)


def _fields(row: Sequence[Any]) -> dict[bytes, Any]:
    return dict(zip(row[::2], row[1::2], strict=True))


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
