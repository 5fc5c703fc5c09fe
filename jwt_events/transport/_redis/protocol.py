"""The two ends of a socket: commands out, answers in, in order. RESP itself is hiredis's business.

redis-py opens the socket, authenticates, speaks TLS and knows Sentinels. Then a `RespProtocol` takes the socket over:
here a request may follow the one before without waiting for its reply, replies are taken as they arrive and not one
task switch each, and nothing is tried again or connected again behind anybody's back.

Source: https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import hiredis

from jwt_events.errors import TransportError

Argument = bytes | str | int
Command = tuple[Argument, ...]

_NOTHING: Final = object()
_pack: Callable[[Command], bytes] = hiredis.pack_command  # type: ignore[assignment]  # its stub knows tuples of one only

_NONSENSE = "the answer makes no sense"

# How many bytes to take from the socket at once. asyncio's own way allocates four times as much for every read.
_READ_AT_ONCE = 65_536

# More than this in unread frames, in bytes, and the server has to wait: it knows what to do with a reader that is slow.
_MAX_UNREAD = 262_144


class ErrorReply(Exception):
    """The server's answer to a command is an error; holds its text."""


class Request:
    """Commands, and the answers to them so far.

    Attributes:
        commands: what is asked, at least one.
        wire: where it was sent; ``None`` if it was not.
        asked_at: when it was sent, by the clock of the loop.
        trouble: why it was not sent and will not be.
        answers: in order; a `ErrorReply` in the place of each command that was refused.
        settled: done when all answers are there, or when no more will come: then some are missing. Whoever is no
            longer interested may settle or cancel it.
    """

    __slots__ = ("answers", "asked_at", "commands", "settled", "trouble", "wire")

    def __init__(self, commands: Sequence[Command], loop: asyncio.AbstractEventLoop) -> None:
        self.commands: Sequence[Command] = commands
        self.wire: RespProtocol | None = None
        self.asked_at: float = 0.0
        self.trouble: TransportError | None = None
        self.answers: list[Any] = []
        self.settled: asyncio.Future[None] = loop.create_future()

    def settle(self) -> None:
        """Tell who waits that it is over; idempotent."""
        if not self.settled.done():
            self.settled.set_result(None)


