"""What the bench asks of every library: to publish, to publish many, and to listen. Each in its own idiom."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar, Protocol

from bench.load import payload

Publish = Callable[[Any], Awaitable[object]]
PublishMany = Callable[[Sequence[Any]], Awaitable[object]]
Arrived = Callable[[str], object]
"""Called with the ``token_id`` of each event that arrived and was validated."""

TASKS = 200
"""How many tasks publish at once."""

PAGE = 500
"""How many entries a reader asks for at a time, where it can be said."""


class Client(Protocol):
    """A library on one transport.

    Attributes:
        name: what it is called in the table.
        package: its distribution, for the version.
        transport: ``stream`` or ``Pub/Sub``.
    """

    name: str
    package: ClassVar[str]
    transport: str

    def item(self, number: int, padding: int = 0) -> Any:
        """Make what an application would have in its hand: an event, a model, or bytes where only those are taken."""

    def publishing(self, url: str, to: str) -> AbstractAsyncContextManager[Publish]:
        """Connect, for publishing one item with each call; from up to `TASKS` tasks at once."""

    def publishing_many(self, url: str, to: str) -> AbstractAsyncContextManager[PublishMany]:
        """Connect, for publishing a thousand items with each call."""

    def listening(
        self, url: str, to: str, arrived: Arrived, *, group: str | None = None
    ) -> AbstractAsyncContextManager[object]:
        """Listen; entered means subscribed. From the beginning of a stream, in a group that exists if one is named."""


class Peer:
    """What clients of other libraries have in common: a name, and bytes in their hand, unless they take something else.

    Args:
        transport: ``stream`` or ``Pub/Sub``.
    """

    package: ClassVar[str]
    title: ClassVar[str]
    """What the table calls it, before the transport."""

    def __init__(self, transport: str) -> None:
        self.name = f"{self.title} {transport}"
        self.transport = transport

    def item(self, number: int, padding: int = 0) -> Any:
        """Bytes, encoded beforehand."""
        return payload(number, padding)
