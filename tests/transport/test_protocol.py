"""The two ends of a socket, with somebody at the other end who says exactly these bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

import pytest

from jwt_events import ConnectionFailed, ServerRefused
from jwt_events.transport._redis.connection import Connection, Connector
from jwt_events.transport._redis.protocol import ErrorReply, Request, RespProtocol
from tests.support.fake_server import OK, array, text
from tests.support.handling import running, soon
from tests.support.waiting import scaled, wait_until


class Peer:
    """The other end of a socket.

    Attributes:
        heard: the bytes that arrived.
        is_left: whether the other side hung up.
    """

    def __init__(self) -> None:
        self.heard = bytearray()
        self.is_left = False
        self._writer: asyncio.StreamWriter | None = None

    @property
    def is_there(self) -> bool:
        """Whether the connection was accepted."""
        return self._writer is not None

    @property
    def _socket(self) -> asyncio.StreamWriter:
        assert self._writer is not None
        return self._writer

    def say(self, *parts: bytes) -> None:
        """Send bytes, all at once."""
        self._socket.write(b"".join(parts))

    async def hears(self, content: bytes) -> None:
        """Wait until exactly these bytes have arrived, and forget them."""
        await wait_until(
            lambda: len(self.heard) >= len(content), what=lambda: f"{len(content)} bytes, not {len(self.heard)}"
        )
        heard, self.heard = self.heard, bytearray()
        assert heard == content

    @property
    def unsent(self) -> int:
        """How many bytes the other side did not take so far."""
        return self._socket.transport.get_write_buffer_size()

    def stop_listening(self) -> None:
        """Take nothing more, so that what is sent piles up."""
        cast("asyncio.Transport", self._socket.transport).pause_reading()

    def hang_up(self) -> None:
        """Close in good order."""
        self._socket.close()

    def tear_down(self) -> None:
        """Close at once; if there is something that was not read, by a reset."""
        self._socket.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Listen until the other side hangs up."""
        self._writer = writer
        try:
            while data := await reader.read(1_048_576):
                self.heard += data
        except ConnectionError:
            pass
        finally:
            self.is_left = True
            writer.transport.abort()


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[RespProtocol, Peer]]:
    """Connect to a peer."""
    peer = Peer()
    async with await asyncio.start_server(peer.serve, "127.0.0.1", 0) as server:
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        wire = RespProtocol(writer)
        try:
            await wait_until(lambda: peer.is_there)
            yield wire, peer
        finally:
            await wire.aclose(within=scaled(5))
            await wait_until(lambda: peer.is_left, what="the other side to see that it was closed")


@pytest.fixture
async def ends() -> AsyncIterator[tuple[RespProtocol, Peer]]:
    """Both ends of a socket."""
    async with connected() as ends:
        yield ends


Ends = tuple[RespProtocol, Peer]


def asked(wire: RespProtocol, *words: str) -> Request:
    """Ask, with a command for each word."""
    question = Request([("ECHO", word) for word in words], asyncio.get_running_loop())
    wire.ask(question, asyncio.get_running_loop().time())
    return question


def command(*words: bytes) -> bytes:
    """Encode a command."""
    return array(*map(text, words))


def connection_on(wire: RespProtocol) -> Connection:
    """Make a connection of it."""
    return Connection(wire, Connector("redis://127.0.0.1", destination="k").interpreter)