class RespProtocol(asyncio.BufferedProtocol):
    """One socket that is connected.

    Args:
        writer: the socket's; nobody else may use it from now on.

    Attributes:
        frames: what arrived without a question, in order; where nothing was sent that has frames for an answer, nothing
            may.
        failure: why it was lost; ``None`` if it was not, or was closed from here.
        awaited: how many answers are outstanding.
        is_distrusted: whether an answer may belong to another question, so that none is to be believed.
    """

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(replyError=ErrorReply, notEnoughData=_NOTHING)
        self._received = memoryview(bytearray(_READ_AT_ONCE))  # a view, as TLS fills it slice by slice
        self._open: deque[Request] = deque()
        self._unsent: list[bytes] = []
        self._unread = 0
        self._listens = False
        self._news: asyncio.Future[None] | None = None
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self.frames: deque[Any] = deque()
        self.failure: Exception | None = None
        self.awaited: int = 0
        self.is_distrusted: bool = False
        self._writer = writer  # kept, as it closes the socket when it is collected
        self._transport = cast("asyncio.Transport", writer.transport)  # of a stream, it can read, too
        self._transport.set_protocol(self)

    @property
    def is_lost(self) -> bool:
        """Whether it is closed, by either side, as far as this process has been told."""
        return self._transport.is_closing()

    @property
    def oldest(self) -> Request | None:
        """The question that waits longest for an answer."""
        return self._open[0] if self._open else None

    def may_ask(self, number: int, most: int) -> bool:
        """Whether to ask so many things more here, where no more than ``most`` answers may be outstanding.

        Not if it is lost, nor if the next answer is too late for whoever waited for it.
        """
        return self.awaited + number <= most and not (self._open and self._open[0].settled.done()) and not self.is_lost

    def forsake_if_unwanted(self) -> None:
        """Tear the socket down if nobody waits for an answer any more, although some are outstanding."""
        if self._open and all(question.settled.done() for question in self._open):
            self.fail(TimeoutError())

    def ask(self, question: Request, now: float) -> None:
        """Send a question. Those that others ask in the same turn of the loop go along.

        Args:
            question: what to ask.
            now: the time, by the clock of the loop.
        """
        self._write(question.commands)
        question.wire = self
        question.asked_at = now
        self._open.append(question)
        self.awaited += len(question.commands)

    def send(self, commands: Sequence[Command]) -> None:
        """Send commands whose answers are frames."""
        self._listens = True
        self._write(commands)

    def _write(self, commands: Sequence[Command]) -> None:
        data = _pack(commands[0]) if len(commands) == 1 else b"".join(map(_pack, commands))
        if not self._open and not self._unsent:
            self._transport.write(data)  # whoever is alone does not wait for a turn
            return
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(data)

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        if not self.is_lost:
            self._transport.writelines(unsent)

    async def news(self) -> None:
        """Wait until something arrives, an answer or a frame, or until the socket is lost. For one task."""
        if self._closed.done():
            return
        self._news = self._loop.create_future()
        try:
            await self._news
        finally:
            self._news = None

    def take_frames(self, most: int) -> list[Any]:
        """Return so many of the frames that arrived, and forget them. A `ErrorReply` comes alone."""
        taken: list[Any] = []
        if self.frames and type(self.frames[0]) is ErrorReply:
            most = 1
        while self.frames and len(taken) < most and not (taken and type(self.frames[0]) is ErrorReply):
            taken.append(self.frames.popleft())
        if not self.frames:
            self._unread = 0
            if not self.is_lost:
                self._transport.resume_reading()
        return taken

    def get_buffer(self, sizehint: int) -> memoryview:
        """Say where to put what arrives."""
        return self._received

    def buffer_updated(self, nbytes: int) -> None:
        """Take what the server says."""
        self._reader.feed(self._received, 0, nbytes)  # type: ignore[arg-type]  # any buffer will do, unlike its stub says
        gets, is_news = self._reader.gets, False
        try:
            while (answer := gets()) is not _NOTHING:
                self._take(answer)
                is_news = True
        except hiredis.HiredisError:  # its message quotes what it could not read
            self.fail(ConnectionAbortedError(_NONSENSE))
            return
        if self.frames:
            self._unread += nbytes
            if self._unread > _MAX_UNREAD:
                self._transport.pause_reading()
        if is_news:
            self._tell()

    def _take(self, answer: Any) -> None:
        if not self._open:
            if self._listens:
                self.frames.append(answer)
            else:  # nobody can tell whose answer is whose
                self.distrust()
            return
        question = self._open[0]
        question.answers.append(answer)
        self.awaited -= 1
        if len(question.answers) == len(question.commands):
            self._open.popleft()
            question.settle()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell everybody who waits that nothing more will come."""
        self.failure = self.failure or exc or ConnectionResetError("the server hung up")
        if not self._closed.done():
            self._closed.set_result(None)
        self.awaited = 0
        while self._open:
            self._open.popleft().settle()
        self._tell()

    def _tell(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    def distrust(self) -> None:
        """Tear the socket down because questions and answers are out of step."""
        self.is_distrusted = True
        self.fail(ConnectionAbortedError(_NONSENSE))

    def fail(self, failure: Exception) -> None:
        """Tear the socket down at once, for a reason."""
        self.failure = self.failure or failure
        self.abort()

    def abort(self) -> None:
        """Tear the socket down at once."""
        self._transport.abort()

    async def aclose(self, *, within: float) -> None:
        """Close the socket in good order, or tear it down after so many seconds; idempotent."""
        try:
            self._transport.close()
            await asyncio.wait([self._closed], timeout=within)
        finally:
            self.abort()
