"""A subscriber that keeps what it hears, for tests that look at it afterwards."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from jwt_events import Event, Gap, Subscriber, Transport
from jwt_events.testing.waiting import eventually


class Listener:
    """Subscribes, and keeps events and gaps in the order of their arrival; an asynchronous context manager.

    Args:
        transport: where to listen.
        options: those of `Subscriber`.

    Attributes:
        events: what its handler of every event was called with.
        gaps: what its handler of gaps was called with.
        subscriber: the subscriber itself.
    """

    def __init__(self, transport: Transport, **options: Any) -> None:
        self.events: list[Event] = []
        self.gaps: list[Gap] = []
        self.subscriber: Subscriber = Subscriber(transport, **options)
        self.subscriber.on()(self._hear)
        self.subscriber.on_gap(self._hear_of_gap)

    async def __aenter__(self) -> Self:
        await self.subscriber.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.subscriber.__aexit__(exc_type, exc, traceback)

    @property
    def causes(self) -> list[str]:
        """The causes of the gaps."""
        return [gap.cause for gap in self.gaps]

    @property
    def subjects(self) -> list[str | None]:
        """What the events were about."""
        return [event.subject for event in self.events]

    async def hears(self, *subjects: str, within: float = 10.0) -> None:
        """Wait for events about these subjects, in whatever order."""
        await eventually(
            lambda: set(subjects) <= set(self.subjects),
            within=within,
            what=lambda: f"events about {set(subjects) - set(self.subjects)}; there were {self.subjects}",
        )

    async def hears_of_gap(self, *causes: str, within: float = 10.0) -> None:
        """Wait for gaps with these causes, and no others, in this order."""
        await eventually(
            lambda: self.causes == list(causes), within=within, what=lambda: f"{causes}; there were {self.gaps}"
        )

    async def _hear(self, event: Event) -> None:
        self.events.append(event)

    async def _hear_of_gap(self, gap: Gap) -> None:
        self.gaps.append(gap)
