"""The interface of a benchmarked client: publish, publish many, and listen. Each library in its own idiom."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar, Protocol

from bench.load import payload

Publish = Callable[[Any], Awaitable[object]]
PublishMany = Callable[[Sequence[Any]], Awaitable[object]]
OnEvent = Callable[[str], object]
"""Called with the ``token_id`` of each event that was received and validated."""

TASKS = 200
"""The number of tasks that publish at once."""

BATCH_SIZE = 500
"""The number of entries that a reader requests at a time, where the library has an option for it."""


class Client(Protocol):
    """A library on one transport.

    Attributes:
        name: its name in the table.
        package: its distribution, for the version.
        transport: ``stream`` or ``Pub/Sub``.
    """

    name: str
    package: ClassVar[str]
    transport: str

    def item(self, number: int, padding: int = 0) -> Any:
        """Make what an application would publish: an event, a model, or bytes where only bytes are accepted."""

    def publishing(self, url: str, to: str) -> AbstractAsyncContextManager[Publish]:
        """Connect, for publishing one item with each call, from up to `TASKS` tasks at once."""

    def publishing_many(self, url: str, to: str) -> AbstractAsyncContextManager[PublishMany]:
        """Connect, for publishing a thousand items with each call."""

    def listening(
        self, url: str, to: str, on_event: OnEvent, *, group: str | None = None
    ) -> AbstractAsyncContextManager[object]:
        """Subscribe; subscribed when the block begins. From the beginning of a stream, or in an existing group."""


class ClientBase:
    """Base of the clients of other libraries: a name, and encoded bytes as items unless overridden.

    Args:
        transport: ``stream`` or ``Pub/Sub``.
    """

    package: ClassVar[str]
    title: ClassVar[str]
    """Its name in the table, before the transport."""

    def __init__(self, transport: str) -> None:
        self.name = f"{self.title} {transport}"
        self.transport = transport

    def item(self, number: int, padding: int = 0) -> Any:
        """Return bytes, encoded beforehand."""
        return payload(number, padding)
