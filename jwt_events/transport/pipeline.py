"""Commands of many tasks over one connection, without waiting for one another's answers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from loguru import logger

from jwt_events.errors import ConnectionFailed, TransportError
from jwt_events.transport.connection import Connection, Connector
from jwt_events.transport.wire import Command, Question

# The longest wait for a connection, or for an answer, before the connection is given up.
_ANSWER_WITHIN = 5.0

PAGE = 1_000
"""How many answers may be outstanding: enough to hide the way there and back, few enough that a deadline which ends
in between leaves little in doubt."""


class Upkeep(Protocol):
    """What has to be done on the server now and then."""

    def is_due(self) -> bool:
        """Whether it is time. Asked before every command, so it must be quick."""
        ...

    async def do(self, connection: Connection) -> None:
        """Do it."""
        ...


class _Job(Question):
    """Commands of one caller, on their way.

    Attributes:
        connection: where they were sent; ``None`` if they were not.
        trouble: why they were not and will not be.
    """

    __slots__ = ("connection", "trouble")

    def __init__(self, commands: Sequence[Command]) -> None:
        super().__init__(commands)
        self.connection: Connection | None = None
        self.trouble: TransportError | None = None


class Pipeline:
    """Runs commands on a connection of its own. Safe to call from many tasks; an async context manager.

    Who calls sends at once, without a task in between, and those who call in the same turn of the loop share a packet.
    A task does what has to come first now and then: connect, keep up, wait for room. A caller that is cancelled or runs
    out of time does not break the connection for the others.

    Args:
        connector: makes its connection, when it is first needed.
        upkeep: done before whatever is sent when it is due. If it fails, that goes out all the same.
    """

    def __init__(self, connector: Connector, upkeep: Upkeep | None = None) -> None:
        self.address: str = connector.address
        self._connector = connector
        self._upkeep = upkeep
        self._waiting: deque[_Job] = deque()
        self._something_waits = asyncio.Event()
        self._connection: Connection | None = None
        self._trouble: TransportError | None = None  # why the last attempt to connect failed
        self._watch: asyncio.TimerHandle | None = None
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
            if self._watch is not None:
                self._watch.cancel()
            await self._disconnect()

    async def run(self, commands: Sequence[Command], *, within: float) -> list[Any]:
        """Run commands in order and return their answers, an error in the place of each that failed.

        Cancelling it is safe: what was not sent is not sent any more. If it was sent, the ``CancelledError`` has
        a `TransportError` as its cause.

        Args:
            commands: what to run, in this order.
            within: seconds after which to give up.
        """
        if not commands:
            return []
        deadline = asyncio.get_running_loop().time() + within
        if len(commands) <= PAGE:
            return await self._run_page(commands, deadline)
        answers: list[Any] = []
        for start in range(0, len(commands), PAGE):
            answers += await self._run_page(commands[start : start + PAGE], deadline)
            failure = next((answer for answer in answers if isinstance(answer, TransportError)), None)
            if failure is not None:  # what follows must not overtake it
                held_back = TransportError(str(failure), retryable=failure.retryable)
                return answers + [held_back] * (len(commands) - len(answers))
        return answers

    async def _run_page(self, commands: Sequence[Command], deadline: float) -> list[Any]:
        job = _Job(commands)
        connection = self._connection
        if connection is not None and not self._waiting and self._may_send(connection, job):
            self._send(connection, job)
        else:
            self._waiting.append(job)
            self._something_waits.set()
        timer = asyncio.get_running_loop().call_at(deadline, job.settle)
        try:
            await job.settled
        except asyncio.CancelledError as cancelled:
            if job.connection is not None:
                job.connection.wire.forsake_if_unwanted()
                cancelled.__cause__ = ConnectionFailed("cancelled before the answer came", maybe_done=True)
            raise
        finally:
            timer.cancel()
        if job.connection is None:
            return [job.trouble or self._not_sent()] * len(commands)
        if len(job.answers) < len(commands):
            job.connection.wire.forsake_if_unwanted()
        return job.connection.read_answers(job)

    def _may_send(self, connection: Connection, job: _Job) -> bool:
        """Whether this may be sent now: all is well, there is room, and nothing has to be done first."""
        wire = connection.wire
        return (
            wire.awaited + len(job.commands) <= PAGE
            and not wire.is_lost
            and not wire.is_overdue
            and not (self._upkeep is not None and self._upkeep.is_due())
        )

    def _send(self, connection: Connection, job: _Job) -> None:
        connection.wire.ask(job)
        job.connection = connection
        if self._watch is None:
            self._watch = asyncio.get_running_loop().call_later(_ANSWER_WITHIN, self._look)

    def _look(self) -> None:
        """Give the connection up if the server has not answered for too long; otherwise look again later."""
        self._watch = None
        if self._connection is None or (oldest := self._connection.wire.oldest) is None or oldest.asked_at is None:
            return
        loop = asyncio.get_running_loop()
        give_up_at = oldest.asked_at + _ANSWER_WITHIN
        if loop.time() >= give_up_at:
            self._connection.wire.fail(TimeoutError())
        else:
            self._watch = loop.call_at(give_up_at, self._look)

    def _not_sent(self) -> TransportError:
        """Say why there was no time to send something."""
        if self._trouble is not None:
            return ConnectionFailed(str(self._trouble))
        return ConnectionFailed(f"no answer in time from {self.address}")

    async def _work(self) -> None:
        """Do what has to come before sending, for as long as this pipeline is open."""
        while True:
            await self._something_waits.wait()
            self._something_waits.clear()
            while self._waiting:
                try:
                    await self._send_waiting(await self._connected())
                except TransportError as error:
                    self._fail_waiting(error)
                except Exception as error:  # noqa: BLE001 - without this task, every later command would time out
                    await self._disconnect()
                    self._fail_waiting(unexpected(error, self.address, maybe_done=False))

    async def _send_waiting(self, connection: Connection) -> None:
        """Send what waits, as there is room for it, leaving out what nobody waits for any more."""
        while self._waiting:
            job = self._waiting[0]
            if job.settled.done():
                self._waiting.popleft()
            elif self._may_send(connection, job):
                self._waiting.popleft()
                self._send(connection, job)
            elif connection.wire.awaited and not connection.hung_up:
                await connection.wire.news()
            else:
                return

    def _fail_waiting(self, error: TransportError) -> None:
        while self._waiting:
            job = self._waiting.popleft()
            job.trouble = error
            job.settle()

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
        if self._upkeep is not None and self._upkeep.is_due():
            await self._keep_up(self._upkeep, self._connection)
        return self._connection

    async def _keep_up(self, upkeep: Upkeep, connection: Connection) -> None:
        try:
            await upkeep.do(connection)
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
