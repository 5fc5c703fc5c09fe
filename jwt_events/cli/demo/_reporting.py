"""Telling the parent again and again how far one has come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from jwt_events.cli.demo._messages import Report
from jwt_events.cli.demo._parent import Parent

BEAT = 0.1
"""Seconds between two reports, and so between two frames of what can be seen."""


async def report_until(end: asyncio.Future[Any], parent: Parent, report: Callable[[], Report]) -> None:
    """Report until a task ends, and fail if it failed."""
    while not end.done():
        parent.send(report())
        await asyncio.wait([end], timeout=BEAT)
    await end
