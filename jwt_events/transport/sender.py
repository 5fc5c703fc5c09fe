"""Sends payloads over one connection of its own, those that wait at the same time in one go."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from loguru import logger

from jwt_events.errors import ConnectionFailed, TransportError
from jwt_events.transport.base import Sent
from jwt_events.transport.connection import Argument, Connection, Connector

# The longest wait for a connection, or for the answers to one page, before the connection is given up.
_ANSWER_WITHIN = 5.0

# How many payloads go out before their answers are awaited: enough to hide the way there and back, few enough that a
# deadline which ends in between leaves little in doubt.
_PAGE = 1_000


class Command(Protocol):
    """How a transport turns one payload into a command."""

    def command(self, payload: bytes) -> tuple[Argument, ...]:
        """Return the words of the command."""
        ...

    def sent(self, answer: Any) -> Sent:
        """Read the server's answer to it."""
        ...

    async def upkeep(self, connection: Connection) -> None:
        """Do what is due on the server before the next page.

        Raises:
            TransportError: it did not work; sending goes on if the connection does.
        """
        ...


class _Job:
    """Payloads of one call of `send`, on their way."""

    def __init__(self, payloads: Sequence[bytes]) -> None:
        self.payloads = payloads
        self.written = False
        self.outcome: asyncio.Future[list[Sent | TransportError]] = asyncio.get_running_loop().create_future()

    def fail(self, error: TransportError) -> None:
        if not self.outcome.done():
            self.outcome.set_result([error] * len(self.payloads))


class RedisSender:
    """Sends payloads to a Redis server. Safe to call from many tasks; an async context manager.

    One task owns the connection and takes whatever waits, so that concurrent calls share round trips, and a caller that
    is cancelled or runs out of time never breaks the connection for the others.

    Args:
        connector: makes its connection, when it is first needed.
        command: how a payload is sent.
    """

    def __init__(self, connector: Connector, command: Command) -> None:
        self._connector = connector
        self._command = command
        self._waiting: deque[_Job] = deque()
        self._something_waits = asyncio.Event()
        self._connection: Connection | None = None
        self._trouble: TransportError | None = None  # why the last attempt to connect failed
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._work(), name=f"jwt_events sender {self._connector.destination}")
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._disconnect()

    async def send(self, payloads: Sequence[bytes], *, within: float) -> Sequence[Sent | TransportError]:
        """Send payloads in order; see `Sender.send`."""
        deadline = asyncio.get_running_loop().time() + within
        outcomes: list[Sent | TransportError] = []
        for start in range(0, len(payloads), _PAGE):
            outcomes += await self._send_page(payloads[start : start + _PAGE], deadline)
            failure = next((outcome for outcome in outcomes if isinstance(outcome, TransportError)), None)
            if failure is not None:  # what follows must not overtake it
                held_back = TransportError(str(failure), retryable=failure.retryable)
                return outcomes + [held_back] * (len(payloads) - len(outcomes))
        return outcomes

    async def _send_page(self, payloads: Sequence[bytes], deadline: float) -> Sequence[Sent | TransportError]:
        job = _Job(payloads)
        self._waiting.append(job)
        self._something_waits.set()
        try:
            async with asyncio.timeout_at(deadline):
                return await job.outcome
        except TimeoutError:
            return [self._out_of_time(job)] * len(payloads)
        except asyncio.CancelledError as cancelled:
            if job.written:
                cancelled.__cause__ = self._out_of_time(job)
            raise

    def _out_of_time(self, job: _Job) -> ConnectionFailed:
        if self._trouble is not None and not job.written:  # more telling than that it is still being tried
            return ConnectionFailed(str(self._trouble))
        return ConnectionFailed(f"no answer in time from {self._connector.address}", maybe_done=job.written)

    async def _work(self) -> None:
        """Send what waits, for as long as this sender is open."""
        while True:
            await self._something_waits.wait()
            self._something_waits.clear()
            while jobs := self._take_page():
                try:
                    await self._transmit(jobs)
                except TransportError as error:
                    for job in jobs:
                        job.fail(error)
                except Exception as error:  # noqa: BLE001 - without this task, every later publish would time out
                    await self._disconnect()
                    problem = f"unexpected {type(error).__name__} in the exchange with {self._connector.address}"
                    for job in jobs:
                        job.fail(TransportError(problem, maybe_done=job.written))

    def _take_page(self) -> list[_Job]:
        """Take jobs for one round trip, leaving out those that nobody waits for any more."""
        jobs: list[_Job] = []
        size = 0
        while self._waiting and (not jobs or size + len(self._waiting[0].payloads) <= _PAGE):
            job = self._waiting.popleft()
            if not job.outcome.done():
                jobs.append(job)
                size += len(job.payloads)
        return jobs

    async def _transmit(self, jobs: list[_Job]) -> None:
        connection = await self._connected()
        jobs = [job for job in jobs if not job.outcome.done()]  # connecting took its time
        commands = [self._command.command(payload) for job in jobs for payload in job.payloads]
        if not commands:
            return
        for job in jobs:
            job.written = True
        answers = iter(await connection.pipeline(commands, within=_ANSWER_WITHIN))
        for job in jobs:
            outcome = [self._read(next(answers)) for _ in job.payloads]
            if not job.outcome.done():
                job.outcome.set_result(outcome)

    def _read(self, answer: Any) -> Sent | TransportError:
        return answer if isinstance(answer, TransportError) else self._command.sent(answer)

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
        try:
            await self._command.upkeep(self._connection)
        except TransportError as error:
            logger.warning("upkeep failed", destination=self._connector.destination, error=str(error))
            if self._connection.hung_up:
                error.maybe_done = False  # whatever became of the upkeep, no event was sent
                raise
        return self._connection

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.aclose()
