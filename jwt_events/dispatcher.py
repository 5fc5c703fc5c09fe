"""Run it: handlers as tasks, so many at a time, tried again when they fail, finished or cancelled on request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable, Sequence
from typing import Any

from loguru import logger

from jwt_events.calls import Caller
from jwt_events.errors import describe
from jwt_events.events import Event
from jwt_events.handlers import Handler
from jwt_events.observe import Observers
from jwt_events.transport.base import Failure
from jwt_events.work import Work

# How long handlers that were cancelled may take to clean up.
_CLEANUP_WITHIN = 1.0

# How many handlers may wait for one with the same key to end, before reading pauses.
_MOST_WAITING = 1_024

_Task = asyncio.Task[Failure | None]


class Dispatcher:
    """Runs handlers as tasks under one semaphore. A handler that fails, hangs or blocks a thread harms no other.

    Args:
        concurrency: how many handlers may run at once.
        caller: calls the handlers.
        ordered_by: returns a key; handlers of events with equal keys run one after another, in order.
        observers: whom to tell of handlers that start and end.
    """

    def __init__(
        self,
        *,
        concurrency: int,
        caller: Caller,
        ordered_by: Callable[[Event], Hashable] | None,
        observers: Observers = (),
    ) -> None:
        self._slots = asyncio.Semaphore(concurrency)
        self._waiting_room = asyncio.Semaphore(_MOST_WAITING)
        self._caller = caller
        self._ordered_by = ordered_by
        self._observers = observers
        self._tails: dict[Hashable, _Task] = {}
        self._running: dict[_Task, tuple[Handler, Work]] = {}

    @property
    def in_flight(self) -> int:
        """How many handlers were started and have not ended."""
        return len(self._running)

    async def submit(self, event: Event, work: Work, handlers: Sequence[Handler]) -> None:
        """Start the handlers of an event, each as soon as there is room for it.

        Returns when all are started. Cancelling it leaves those running that were started.

        Args:
            event: what decides the order.
            work: the event, on its way through these handlers.
            handlers: whom to call.
        """
        key = self._key(event, work)
        for handler in handlers:
            try:
                task = await self._start_in_turn(handler, work, key)
            except asyncio.CancelledError:
                work.give_up()
                raise
            task.add_done_callback(work.one_ended)
            if key is not None:
                self._tails[key] = task
                task.add_done_callback(lambda task: self._forget_tail(key, task))

    async def _start_in_turn(self, handler: Handler, work: Work, key: Hashable) -> _Task:
        """Start a handler when there is room for it: to run, or to wait for another with the same key."""
        if key in self._tails:
            await self._waiting_room.acquire()
            if (previous := self._tails.get(key)) is not None:
                return self._start(handler, work, self._run_after(previous, handler, work))
            self._waiting_room.release()
        await self._slots.acquire()
        task = self._start(handler, work, self._caller.run(handler, work))
        task.add_done_callback(self._free_slot)
        return task

    def submit_gap(self, gap: Work, handlers: Sequence[Handler]) -> None:
        """Call handlers with a gap, at once, however many others are running: it is an alarm."""
        for handler in handlers:
            self._start(handler, gap, self._caller.run(handler, gap))

    async def finish(self, within: float) -> None:
        """Wait for the handlers that are running, then cancel and name the rest.

        Takes at most one second longer than ``within``. Cancelling it cancels the handlers at once.
        """
        try:
            if self._running:
                await asyncio.wait(self._running, timeout=within)
        finally:
            rest = set(self._running)
            for task in rest:
                handler, work = self._running[task]
                logger.warning("handler cancelled", handler=handler.name, **work.fields)
                task.cancel("the subscriber is shutting down")
            if rest:
                _, stubborn = await asyncio.wait(rest, timeout=_CLEANUP_WITHIN)
                for task in stubborn:
                    handler, work = self._running[task]
                    logger.error("handler does not end", handler=handler.name, **work.fields)

    def is_running(self, task: asyncio.Task[Any] | None) -> bool:
        """Whether this task is a handler that was started here and has not ended."""
        return task in self._running

    def _key(self, event: Event, work: Work) -> Hashable:
        if self._ordered_by is None:
            return None
        try:
            key = self._ordered_by(event)
            hash(key)
        except Exception as error:  # noqa: BLE001 - the application's function; losing the event would be worse
            logger.error("ordered_by failed, the event is handled out of order", error=describe(error), **work.fields)
            return None
        return key

    def _start(self, handler: Handler, work: Work, run: Coroutine[Any, Any, Failure | None]) -> _Task:
        task = asyncio.create_task(run, name=f"jwt_events handler {handler.name}")
        self._running[task] = handler, work
        task.add_done_callback(self._ended)
        for observer in self._observers:
            observer.started()
        return task

    def _ended(self, task: _Task) -> None:
        del self._running[task]
        for observer in self._observers:
            observer.ended()

    async def _run_after(self, previous: _Task, handler: Handler, work: Work) -> Failure | None:
        """Run a handler when its predecessor has ended. It takes up room to run only then."""
        try:
            await asyncio.wait([previous])
            await self._slots.acquire()
        finally:
            self._waiting_room.release()
        try:
            return await self._caller.run(handler, work)
        finally:
            self._slots.release()

    def _free_slot(self, _: _Task) -> None:
        self._slots.release()

    def _forget_tail(self, key: Hashable, task: _Task) -> None:
        if self._tails.get(key) is task:
            del self._tails[key]
