"""Subscriber that records events and gaps, for assertions afterwards."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from jwt_events import Event, Gap, Subscriber, Transport
from jwt_events.testing._waiting import eventually


class Listener:
    """Subscribes, and records events and gaps in the order of their arrival; an asynchronous context manager.

    Args:
        transport: transport to subscribe to.
        options: options of the `Subscriber`.

    Attributes:
        events: events that its handler of every event was called with.
        gaps: gaps that its gap handler was called with.
        subscriber: the subscriber.
    """

    def __init__(self, transport: Transport, **options: Any) -> None:
        self.events: list[Event] = []
        self.gaps: list[Gap] = []
        self.subscriber: Subscriber = Subscriber(transport, **options)
        self.subscriber.on()(self._record_event)
        self.subscriber.on_gap(self._record_gap)

    async def __aenter__(self) -> Self:
        await self.subscriber.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.subscriber.__aexit__(exc_type, exc, traceback)

    @property
    def causes(self) -> list[str]:
        """Causes of the gaps, in order."""
        return [gap.cause for gap in self.gaps]

    @property
    def subjects(self) -> list[str | None]:
        """Subjects of the events, in order."""
        return [event.subject for event in self.events]

    async def hears(self, *subjects: str, within: float = 10.0) -> None:
        """Wait for events with these subjects, in any order."""
        await eventually(
            lambda: set(subjects) <= set(self.subjects),
            within=within,
            what=lambda: f"events about {set(subjects) - set(self.subjects)}; there were {self.subjects}",
        )

    async def hears_of_gap(self, *causes: str, within: float = 10.0) -> None:
        """Wait until the gaps have exactly these causes, in this order."""
        await eventually(
            lambda: self.causes == list(causes), within=within, what=lambda: f"{causes}; there were {self.gaps}"
        )

    async def _record_event(self, event: Event) -> None:
        self.events.append(event)

    async def _record_gap(self, gap: Gap) -> None:
        self.gaps.append(gap)
