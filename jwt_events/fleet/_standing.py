"""How each instance stands, as a person who looks at the fleet sees it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from jwt_events._internal.positions import is_position, sort_key
from jwt_events.fleet._announcement import CLOSED, Announcement, parse
from jwt_events.transport.optional import Reading

GONE_AFTER: Final = 3600.0
"""Seconds of silence, by the server's clock, after which an instance counts as gone. Long, as one that cannot announce
itself may be alive."""


class Status(StrEnum):
    """How an instance stands.

    Attributes:
        FRESH: it is proven current, and has applied every event.
        BEHIND: it is proven current, but has not said yet that it applied the newest events.
        UNSAFE: its list lets tokens in when it is stale, whatever its state is now.
        STALE: its list refuses all tokens until it is current again.
        CATCHING_UP: its list has not read its history yet, and refuses all tokens.
        SILENT: it has said nothing for its lease: it ended, is frozen or cut off, or cannot announce itself.
        GONE: it has said nothing for an hour.
        CLOSED: it closed its list.
    """

    FRESH = "fresh"
    BEHIND = "behind"
    UNSAFE = "unsafe"
    STALE = "stale"
    CATCHING_UP = "catching_up"
    SILENT = "silent"
    GONE = "gone"
    CLOSED = "closed"

    @property
    def is_over(self) -> bool:
        """Whether it will not come back by itself."""
        return self in (Status.GONE, Status.CLOSED)

    @property
    def is_trouble(self) -> bool:
        """Whether a person should look at it: it refuses all tokens, or would let revoked ones in."""
        return self in (Status.UNSAFE, Status.STALE, Status.SILENT)


@dataclass(frozen=True, slots=True)
class Standing:
    """How an instance stands.

    Attributes:
        service: the service.
        instance: its name within the service.
        status: how it stands.
        position: the position up to which it has applied all events; empty if it said none.
        behind: seconds between the events that it applied last and the newest one; 0 if it has applied all.
        heard: seconds since it last said something, by the server's clock; ``None`` if that is not known.
        staleness: seconds since its list was last proven current, as it said; ``None`` without a proof.
        lease: its ``max_staleness`` in seconds.
        version: its version of this library.
        trouble: why following fails, as it said; empty while it works.
        is_double: whether another one that was heard lately uses the same name.
    """

    service: str
    instance: str
    status: Status
    position: str
    behind: float
    heard: float | None
    staleness: float | None
    lease: float
    version: str
    trouble: str
    is_double: bool = False


def standings(reading: Reading, newest: str) -> list[Standing]:
    """Return how the instances stand that a registry holds, by name.

    Args:
        reading: what the registry holds.
        newest: the newest position of the stream.
    """
    entries, clock, history = reading
    said = [found for field, entry in entries.items() if (found := parse(field, entry)) is not None]
    said.sort(key=lambda one: (one.name, one.run))
    doubles = _doubles(said, clock)
    return [
        Standing(
            service=one.service,
            instance=one.instance,
            status=_status(one, clock, has_all=one.has_applied(newest, history)),
            position=one.position,
            behind=_behind(one.position, newest),
            heard=_heard(one, clock),
            staleness=one.staleness,
            lease=one.lease,
            version=one.version,
            trouble=one.trouble,
            is_double=one.name in doubles,
        )
        for one in said
    ]


def _heard(said: Announcement, clock: float | None) -> float | None:
    if clock is None or said.said_at is None or _is_ahead(said, clock):
        return None
    return max(0.0, clock - said.said_at)


def _is_ahead(said: Announcement, clock: float | None) -> bool:
    """Return whether it has said nothing since the server's clock was set back: all that are there say so again."""
    return clock is not None and said.said_at is not None and said.said_at > clock + said.lease


def _status(said: Announcement, clock: float | None, *, has_all: bool) -> Status:
    heard = _heard(said, clock)
    if said.state == CLOSED:
        return Status.CLOSED
    if heard is not None and heard > GONE_AFTER:
        return Status.GONE
    if _is_ahead(said, clock) or (heard is not None and heard > said.lease):
        return Status.SILENT
    if said.allows_stale:
        return Status.UNSAFE
    if said.state in (Status.STALE, Status.CATCHING_UP):
        return Status(said.state)
    return Status.FRESH if has_all else Status.BEHIND


def _behind(position: str, newest: str) -> float:
    if not is_position(position) or sort_key(position) >= sort_key(newest):
        return 0.0
    return max(0, sort_key(newest)[0] - sort_key(position)[0]) / 1000


def _doubles(said: Iterable[Announcement], clock: float | None) -> set[str]:
    """Return the names that more than one uses that was heard within its lease."""
    names: set[str] = set()
    doubles: set[str] = set()
    for one in said:
        heard = _heard(one, clock)
        if one.state != CLOSED and heard is not None and heard <= one.lease:
            (doubles if one.name in names else names).add(one.name)
    return doubles
