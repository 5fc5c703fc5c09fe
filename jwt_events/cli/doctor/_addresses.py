"""Whether the addresses that servers announce, as nodes of a cluster or as replicas, can be reached from here."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from jwt_events.cli.doctor._finding import Finding, Level
from jwt_events.errors import ServerRefused, TransportError
from jwt_events.transport.connection import Address, Connection, Connector, address_of

_WITHIN = 2.0
_SHOWN = 3  # problems, and how many more there are


@dataclass(frozen=True, slots=True)
class Announced:
    """The addresses that were announced.

    Attributes:
        kind: what they are of: ``nodes`` or ``replicas``.
        count: how many there are.
        unreached: those that could not be reached, and why.
    """

    kind: str
    count: int
    unreached: Mapping[str, str] = field(default_factory=dict)


async def look(connector: Connector, connection: Connection, replicas: Sequence[Address]) -> Announced:
    """Connect to each address that is announced.

    Args:
        connector: opens the connections.
        connection: the connection to the server, which is reached.
        replicas: where the replicas of a single server are, as it says.
    """
    kind, places = "replicas", replicas
    if connector.is_cluster:
        kind, places = "nodes", connector.topology.announced
    found = await asyncio.gather(*(_problem(connector, place) for place in places if place != connection.peer))
    return Announced(kind, len(places), dict(one for one in found if one is not None))


async def _problem(connector: Connector, place: Address) -> tuple[str, str] | None:
    address = address_of(place)
    try:
        connection = await connector.open(place, within=_WITHIN, decoder=connector.decoder.elsewhere(address))
    except ServerRefused:  # so it is reached
        return None
    except TransportError as error:
        return address, str(error)
    await connection.aclose()
    return None


def addresses(found: Announced | None, *, has_sentinels: bool) -> Iterator[Finding]:
    """Judge them; nothing if there are none.

    Args:
        found: the addresses; ``None`` if they are not known.
        has_sentinels: whether a replica may become the primary.
    """
    if found is None or not found.count:
        return
    topic, failed = f"addresses of {found.kind}", len(found.unreached)
    if not failed:
        yield Finding(topic, Level.OK, f"all {found.count} can be reached from here")
        return
    shown = "; ".join(list(found.unreached.values())[:_SHOWN])
    text = f"{failed} of {found.count} cannot be reached from here: {shown}"
    if failed > _SHOWN:
        text += f"; and {failed - _SHOWN} more"
    if found.kind == "nodes":
        advice = (
            "If they are up, set cluster-announce-ip, or -hostname, and cluster-announce-port there to what clients"
            " reach, or pass programs a RedisCluster with an address_remap: one of them may own the key tomorrow."
        )
        yield Finding(topic, Level.WARNING, text, advice)
    elif has_sentinels:
        advice = "If they are up, set replica-announce-ip and -port there: one of them may be the primary tomorrow."
        yield Finding(topic, Level.WARNING, text, advice)
    else:
        advice = 'If they are up, set replica-announce-ip and -port there: read_from="replica" does not reach them.'
        yield Finding(topic, Level.NOTE, text, advice)
