"""What a transport may offer beside carrying events: a ledger, a registry of instances, events that are sent again.

Each is optional: `isinstance` tells whether a transport, or a sender, has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, NamedTuple, Protocol, Self, TypeAlias, overload, runtime_checkable

from jwt_events._internal.receipt import Receipt
from jwt_events.transport.base import Receiver, Server, Transport

ENDLESS: Final = 10**13
"""A time that never comes, in seconds since 1970: that of entries which have no end. What is added to it counts when
entries with the same content merge."""


class LedgerEntry(NamedTuple):
    """Something that stays in force when the event that it came from is removed from the stream.

    Attributes:
        content: what it says. Not empty, and its first byte is not zero.
        until: when it is no longer needed, in seconds since 1970; infinite if it always is. Of several with the same
            content the latest counts.
    """

    content: bytes
    until: float

    def __repr__(self) -> str:
        return f"LedgerEntry(until={self.until!r})"  # without the content, as it tells which user was logged out


class LedgerBatch(Sequence[tuple[bytes, float]]):
    """Entries of a ledger, in two columns: a tuple for each would make Python's garbage collector look at all objects.

    Args:
        contents: the content of each.
        until: when each is no longer needed; see `LedgerEntry`.

    Attributes:
        contents: the content of each.
        until: when each is no longer needed; as many.
    """

    __slots__ = ("contents", "until")

    def __init__(self, contents: list[bytes], until: list[float]) -> None:
        self.contents: list[bytes] = contents
        self.until: list[float] = until

    @classmethod
    def of(cls, entries: Iterable[tuple[bytes, float]]) -> Self:
        """Return entries as a batch; a batch as it is."""
        if isinstance(entries, cls):
            return entries
        pairs = list(entries)
        return cls([content for content, _ in pairs], [until for _, until in pairs])

    def append(self, content: bytes, until: float) -> None:
        """Add an entry."""
        self.contents.append(content)
        self.until.append(until)

    def __len__(self) -> int:
        return len(self.contents)

    def __iter__(self) -> Iterator[tuple[bytes, float]]:
        return zip(self.contents, self.until, strict=True)

    @overload
    def __getitem__(self, index: int) -> tuple[bytes, float]: ...

    @overload
    def __getitem__(self, index: slice) -> Self: ...

    def __getitem__(self, index: int | slice) -> tuple[bytes, float] | Self:
        if isinstance(index, slice):
            return type(self)(self.contents[index], self.until[index])
        return self.contents[index], self.until[index]

    def __repr__(self) -> str:
        return f"LedgerBatch(<{len(self)} entries>)"  # without the contents, as they tell which user was logged out


class LedgerReport(NamedTuple):
    """What a program that folds tells of a ledger after each round.

    Attributes:
        behind: seconds by which the oldest event is older than the longest retention, or since folding fails.
        counts: how many entries there are that end (``ending``), have no end (``endless``), or are about a key
            (``key``); empty if that is not known.
        size: how many bytes of the server's memory they take; ``None`` if that is not known.
    """

    behind: float
    counts: Mapping[str, int] = {}
    size: int | None = None


Fold: TypeAlias = Callable[[Sequence[bytes], float], Iterable[LedgerEntry]]
"""Returns what is still in force of events, given their bytes and the time in seconds since 1970."""


Keep: TypeAlias = Callable[[Sequence[bytes], Sequence[Receipt]], None]
"""Keeps what was accepted, in case that the server is replaced: the payloads, and their receipts."""


@runtime_checkable
class Republishing(Protocol):
    """A sender that sends events again when the server that accepted them was replaced. Optional."""

    def keep(self, seconds: float, report: Callable[[int], None]) -> Keep:
        """Begin to keep what is accepted, and return the function to call with the payloads and their receipts.

        Args:
            seconds: how long each is kept.
            report: called with the number of payloads that were sent again.
        """
        ...


@runtime_checkable
class Located(Protocol):
    """A transport that tells which server it uses, for traces. Optional: not every transport has a server."""

    @property
    def server(self) -> Server:
        """The server."""
        ...


class Reading(NamedTuple):
    """What a registry holds at one moment.

    Attributes:
        entries: the entries by their names.
        clock: the server's clock, in seconds since 1970; ``None`` if the server does not tell it.
        history: the history of writes of the server that it was read from, as in `Batch.history`: only positions that
            belong to it can be compared with those that this server gave.
    """

    entries: Mapping[str, bytes]
    clock: float | None
    history: str


class Stored(NamedTuple):
    """What became of an entry that was announced.

    Attributes:
        clock: the server's clock, in seconds since 1970; ``None`` if the server does not tell it.
        is_new: whether there was no entry of this name.
    """

    clock: float | None
    is_new: bool


class Registry(Protocol):
    """What the instances of services say about themselves, kept beside the events. Safe to call from many tasks."""

    async def announce(self, name: str, entry: bytes, *, within: float) -> Stored:
        """Store the entry of an instance, in place of the one that it stored before.

        Raises:
            TransportError: the entry was not stored, as far as is known. `ServerRefused` if a right is missing.
        """
        ...

    async def entries(self, *, within: float) -> Reading:
        """Return all entries.

        Raises:
            TransportError: as `announce` does.
        """
        ...

    async def forget(self, names: Sequence[str], *, within: float) -> None:
        """Remove entries.

        Raises:
            TransportError: as `announce` does.
        """
        ...


@runtime_checkable
class Registering(Protocol):
    """A transport that has a registry of instances. Optional."""

    def registry(self) -> AbstractAsyncContextManager[Registry]:
        """Open the registry. Connects when it is first used."""
        ...


@runtime_checkable
class Ledgered(Protocol):
    """A transport beside whose stream there can be a ledger, so that no trimming loses what is in force. Optional."""

    @property
    def ledger(self) -> str | None:
        """The key of the ledger; ``None`` if there is none."""
        ...

    def folding(
        self, fold: Fold, report: Callable[[LedgerReport], None] | None = None
    ) -> AbstractAsyncContextManager[None]:
        """Fold into the ledger what no publisher keeps any more, and trim it, in the background of the block.

        Does nothing where there is no ledger.

        Args:
            fold: says what is still in force.
            report: called after each round.
        """
        ...

    def replica_receiver(self, *, poll_timeout: float | None = None) -> AbstractAsyncContextManager[Receiver]:
        """Open a receiver that reads the stream from its oldest event, then the ledger, then follows.

        Where there is no ledger, it is `Transport.receiver` from the oldest event.

        Args:
            poll_timeout: as in `Transport.receiver`.
        """
        ...


def has_ledger(transport: Transport) -> bool:
    """Return whether no trimming of its stream loses what is in force."""
    return isinstance(transport, Ledgered) and transport.ledger is not None
