"""The head of a ledger: up to where a stream is folded, and whether anything was removed that was not. Pure.

A ledger lies beside its stream. Entries are folded into it in the order of their positions and removed from the stream
in the same transaction; so every entry that was ever removed was folded, unless somebody else removed it. The head
counts what was folded, and a stream counts what was removed (since Redis 7): if the stream has more, entries are lost.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from jwt_events._internal.positions import OLDEST, is_position, sort_key
from jwt_events.errors import TransportError
from jwt_events.transport._stream.position import StreamInfo

VERSION = 1
"""The version of ledgers that this library reads and writes."""

PREFIX = b"\0"
"""How the member with the head begins; no entry of a ledger begins so."""

_FIELDS = re.compile(rb"(\d{1,20}-\d{1,20}) (\d{1,19}|-) (\d{1,19}) (\d{1,19}) (\d{1,19}) (\d{1,19})")
_VERSION = re.compile(PREFIX + rb"(\d{1,9})(?: |\Z)")


def successor(position: str) -> str:
    """Return the position directly after this one."""
    milliseconds, sequence = sort_key(position)
    return f"{milliseconds + 1}-0" if sequence == 2**64 - 1 else f"{milliseconds}-{sequence + 1}"


@dataclass(frozen=True, slots=True)
class LedgerHead:
    """Up to where a stream is folded.

    Attributes:
        position: everything up to this position was folded, and removed from the stream.
        counted: how many entries were ever added up to there; ``None`` if the server does not count.
        lost: how many entries were found to be removed that nobody had folded.
        lost_at: when that was found last, in milliseconds since 1970 by the server's clock; 0 for never.
        kept: how many entries the ledger had, when it was last folded into, that are needed after ``beyond``.
        beyond: seconds since 1970. Until then nobody has a reason to remove one of these, so a ledger with fewer is not
            complete.
    """

    position: str = OLDEST
    counted: int | None = None
    lost: int = 0
    lost_at: int = 0
    kept: int = 0
    beyond: int = 0

    @classmethod
    def parse(cls, member: bytes) -> LedgerHead:
        """Parse the member of a ledger that holds its head.

        Raises:
            TransportError: it is of a later version, or no head.
        """
        version = _VERSION.match(member)
        if version is not None and int(version[1]) > VERSION:
            raise TransportError(
                f"the ledger has version {int(version[1])}, and this program reads version {VERSION}: upgrade it"
            )
        fields = None if version is None else _FIELDS.fullmatch(member, version.end())
        if fields is None or int(version[1] if version else 0) != VERSION or not is_position(fields[1].decode()):
            raise TransportError("the head of the ledger was not written by this library")
        counted = None if fields[2] == b"-" else int(fields[2])
        return cls(fields[1].decode(), counted, *(int(number) for number in fields.groups()[2:]))

    def encode(self) -> bytes:
        """Return the member that holds this head."""
        counted = "-" if self.counted is None else self.counted
        numbers = f"{counted} {self.lost} {self.lost_at} {self.kept} {self.beyond}"
        return PREFIX + f"{VERSION} {self.position} {numbers}".encode()

    def after(self, count: int, last: str) -> LedgerHead:
        """Return the head after more entries were folded, which the stream had when it was folded up to this one.

        Args:
            count: how many.
            last: the position of the last of them.
        """
        return replace(self, position=last, counted=None if self.counted is None else self.counted + count)

    def missing(self, stream: StreamInfo) -> int | None:
        """Return how many entries were removed from the stream that nobody had folded.

        Args:
            stream: the stream, at a moment at which this was its head.

        Returns:
            ``0`` as far as the server counts; ``None`` if it is another stream than the one that was folded.
        """
        reached = sort_key(self.position)
        if sort_key(stream.last) < reached or (stream.first is not None and sort_key(stream.first) <= reached):
            return None
        if self.counted is None or stream.removed is None:
            return 0
        return None if stream.removed < self.counted else stream.removed - self.counted


def united(own: LedgerHead | None, plain: LedgerHead | None, stream: StreamInfo) -> LedgerHead | None:
    """Return the head of a ledger that another one of the same stream is merged into.

    Args:
        own: its head; ``None`` if there is none.
        plain: the head of the other one; ``None`` if there is none.
        stream: the stream that is there now. Of heads that both fit it, the later counts.
    """
    if own is None or plain is None:
        return own or plain
    fitting = [head for head in (own, plain) if head.missing(stream) is not None] or [own]
    latest = max(fitting, key=lambda head: sort_key(head.position))
    lost, lost_at = max(own.lost, plain.lost), max(own.lost_at, plain.lost_at)
    return replace(latest, lost=lost, lost_at=lost_at, kept=own.kept, beyond=own.beyond)


def advance(
    head: LedgerHead | None, stream: StreamInfo, count: int, last: str, *, now: int, vanished: bool = False
) -> LedgerHead:
    """Return the head after the oldest entries of a stream were folded.

    Args:
        head: the head before; ``None`` for a new ledger.
        stream: the stream, before the entries are removed.
        count: how many entries.
        last: the position of the last of them.
        now: milliseconds since 1970, by the server's clock.
        vanished: whether there was a ledger before this new one, so that what was removed before is lost. Otherwise
            publishers removed it that knew no ledger, and kept to their retention.
    """
    removed = stream.removed
    counted = None if removed is None else removed + count
    if head is None:
        is_lost = vanished and removed != 0
        return LedgerHead(last, counted, (removed or 0) if is_lost else 0, now if is_lost else 0)
    missing = head.missing(stream)
    if missing is None:  # another stream has taken the place of the one that was folded
        return LedgerHead(last, counted, head.lost, now)
    return LedgerHead(last, counted, head.lost + missing, now if missing else head.lost_at)
