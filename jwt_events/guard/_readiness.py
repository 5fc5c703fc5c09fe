"""What an operator learns of an application: whether it is ready, and that it ended too early."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from jwt_events._internal.describing import describe
from jwt_events._internal.notices import Notices
from jwt_events.errors import InvalidOption, NotProven, TransportError
from jwt_events.revocation import RevocationList, ViewState
from jwt_events.subscriber import Subscriber


def readiness_of(*lists: RevocationList | Subscriber, resources: Iterable[object] = ()) -> tuple[int, dict[str, Any]]:
    """Return the response to a readiness probe: a status, and a body to send as JSON.

    200 if every list is fresh and every subscriber live, else 503; with the state of each and its staleness in seconds,
    ``None`` if infinite, and the ``reason`` if its server proves nothing.

    Args:
        lists: what must be ready.
        resources: what the application has opened; a subscriber among it that failed for good is listed, too.

    Raises:
        InvalidOption: ``lists`` is empty, or contains something else.
    """
    if not lists or not all(isinstance(one, RevocationList | Subscriber) for one in lists):
        raise InvalidOption("lists", "must be one RevocationList or several, or a Subscriber")
    failed = [one for one in resources if isinstance(one, Subscriber) and one.failure is not None]
    subscribers = dict.fromkeys([*(one for one in lists if isinstance(one, Subscriber)), *failed])
    views = [one for one in lists if isinstance(one, RevocationList)]
    is_ready = all(one.state is ViewState.FRESH for one in views) and all(one.is_live for one in subscribers)
    body = {"ready": is_ready, "revocations": [_health(one) for one in views]}
    if subscribers:
        body["subscribers"] = [_health(one) for one in subscribers]
    return (200 if is_ready else 503), body


def _health(part: RevocationList | Subscriber) -> dict[str, Any]:
    health = {"state": part.state.value, "staleness": _finite(part.staleness)}
    return health | ({"reason": part.failure.reason} if isinstance(part.failure, NotProven) else {})


def _finite(seconds: float) -> float | None:
    return round(seconds, 3) if math.isfinite(seconds) else None


def report_end(error: Exception) -> None:
    """Tell that what an application had opened was closed, because a part of it failed."""
    problem = str(error) if isinstance(error, TransportError) else describe(error)
    Notices().tell("ERROR", "the lifespan ended early, the application goes on without it", once="end", error=problem)
