"""Execution of handlers in tasks.

Theory of operation
-------------------
A handler that never waits has no need of a task of its own, and making one costs more than most such handlers do. So
a *shared task* steps the invoker's coroutine once for each call (``send(call)``). If that yields an outcome, the
handler has ended. Otherwise the handler waits for what is yielded: the shared task then belongs to this handler until
it ends, and each of the calls that are left gets a task of its own. So does a handler that waited the last time, so
that many of them wait side by side, until it does not wait for once.

Eager tasks (Python 3.12) are not used: they would begin a handler inside of the reader that submits it, where a
handler that computes, or raises ``SystemExit``, would stop the reading; and 3.11 has none.

What a handler may observe: each call has a copy of one context (`contextvars`), taken when the subscriber was entered;
`asyncio.current_task` is the same task from the first step to the last, with the handler's name as soon as it waits.
Handlers that do not wait may share a task with others, one after another, never interleaved.

Who calls: a handler that stops its subscriber must not wait for itself, and often calls from somewhere else: a task for
``asyncio.wait_for``, `asyncio.gather` or a task group, the thread of a plain handler. All of them copy the context of
the handler, in which the invoker leaves the job (`current_job`). A subscriber that is entered inside of a handler keeps
the jobs around it in the context of its own handlers.

What cancels what: a cancellation of the task reaches the handler that runs or waits in it, and nothing else; after it
the shared task calls no other handler. `HandlerRunner.cancel` cancels all tasks again until they end (see
`jwt_events._internal.cancellation`). Cancelling the caller of `HandlerRunner.start` cancels no handler. A task that is
cancelled before its handler began counts as a handler that was cut off.
"""

from __future__ import annotations

import asyncio
import contextvars
import types
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Sequence
from typing import Any, Protocol

from loguru import logger

from jwt_events._internal.cancellation import end
from jwt_events.events import Handler
from jwt_events.subscriber._invoker import HandlerInvoker
from jwt_events.subscriber._job import CANCELLED, HandlerCall, Job, Outcome, current_job

# How long handlers that were cancelled may take to clean up.
_CLEANUP_SECONDS = 1.0

# To take it from the coroutine would make a bound method for each call.
_send: Callable[[Any, HandlerCall | None], Any] = types.GeneratorType.send

# How many handlers that do not wait may run before other tasks of the program get their turn.
_MAX_IN_A_ROW = 64

# The jobs around the current one: of subscribers in whose handlers its subscriber was entered.
_outer_jobs: contextvars.ContextVar[tuple[Job, ...]] = contextvars.ContextVar("_outer_jobs", default=())


class RunnerListener(Protocol):
    """Is told by a `HandlerRunner` how its calls go."""

    def ended(self, job: Job, outcome: Outcome) -> None:
        """A handler has ended."""

    def changed(self) -> None:
        """Handlers have begun to wait, or ended."""


