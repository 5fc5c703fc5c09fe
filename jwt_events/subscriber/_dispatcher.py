"""Run it: handlers as tasks, so many at a time, tried again when they fail, finished or cancelled on request."""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from loguru import logger

from jwt_events.errors import describe
from jwt_events.events import Event, Handler
from jwt_events.instrumentation import Observers
from jwt_events.subscriber._invoker import HandlerInvoker, rest_of
from jwt_events.subscriber._job import Job
from jwt_events.subscriber._ordering import OrderingQueues
from jwt_events.transport.base import Failure

# How long handlers that were cancelled may take to clean up.
_CLEANUP_WITHIN = 1.0

# How many handlers that do not wait may run before others in the program get their turn.
_MAX_IN_A_ROW = 64


@dataclass(slots=True)  # not frozen, as that takes three times as long to make, and there is one for each event
class HandlerCall:
    """A handler that is to be called, or is being called, with an event.

    Attributes:
        handler: which one.
        work: the event, on its way.
        key: what others it may not run beside; ``None`` for none.
        takes_room: whether it counts for the concurrency.
    """

    handler: Handler
    work: Job
    key: Hashable = None
    takes_room: bool = True


class Dispatcher:
    """Runs handlers as tasks, no more at once than allowed. One that fails, hangs or blocks a thread harms no other.

    A handler that does not wait for anything has no need of a task of its own: a runner calls one after another until
    one of them does wait. From there on that handler has the task for itself, and so has each of those that are next,
    until the same handler does not wait for once.

    Args:
        concurrency: how many handlers may run at once.
        caller: calls the handlers.
        ordered_by: returns a key; handlers of events with equal keys run one after another, in order.
        observers: whom to tell how many handlers there are.
    """

    def __init__(
        self,
        *,
        concurrency: int,
        caller: HandlerInvoker,
        ordered_by: Callable[[Event], Hashable] | None,
        observers: Observers = (),
    ) -> None:
        self.in_flight: int = 0
        """How many handlers were started, or will be when it is their turn, and have not ended."""
        self._room = concurrency
        self._caller = caller
        self._ordered_by = ordered_by
        self._observers = observers
        self._context = contextvars.copy_context()
        self._lanes: OrderingQueues[HandlerCall] = OrderingQueues()
        self._ready: deque[HandlerCall] = deque()  # there is room for these, so the next runner will call them
        self._runner: asyncio.Task[None] | None = None
        self._running: dict[
            asyncio.Task[Any], HandlerCall
        ] = {}  # also those that have a task of their own and begin soon
        self._waiting: set[str] = set()  # the names of handlers that waited when they were called last
        self._change: asyncio.Future[None] | None = None

    def submit(self, event: Event, work: Job, handlers: Sequence[Handler]) -> Awaitable[None] | None:
        """Start the handlers of an event, each as soon as there is room for it.

        Args:
            event: what decides the order.
            work: the event, on its way through these handlers.
            handlers: whom to call.

        Returns:
            What to wait for if there is not room for all of them now; cancelling it leaves those running that were
            started. ``None`` if all were started.
        """
        if self._ordered_by is not None or len(handlers) > self._room:
            return self._submit_in_turn([HandlerCall(handler, work, self._key(event, work)) for handler in handlers])
        for handler in handlers:
            self._admit(HandlerCall(handler, work))
        return None

    async def _submit_in_turn(self, calls: Sequence[HandlerCall]) -> None:
        try:
            for call in calls:
                while not (self._lanes.have_room if self._lanes.is_taken(call.key) else self._room > 0):
                    await self._changed()
                if self._lanes.is_taken(call.key):
                    self._lanes.line_up(call.key, call)
                    self.in_flight += 1
                else:
                    self._lanes.take(call.key)
                    self._admit(call)
        except asyncio.CancelledError:
            calls[0].work.give_up()
            raise

    def submit_gap(self, gap: Job, handlers: Sequence[Handler]) -> None:
        """Call handlers with a gap, at once, however many others are running: it is an alarm."""
        for handler in handlers:
            self.in_flight += 1
            self._call_alone(HandlerCall(handler, gap, takes_room=False))

    async def finish(self, within: float) -> None:
        """Wait for the handlers that are left, then cancel and name the rest.

        Takes at most one second longer than ``within``. Cancelling it cancels the handlers at once.
        """
        try:
            async with asyncio.timeout(within):
                while self.in_flight:
                    await self._changed()
        except TimeoutError:
            pass
        finally:
            self._drop((*self._ready, *self._lanes.clear()))
            await self._cancel(dict(self._running))

    def _drop(self, calls: Sequence[HandlerCall]) -> None:
        self._ready.clear()
        for call in calls:
            logger.warning("handler cancelled", handler=call.handler.name, **call.work.fields)
            self.in_flight -= 1
            call.work.one_ended(None, finished=False)
        if calls:
            self._tell()
            self._wake()

    async def _cancel(self, rest: dict[asyncio.Task[Any], HandlerCall]) -> None:
        for task, call in rest.items():
            logger.warning("handler cancelled", handler=call.handler.name, **call.work.fields)
            task.cancel("the subscriber is shutting down")
        tasks = {*rest}
        if self._runner is not None:  # it has not begun, and there is nothing left for it
            self._runner.cancel()
            tasks.add(self._runner)
        if tasks:
            _, stubborn = await asyncio.wait(tasks, timeout=_CLEANUP_WITHIN)
            for task in stubborn & rest.keys():
                logger.error("handler does not end", handler=rest[task].handler.name, **rest[task].work.fields)

    def is_running(self, task: asyncio.Task[Any] | None) -> bool:
        """Whether this task is a handler that was started here and has not ended."""
        return task in self._running

    def _key(self, event: Event, work: Job) -> Hashable:
        if self._ordered_by is None:
            return None
        try:
            key = self._ordered_by(event)
            hash(key)
        except Exception as error:  # noqa: BLE001 - the application's function; losing the event would be worse
            logger.error("ordered_by failed, the event is handled out of order", error=describe(error), **work.fields)
            return None
        return key

    def _admit(self, call: HandlerCall) -> None:
        self._room -= 1
        self.in_flight += 1
        if call.handler.name in self._waiting:
            self._call_alone(call)
            return
        self._ready.append(call)
        if self._runner is None or self._runner.done():  # done: somebody cancelled it before it began
            self._runner = self._create_task(self._run())

    def _call_alone(self, call: HandlerCall) -> None:
        """Call a handler in a task of its own."""
        task = self._create_task(self._run_alone(call))
        self._running[task] = call
        task.add_done_callback(self._never_began)

    def _never_began(self, task: asyncio.Task[None]) -> None:
        """Take note of a task that was cancelled before it began; of all others, that is done already."""
        if (call := self._running.get(task)) is not None:
            self._ended(task, call, None, finished=False)
            self._tell()

    def _create_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        # Not by the loop's own factory: an eager one would begin it at once, inside of whoever submits.
        return asyncio.Task(work, loop=asyncio.get_running_loop(), name="jwt_events handlers", context=self._context)

    async def _run(self) -> None:
        """Call one handler after another for as long as they do not wait."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - this is one
        try:
            for _ in range(_MAX_IN_A_ROW):
                if not self._ready:
                    break
                if (rest := self._begin(task, self._ready.popleft())) is not None:
                    await rest
                    break
                if task.cancelling():  # that was meant for the handler, not for the next one
                    break
        finally:
            self._hand_over(task)

    async def _run_alone(self, call: HandlerCall) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - this is one
        try:
            if (rest := self._begin(task, call)) is not None:
                await rest
        finally:
            self._tell()

    def _begin(self, task: asyncio.Task[Any], call: HandlerCall) -> Coroutine[Any, Any, None] | None:
        """Call a handler; returns what is left to do if it waits for something."""
        self._running[task] = call
        context = self._context.copy()  # what one handler sets there is not for another to see
        run = self._caller.run(call.handler, call.work)
        try:
            waits_for = context.run(run.send, None)
        except StopIteration as stop:
            self._waiting.discard(call.handler.name)
            self._ended(task, call, stop.value, finished=True)
            return None
        except BaseException:
            self._ended(task, call, None, finished=False)
            raise
        return self._go_on(task, call, rest_of(run, waits_for, context))

    async def _go_on(self, task: asyncio.Task[Any], call: HandlerCall, rest: Awaitable[Failure | None]) -> None:
        failure, finished = None, False
        try:
            self._waits(task, call)
            failure = await rest
            finished = True
        finally:
            self._ended(task, call, failure, finished=finished)

    def _waits(self, task: asyncio.Task[Any], call: HandlerCall) -> None:
        """Leave a task to the handler that waits in it."""
        task.set_name(f"jwt_events handler {call.handler.name}")
        self._waiting.add(call.handler.name)
        if self._runner is task:
            self._runner = None
            while self._ready:
                self._call_alone(self._ready.popleft())
        self._tell()

    def _hand_over(self, task: asyncio.Task[Any]) -> None:
        """Let the next runner call what is ready, unless a handler has taken this one's task."""
        if self._runner is task:
            self._runner = self._create_task(self._run()) if self._ready else None
        self._tell()

    def _tell(self) -> None:
        for observer in self._observers:
            observer.in_flight(self.in_flight)

    def _ended(self, task: asyncio.Task[Any], call: HandlerCall, failure: Failure | None, *, finished: bool) -> None:
        self._running.pop(task, None)
        self.in_flight -= 1
        if call.takes_room:
            self._room += 1
        if call.key is not None and (follower := self._lanes.leave(call.key)) is not None:
            self.in_flight -= 1  # it counts again when it is admitted
            self._admit(follower)
        call.work.one_ended(failure, finished=finished)
        self._wake()

    def _wake(self) -> None:
        if self._change is not None and not self._change.done():
            self._change.set_result(None)

    async def _changed(self) -> None:
        """Wait until a handler has ended."""
        if self._change is None or self._change.done():
            self._change = asyncio.get_running_loop().create_future()
        await asyncio.wait([self._change])
