"""What an operator learns of an application: whether it is ready, and that it ended too early."""

from __future__ import annotations

import math
from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

from jwt_events._internal.describing import describe
from jwt_events._internal.notices import Notices
from jwt_events.errors import InvalidOption, NotProven, TransportError
from jwt_events.revocation import RevocationList, ViewState
from jwt_events.subscriber import Subscriber


@runtime_checkable
class Reporting(Protocol):
    """A part that knows whether it does its work, such as `SetPoller`."""

    @property
    def is_live(self) -> bool:
        """Whether it does."""
        ...

    @property
    def state(self) -> StrEnum:
        """Its state, in a word."""
        ...

    @property
    def staleness(self) -> float:
        """The seconds since that was last proven."""
        ...


def readiness_of(*lists: RevocationList | Reporting, resources: Iterable[object] = ()) -> tuple[int, dict[str, Any]]:
    """Return the response to a readiness probe: a status, and a body to send as JSON.

    200 if every list is fresh and every subscriber and poller live, else 503; with the state of each and its staleness
    in seconds, ``None`` if infinite, and the ``reason`` if its server proves nothing.

    Args:
        lists: what must be ready.
        resources: what the application has opened; a subscriber among it that failed for good is listed, too.

    Raises:
        InvalidOption: ``lists`` is empty, or contains something else.
    """
    if not lists or not all(isinstance(one, RevocationList | Reporting) for one in lists):
        raise InvalidOption("lists", "must be one RevocationList or several, or a Subscriber, or a SetPoller")
    failed = [one for one in resources if isinstance(one, Subscriber) and one.failure is not None]
    subscribers = dict.fromkeys([*(one for one in lists if isinstance(one, Subscriber)), *failed])
    views = [one for one in lists if isinstance(one, RevocationList)]
    others = [one for one in lists if not isinstance(one, RevocationList | Subscriber)]
    is_ready = all(one.state is ViewState.FRESH for one in views) and all(
        one.is_live for one in (*subscribers, *others)
    )
    body = {"ready": is_ready, "revocations": [_health(one) for one in views]}
    if subscribers:
        body["subscribers"] = [_health(one) for one in subscribers]
    if others:
        body["pollers"] = [_health(one) for one in others]
    return (200 if is_ready else 503), body


def _health(part: RevocationList | Reporting) -> dict[str, Any]:
    health = {"state": part.state.value, "staleness": _finite(part.staleness)}
    failure = getattr(part, "failure", None)
    return health | ({"reason": failure.reason} if isinstance(failure, NotProven) else {})


def _finite(seconds: float) -> float | None:
    return round(seconds, 3) if math.isfinite(seconds) else None


def report_end(error: Exception) -> None:
    """Tell that what an application had opened was closed, because a part of it failed."""
    problem = str(error) if isinstance(error, TransportError) else describe(error)
    Notices().tell("ERROR", "the lifespan ended early, the application goes on without it", once="end", error=problem)