class TestQuestions:
    """What is asked is answered, in order."""

    async def test_exact_bytes(self, ends: Ends) -> None:
        """Questions of one turn of the loop arrive in the order in which they were asked, with nothing in between."""
        wire, peer = ends
        for word in ("a", "b", "c"):
            asked(wire, word, f"{word}2")
        words = (b"a", b"a2", b"b", b"b2", b"c", b"c2")
        await peer.hears(b"".join(command(b"ECHO", word) for word in words))
        assert wire.awaited == 6

    async def test_many_answers_in_one_packet(self, ends: Ends) -> None:
        """Answers that arrive together go to whom they belong to, errors among them as they stand."""
        wire, peer = ends
        questions = [asked(wire, *"ab"), asked(wire, "c"), asked(wire, *"def")]
        peer.say(text(b"a"), b"-ERR b\r\n", b":3\r\n", b"$-1\r\n", array(text(b"e"), b"-ERR in e\r\n"), b"*-1\r\n")
        for question in questions:
            await soon(question.settled)
        (a, b), (c,), (d, e, f) = (question.answers for question in questions)
        assert (a, c, d, f) == (b"a", 3, None, None)
        assert (type(b), str(b)) == (ErrorReply, "ERR b")
        assert (e[0], type(e[1])) == (b"e", ErrorReply)
        assert wire.awaited == 0

    async def test_cut_anywhere(self, ends: Ends) -> None:
        """However answers are cut into packets, they are the same."""
        wire, _ = ends
        content = b"".join((text(b"a\r\nb"), b":12\r\n", array(text(b""), array(), b"+x\r\n"), b"-ERR no\r\n", OK))
        whole = [b"a\r\nb", 12, [b"", [], b"x"], "ERR no", b"OK"]
        for pieces in (
            [content[n : n + 1] for n in range(len(content))],
            *((content[:n], content[n:]) for n in range(len(content))),
        ):
            questions = [asked(wire, "a"), asked(wire, "b", "c"), asked(wire, "d", "e")]
            for piece in pieces:
                wire.get_buffer(-1)[: len(piece)] = piece
                wire.buffer_updated(len(piece))
            assert all(question.settled.done() for question in questions)
            answers = [answer for question in questions for answer in question.answers]
            assert [str(answer) if isinstance(answer, ErrorReply) else answer for answer in answers] == whole

    async def test_nobody_waits_any_more(self, ends: Ends) -> None:
        """The answer to a question that was given up is nobody else's, and nothing breaks by it."""
        wire, peer = ends
        given_up, other = asked(wire, "a", "b"), asked(wire, "c")
        assert wire.may_ask(1, 9)
        given_up.settle()
        assert not wire.may_ask(1, 9)
        wire.forsake_if_unwanted()  # somebody does want the other answer
        peer.say(text(b"a"), text(b"b"), text(b"c"))
        await soon(other.settled)
        assert other.answers == [b"c"]
        assert wire.may_ask(1, 9)

    async def test_nobody_waits_for_anything(self, ends: Ends) -> None:
        """If nobody waits for what is outstanding, the socket is given up; if nothing is, it is not."""
        wire, peer = ends
        wire.forsake_if_unwanted()
        assert not wire.is_lost
        for question in (asked(wire, "a"), asked(wire, "b")):
            question.settled.cancel()
        wire.forsake_if_unwanted()
        assert wire.is_lost
        await wait_until(lambda: peer.is_left)

    async def test_more_than_the_socket_takes(self, ends: Ends) -> None:
        """What the other side does not take at once waits, and arrives whole."""
        wire, peer = ends
        large = "x" * 20_000_000
        for word in (large, "a", large):
            asked(wire, word)
        expected = b"".join(command(b"ECHO", word.encode()) for word in (large, "a", large))
        await peer.hears(expected)


class TestFrames:
    """What arrives without a question."""

    async def test_where_they_are_expected(self, ends: Ends) -> None:
        """Whoever sent what has frames for an answer gets them in order, as many as wanted, however they are cut."""
        wire, peer = ends
        wire.send([("SUBSCRIBE", "k")])
        await peer.hears(command(b"SUBSCRIBE", b"k"))
        content = b"".join(array(text(b"message"), text(b"k"), text(b"%d" % n)) for n in range(10))
        for n in range(len(content)):
            peer.say(content[n : n + 1])
        taken: list[bytes] = []
        while len(taken) < 10:
            frames = await connection_on(wire).frames(within=scaled(5), most=3)
            assert 1 <= len(frames) <= 3
            taken += [frame[2] for frame in frames]
        assert taken == [b"%d" % n for n in range(10)]

    async def test_where_nobody_expects_them(self, ends: Ends) -> None:
        """An answer that nobody asked for ends it: the next would be taken for the answer to another question."""
        wire, peer = ends
        question = asked(wire, "a")
        peer.say(text(b"a"), text(b"once more"))
        await soon(question.settled)
        assert question.answers == [b"a"]
        assert wire.is_lost
        assert isinstance(wire.failure, ConnectionAbortedError)
        await wait_until(lambda: peer.is_left)

    async def test_errors_come_alone(self, ends: Ends) -> None:
        """An error among frames is raised in its turn, and costs none of the others."""
        wire, peer = ends
        wire.send([("SUBSCRIBE", "k")])
        peer.say(text(b"1"), text(b"2"), b"-ERR three\r\n", b"-ERR four\r\n", text(b"5"), text(b"6"))
        await wait_until(lambda: len(wire.frames) == 6)
        connection = connection_on(wire)
        assert await connection.frames() == [b"1", b"2"]
        for word in ("three", "four"):
            with pytest.raises(ServerRefused, match=word):
                await connection.frames()
        assert await connection.frames() == [b"5", b"6"]

    async def test_a_reader_that_is_slow(self, ends: Ends) -> None:
        """With enough unread, reading pauses, and goes on when that was taken: nothing is lost, memory is bounded."""
        wire, peer = ends
        wire.send([("SUBSCRIBE", "k")])
        number, size = 300, 100_000
        peer.say(*(text(b"%06d" % n + bytes(size)) for n in range(number)))
        await wait_until(lambda: len(wire.frames) > 0)
        await wait_until(lambda: not wire._transport.is_reading())
        assert peer.unsent > 0
        assert len(wire.frames) * size < 2_000_000
        taken: list[bytes] = []
        while len(taken) < number:
            taken += await connection_on(wire).frames(within=scaled(10), most=2)
        assert [int(frame[:6]) for frame in taken] == list(range(number))

    async def test_one_that_is_huge(self, ends: Ends) -> None:
        """A frame that is larger than what may be unread arrives, and so does what comes after it."""
        wire, peer = ends
        wire.send([("SUBSCRIBE", "k")])
        peer.say(text(b"a"), text(bytes(30_000_000)), text(b"b"))
        taken: list[bytes] = []
        while len(taken) < 3:
            taken += await connection_on(wire).frames(within=scaled(20))
        assert [len(frame) for frame in taken] == [1, 30_000_000, 1]

    @pytest.mark.parametrize("end", [Peer.hang_up, Peer.tear_down])
    async def test_the_end_while_reading_is_paused(self, ends: Ends, end: Callable[[Peer], None]) -> None:
        """If the other side ends while reading is paused, that is told when what came before was taken."""
        wire, peer = ends
        wire.send([("SUBSCRIBE", "k")])
        peer.say(*[text(bytes(100_000))] * 100)
        await wait_until(lambda: wire._unread > 262_144)
        end(peer)
        taken = 0
        while wire.frames or not wire.is_lost:
            await soon(wire.news() if not wire.frames else asyncio.sleep(0))
            taken += len(wire.take_frames(1))
        assert taken == 100 if end is Peer.hang_up else taken > 0
        with pytest.raises(ConnectionFailed):
            await connection_on(wire).frames()

    async def test_patience(self, ends: Ends) -> None:
        """Whoever was patient for nothing keeps the connection, and gets what comes next."""
        wire, peer = ends
        wire.send([("SUBSCRIBE", "k")])
        connection = connection_on(wire)
        assert await connection.frames(patience=0.001) == []
        async with running(connection.frames()) as waiting:
            await asyncio.sleep(0)
            peer.say(text(b"a"))
            assert await soon(waiting) == [b"a"]


