"""The end of a connection whose token was revoked and whose handler does not end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

from jwt_events._internal.describing import describe
from jwt_events._internal.functions import awaited
from jwt_events._internal.notices import Notices

GRACE = 1.0
"""Seconds that a handler has to end after its token was revoked, before its connection is closed from outside."""

_GOES_ON = "handler goes on although its token was revoked"

_notices = Notices()  # one for all connections, each of which has an object of its own


class OverdueClose:
    """Closes a connection from outside if the block is still running a grace period after `start`.

    A handler that is cancelled can take its time to clean up, or swallow the cancellation. Its client must not be
    served meanwhile. An asynchronous context manager around the handler.

    Args:
        close: closes the connection; called at most once, in a task of its own. ``None`` if nothing can be closed.
    """

    def __init__(self, close: Callable[[], object] | None) -> None:
        self._close = close
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            await asyncio.wait([self._task])

    def start(self) -> None:
        """Begin the grace period: the token was revoked. Called once, on the event loop."""
        self._timer = asyncio.get_running_loop().call_later(GRACE, self._is_due)

    def _is_due(self) -> None:
        _notices.tell("ERROR", _GOES_ON, once=_GOES_ON)
        if self._close is not None:
            self._task = asyncio.create_task(self._run(self._close), name="jwt_events overdue close")

    async def _run(self, close: Callable[[], object]) -> None:
        try:
            await awaited("close", close())
        except Exception as error:  # noqa: BLE001 - of the framework; the handler goes on in any case
            problem = describe(error)
            _notices.tell("ERROR", "closing a connection failed", once=problem, error=problem)
