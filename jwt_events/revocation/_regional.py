"""Follows the streams of several regions at once, each by a `Feed` of its own, into one view."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from loguru import logger

from jwt_events._internal.clock import boottime
from jwt_events._internal.notices import Notices
from jwt_events.errors import NotProven
from jwt_events.revocation._feed import Feed, Opening
from jwt_events.revocation._proofs import Proofs
from jwt_events.revocation._sources import Sources
from jwt_events.revocation._view import RevocationView
from jwt_events.transport.base import Gap

_CUT_OFF = "region is cut off"


class RegionalFeed:
    """Reads all regions side by side. What fails in one does not delay the events of another.

    Args:
        sources: the streams, and how long each is tolerated.
        view: gets what is read.
        max_staleness: seconds for which a proof is good.
        poll_timeout: as in `Feed`.
        opening: as in `Feed`; what must have happened in each region.

    Attributes:
        opened: done when the list may open; has the first error if it may not.
        caught_up: done when the whole history of each region has been applied; has the error if one failed.
    """

    def __init__(
        self, sources: Sources, view: RevocationView, *, max_staleness: float, poll_timeout: float, opening: Opening
    ) -> None:
        self._view = view
        self._tolerances = sources.tolerances
        self._proofs = Proofs(sources.tolerances, max_staleness=max_staleness)
        self._notices = Notices()
        self._told: frozenset[str] = frozenset()
        self._feeds = {
            region: Feed(
                transport, _Region(region, self, view), poll_timeout=poll_timeout, opening=opening, region=region
            )
            for region, transport in sources.transports.items()
        }
        self.opened: asyncio.Future[Any] = _all(feed.opened for feed in self._feeds.values())
        self.caught_up: asyncio.Future[Any] = _all(feed.caught_up for feed in self._feeds.values())

    @property
    def failure(self) -> Exception | None:
        """Why a region fails, proves nothing, or has proven nothing for too long; ``None`` while all of them work."""
        failed = next((feed.failure for feed in self._feeds.values() if feed.failure is not None), None)
        if failed is not None:
            return failed
        return next((self._cut_off_error(region) for region in self.cut_off), None)

    @property
    def cut_off(self) -> tuple[str, ...]:
        """The regions that have proven nothing for longer than ``max_staleness``, while others have."""
        return tuple(self._proofs.cut_off())

    async def run(self, *, after: Mapping[str, asyncio.Event]) -> None:
        """Read until cancelled; see `Feed.run`.

        Args:
            after: by region, what must be set before it is first read.
        """
        if (observer := self._view.observer) is not None:
            for region in self._feeds:
                observer.region(region, staleness=partial(self._age, region))
        async with asyncio.TaskGroup() as tasks:
            for region, feed in self._feeds.items():
                known = {region: after[region]} if region in after else {}
                tasks.create_task(feed.run(after=known), name=f"jwt_events feed of {region}")

    def close(self) -> None:
        """End the waiting for what was not read; see `Feed.close`."""
        for feed in self._feeds.values():
            feed.close()

    def record_proof(self, region: str, current_as_of: float) -> None:
        """Record that no event of a region is missing, and what that proves together with the others."""
        self._proofs.record(region, current_as_of)
        if (together := self._proofs.current_as_of) > -math.inf:
            self._view.record_proof(together)
        cut_off = frozenset(self._proofs.cut_off())
        if cut_off != self._told:
            self._tell(cut_off)

    def _tell(self, cut_off: frozenset[str]) -> None:
        for region in sorted(cut_off - self._told):
            level = "WARNING" if self._tolerances[region] else "ERROR"
            told = {"region": region, "error": str(self._cut_off_error(region))}
            self._notices.tell(level, _CUT_OFF, once=(_CUT_OFF, region), **told)
            if self._view.observer is not None:
                self._view.observer.region_cut_off(region)
        for region in sorted(self._told - cut_off):
            logger.info("region is proven current again", region=region)
        self._told = cut_off

    def _cut_off_error(self, region: str) -> NotProven:
        age, tolerance = self._age(region), self._tolerances[region]
        effect = f"it is left out for up to {tolerance:g} s" if tolerance else "the list is stale until it does"
        return NotProven(f"region {region!r} has proven nothing for {age:.1f} s: {effect}", reason="region_cut_off")

    def _age(self, region: str) -> float:
        return self._proofs.age(region, boottime())


class _Region:
    """Passes on what the feed of one region reads. A `FeedListener`."""

    def __init__(self, region: str, regions: RegionalFeed, view: RevocationView) -> None:
        self._region = region
        self._view = view
        self.apply_event = view.apply_event
        self.apply_many = view.apply_many
        self.restore = view.restore
        self.count_decode_error = view.count_decode_error
        self.count_reconnect = view.count_reconnect
        self.refuse_proof = view.refuse_proof
        self.record_position = partial(view.record_position, region=region)
        self.record_proof = partial(regions.record_proof, region)

    def report_gap(self, gap: Gap) -> None:
        """Report a gap, with the region before its position."""
        since = None if gap.since is None else f"{self._region}:{gap.since}"
        self._view.report_gap(replace(gap, since=since))


def _all(futures: Iterable[asyncio.Future[None]]) -> asyncio.Future[Any]:
    """Return a future that is done when all of these are, or has the first error of one."""
    together = asyncio.gather(*futures)
    together.add_done_callback(lambda done: done.cancelled() or done.exception())  # its waiter may be gone
    return together