class TestEnds:
    """How it ends."""

    @pytest.mark.parametrize("end", [Peer.hang_up, Peer.tear_down])
    async def test_answers_are_outstanding(self, ends: Ends, end: Callable[[Peer], None]) -> None:
        """If the other side ends, whoever waits is told, with the answers that came before."""
        wire, peer = ends
        first, second = asked(wire, "a", "b"), asked(wire, "c")
        connection = connection_on(wire)
        peer.say(text(b"a"))
        await wait_until(lambda: first.answers)
        end(peer)
        a, b = await connection.answers(first, within=scaled(5))
        (c,) = await connection.answers(second, within=scaled(5))
        assert a == b"a"
        for error in (b, c):
            assert isinstance(error, ConnectionFailed)
            assert error.maybe_done
        assert wire.is_lost
        assert (wire.awaited, wire.oldest) == (0, None)

    @pytest.mark.parametrize("garbage", [b"nonsense\r\n", b"\x00", b"*1\r\nx", b"$x\r\n"])
    async def test_garbage(self, ends: Ends, garbage: bytes) -> None:
        """What is no answer ends it for everybody, without being quoted; what was answered before is."""
        wire, peer = ends
        first, second = asked(wire, "a"), asked(wire, "s3cret")
        peer.say(text(b"a"), garbage)
        connection = connection_on(wire)
        assert await connection.answers(first, within=scaled(5)) == [b"a"]
        (error,) = await connection.answers(second, within=scaled(5))
        assert isinstance(error, ConnectionFailed)
        assert error.maybe_done
        assert str(error) == "ECHO at 127.0.0.1:6379 for 'k' failed: the answer makes no sense"

    async def test_whoever_waits_for_news(self, ends: Ends) -> None:
        """Whoever waits for anything at all is told of the end, and later ones at once."""
        wire, peer = ends
        async with running(wire.news()) as waiting:
            await asyncio.sleep(0)
            peer.hang_up()
            await soon(waiting)
        await soon(wire.news())
        await soon(wire.news())

    async def test_nothing_is_sent_after_the_end(self, ends: Ends) -> None:
        """What waits for its turn when the socket is torn down is dropped, and who asked is told."""
        wire, peer = ends
        questions = [asked(wire, word) for word in "abc"]
        wire.abort()
        for question in questions:
            await soon(question.settled)
            assert question.answers == []
        await wait_until(lambda: peer.is_left)
        assert bytes(peer.heard) in (b"", command(b"ECHO", b"a"))

    async def test_closing_waits_no_longer_than_told(self, ends: Ends) -> None:
        """If the other side takes nothing, closing tears the socket down; it may be repeated."""
        wire, peer = ends
        peer.stop_listening()
        wire.send([("SUBSCRIBE", "x" * 30_000_000)])
        await soon(wire.aclose(within=0.01))
        await soon(wire.aclose(within=0.01))
        assert wire.is_lost
        peer.tear_down()

    async def test_what_came_before_the_takeover(self) -> None:
        """Reading goes on, even if the streams of asyncio had paused it."""
        peer = Peer()
        async with await asyncio.start_server(peer.serve, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname(), limit=1)
            await wait_until(lambda: peer.is_there)
            peer.say(bytes(1_000))
            await reader.readexactly(1_000)
            wire = RespProtocol(writer)
            question = asked(wire, "a")
            peer.say(text(b"a"))
            await soon(question.settled)
            await wire.aclose(within=scaled(5))
            await wait_until(lambda: peer.is_left)
