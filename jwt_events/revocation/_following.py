"""What an open revocation list does in the background: follow, maintain, and announce itself to the fleet."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from typing import Protocol

from jwt_events._internal.cancellation import end
from jwt_events._internal.describing import describe
from jwt_events.fleet import Announcer, Condition
from jwt_events.revocation._feed import Feed, Opening
from jwt_events.revocation._view import RevocationView, ViewState
from jwt_events.transport.base import Transport

_PROOFS_PER_STALENESS = 4


class Announced(Protocol):
    """A list that announces itself."""

    @property
    def state(self) -> ViewState:
        """Its state now."""

    @property
    def staleness(self) -> float:
        """Seconds since it was last proven current; infinite if it never was."""

    @property
    def failure(self) -> Exception | None:
        """Why following fails now."""


class Following:
    """The tasks of an open list, from its opening on.

    Args:
        transport: what to follow.
        view: gets what is read.
        max_staleness: seconds for which a proof is good.
        opening: what must have happened before the list opens.
        announcer: announces the list; ``None`` if it has no name.

    Attributes:
        feed: reads the transport.
    """

    def __init__(
        self,
        transport: Transport,
        view: RevocationView,
        *,
        max_staleness: float,
        opening: Opening,
        announcer: Announcer | None,
    ) -> None:
        poll_timeout = max_staleness / _PROOFS_PER_STALENESS
        self.feed: Feed = Feed(transport, view, poll_timeout=poll_timeout, opening=opening)
        self._view = view
        self._announcer = announcer
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def state(self) -> ViewState:
        """The state of the list."""
        if self._view.is_fresh:
            return ViewState.FRESH
        return ViewState.STALE if self.feed.caught_up.done() else ViewState.CATCHING_UP

    def start(self, announced: Announced, verdicts: Callable[[], Mapping[str, int]]) -> None:
        """Start the tasks.

        Args:
            announced: the list, as publishers and people hear of it.
            verdicts: returns how often each verdict has been returned so far.
        """
        known = None if self._announcer is None else self._announce(self._announcer, announced)
        self._tasks = [
            asyncio.create_task(self.feed.run(after=known), name="jwt_events feed"),
            asyncio.create_task(self._view.maintain(verdicts), name="jwt_events maintenance"),
        ]

    async def stop(self) -> None:
        """End the tasks that follow. Idempotent."""
        tasks, self._tasks = self._tasks, []
        await end(tasks)

    async def leave(self) -> None:
        """End the announcements; last, since publishers must wait for the list for as long as it lets tokens in."""
        if self._announcer is not None:
            await self._announcer.aclose()

    def _announce(self, announcer: Announcer, announced: Announced) -> asyncio.Event:
        """Begin to announce the list; return what is set when publishers can know of it."""

        def condition() -> Condition:
            failure, staleness = announced.failure, announced.staleness
            return Condition(
                position=self._view.progress.position,
                state=announced.state,
                staleness=None if staleness == math.inf else staleness,
                trouble="" if failure is None else describe(failure),
            )

        self._view.on_news = announcer.hurry
        announcer.open(condition)
        return announcer.attempted
