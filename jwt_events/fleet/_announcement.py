"""What an instance says about itself, and the form in which it is kept. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import msgspec

from jwt_events._internal.positions import is_position, sort_key
from jwt_events.errors import InvalidOption

CLOSED: Final = "closed"

_MAX_LENGTH: Final = 128
_NAME: Final = re.compile(r"[!-.0-~]+")  # visible ASCII, but no slash: it stands between service and instance
_MAX_ENTRY: Final = 4096

MAX_LEASE: Final = 86_400.0 * 366
"""The longest lease that is understood, in seconds, as publishers wait so long for a silent instance."""


def name_from(option: str, name: str) -> str:
    """Accept the name of a service or an instance.

    Raises:
        InvalidOption: it is empty, longer than 128 characters, or holds anything but visible ASCII without a slash.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > _MAX_LENGTH:
        raise InvalidOption(option, f"must be 1 to {_MAX_LENGTH} visible ASCII characters, without blanks and slashes")
    return name


@dataclass(frozen=True, slots=True)
class Announcement:
    """What an instance says about itself at one moment.

    Attributes:
        service: the service that it belongs to.
        instance: its name within the service.
        run: a random word, new each time that the list is opened: two that use one name are told apart.
        position: the position up to which its list has applied all events; empty if it has applied none.
        lease: seconds for which its list relies on a proof: its ``max_staleness``.
        allows_stale: whether its list lets tokens in when it is stale.
        state: the state of its list: a `ViewState`.
        staleness: the age of its last proof in seconds; ``None`` without a proof.
        said_at: when it said so, by the server's clock in seconds since 1970; ``None`` if it could not know.
        version: the version of this library.
        trouble: why following fails; empty while it works.
        history: the history of writes that the position belongs to; see `Batch.history`.
        lost_at: when it found that the registry had lost its entry, by the server's clock; ``None`` if it never did. So
            the entries of others may be lost, too.
    """

    service: str
    instance: str
    run: str
    position: str
    lease: float
    allows_stale: bool
    state: str
    staleness: float | None
    said_at: float | None
    version: str
    trouble: str = ""
    history: str = ""
    lost_at: float | None = None

    @property
    def name(self) -> str:
        """The name that people know it by."""
        return f"{self.service}/{self.instance}"

    @property
    def field(self) -> str:
        """The name of its entry in the registry: of this run alone."""
        return f"{self.name}/{self.run}"

    def has_applied(self, position: str, history: str) -> bool:
        """Whether its list has applied the event at this position of a history.

        A position of any other history says nothing: a server that took over without the last events of the one before
        gives their positions again, if its clock is behind.
        """
        if self.history != history or not is_position(self.position):
            return False
        return sort_key(self.position) >= sort_key(position)

    def encode(self) -> bytes:
        """Return the entry of the registry."""
        return msgspec.json.encode(self)


_DECODER: Final = msgspec.json.Decoder(Announcement)


def parse(field: str, entry: bytes) -> Announcement | None:
    """Return what an entry of the registry says; ``None`` if it is not one that this version understands.

    Members that a later version adds are passed over.
    """
    if len(entry) > _MAX_ENTRY:
        return None
    try:
        said = _DECODER.decode(entry)
    except (ValueError, RecursionError):
        return None
    is_sound = 0 < said.lease <= MAX_LEASE and said.field == field
    return said if is_sound else None