class HandlerRunner:
    """Runs handlers in tasks; see the theory of operation above.

    Args:
        invoker: calls a handler, with its retries.
        listener: is told of each handler that ends.
    """

    def __init__(self, invoker: HandlerInvoker, listener: RunnerListener) -> None:
        self._invoker = invoker
        self._listener = listener
        self._context = contextvars.copy_context()
        if jobs := _jobs_around():  # what a context holds makes each of its copies that is changed cost more
            self._context.run(_outer_jobs.set, jobs)
        self._ready: deque[HandlerCall] = deque()  # for the shared task
        self._shared: asyncio.Task[None] | None = None
        self._running: dict[asyncio.Task[Any], HandlerCall] = {}  # with those that have a task and begin soon
        self._waiting: set[str] = set()  # the names of handlers that waited when they were called last

    def is_calling(self) -> bool:
        """Whether the caller is a handler that was started here and has not ended, or was started by one."""
        callers = _jobs_around()
        return any(job is caller for caller in callers for _, job in self._running.values())

    def start(self, job: Job, handlers: Sequence[Handler]) -> None:
        """Call the handlers of an event soon, in the shared task those that probably will not wait."""
        for handler in handlers:
            if self._waiting and handler.name in self._waiting:
                self.start_alone((handler, job))
            else:
                self._ready.append((handler, job))
        if (shared := self._shared) is None or shared.done():  # done: it was cancelled before it began
            self._share()

    def start_alone(self, call: HandlerCall) -> None:
        """Call a handler soon, in a task of its own."""
        task = self._create_task(self._run(deque((call,))))
        self._running[task] = call
        task.add_done_callback(self._task_ended)

    def take_unstarted(self) -> list[HandlerCall]:
        """Remove and return the calls that no task has begun."""
        calls = [*self._ready]
        self._ready.clear()
        return calls

    async def cancel(self) -> None:
        """Cancel all handlers, name them in the log, and wait at most a second for them to clean up."""
        running = dict(self._running)
        for handler, job in running.values():
            logger.warning("handler cancelled", handler=handler.name, **job.fields)
        tasks = set(running)
        if self._shared is not None:  # it has not begun, and there is nothing left for it
            tasks.add(self._shared)
        stubborn = await end(tasks, within=_CLEANUP_SECONDS, reason="the subscriber is shutting down")
        for task in stubborn & running.keys():
            handler, job = running[task]
            logger.error("handler does not end", handler=handler.name, **job.fields)

    def _create_task(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        # Not by the loop's own factory, which may be an eager one.
        return asyncio.Task(
            coroutine, loop=asyncio.get_running_loop(), name="jwt_events handlers", context=self._context
        )

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        """Count a call whose task was cancelled before it began; the others have been counted."""
        if (call := self._running.get(task)) is not None:
            del self._running[task]
            self._listener.ended(call[1], CANCELLED)
            self._listener.changed()

    def _share(self) -> None:
        """Make a shared task for the calls that are ready, if there are any."""
        self._shared = self._create_task(self._run(self._ready)) if self._ready else None

    async def _run(self, ready: deque[HandlerCall]) -> None:
        """Call one handler after another for as long as they do not wait."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - this is one
        calls, running, ended = self._invoker.calls(), self._running, self._listener.ended
        _send(calls, None)
        try:
            for _ in range(_MAX_IN_A_ROW):
                if not ready:
                    break
                handler, job = running[task] = call = ready.popleft()
                context = self._context.copy()  # what one handler sets there is not for another to see
                outcome = CANCELLED
                try:
                    yielded = context.run(_send, calls, call)
                    if waits := yielded.__class__ is not Outcome:
                        self._give_task_to(handler, task)
                        yielded = await _rest_of(calls, yielded, context)
                    elif self._waiting:
                        self._waiting.discard(handler.name)
                    outcome = yielded
                finally:
                    del running[task]
                    ended(job, outcome)
                if waits or task.cancelling():  # that was meant for this handler, not for the next one
                    break
        finally:
            if self._shared is task:  # no handler has taken this task
                self._share()
            self._listener.changed()

    def _give_task_to(self, handler: Handler, task: asyncio.Task[Any]) -> None:
        """Leave a task to the handler that waits in it."""
        task.set_name(f"jwt_events handler {handler.name}")
        self._waiting.add(handler.name)
        if self._shared is task:
            self._shared = None
            while self._ready:
                self.start_alone(self._ready.popleft())
        self._listener.changed()


def _jobs_around() -> tuple[Job, ...]:
    """Return the jobs in whose handlers this runs."""
    job = current_job.get()
    return _outer_jobs.get() if job is None else (job, *_outer_jobs.get())


@types.coroutine
def _rest_of(calls: Any, waits_for: Any, context: contextvars.Context) -> Generator[Any, Any, Outcome]:
    """Continue a call, in its context, that has been stepped once and waits for something."""
    while True:
        try:
            step, argument = calls.send, (yield waits_for)
        except BaseException as error:  # noqa: BLE001 - it belongs to the coroutine, which may go on after it
            step, argument = calls.throw, error
        yielded = context.run(step, argument)
        argument = None  # or a cancellation that the handler has swallowed would seem to be handled still
        if yielded.__class__ is Outcome:
            return yielded
        waits_for = yielded
