"""Commands of many tasks over one connection, those that wait at the same time in one go."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Self

from loguru import logger

from jwt_events.errors import ConnectionFailed, TransportError
from jwt_events.transport.connection import Argument, Connection, Connector

# The longest wait for a connection, or for the answers to one page, before the connection is given up.
_ANSWER_WITHIN = 5.0

PAGE = 1_000
"""How many commands go out before their answers are awaited: enough to hide the way there and back, few enough that a
deadline which ends in between leaves little in doubt."""

Command = tuple[Argument, ...]


class _Job:
    """Commands of one call of `run`, on their way."""

    def __init__(self, commands: Sequence[Command]) -> None:
        self.commands = commands
        self.written = False
        self.answers: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()

    def settle(self, answers: list[Any]) -> None:
        if not self.answers.done():
            self.answers.set_result(answers)


class Pipeline:
    """Runs commands on a connection of its own. Safe to call from many tasks; an async context manager.

    A task takes whatever waits, so that concurrent calls share round trips, and a caller that is cancelled or runs out
    of time does not break the connection for the others. A caller that is alone does not wait for that task.

    Args:
        connector: makes its connection, when it is first needed.
        upkeep: called before each page with the connection, to do what is due on the server. If it fails, the page goes
            out all the same.
    """

    def __init__(self, connector: Connector, upkeep: Callable[[Connection], Awaitable[None]] | None = None) -> None:
        self.address: str = connector.address
        self._connector = connector
        self._upkeep = upkeep
        self._waiting: deque[_Job] = deque()
        self._something_waits = asyncio.Event()
        self._busy = False
        self._connection: Connection | None = None
        self._trouble: TransportError | None = None  # why the last attempt to connect failed
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._work(), name=f"jwt_events pipeline {self._connector.destination}")
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if self._task is not None:
                self._task.cancel()
                await asyncio.wait([self._task])
        finally:
            await self._disconnect()

    async def run(self, commands: Sequence[Command], *, within: float) -> list[Any]:
        """Run commands in order and return their answers, an error in the place of each that failed.

        Cancelling it is safe: what was not sent is not sent any more. If it was sent, the ``CancelledError`` has
        a `TransportError` as its cause.

        Args:
            commands: what to run, in this order.
            within: seconds after which to give up.
        """
        deadline = asyncio.get_running_loop().time() + within
        answers: list[Any] = []
        for start in range(0, len(commands), PAGE):
            answers += await self._run_page(commands[start : start + PAGE], deadline)
            failure = next((answer for answer in answers if isinstance(answer, TransportError)), None)
            if failure is not None:  # what follows must not overtake it
                held_back = TransportError(str(failure), retryable=failure.retryable)
                return answers + [held_back] * (len(commands) - len(answers))
        return answers

    async def _run_page(self, commands: Sequence[Command], deadline: float) -> list[Any]:
        if self._is_idle():
            return await self._run_alone(commands, deadline)
        job = _Job(commands)
        self._waiting.append(job)
        self._something_waits.set()
        try:
            async with asyncio.timeout_at(deadline):
                return await job.answers
        except TimeoutError:
            return [self._out_of_time(maybe_done=job.written)] * len(commands)
        except asyncio.CancelledError as cancelled:
            if job.written:
                cancelled.__cause__ = self._out_of_time(maybe_done=True)
            raise

    def _is_idle(self) -> bool:
        return not self._busy and not self._waiting and self._connection is not None and not self._connection.hung_up

    async def _run_alone(self, commands: Sequence[Command], deadline: float) -> list[Any]:
        """Run commands when nobody else wants to: the caller does so itself, which saves two turns of the loop.

        Its cancellation closes the connection, and harms nobody, because what others want waits for the next one.
        """
        self._busy = True
        sent = False
        try:
            async with asyncio.timeout_at(deadline):
                connection = await self._connected()
            sent = True
            within = min(_ANSWER_WITHIN, deadline - asyncio.get_running_loop().time())
            return await connection.pipeline(commands, within=within)
        except TimeoutError:
            return [self._out_of_time(maybe_done=False)] * len(commands)
        except TransportError as error:
            return [error] * len(commands)
        except asyncio.CancelledError as cancelled:
            if sent:
                cancelled.__cause__ = self._out_of_time(maybe_done=True)
            raise
        finally:
            self._busy = False
            if self._waiting:
                self._something_waits.set()

    def _out_of_time(self, *, maybe_done: bool) -> ConnectionFailed:
        if self._trouble is not None and not maybe_done:  # more telling than that it is still being tried
            return ConnectionFailed(str(self._trouble))
        return ConnectionFailed(f"no answer in time from {self._connector.address}", maybe_done=maybe_done)

    async def _work(self) -> None:
        """Send what waits, for as long as this pipeline is open."""
        while True:
            await self._something_waits.wait()
            self._something_waits.clear()
            while not self._busy and (jobs := self._take_page()):
                self._busy = True
                try:
                    await self._transmit(jobs)
                except TransportError as error:
                    for job in jobs:
                        job.settle([error] * len(job.commands))
                except Exception as error:  # noqa: BLE001 - without this task, every later command would time out
                    await self._disconnect()
                    for job in jobs:
                        failure = unexpected(error, self.address, maybe_done=job.written)
                        job.settle([failure] * len(job.commands))
                finally:
                    self._busy = False

    def _take_page(self) -> list[_Job]:
        """Take jobs for one round trip, leaving out those that nobody waits for any more."""
        jobs: list[_Job] = []
        size = 0
        while self._waiting and (not jobs or size + len(self._waiting[0].commands) <= PAGE):
            job = self._waiting.popleft()
            if not job.answers.done():
                jobs.append(job)
                size += len(job.commands)
        return jobs

    async def _transmit(self, jobs: list[_Job]) -> None:
        connection = await self._connected()
        jobs = [job for job in jobs if not job.answers.done()]  # connecting took its time
        commands = [command for job in jobs for command in job.commands]
        if not commands:
            return
        for job in jobs:
            job.written = True
        answers = await connection.pipeline(commands, within=_ANSWER_WITHIN)
        start = 0
        for job in jobs:
            end = start + len(job.commands)
            job.settle(answers[start:end])
            start = end

    async def _connected(self) -> Connection:
        """Return a live connection that is in good order."""
        if self._connection is None or self._connection.hung_up:
            await self._disconnect()
            try:
                self._connection = await self._connector.connect(within=_ANSWER_WITHIN)
            except TransportError as error:
                self._trouble = error
                raise
            self._trouble = None
        if self._upkeep is not None:
            await self._keep_up(self._upkeep, self._connection)
        return self._connection

    async def _keep_up(self, upkeep: Callable[[Connection], Awaitable[None]], connection: Connection) -> None:
        try:
            await upkeep(connection)
        except TransportError as error:
            logger.warning("upkeep failed", destination=self._connector.destination, error=str(error))
            if connection.hung_up:
                error.maybe_done = False  # whatever became of the upkeep, none of the commands was sent
                raise
        except Exception as error:  # noqa: BLE001 - the server, or what stands for it, may answer anything
            await self._disconnect()
            raise unexpected(error, self.address, maybe_done=False) from None

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.aclose()


def unexpected(error: Exception, address: str, *, maybe_done: bool) -> TransportError:
    """Say that an answer made no sense, without quoting it."""
    return TransportError(f"unexpected {type(error).__name__} in the exchange with {address}", maybe_done=maybe_done)
