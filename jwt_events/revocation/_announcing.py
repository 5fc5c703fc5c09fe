"""What a revocation list says about itself to the fleet."""

from __future__ import annotations

import asyncio
import math
from typing import Protocol

from jwt_events._internal.describing import describe
from jwt_events.fleet import Announcer, Condition
from jwt_events.revocation._view import RevocationView, ViewState


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


def announce(announcer: Announcer | None, view: RevocationView, revocations: Announced) -> asyncio.Event | None:
    """Begin to announce a list, if it has a name; return what is set when publishers can know of it."""
    if announcer is None:
        return None

    def condition() -> Condition:
        failure, staleness = revocations.failure, revocations.staleness
        return Condition(
            position=view.position,
            state=revocations.state,
            staleness=None if staleness == math.inf else staleness,
            trouble="" if failure is None else describe(failure),
        )

    view.on_news = announcer.hurry
    announcer.open(condition)
    return announcer.attempted
