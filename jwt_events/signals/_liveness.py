"""Whether a stream of signals is alive: the last proof, and which verification events were asked for. Pure.

A stream on which nothing happens looks like one that is dead. With management, the proof is a verification event that
was asked for and came; it proves the stream as of the moment of asking. Without, it is a reply to a poll, which proves
no more than that the transmitter is there.
"""

from __future__ import annotations

import math

_MAX_ASKED = 8

ENABLED = "enabled"


class Liveness:
    """What is known of one stream; all times are monotonic and passed in.

    Args:
        by_verification: whether verification events are asked for, so that a poll alone proves nothing.

    Attributes:
        status: the status in the last stream-updated event.
    """

    def __init__(self, *, by_verification: bool) -> None:
        self._by_verification = by_verification
        self._proven_at = -math.inf
        self._asked: dict[str, float] = {}
        self._adopted: str | None = None
        self.status: str = ENABLED

    def staleness(self, now: float) -> float:
        """Return the seconds since the last proof; infinite if there is none, or while the stream is not enabled."""
        return now - self._proven_at if self.status == ENABLED else math.inf

    def polled(self, sent_at: float) -> None:
        """A poll that was sent at this time was answered."""
        if not self._by_verification:
            self._proven_at = max(self._proven_at, sent_at)

    def proven(self, at: float) -> None:
        """Another process had proof as of this time."""
        self._proven_at = max(self._proven_at, at)

    def ask(self, state: str, now: float) -> None:
        """A verification event with this state is asked for."""
        self._asked[state] = now
        while len(self._asked) > _MAX_ASKED:
            del self._asked[next(iter(self._asked))]

    def adopt(self, state: str | None) -> None:
        """Expect the verification event that an earlier holder has asked for."""
        self._adopted = state

    def verified(self, state: str) -> bool:
        """Return whether a verification event was asked for; if so, it is proof, the first time."""
        if state in self._asked:
            self._proven_at = max(self._proven_at, self._asked[state])
            return True
        return state == self._adopted
