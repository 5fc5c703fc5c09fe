"""Up to which position events are in force in a replica, and who waits for more."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable

from jwt_events._internal.clock import boottime
from jwt_events._internal.positions import OLDEST, parse_regional, sort_key
from jwt_events.errors import InvalidOption


class Progress:
    """How far a replica has come. Used on one event loop, except for `has_applied`.

    Args:
        regions: the names of the regions whose streams are followed; one empty name for one stream.

    Attributes:
        positions: by region, the position up to which all events are in force.
        histories: by region, the history of writes that its position belongs to; see `Batch.history`.
    """

    def __init__(self, regions: Iterable[str] = ("",)) -> None:
        regions = tuple(regions)
        self.positions: dict[str, str] = dict.fromkeys(regions, OLDEST)
        self.histories: dict[str, str] = dict.fromkeys(regions, "")
        self._proven_as_of = -math.inf
        self._waiting: set[asyncio.Future[None]] = set()
        self._is_closed = True

    def has_applied(self, position: str) -> bool:
        """Whether all events up to this position are in force. May be called from any thread.

        Raises:
            InvalidOption: it is no position, or names no region of the list.
        """
        found = parse_regional(position) if isinstance(position, str) else None
        if found is None or (reached := self.positions.get(found[0])) is None:
            regions = ", ".join(name for name in self.positions if name)
            region = f", with its region before it (region:position, of {regions})" if regions else ""
            raise InvalidOption("position", f"must be a position, as in Receipt.position{region}")
        return sort_key(reached) >= found[1]

    def reach(self, position: str, region: str = "", history: str = "") -> bool:
        """Record the position up to which all events of a region are in force; return if the history is another one."""
        self.positions[region] = position
        before, self.histories[region] = self.histories[region], history
        self._wake()
        return before != history

    def prove(self, current_as_of: float) -> None:
        """Record that all events that existed at that time (`boottime`) are in force."""
        self._proven_as_of = max(self._proven_as_of, current_as_of)
        self._wake()

    def open(self) -> None:
        """Let it be waited for."""
        self._is_closed = False

    def close(self) -> None:
        """End all waits: no more events come."""
        self._is_closed = True
        self._wake()

    async def wait_for(self, position: str, *, within: float) -> bool:
        """Wait until all events up to a position are in force, or no event is there. Cancelling is safe.

        An event whose position a caller knows exists already. So a proof that was begun after the call, and that shows
        nothing beyond what is in force, shows that there is no such event: it was lost, or the position made up.

        Returns:
            Whether that is so; ``False`` if it could not be shown ``within`` seconds.

        Raises:
            InvalidOption: it is no position.
        """
        asked_at = boottime()
        while not self.has_applied(position) and not self._proven_as_of > asked_at:
            left = asked_at + within - boottime()
            if self._is_closed or left <= 0:
                return False
            news: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.add(news)
            try:
                await asyncio.wait([news], timeout=left)
            finally:
                self._waiting.discard(news)
        return True

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for news in waiting:
            if not news.done():
                news.set_result(None)
