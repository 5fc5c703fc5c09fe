"""Commands of many tasks over one connection, without waiting for one another's answers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from loguru import logger

from jwt_events.errors import ConnectionFailed, TransportError
from jwt_events.transport._redis.connection import Connection, Connector
from jwt_events.transport._redis.deadlines import Deadlines
from jwt_events.transport._redis.protocol import Command, Request
from jwt_events.transport._redis.replies import ReplyParser, unchanged

# The longest wait for a connection, or for an answer, before the connection is given up.
_ANSWER_WITHIN = 5.0

_CUT_OFF = "cancelled before all answers came"

PAGE = 1_000
"""How many answers may be outstanding: enough to hide the way there and back, few enough that a deadline which ends
in between leaves little in doubt."""


class Maintenance(Protocol):
    """What has to be done on the server now and then.

    Attributes:
        due_at: when next, by the clock of the loop. Looked at before every command.
    """

    due_at: float

    async def do(self, connection: Connection) -> None:
        """Do it."""
        ...


class Multiplexer:
    """Runs commands on a connection of its own. Safe to call from many tasks; an async context manager.

    Who calls sends at once, without a task in between, and those who call in the same turn of the loop share a packet.
    A task does what has to come first now and then: connect, keep up, wait for room. A caller that is cancelled or runs
    out of time does not break the connection for the others.

    Args:
        connector: makes its connection, when it is first needed.
        upkeep: done before whatever is sent when it is due. If it fails, that goes out all the same.
    """

    def __init__(self, connector: Connector, upkeep: Maintenance | None = None) -> None:
        self.address: str = connector.address
        self._connector = connector
        self._interpreter = connector.interpreter
        self._upkeep = upkeep
        self._waiting: deque[Request] = deque()
        self._something_waits = asyncio.Event()
        self._connection: Connection | None = None
        self._trouble: TransportError | None = None  # why the last attempt to connect failed
        self._watch: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop
        self._patience: Deadlines

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()  # asking for it once more would cost more than the rest of sending
        self._patience = Deadlines(self._loop)
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
            self._fail_waiting(ConnectionFailed("it was closed before this could be sent"))
            self._patience.close()
            if self._watch is not None:
                self._watch.cancel()
            await self._disconnect()

    async def run(self, commands: Sequence[Command], *, within: float, reading: ReplyParser = unchanged) -> list[Any]:
        """Run commands in order and return what the answers say, an error in the place of each that failed.

        Cancelling it is safe: what was not sent is not sent any more. If it was sent, the ``CancelledError`` has
        a `TransportError` as its cause.

        Args:
            commands: what to run, in this order.
            within: seconds after which to give up.
            reading: reads each answer.
        """
        loop, number = self._loop, len(commands)
        now = loop.time()
        deadline = now + within
        if number > PAGE:
            return await self._run_pages(commands, deadline, reading)
        if not number or within <= 0:  # what would be sent now would at once be in doubt
            return [self._out_of_time()] * number
        question = Request(commands, loop)
        if self._waiting or (connection := self._connection) is None or not self._may_send(connection, number, now):
            self._waiting.append(question)
            self._something_waits.set()
        else:
            self._send(connection, question, now)
        self._patience.wait(question, deadline)
        try:
            await question.settled
        except asyncio.CancelledError as cancelled:
            if question.wire is not None:
                question.wire.forsake_if_unwanted()
                cancelled.__cause__ = ConnectionFailed(_CUT_OFF, maybe_done=True)
            raise
        if question.wire is None:
            return [question.trouble or self._out_of_time()] * number
        if len(question.answers) < number:
            question.wire.forsake_if_unwanted()
        return self._interpreter.read(question, reading)

    async def _run_pages(self, commands: Sequence[Command], deadline: float, reading: ReplyParser) -> list[Any]:
        answers: list[Any] = []
        for start in range(0, len(commands), PAGE):
            page = commands[start : start + PAGE]
            try:
                answers += await self.run(page, within=deadline - self._loop.time(), reading=reading)
            except asyncio.CancelledError as cancelled:
                if answers:  # if not this page, then those before it
                    cancelled.__cause__ = ConnectionFailed(_CUT_OFF, maybe_done=True)
                raise
            failure = next((answer for answer in answers if isinstance(answer, TransportError)), None)
            if failure is not None:  # what follows must not overtake it
                held_back = TransportError(str(failure), retryable=failure.retryable)
                return answers + [held_back] * (len(commands) - len(answers))
        return answers

    def _may_send(self, connection: Connection, number: int, now: float) -> bool:
        """Whether so many may be sent now: all is well, there is room, and nothing has to be done first."""
        return connection.wire.may_ask(number, PAGE) and (self._upkeep is None or now < self._upkeep.due_at)

    def _send(self, connection: Connection, question: Request, now: float) -> None:
        connection.wire.ask(question, now)
        if self._watch is None:
            self._watch = self._loop.call_later(_ANSWER_WITHIN, self._look)

    def _look(self) -> None:
        """Give the connection up if the server has not answered for too long; otherwise look again later."""
        self._watch = None
        if self._connection is None or (oldest := self._connection.wire.oldest) is None:
            return
        give_up_at = oldest.asked_at + _ANSWER_WITHIN
        if self._loop.time() >= give_up_at:
            self._connection.wire.fail(TimeoutError())
        else:
            self._watch = self._loop.call_at(give_up_at, self._look)

    def _out_of_time(self) -> TransportError:
        """Say why something was not sent in time."""
        return ConnectionFailed(str(self._trouble) if self._trouble else f"no answer in time from {self.address}")

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
            question = self._waiting[0]
            if question.settled.done():
                self._waiting.popleft()
            elif self._may_send(connection, len(question.commands), now := self._loop.time()):
                self._waiting.popleft()
                self._send(connection, question, now)
            elif connection.wire.oldest is not None and not connection.hung_up:
                await connection.wire.news()
            else:
                return

    def _fail_waiting(self, error: TransportError) -> None:
        while self._waiting:
            question = self._waiting.popleft()
            question.trouble = error
            question.settle()

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
        if self._upkeep is not None and self._loop.time() >= self._upkeep.due_at:
            await self._keep_up(self._upkeep, self._connection)
        return self._connection

    async def _keep_up(self, upkeep: Maintenance, connection: Connection) -> None:
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
