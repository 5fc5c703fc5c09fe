"""Independent streams of several regions, which one revocation list follows together.

Each region has a server and a stream of its own, and nothing is copied between them: a publisher writes to the stream
of its own region, and a list reads them all. A region that is cut off stops neither the publishers of the others nor
the reading of their events.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from types import MappingProxyType
from typing import Final

from jwt_events._internal import options
from jwt_events.errors import InvalidOption
from jwt_events.transport.base import Transport
from jwt_events.transport.stream import RedisStream

_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


class RegionalStreams:
    """The streams of several regions, for a `RevocationList` that follows all of them.

    ::

        streams = RegionalStreams(eu=RedisStream(EU), us=RedisStream(US), tolerate={"eu": 60.0})
        async with RevocationList(streams) as revocations, Publisher(streams["us"]) as publisher:
            ...

    A list is as current as the region that was proven least recently, and a gap of one region is a gap. So a region
    that is cut off makes the list stale, unless it is tolerated. A publisher and a subscriber use one stream, so they
    take a region's own: ``streams["us"]``. A position alone does not say of which stream it is: for
    `RevocationList.check` write the region before it, ``at_least=f"us:{receipt.position}"``.

    Args:
        streams: streams without a name; their regions are called ``"1"``, ``"2"``, and so on.
        tolerate: by region, the seconds for which a list goes without it once it proves nothing any more; only then
            does ``max_staleness`` begin to run. Until then, the list does not know the revocations that were published
            there in the meantime, and lets those tokens in. It counts from the last proof, so a list that was never
            proven current with a region is stale, as it knows nothing of it. At least one region must be proven.
        regions: streams by the names of their regions: letters, digits, ``.``, ``_`` and ``-``.

    Attributes:
        regions: the streams by the names of their regions.
        tolerances: the seconds of ``tolerate`` of each region; 0 for those that are not tolerated.

    Raises:
        InvalidOption: a stream is not durable, belongs to a group, or is there twice; or a name is not valid.
    """

    name = "regions"

    def __init__(self, *streams: Transport, tolerate: Mapping[str, float] | None = None, **regions: Transport) -> None:
        named = {str(number): stream for number, stream in enumerate(streams, start=1)}
        if twice := sorted(named.keys() & regions.keys()):
            raise InvalidOption(twice[0], "names two streams: one by its place, one by its name")
        named |= regions
        tolerances = _tolerances(named, tolerate)
        if not named:
            raise InvalidOption("regions", "are missing: RegionalStreams(eu=RedisStream(…), us=RedisStream(…))")
        _check_streams(named)
        self.regions: Mapping[str, Transport] = MappingProxyType(named)
        self.tolerances: Mapping[str, float] = MappingProxyType(tolerances)

    def __getitem__(self, region: str) -> Transport:
        """Return the stream of a region, for its publishers.

        Raises:
            KeyError: there is no such region.
        """
        return self.regions[region]

    def __repr__(self) -> str:
        return f"<RegionalStreams {', '.join(f'{name}={stream!r}' for name, stream in self.regions.items())}>"

    @property
    def destination(self) -> str:
        """The names of the regions, as logs and metrics show them."""
        return ", ".join(self.regions)


def _check_streams(named: Mapping[str, Transport]) -> None:
    places: dict[Hashable, str] = {}
    for name, stream in named.items():
        if not _NAME.fullmatch(name):
            raise InvalidOption("regions", f"a name is 1 to 64 letters, digits, '.', '_' or '-', not {name[:64]!r}")
        options.transport("RegionalStreams", stream, "receiver")
        if not stream.guarantees.durable:
            raise InvalidOption(name, f"{stream.name} is not durable; use RedisStream")
        if not stream.guarantees.fan_out:
            raise InvalidOption(name, "shares events within a group, but a list must see all: use no group")
        if (other := places.setdefault(_place(stream), name)) != name:
            raise InvalidOption(name, f"is the same stream as {other!r}: the same key on the same server")


def _place(stream: Transport) -> Hashable:
    """Return what two descriptions of one stream have in common."""
    if isinstance(stream, RedisStream):
        return stream.connector.address, stream.connector.database, stream.destination
    return id(stream)


def _tolerances(named: Mapping[str, Transport], tolerate: Mapping[str, float] | None) -> dict[str, float]:
    if tolerate is not None and not isinstance(tolerate, Mapping):
        raise InvalidOption("tolerate", 'must be seconds by region, such as {"eu": 60.0}; no region can have this name')
    given = dict(tolerate or {})
    if unknown := [name for name in given if name not in named]:
        raise InvalidOption("tolerate", f"there is no region {str(unknown[0])[:64]!r}: {', '.join(named)}")
    return {name: options.leeway("tolerate", given.get(name, 0.0)) for name in named}
