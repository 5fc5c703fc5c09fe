"""One socket to the server: commands out, replies in, in the same order. hiredis encodes and decodes RESP.

redis-py opens the socket, authenticates, speaks TLS and knows Sentinels. Then a `RespProtocol` takes the socket over:
here a request may follow the one before without waiting for its reply, replies are taken as they arrive and not one
task switch each, and nothing retries or reconnects without the caller's knowledge.

Source: https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, cast

import hiredis
import msgspec

from jwt_events._internal.opaque import OpaqueStruct
from jwt_events.errors import TransportError
from jwt_events.transport._redis.commands import Command, Commands, FilledTemplate, packed
from jwt_events.transport._redis.cutter import ValueCutter
from jwt_events.transport._redis.forked import give_up_if_forked
from jwt_events.transport._redis.receive_buffer import ReceiveBuffer

_NOTHING: Final = object()
_EMPTY: Final = memoryview(b"")

_NONSENSE = "the answer makes no sense"
_FORKED = "the process was forked, and the connection belongs to its parent"

# Above this many bytes of pushed messages that were not taken, reading pauses. The server has limits of its own for
# readers that are slow.
_MAX_UNREAD = 262_144


PushedMessage = hiredis.PushNotification
"""A message that the server sent by itself, as RESP3 marks it; a list."""


class ReplyTooLarge(ConnectionAbortedError):
    """Why a socket was closed: the reply to a request had more bytes than it allows."""


class ErrorReply(Exception):
    """An error that the server sent in reply to a command; holds its text."""


class Bounds(NamedTuple):
    """How much of the replies to a request is taken.

    Attributes:
        reply: how many bytes of one reply may arrive before it is complete: with more the socket is closed, as a server
            cannot be told to stop. ``None`` for any number. What was cut out of values does not count.
        value: how many bytes of one value are kept; ``None`` for all. Only if no other request is outstanding.
        values: how many bytes of all values are kept.
        cut: in how many replies, the first ones, values are cut; ``None`` for all.
    """

    reply: int | None = None
    value: int | None = None
    values: int = 0
    cut: int | None = None


UNBOUNDED: Final = Bounds()


class Request(OpaqueStruct):
    """Commands that are sent together, and the replies to them so far.

    Attributes:
        commands: the commands, at least one.
        settled: done when all replies have arrived, or when no more will come: then some are missing. A caller that
            gives up may settle or cancel it.
        bounds: how much of the replies is taken.
        dropped: how many bytes of values were left out of the last reply that was cut.
        protocol: the socket that it was sent on; ``None`` if it was not sent.
        sent_at: when it was sent, by the clock of the loop.
        error: why it was not sent and will not be.
        replies: the replies in order; an `ErrorReply` in the place of each command that was refused.
    """

    commands: Commands
    settled: asyncio.Future[None]
    bounds: Bounds = UNBOUNDED
    dropped: int = 0
    protocol: RespProtocol | None = None
    sent_at: float = 0.0
    error: TransportError | None = None
    replies: list[Any] = msgspec.field(default_factory=list)

    def settle(self) -> None:
        """Wake the caller that waits for this request; idempotent."""
        if not self.settled.done():
            self.settled.set_result(None)


class RespProtocol(asyncio.BufferedProtocol):
    """Sends requests on one connected socket and matches the replies to them.

    Args:
        writer: the socket's writer. From now on only this object may use it.

    Attributes:
        pushed: messages that arrived while no request was outstanding, or marked as pushed (RESP3), in order. Only a
            socket on which `write` was called may get any.
        loop: the event loop that reads the socket.
        failure: why the socket was closed; ``None`` if it is open, or was closed in good order from here.
        outstanding: how many replies have not arrived yet.
        received: how many bytes have arrived.
        peer_name: what the system calls the other side: a tuple or a path; ``None`` if it has no name.
        is_out_of_sync: whether a reply may belong to another request, so that none can be trusted.
    """

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(replyError=ErrorReply, notEnoughData=_NOTHING)
        self._buffer = ReceiveBuffer(self.loop)
        self._arrived = _EMPTY
        self._requests: deque[Request] = deque()  # those that are not fully replied to, the oldest first
        self._unsent: list[Command | FilledTemplate | bytes] = []
        self._unread = 0
        self._incomplete_since = 0  # how many bytes had arrived when a reply last was complete, or were not kept
        self._cutter: ValueCutter | None = None
        self._expects_pushed = False
        self._data_arrived: asyncio.Future[None] | None = None
        self._closed: asyncio.Future[None] = self.loop.create_future()
        self.pushed: deque[Any] = deque()
        self.failure: Exception | None = None
        self.outstanding: int = 0
        self.received: int = 0
        self.is_out_of_sync: bool = False
        self._writer = writer  # kept, as it closes the socket when it is collected
        self._transport = cast("asyncio.Transport", writer.transport)  # of a stream, it can read, too
        self._transport.set_protocol(self)
        self.peer_name: Any = self._transport.get_extra_info("peername")
        give_up_if_forked(self)

    @property
    def is_closed(self) -> bool:
        """Whether the socket is closed, by either side, as far as this process has been told."""
        return self._transport.is_closing()

    @property
    def descriptor(self) -> int:
        """The file descriptor of the socket; negative if it is closed."""
        return cast("int", self._transport.get_extra_info("socket").fileno())

    @property
    def peer(self) -> tuple[str, int] | None:
        """Host and port of the other side; ``None`` on a unix socket."""
        return self.peer_name[:2] if isinstance(self.peer_name, tuple) else None

    @property
    def oldest(self) -> Request | None:
        """The request that has waited longest for its replies."""
        return self._requests[0] if self._requests else None

    @property
    def newest(self) -> Request | None:
        """The request that was sent last, if its replies have not arrived."""
        return self._requests[-1] if self._requests else None

    def can_send(self, count: int, maximum: int) -> bool:
        """Whether `count` more commands may be sent, given the limit on outstanding replies.

        Not if the socket is closed, nor if the caller of the oldest request has given up waiting for its replies.
        """
        requests = self._requests
        return (
            self.outstanding + count <= maximum
            and not (requests and requests[0].settled.done())
            and not self._transport.is_closing()
        )

    def abort_if_abandoned(self) -> None:
        """Close the socket at once if replies are outstanding and no caller waits for any of them."""
        if self._requests and all(request.settled.done() for request in self._requests):
            self.fail(TimeoutError())

    def send(self, request: Request, now: float) -> None:
        """Send a request. Requests of the same turn of the loop share a packet.

        Args:
            request: the request.
            now: the time, by the clock of the loop.
        """
        commands, bounds = request.commands, request.bounds
        self._transmit(commands)
        if bounds is not UNBOUNDED and bounds.value is not None and not self._requests:
            replies = len(commands) if bounds.cut is None else bounds.cut
            self._cutter = ValueCutter(bounds.value, bounds.values, replies)
        request.protocol = self
        request.sent_at = now
        self._requests.append(request)
        self.outstanding += len(commands)

    def send_together(self, requests: Sequence[Request], now: float) -> None:
        """Send requests in one packet; otherwise as `send`."""
        self._transmit([command for request in requests for command in request.commands])
        for request in requests:
            request.protocol = self
            request.sent_at = now
            self._requests.append(request)
            self.outstanding += len(request.commands)

    def write(self, commands: Commands) -> None:
        """Send commands whose replies arrive among the pushed messages."""
        self._expects_pushed = True
        self._transmit(commands)

    def _transmit(self, commands: Commands) -> None:
        unsent = commands if type(commands[0]) is FilledTemplate else [packed(commands)]  # raises for what are no words
        if not self._requests and not self._unsent:
            self._transport.write(packed(unsent))  # there is nothing to share a packet with
            return
        if not self._unsent:
            self.loop.call_soon(self._flush)
        self._unsent += unsent

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        try:
            if not self.is_closed:  # uvloop refuses even to write nothing then
                self._transport.write(packed(unsent))  # packed together, for the processor's cache
        except BaseException:  # such as MemoryError: replies are awaited for what is never sent
            self.mark_out_of_sync()
            raise

    async def wait_for_data(self) -> None:
        """Wait until a reply or a pushed message arrives, or until the socket is closed. For one task at a time."""
        if self._closed.done():
            return
        self._data_arrived = self.loop.create_future()
        try:
            await self._data_arrived
        finally:
            self._data_arrived = None

    def take_pushed(self, maximum: int) -> list[Any]:
        """Remove and return up to ``maximum`` pushed messages. An `ErrorReply` is returned alone."""
        taken: list[Any] = []
        if self.pushed and type(self.pushed[0]) is ErrorReply:
            maximum = 1
        while self.pushed and len(taken) < maximum and not (taken and type(self.pushed[0]) is ErrorReply):
            taken.append(self.pushed.popleft())
        if not self.pushed:
            self._unread = 0
            if not self.is_closed:
                self._transport.resume_reading()
        return taken

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return the buffer that received bytes are written to; called by asyncio."""
        self._arrived = self._buffer.acquire()
        return self._arrived

    def buffer_updated(self, nbytes: int) -> None:
        """Decode what arrived; called by asyncio."""
        self.received += nbytes
        self._feed(nbytes)
        self._buffer.release()
        gets, requests, expects_pushed, has_arrived = self._reader.gets, self._requests, self._expects_pushed, False
        try:
            while (reply := gets()) is not _NOTHING:
                has_arrived = True
                if not requests or (expects_pushed and type(reply) is PushedMessage):
                    self._accept_pushed(reply)
                    continue
                replies = (request := requests[0]).replies
                replies.append(reply)
                self.outstanding -= 1
                if len(replies) == len(request.commands):
                    requests.popleft()
                    self._cutter = None  # it was for the oldest request
                    request.settle()
        except Exception:  # noqa: BLE001 - a HiredisError, which quotes what it could not read, or what the shape causes
            self.fail(ConnectionAbortedError(_NONSENSE))
            return
        if self.pushed:
            self._unread += nbytes
            if self._unread > _MAX_UNREAD:
                self._transport.pause_reading()
        if has_arrived:
            self._incomplete_since = self.received
            self._wake()
        elif requests and (limit := requests[0].bounds.reply) and self.received - self._incomplete_since > limit:
            self.fail(ReplyTooLarge(f"more than {limit} bytes came, which will be read in smaller parts"))

    def _feed(self, nbytes: int) -> None:
        if self._cutter is None:
            self._reader.feed(self._arrived, 0, nbytes)  # type: ignore[arg-type]  # any buffer will do, unlike its stub says
            return
        kept = self._cutter.feed(bytes(self._arrived[:nbytes]))
        self._incomplete_since += nbytes - len(kept)
        self._reader.feed(kept)
        if self._cutter.is_done:
            self._requests[0].dropped = self._cutter.dropped
            self._cutter = None

    def _accept_pushed(self, reply: Any) -> None:
        if self._expects_pushed:
            self.pushed.append(reply)
        else:  # one reply too many: which of them belongs to which request cannot be told
            self.mark_out_of_sync()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wake all waiting callers, as no more replies will come; called by asyncio."""
        self._buffer.release()
        self.failure = self.failure or exc or ConnectionResetError("the server hung up")
        if not self._closed.done():
            self._closed.set_result(None)
        self.outstanding = 0
        while self._requests:
            self._requests.popleft().settle()
        self._wake()

    def _wake(self) -> None:
        if self._data_arrived is not None and not self._data_arrived.done():
            self._data_arrived.set_result(None)

    def mark_out_of_sync(self) -> None:
        """Close the socket at once, because replies no longer match requests."""
        self.is_out_of_sync = True
        self.fail(ConnectionAbortedError(_NONSENSE))

    def fail(self, failure: Exception) -> None:
        """Close the socket at once and record why, unless a reason was recorded before."""
        self.failure = self.failure or failure
        self.abort()

    def abandon(self) -> None:
        """Note that the socket is gone: it belongs to the parent of this process."""
        self.fail(ConnectionAbortedError(_FORKED))

    def abort(self) -> None:
        """Close the socket at once, without sending what is buffered."""
        self._transport.abort()

    async def aclose(self, *, within: float) -> None:
        """Close the socket in good order, and abort it after ``within`` seconds; idempotent."""
        try:
            if not self._transport.is_closing():  # in Python 3.11.2 one of TLS that is closed twice cannot be aborted
                self._transport.close()
            await asyncio.wait([self._closed], timeout=within)
        finally:
            self.abort()
