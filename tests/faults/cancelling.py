"""Cancellation of a coroutine at every point at which it can be cancelled."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from enum import Enum
from functools import partial
from typing import Any

from tests.support.waiting import scaled


class Moment(Enum):
    """The moment at which a suspended task is cancelled."""

    WHILE_WAITING = "before what it waits for has happened"
    JUST_AFTER = "when that has happened, and the task has not been told yet"


class Cut:
    """Runs a coroutine in the current task, and cancels the task when it is suspended for the n-th time.

    Attributes:
        happened: whether it was suspended that often, and so was cancelled.
    """

    def __init__(self, work: Coroutine[Any, Any, object], number: int, moment: Moment) -> None:
        self.happened = False
        self._work = work
        self._number = number
        self._moment = moment

    def __await__(self) -> Generator[Any, None, None]:
        """Step through the coroutine."""
        step = partial(self._work.send, None)
        for count in itertools.count():
            try:
                awaited = step()
            except StopIteration:
                return
            if count == self._number:
                self._cancel(awaited)
            try:
                yield awaited
            except BaseException as error:  # noqa: BLE001 - it belongs to the coroutine
                step = partial(self._work.throw, error)
            else:
                step = partial(self._work.send, None)

    def _cancel(self, awaited: object) -> None:
        task = asyncio.current_task()
        assert task is not None
        if self._moment is Moment.WHILE_WAITING or not isinstance(awaited, asyncio.Future):
            self.happened = task.cancel()
            return

        def cancel(_: object) -> None:
            self.happened = task.cancel()

        awaited.add_done_callback(cancel)  # before the wake-up of the task itself


async def cancelled_everywhere(
    work: Callable[[], Coroutine[Any, Any, object]],
) -> AsyncIterator[asyncio.CancelledError]:
    """Run an operation repeatedly, each time cancelled one step later, until it ends before it is cancelled.

    Yields after each run, with its exception or none, so that the caller can check the state.

    Args:
        work: makes a new coroutine of the operation.
    """
    for moment in Moment:
        for number in itertools.count():
            cut = Cut(work(), number, moment)

            async def run(cut: Cut = cut) -> None:
                await cut

            task = asyncio.create_task(run())
            _, unfinished = await asyncio.wait([task], timeout=scaled(20))
            assert not unfinished, f"it does not end when it is cancelled at suspension {number}, {moment.value}"
            if not cut.happened:
                await task
                break
            try:
                await task
            except asyncio.CancelledError as cancelled:
                cancelled.add_note(f"at suspension {number}, {moment.value}")
                yield cancelled
            else:
                raise AssertionError(f"it went on although it was cancelled at suspension {number}, {moment.value}")
