"""Cancellation that arrives: delivered again until what it is to end has ended.

`asyncio.Task.cancel` raises ``CancelledError`` once, where the task waits, and code in between can lose it. Before
Python 3.12 `asyncio.wait_for` does when its result arrives at the same moment, and every command of redis-py 8 goes
through it; ``except BaseException: pass`` does on any version. The task then runs on, and nothing says so. Scopes of
anyio therefore cancel again at each turn of the loop; so does everything here, in growing intervals.

A task that is cleaning up, in ``finally``, ``except`` or ``__aexit__``, because of the cancellation has noticed it. It
is left alone for a grace period, so that a roll-back or a closing handshake can wait for its server. If it waits for
the children of an `asyncio.TaskGroup`, which cancels them only once, these are cancelled again in its place.

==========================  ==========================================================================================
`HostCancellation`          cancels the task inside an ``async with`` block, until the block ends
`timeout`                   `asyncio.timeout` with such a cancellation; a block that ends after its time has failed
`cancel_until_done`         cancels a task until it has ended
`end`                       does that to several tasks, and waits for them
`noticing_cancellation`     raises, at the end of a block, a cancellation that was lost inside
==========================  ==========================================================================================

Source: https://github.com/python/cpython/issues/86296 (``wait_for``), anyio's ``CancelScope._deliver_cancellation``.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import AsyncGeneratorType, CoroutineType, GeneratorType, TracebackType
from typing import Any, Self

GRACE = 5.0
"""Seconds for which a task may clean up before it is cancelled there, too."""

# The first interval between two deliveries, the part of the time so far that later ones take, and the longest: about
# fifty deliveries in the first 0.2 s, then fewer and fewer.
_FIRST_INTERVAL, _GROWTH, _MAX_INTERVAL = 0.001, 0.05, 1.0

# What a suspended task is made of; the last two stand between an asynchronous generator and what asks it.
_SUSPENDED: tuple[type, ...] = (CoroutineType, GeneratorType, AsyncGeneratorType)
_MAX_FRAMES = 1_000


class _Delivery:
    """Cancels one task again and again until it is stopped or the task has ended.

    Attributes:
        count: how often `asyncio.Task.cancel` was called.
    """

    def __init__(self, task: asyncio.Task[Any], reason: str, *, grace: float) -> None:
        self.count = 0
        self._task = task
        self._reason = reason
        self._grace = grace
        self._loop = task.get_loop()
        self._began = self._loop.time()
        self._earlier = list(_handled_cancellations(task))
        self._timer: asyncio.Handle | None = None
        self._deliver()

    def _deliver(self) -> None:
        elapsed = self._loop.time() - self._began
        if self._task.done():
            self._timer = None
            return
        for child in _cancelled_children(self._task):
            if elapsed >= self._grace or not any(_handled_cancellations(child)):
                child.cancel(self._reason)
        if not self.count or elapsed >= self._grace or not self._is_noticed():
            self._task.cancel(self._reason)
            self.count += 1
        again = self._deliver_a_turn_later if self.count % 2 else self._deliver
        self._timer = self._loop.call_later(min(_FIRST_INTERVAL + elapsed * _GROWTH, _MAX_INTERVAL), again)

    def _deliver_a_turn_later(self) -> None:
        # A turn of the loop reads from sockets before it looks at timers. Where there is a reply in each turn, a timer
        # always meets a result that has arrived, with which the cancellation would be lost.
        self._timer = self._loop.call_soon(self._deliver)

    def _is_noticed(self) -> bool:
        """Whether the task is handling a cancellation that it did not handle when this one began."""
        return any(
            all(error is not earlier for earlier in self._earlier) for error in _handled_cancellations(self._task)
        )

    def stop(self) -> None:
        """Deliver no more; idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class HostCancellation:
    """Cancels the task inside an ``async with`` block when its background work ends (as `asyncio.timeout` does).

    Made in the task that it may cancel, where the block begins. Repeats the cancellation until `absorb`.

    Args:
        grace: seconds for which the task may clean up before it is cancelled there, too.
    """

    def __init__(self, *, grace: float = GRACE) -> None:
        self._host = asyncio.current_task()
        self._before = 0 if self._host is None else self._host.cancelling()
        self._grace = grace
        self._delivery: _Delivery | None = None

    @property
    def is_requested(self) -> bool:
        """Whether the task was cancelled by this."""
        return self._delivery is not None

    def cancel(self, reason: str) -> None:
        """Cancel the task, unless this was done or disarmed before."""
        if self._host is not None and self._delivery is None:
            self._delivery = _Delivery(self._host, reason, grace=self._grace)

    def disarm(self) -> None:
        """Cancel nothing from now on; what was begun goes on."""
        if self._delivery is None:
            self._host = None

    async def absorb(self, exc: BaseException | None) -> bool:
        """Take the cancellation back where the block ends. Return whether it, and nothing else, ended the block.

        A block that swallowed the cancellation and ended all the same counts as ended by it.

        Args:
            exc: what ended the block.

        Raises:
            asyncio.CancelledError: the task was cancelled by something else, too, and that had not arrived yet.
        """
        host, self._host = self._host, None
        if host is None or self._delivery is None:
            return False
        self._delivery.stop()
        arrived: asyncio.CancelledError | None = None
        if exc is None or isinstance(exc, Exception):
            # It may have been requested but not delivered yet: let it arrive here instead of at the next await.
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError as cancelled:
                arrived = cancelled
        for _ in range(self._delivery.count):
            host.uncancel()
        is_alone = host.cancelling() <= self._before
        if arrived is not None and not is_alone:
            raise arrived  # one delivery for two requests
        return is_alone and (exc is None or isinstance(exc, asyncio.CancelledError))


