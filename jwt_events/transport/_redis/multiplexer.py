"""Commands of many tasks over one connection, without waiting for one another's replies."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, Self, TypeAlias

from loguru import logger

from jwt_events._internal.cancellation import end
from jwt_events._internal.notices import Notices
from jwt_events.errors import ConnectionFailed, TransportError
from jwt_events.transport._redis.attempts import Attempts
from jwt_events.transport._redis.commands import Commands
from jwt_events.transport._redis.connection import Connection, Connector
from jwt_events.transport._redis.deadlines import Deadlines
from jwt_events.transport._redis.protocol import ErrorReply, Request
from jwt_events.transport._redis.replies import REDIRECTIONS, ReplyParser
from jwt_events.transport._redis.role import HELLO, ROLE_INTERVAL, RoleRule, is_in_cluster
from jwt_events.transport.base import Sent

# The longest wait for a connection, or for a reply, in seconds, before the connection counts as dead.
_REPLY_WITHIN = 5.0

_CUT_OFF = "cancelled before all answers came"

MAX_OUTSTANDING = 1_000
"""How many replies may be outstanding: enough to hide the round trip, few enough that a deadline which passes in
between leaves little in doubt."""


class Maintenance(Protocol):
    """A task that a server needs from time to time.

    Attributes:
        due_at: when it has to run next, by the clock of the loop. Read before every command.
    """

    due_at: float

    async def run(self, connection: Connection) -> None:
        """Do the task on this connection and set ``due_at`` anew."""
        ...


class Multiplexer:
    """Runs commands of many tasks on a connection of its own; an async context manager.

    A caller sends at once, without a task in between, and callers of the same turn of the loop share a packet. A task
    does what has to come first now and then: connect, run maintenance, wait until fewer replies are outstanding. A
    caller that is cancelled or whose deadline passes does not break the connection for the others.

    Args:
        connector: opens the connection when the first command needs it.
        maintenance: run before the next command when it is due. If it fails, the command is sent all the same.
        role: which servers to accept: asked of each new connection before the first command, and then now and then in
            one packet with a command, which does not wait for it. ``None`` to accept all.
    """

    _request_type = Request

    def __init__(
        self, connector: Connector, maintenance: Maintenance | None = None, *, role: RoleRule | None = None
    ) -> None:
        self.address: str = connector.address
        self._connector = connector
        self._decoder = connector.decoder
        self._decode: Callable[..., list[Any]] = self._decoder.decode
        self._maintenance = maintenance
        self._role = role
        self._notices = Notices()
        self._owner = connector.owner(may_be_replaced=role is None or not role.is_needed)
        self._attempts = Attempts(self._owner)
        self._role_due_at = math.inf
        self._queue: deque[Request] = deque()  # requests that could not be sent at once
        self._has_queued = asyncio.Event()
        self._connection: Connection | None = None
        self._watchdog: asyncio.TimerHandle | None = None
        self._must_connect = False
        self.on_connect: Callable[[Connection], Awaitable[None]] | None = None
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop
        self._deadlines: Deadlines

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()  # looking it up for every command costs more than all else in sending
        self._deadlines = Deadlines(self._loop)
        self._task = asyncio.create_task(self._work(), name=f"jwt_events multiplexer {self._connector.destination}")
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            if self._task is not None:
                await end([self._task])
        finally:
            _fail_all(self._queue, ConnectionFailed("it was closed before this could be sent"))
            self._deadlines.close()
            if self._watchdog is not None:
                self._watchdog.cancel()
            await self._disconnect()
            await self._owner.aclose()

    async def run(self, commands: Commands, within: float, parse: ReplyParser | None = None) -> list[Any]:
        """Run commands in order and return their parsed replies; an error takes the place of each that failed.

        Cancelling it is safe: a command that was not sent yet is never sent. If any was sent, the ``CancelledError``
        has a `TransportError` as its cause.

        Args:
            commands: each its words, or a template that is filled.
            within: seconds after which to give up.
            parse: the parser of each reply; ``None`` to check each by the shape of its command's replies.
        """
        loop, count = self._loop, len(commands)
        now = loop.time()
        deadline = now + within
        if count > MAX_OUTSTANDING:
            return await self._run_batches(commands, deadline, parse)
        if not count or within <= 0:  # sent now, its outcome would be in doubt at once
            return [self._timed_out()] * count
        request = self._request_type(commands, loop.create_future())
        self._deadlines.wait(request, deadline)  # before it is packed, as this lets go of the request before it
        if self._queue or (connection := self._connection) is None or not self._can_send(connection, count, now):
            self._queue.append(request)
            self._has_queued.set()
        else:
            self._send(connection, request, now)
        try:
            await request.settled
        except asyncio.CancelledError as cancelled:
            if request.protocol is not None:
                request.protocol.abort_if_abandoned()
                cancelled.__cause__ = ConnectionFailed(_CUT_OFF, maybe_done=True)
            raise
        if request.protocol is None:
            return [request.error or self._timed_out()] * count
        if len(request.replies) < count:
            request.protocol.abort_if_abandoned()
        return self._decode(request, parse)

    @property
    def newest(self) -> Request | None:
        """The request that was sent last, if its replies have not arrived."""
        return None if self._connection is None else self._connection.protocol.newest

    async def _run_batches(self, commands: Commands, deadline: float, parse: ReplyParser | None) -> list[Any]:
        replies: list[Any] = []
        for start in range(0, len(commands), MAX_OUTSTANDING):
            batch = commands[start : start + MAX_OUTSTANDING]
            try:
                replies += await self.run(batch, within=deadline - self._loop.time(), parse=parse)
            except asyncio.CancelledError as cancelled:
                if replies:  # even if nothing of this batch was sent, the batches before it were
                    cancelled.__cause__ = ConnectionFailed(_CUT_OFF, maybe_done=True)
                raise
            failure = next((reply for reply in replies if isinstance(reply, TransportError)), None)
            if failure is not None:  # later commands must not overtake one that failed
                held_back = TransportError(str(failure), retryable=failure.retryable)
                return replies + [held_back] * (len(commands) - len(replies))
        return replies

    def _can_send(self, connection: Connection, count: int, now: float) -> bool:
        """Whether ``count`` commands may be sent now: the limit allows it, and no maintenance is due."""
        return connection.protocol.can_send(count, MAX_OUTSTANDING) and (
            self._maintenance is None or now < self._maintenance.due_at
        )

    def _send(self, connection: Connection, request: Request, now: float) -> None:
        if now >= self._role_due_at:
            self._role_due_at = now + ROLE_INTERVAL
            self._owner.look(connection)
            asking = _RoleRequest((HELLO,), request.settled, beside=request, judge=self._judge_role)
            connection.protocol.send(asking, now)
        connection.protocol.send(request, now)
        if self._watchdog is None:
            self._watchdog = self._loop.call_later(_REPLY_WITHIN, self._check_replies)

    def _check_replies(self) -> None:
        """Close the connection if the oldest request has waited too long; otherwise check again when it will have."""
        self._watchdog = None
        if self._connection is None or (oldest := self._connection.protocol.oldest) is None:
            return
        give_up_at = oldest.sent_at + _REPLY_WITHIN
        if self._loop.time() >= give_up_at:
            self._connection.protocol.fail(TimeoutError())
        else:
            self._watchdog = self._loop.call_at(give_up_at, self._check_replies)

    def _judge_role(self, asked: _RoleRequest) -> None:
        """Close the connection if the server is no primary any more, and take nothing that it said as a success."""
        (reply,) = self._decoder.decode(asked)
        try:
            if self._role is not None:
                self._role.check(reply, maybe_done=True)
        except TransportError as error:
            protocol, beside = asked.protocol, asked.beside.replies
            if protocol is not None:
                # A replica that refuses to write accepted nothing; what any other accepted may be lost.
                protocol.is_out_of_sync |= not (beside and all(_is_redirection(reply) for reply in beside))
                protocol.fail(error)

    def _timed_out(self) -> TransportError:
        """Return the error of a command that was not sent before its deadline."""
        error = self._attempts.error
        return self._connector.timed_out() if error is None else ConnectionFailed(str(error))

    async def _work(self) -> None:
        """Connect, run maintenance and send queued requests, until cancelled."""
        while True:
            await self._has_queued.wait()
            self._has_queued.clear()
            while self._queue or self._must_connect:
                self._must_connect = False
                try:
                    await self._send_queued(await self._connected())
                except TransportError as error:
                    _fail_all(self._queue, error)
                except Exception as error:  # noqa: BLE001 - without this task, every later command would time out
                    await self._disconnect()
                    _fail_all(self._queue, unexpected(error, self.address, maybe_done=False))

    async def _send_queued(self, connection: Connection) -> None:
        """Send queued requests as the limit allows, except those whose caller has given up."""
        while self._queue:
            request = self._queue[0]
            if request.settled.done():
                self._queue.popleft()
            elif self._can_send(connection, len(request.commands), now := self._loop.time()):
                self._queue.popleft()
                self._send(connection, request, now)
            elif connection.protocol.oldest is not None and not connection.is_closed:
                await connection.protocol.wait_for_data()
            else:
                return

    async def _connected(self) -> Connection:
        """Return an open connection on which no maintenance is due."""
        if self._connection is None or self._connection.is_closed:
            await self._disconnect()
            self._connection = await self._attempts.make(self._connect)
        if self._maintenance is not None and self._loop.time() >= self._maintenance.due_at:
            await self._maintain(self._maintenance, self._connection)
        return self._connection

    async def _connect(self) -> Connection:
        if self._role is None:  # then nobody else is asked later
            return await self._connector.connect(within=_REPLY_WITHIN)
        connection = await self._owner.connect(within=_REPLY_WITHIN)
        try:
            (reply,) = await connection.execute_many([HELLO], within=_REPLY_WITHIN)
            self._connector.follow(is_node=is_in_cluster(reply))
            self._connector.require_slot()
            if not self._role.check(reply, maybe_done=False):
                logger.warning("the role of the server is unknown", address=self.address, error=str(reply))
            if self.on_connect is not None:
                await self.on_connect(connection)
        except BaseException as error:
            connection.abort()
            await connection.aclose()
            if isinstance(error, TransportError):
                error.maybe_done = False  # none of the commands was sent
            raise
        self._role_due_at = self._loop.time() + ROLE_INTERVAL
        return connection

    def look(self) -> Connection | None:
        """Connect again if the connection is lost, although nothing is to be sent; else return it, and look where."""
        if self._connection is None or self._connection.is_closed:
            self._must_connect = True
            self._has_queued.set()
            return None
        self._owner.look(self._connection)
        return self._connection

    async def _maintain(self, maintenance: Maintenance, connection: Connection) -> None:
        try:
            await maintenance.run(connection)
        except TransportError as error:
            place, message = self._connector.destination, "maintenance failed"
            self._notices.tell("WARNING", message, once=message, destination=place, error=str(error))
            if connection.is_closed:
                error.maybe_done = False  # whatever became of the maintenance, none of the commands was sent
                raise
        except Exception as error:  # noqa: BLE001 - the server, or what stands for it, may answer anything
            await self._disconnect()
            raise unexpected(error, self.address, maybe_done=False) from None

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.aclose()


def _fail_all(queue: deque[Request], error: TransportError) -> None:
    while queue:
        request = queue.popleft()
        request.error = error
        request.settle()


class _RoleRequest(Request, kw_only=True):
    """Asks for the role in one packet with a request, and ahead of it.

    It is settled when that request is: it keeps no connection open for itself, and is judged before the caller gets its
    replies.

    Attributes:
        beside: that request.
        judge: called with this one when there is a reply.
    """

    beside: Request
    judge: Callable[[_RoleRequest], None]

    def __post_init__(self) -> None:
        self.settled.add_done_callback(lambda _: self._judge_reply())

    def settle(self) -> None:
        """Judge the reply, unless the request that it was sent with is still waiting."""
        if self.settled.done():
            self._judge_reply()

    def _judge_reply(self) -> None:
        if self.replies:
            self.judge(self)


MakeCommands: TypeAlias = Callable[[Sequence[bytes]], Commands]
"""Makes the commands that send payloads, in their order."""


class RedisSender:
    """Sends payloads over a multiplexer, one command each; the `Sender` of both Redis transports.

    Args:
        multiplexer: runs the commands.
        make_commands: makes the commands that send payloads.
        parse: the parser of the reply to each.
    """

    def __init__(
        self,
        multiplexer: Multiplexer,
        *,
        make_commands: MakeCommands,
        parse: Callable[[Any], Sent],
    ) -> None:
        self._multiplexer = multiplexer
        self._make_commands = make_commands
        self._parse = parse

    def send(self, payloads: Sequence[bytes], *, within: float) -> Awaitable[Sequence[Sent | TransportError]]:
        """Send payloads in order; see `Sender.send`."""
        return self._multiplexer.run(self._make_commands(payloads), within, self._parse)


def _is_redirection(reply: Any) -> bool:
    return type(reply) is ErrorReply and str(reply).partition(" ")[0] in REDIRECTIONS


def unexpected(error: Exception, address: str, *, maybe_done: bool) -> TransportError:
    """Return the error of an exchange with the server that made no sense; it quotes nothing of the reply."""
    return TransportError(f"unexpected {type(error).__name__} in the exchange with {address}", maybe_done=maybe_done)
