"""What an open revocation list does in the background: follow, maintain, and announce itself to the fleet."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import Protocol

from jwt_events._internal.cancellation import end
from jwt_events._internal.describing import describe
from jwt_events.fleet import Announcer, Condition
from jwt_events.revocation._feed import Feed, Opening
from jwt_events.revocation._regional import RegionalFeed
from jwt_events.revocation._sources import Sources
from jwt_events.revocation._view import RevocationView, ViewState

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
        sources: what to follow.
        view: gets what is read.
        max_staleness: seconds for which a proof is good.
        opening: what must have happened before the list opens.
        announcers: announce the list to each of the sources; empty if it has no name.

    Attributes:
        feed: reads the sources.
    """

    def __init__(
        self,
        sources: Sources,
        view: RevocationView,
        *,
        max_staleness: float,
        opening: Opening,
        announcers: Mapping[str, Announcer],
    ) -> None:
        poll_timeout = max_staleness / _PROOFS_PER_STALENESS
        transport = sources.transports.get("")
        self.feed: Feed | RegionalFeed = (
            RegionalFeed(sources, view, max_staleness=max_staleness, poll_timeout=poll_timeout, opening=opening)
            if transport is None
            else Feed(transport, view, poll_timeout=poll_timeout, opening=opening)
        )
        self._view = view
        self._announcers = announcers
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
        known = {region: self._announce(region, announced) for region in self._announcers}
        self._view.on_news = self._hurry if known else None
        self._tasks = [
            asyncio.create_task(self.feed.run(after=known), name="jwt_events feed"),
            asyncio.create_task(self._view.maintain(verdicts), name="jwt_events maintenance"),
        ]

    async def stop(self) -> None:
        """End the tasks that follow. Idempotent."""
        tasks, self._tasks = self._tasks, []
        self.feed.close()
        await end(tasks)

    async def leave(self) -> None:
        """End the announcements; last, since publishers must wait for the list for as long as it lets tokens in."""
        async with AsyncExitStack() as stack:
            for announcer in self._announcers.values():
                stack.push_async_callback(announcer.aclose)

    def _hurry(self) -> None:
        for announcer in self._announcers.values():
            announcer.hurry()

    def _announce(self, region: str, announced: Announced) -> asyncio.Event:
        """Begin to announce the list to a source; return what is set when publishers can know of it."""

        def condition() -> Condition:
            failure, staleness = announced.failure, announced.staleness
            return Condition(
                position=self._view.progress.positions[region],
                history=self._view.progress.histories[region],
                state=announced.state,
                staleness=None if staleness == math.inf else staleness,
                trouble="" if failure is None else describe(failure),
            )

        announcer = self._announcers[region]
        announcer.open(condition)
        return announcer.attempted