class timeout:  # noqa: N801 - reads like `asyncio.timeout`, in whose place it stands
    """Limit the time of a block, as `asyncio.timeout` does; cancel the block again until it ends.

    Args:
        seconds: how long the block may take; ``None`` for as long as it likes.

    Raises:
        TimeoutError: the block was cancelled; also if it swallowed that and returned.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        self._cancellation = HostCancellation()
        if self._seconds is not None:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._cancellation.cancel, "timed out")
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if await self._cancellation.absorb(exc):
            raise TimeoutError from exc

    def expired(self) -> bool:
        """Whether the time was up before the block had ended."""
        return self._cancellation.is_requested


def cancel_until_done(task: asyncio.Task[Any], reason: str = "closed", *, grace: float = GRACE) -> None:
    """Cancel a task, and again until it has ended; do not wait for that.

    Args:
        task: what to end; may have ended before.
        reason: the message of the ``CancelledError``.
        grace: seconds for which the task may clean up before it is cancelled there, too.
    """
    if not task.done():
        _Delivery(task, reason, grace=grace)


async def end(
    tasks: Iterable[asyncio.Task[Any]], *, within: float | None = None, reason: str = "closed", grace: float = GRACE
) -> set[asyncio.Task[Any]]:
    """Cancel tasks until they have ended, and wait for that. Return those that have not.

    Cancelling it stops the waiting only: the tasks are cancelled on until they end.

    Args:
        tasks: what to end; may have ended before.
        within: seconds to wait for them; ``None`` for as long as it takes.
        reason: the message of the ``CancelledError``.
        grace: seconds for which they may clean up before they are cancelled there, too.
    """
    running = [task for task in tasks if not task.done()]
    for task in running:
        cancel_until_done(task, reason, grace=grace)
    if not running:
        return set()
    _, stubborn = await asyncio.wait(running, timeout=within)
    return stubborn


@contextmanager
def noticing_cancellation() -> Iterator[None]:
    """Raise a cancellation of this task that was swallowed inside of the block. For code that is known to lose them.

    Raises:
        asyncio.CancelledError: the block returned, or failed with another error, but the task was cancelled meanwhile.
    """
    task = asyncio.current_task()
    before = 0 if task is None else task.cancelling()
    error: Exception | None = None
    try:
        yield
    except Exception as caught:
        if task is None or task.cancelling() <= before:
            raise
        error = caught
    if task is not None and task.cancelling() > before:
        raise asyncio.CancelledError from error


def _handled_cancellations(task: asyncio.Task[Any]) -> Iterator[asyncio.CancelledError]:
    """Find the cancellations that a suspended task is handling, in ``except``, ``finally`` or ``__aexit__``."""
    for referent in _referents(task):
        if isinstance(referent, BaseException):
            yield from _cancellations_behind(referent)


def _cancelled_children(task: asyncio.Task[Any]) -> Iterator[asyncio.Task[Any]]:
    """Find the tasks that a suspended task has cancelled and waits for: children of its task groups, and theirs."""
    for referent in _referents(task):
        if isinstance(referent, asyncio.TaskGroup) and getattr(referent, "_aborting", False):
            for child in [*getattr(referent, "_tasks", ())]:
                yield child
                yield from _cancelled_children(child)


def _referents(task: asyncio.Task[Any]) -> Iterator[object]:
    """Iterate over the local variables of a suspended task, and the exceptions that it is handling.

    CPython keeps the exception that a coroutine is handling in the coroutine, and shows it to the garbage collector.
    """
    # Python 3.12.1 crashes if it is asked for the coroutine of an eager task that has ended.
    pending: list[object] = [] if task.done() else [task.get_coro()]
    seen: set[int] = set()
    while pending and len(seen) < _MAX_FRAMES:
        suspended = pending.pop()
        if id(suspended) in seen:
            continue
        seen.add(id(suspended))
        for referent in gc.get_referents(suspended):
            if isinstance(referent, _SUSPENDED) or type(referent).__name__.startswith("async_generator_"):
                pending.append(referent)
            else:
                yield referent


def _cancellations_behind(error: BaseException) -> Iterator[asyncio.CancelledError]:
    """Return an error and those during which it was raised, as far as they are cancellations."""
    seen: set[int] = set()
    behind: BaseException | None = error
    while behind is not None and id(behind) not in seen:
        seen.add(id(behind))
        if isinstance(behind, asyncio.CancelledError):
            yield behind
        behind = behind.__context__
