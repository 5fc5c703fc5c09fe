"""`RespProtocol` on a socket whose peer sends exactly the bytes of the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jwt_events import ConnectionFailed, ServerRefused
from jwt_events.transport._redis.commands import CommandTemplate, packed, words_of
from jwt_events.transport._redis.connection import Connection, Connector
from jwt_events.transport._redis.protocol import Bounds, ErrorReply, Request, RespProtocol
from tests.support.fake_server import OK, array, text
from tests.support.handling import running, soon
from tests.support.waiting import scaled, wait_until


class Peer:
    """The other end of a socket, as a test needs it.

    Attributes:
        received: the bytes that arrived.
        is_closed: whether the other side closed the socket.
    """

    def __init__(self) -> None:
        self.received = bytearray()
        self.is_closed = False
        self._writer: asyncio.StreamWriter | None = None

    @property
    def is_there(self) -> bool:
        """Whether the connection was accepted."""
        return self._writer is not None

    @property
    def _socket(self) -> asyncio.StreamWriter:
        assert self._writer is not None
        return self._writer

    def send(self, *parts: bytes) -> None:
        """Send bytes in one write."""
        self._socket.write(b"".join(parts))

    async def receives(self, content: bytes) -> None:
        """Wait until exactly these bytes have arrived, and forget them."""
        await wait_until(
            lambda: len(self.received) >= len(content), what=lambda: f"{len(content)} bytes, not {len(self.received)}"
        )
        received, self.received = self.received, bytearray()
        assert received == content

    @property
    def unsent(self) -> int:
        """How many bytes the other side has not read so far."""
        return self._socket.transport.get_write_buffer_size()

    def stop_reading(self) -> None:
        """Stop reading, so that sent bytes pile up."""
        cast("asyncio.Transport", self._socket.transport).pause_reading()

    def close(self) -> None:
        """Close in good order."""
        self._socket.close()

    def abort(self) -> None:
        """Close at once; by a reset if bytes were not read."""
        self._socket.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read until the other side closes the socket."""
        self._writer = writer
        try:
            while data := await reader.read(1_048_576):
                self.received += data
        except ConnectionError:
            pass
        finally:
            self.is_closed = True
            writer.transport.abort()


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[RespProtocol, Peer]]:
    """Connect a protocol and a peer."""
    peer = Peer()
    async with await asyncio.start_server(peer.serve, "127.0.0.1", 0) as server:
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        protocol = RespProtocol(writer)
        try:
            await wait_until(lambda: peer.is_there)
            yield protocol, peer
        finally:
            await protocol.aclose(within=scaled(5))
            await wait_until(lambda: peer.is_closed, what="the peer to see that it was closed")


@pytest.fixture
async def ends() -> AsyncIterator[tuple[RespProtocol, Peer]]:
    """Both ends of a socket."""
    async with connected() as ends:
        yield ends


Ends = tuple[RespProtocol, Peer]


def sent(protocol: RespProtocol, *words: str) -> Request:
    """Send a request with an ECHO for each word."""
    request = Request([("ECHO", word) for word in words], asyncio.get_running_loop().create_future())
    protocol.send(request, asyncio.get_running_loop().time())
    return request


def command(*words: bytes) -> bytes:
    """Encode a command."""
    return array(*map(text, words))


def connection_on(protocol: RespProtocol) -> Connection:
    """Make a connection that uses this protocol."""
    return Connection(protocol, Connector("redis://127.0.0.1", destination="k").decoder)


@given(words=st.lists(st.binary(max_size=20), min_size=1, max_size=4), last=st.binary(max_size=200))
@example(words=[b"%s", b"%d%%", b"$0\r\n\r\n"], last=b"$0\r\n\r\n%b")
def test_template(words: list[bytes], last: bytes) -> None:
    """What a template packs is what its words are packed to, and it tells which they are."""
    (filled,) = CommandTemplate(*words).fill([last])
    assert packed([filled]) == packed([(*words, last)]) == command(*words, last)
    assert words_of(filled) == words_of((*words, last)) == (*words, last)


class TestRequests:
    """Requests get their replies in order."""

    async def test_exact_bytes(self, ends: Ends) -> None:
        """Requests of one turn of the loop arrive in the order in which they were sent, with nothing in between."""
        protocol, peer = ends
        for word in ("a", "b", "c"):
            sent(protocol, word, f"{word}2")
        words = (b"a", b"a2", b"b", b"b2", b"c", b"c2")
        await peer.receives(b"".join(command(b"ECHO", word) for word in words))
        assert protocol.outstanding == 6

    async def test_no_words(self, ends: Ends) -> None:
        """Commands of which one has no words are refused, and none of them is sent; what goes before and after is."""
        protocol, peer = ends
        filled = CommandTemplate(b"ECHO").fill([b"b", b"c"])
        no_words: list[list[Any]] = [[("ECHO", "a"), ("ECHO", None)], [("ECHO", "\ud800")], [("ECHO", object())]]
        for request in ([("ECHO", "a")], *no_words, filled, *no_words, [("ECHO", "d"), *filled]):
            with pytest.raises((TypeError, UnicodeEncodeError)) if request in no_words else nullcontext():
                protocol.send(Request(request, protocol.loop.create_future()), 0.0)
        await peer.receives(b"".join(command(b"ECHO", word) for word in (b"a", b"b", b"c", b"d", b"b", b"c")))
        assert protocol.outstanding == 6

    async def test_what_cannot_be_packed(self, ends: Ends) -> None:
        """If what shares a packet cannot be packed after all, no reply is taken for that to another request."""
        protocol, peer = ends
        lost = CommandTemplate(b"ECHO").fill([b"b"])
        lost[0].word = cast("bytes", None)
        errors: list[Any] = []
        protocol.loop.set_exception_handler(lambda _, context: errors.append(context["exception"]))
        waiting = sent(protocol, "a")
        protocol.send(Request(lost, protocol.loop.create_future()), 0.0)
        await wait_until(lambda: protocol.is_closed)
        assert [type(error) for error in errors] == [TypeError]
        await soon(waiting.settled)
        assert protocol.is_out_of_sync
        assert waiting.replies == []
        await wait_until(lambda: peer.is_closed)

    async def test_closed_before_it_is_sent(self, ends: Ends) -> None:
        """What is to share a packet is dropped in silence if the socket was closed in the same turn of the loop."""
        protocol, _ = ends
        errors: list[Any] = []
        protocol.loop.set_exception_handler(lambda _, context: errors.append(context))
        first = sent(protocol, "a")
        protocol.abort()
        second = sent(protocol, "b")
        await soon(first.settled)
        await soon(second.settled)
        await asyncio.sleep(0)  # in which it would have been sent
        assert errors == []
        assert not protocol.is_out_of_sync

    def test_words_of_other_kinds(self) -> None:
        """A word that may change is copied when it is given; text is refused."""
        word = bytearray(b"before")
        filled = CommandTemplate(b"ECHO").fill(cast("list[bytes]", [word, memoryview(word)]))
        word[:] = b"after!"
        assert packed(filled) == 2 * command(b"ECHO", b"before")
        with pytest.raises(TypeError):
            CommandTemplate(b"ECHO").fill(cast("list[bytes]", ["text"]))

    async def test_many_replies_in_one_packet(self, ends: Ends) -> None:
        """Replies that arrive together are matched to their requests, error replies as they are."""
        protocol, peer = ends
        requests = [sent(protocol, *"ab"), sent(protocol, "c"), sent(protocol, *"def")]
        peer.send(text(b"a"), b"-ERR b\r\n", b":3\r\n", b"$-1\r\n", array(text(b"e"), b"-ERR in e\r\n"), b"*-1\r\n")
        for request in requests:
            await soon(request.settled)
        (a, b), (c,), (d, e, f) = (request.replies for request in requests)
        assert (a, c, d, f) == (b"a", 3, None, None)
        assert (type(b), str(b)) == (ErrorReply, "ERR b")
        assert (e[0], type(e[1])) == (b"e", ErrorReply)
        assert protocol.outstanding == 0

    async def test_cut_anywhere(self, ends: Ends) -> None:
        """Replies are the same however they are split into packets."""
        protocol, _ = ends
        content = b"".join((text(b"a\r\nb"), b":12\r\n", array(text(b""), array(), b"+x\r\n"), b"-ERR no\r\n", OK))
        whole = [b"a\r\nb", 12, [b"", [], b"x"], "ERR no", b"OK"]
        for pieces in (
            [content[n : n + 1] for n in range(len(content))],
            *((content[:n], content[n:]) for n in range(len(content))),
        ):
            requests = [sent(protocol, "a"), sent(protocol, "b", "c"), sent(protocol, "d", "e")]
            for piece in pieces:
                protocol.get_buffer(-1)[: len(piece)] = piece
                protocol.buffer_updated(len(piece))
            assert all(request.settled.done() for request in requests)
            replies = [reply for request in requests for reply in request.replies]
            assert [str(reply) if isinstance(reply, ErrorReply) else reply for reply in replies] == whole

    async def test_abandoned_request(self, ends: Ends) -> None:
        """The reply to an abandoned request goes to no other request, and breaks nothing."""
        protocol, peer = ends
        abandoned, other = sent(protocol, "a", "b"), sent(protocol, "c")
        assert protocol.can_send(1, 9)
        abandoned.settle()
        assert not protocol.can_send(1, 9)
        protocol.abort_if_abandoned()  # a caller waits for the other reply
        peer.send(text(b"a"), text(b"b"), text(b"c"))
        await soon(other.settled)
        assert other.replies == [b"c"]
        assert protocol.can_send(1, 9)

    async def test_only_abandoned_requests(self, ends: Ends) -> None:
        """The socket is closed if every outstanding request is abandoned, and stays open if none is outstanding."""
        protocol, peer = ends
        protocol.abort_if_abandoned()
        assert not protocol.is_closed
        for request in (sent(protocol, "a"), sent(protocol, "b")):
            request.settled.cancel()
        protocol.abort_if_abandoned()
        assert protocol.is_closed
        await wait_until(lambda: peer.is_closed)

    async def test_more_than_the_socket_takes(self, ends: Ends) -> None:
        """Bytes that the peer does not read at once are buffered, and arrive completely."""
        protocol, peer = ends
        large = "x" * 20_000_000
        for word in (large, "a", large):
            sent(protocol, word)
        expected = b"".join(command(b"ECHO", word.encode()) for word in (large, "a", large))
        await peer.receives(expected)


class TestTooLarge:
    """Requests whose reply may not have more than so many bytes."""

    async def test_cut_off(self, ends: Ends) -> None:
        """A larger reply closes the socket before all of it has arrived; replies before it are returned."""
        protocol, peer = ends
        connection = connection_on(protocol)
        small, large = connection.send([("ECHO", "a")]), connection.send([("ECHO", "b")] * 2, bounds=Bounds(1_000_000))
        peer.send(text(b"a"), text(b"b"), text(bytes(30_000_000)))
        assert await connection.replies(small, within=scaled(5)) == [b"a"]
        b, error = await connection.replies(large, within=scaled(5))
        assert b == b"b"
        assert isinstance(error, ConnectionFailed)
        assert str(error).endswith("more than 1000000 bytes came, which will be read in smaller parts")
        assert connection.was_cut_off
        assert protocol.received < 2_000_000

    async def test_many_small_replies(self, ends: Ends) -> None:
        """The limit is for each reply, and other requests have none."""
        protocol, peer = ends
        connection = connection_on(protocol)
        first = connection.send([("ECHO", "a")] * 30, bounds=Bounds(200_000))
        second = connection.send([("ECHO", "b")])
        peer.send(*[text(bytes(100_000))] * 30, text(bytes(3_000_000)))
        assert await connection.replies(first, within=scaled(5)) == [bytes(100_000)] * 30
        assert await connection.replies(second, within=scaled(5)) == [bytes(3_000_000)]
        assert not connection.was_cut_off

    @pytest.mark.parametrize("size", [1, 300_000])
    async def test_values_are_cut(self, ends: Ends, size: int) -> None:
        """Values in the reply to a request with a limit for each are cut, and those in the next reply are not."""
        protocol, peer = ends
        connection = connection_on(protocol)
        first = connection.send([("ECHO", "a")], bounds=Bounds(value=200_000, values=400_000))
        second = connection.send([("ECHO", "b")] * 2)
        peer.send(text(bytes(size)), *[text(bytes(300_000))] * 2)
        assert await connection.replies(first, within=scaled(5)) == [bytes(min(size, 200_000))]
        assert await connection.replies(second, within=scaled(5)) == [bytes(300_000)] * 2
        assert (first.dropped, second.dropped) == (max(0, size - 200_000), 0)


class TestPushed:
    """Messages that the server sends without a request."""

    async def test_expected(self, ends: Ends) -> None:
        """After `write`, pushed messages are returned in order, up to the maximum, however they are split."""
        protocol, peer = ends
        protocol.write([("SUBSCRIBE", "k")])
        await peer.receives(command(b"SUBSCRIBE", b"k"))
        content = b"".join(array(text(b"message"), text(b"k"), text(b"%d" % n)) for n in range(10))
        for n in range(len(content)):
            peer.send(content[n : n + 1])
        taken: list[bytes] = []
        while len(taken) < 10:
            messages = await connection_on(protocol).pushed(within=scaled(5), maximum=3)
            assert 1 <= len(messages) <= 3
            taken += [message[2] for message in messages]
        assert taken == [b"%d" % n for n in range(10)]

    async def test_unexpected(self, ends: Ends) -> None:
        """A reply without a request closes the socket: later ones would be taken for replies to other requests."""
        protocol, peer = ends
        request = sent(protocol, "a")
        peer.send(text(b"a"), text(b"once more"))
        await soon(request.settled)
        assert request.replies == [b"a"]
        assert protocol.is_closed
        assert isinstance(protocol.failure, ConnectionAbortedError)
        await wait_until(lambda: peer.is_closed)

    async def test_errors_come_alone(self, ends: Ends) -> None:
        """An error among pushed messages is raised in its turn, and none of the others is lost."""
        protocol, peer = ends
        protocol.write([("SUBSCRIBE", "k")])
        peer.send(text(b"1"), text(b"2"), b"-ERR three\r\n", b"-ERR four\r\n", text(b"5"), text(b"6"))
        await wait_until(lambda: len(protocol.pushed) == 6)
        connection = connection_on(protocol)
        assert await connection.pushed() == [b"1", b"2"]
        for word in ("three", "four"):
            with pytest.raises(ServerRefused, match=word):
                await connection.pushed()
        assert await connection.pushed() == [b"5", b"6"]

    async def test_slow_reader(self, ends: Ends) -> None:
        """Reading pauses above the limit and resumes when messages were taken: none is lost, memory is bounded."""
        protocol, peer = ends
        protocol.write([("SUBSCRIBE", "k")])
        number, size = 300, 100_000
        peer.send(*(text(b"%06d" % n + bytes(size)) for n in range(number)))
        await wait_until(lambda: len(protocol.pushed) > 0)
        await wait_until(lambda: not protocol._transport.is_reading())
        assert peer.unsent > 0
        assert len(protocol.pushed) * size < 2_000_000
        taken: list[bytes] = []
        while len(taken) < number:
            taken += await connection_on(protocol).pushed(within=scaled(10), maximum=2)
        assert [int(message[:6]) for message in taken] == list(range(number))

    async def test_huge_message(self, ends: Ends) -> None:
        """A message larger than the limit of unread bytes arrives, and so do those after it."""
        protocol, peer = ends
        protocol.write([("SUBSCRIBE", "k")])
        peer.send(text(b"a"), text(bytes(30_000_000)), text(b"b"))
        taken: list[bytes] = []
        while len(taken) < 3:
            taken += await connection_on(protocol).pushed(within=scaled(20))
        assert [len(message) for message in taken] == [1, 30_000_000, 1]

    @pytest.mark.parametrize("end", [Peer.close, Peer.abort])
    async def test_closed_while_reading_is_paused(self, ends: Ends, end: Callable[[Peer], None]) -> None:
        """If the peer closes while reading is paused, that is reported after the messages before it were taken."""
        protocol, peer = ends
        protocol.write([("SUBSCRIBE", "k")])
        peer.send(*[text(bytes(100_000))] * 100)
        await wait_until(lambda: protocol._unread > 262_144)
        end(peer)
        taken = 0
        while protocol.pushed or not protocol.is_closed:
            await soon(protocol.wait_for_data() if not protocol.pushed else asyncio.sleep(0))
            taken += len(protocol.take_pushed(1))
        assert taken == 100 if end is Peer.close else taken > 0
        with pytest.raises(ConnectionFailed):
            await connection_on(protocol).pushed()

    async def test_poll_timeout(self, ends: Ends) -> None:
        """A poll timeout keeps the connection open, and the next message is returned."""
        protocol, peer = ends
        protocol.write([("SUBSCRIBE", "k")])
        connection = connection_on(protocol)
        assert await connection.pushed(poll_timeout=0.001) == []
        async with running(connection.pushed()) as waiting:
            await asyncio.sleep(0)
            peer.send(text(b"a"))
            assert await soon(waiting) == [b"a"]


class TestClosing:
    """How a socket is closed, by either side."""

    @pytest.mark.parametrize("end", [Peer.close, Peer.abort])
    async def test_replies_are_outstanding(self, ends: Ends, end: Callable[[Peer], None]) -> None:
        """If the peer closes, waiting callers get the replies that arrived before, and errors for the rest."""
        protocol, peer = ends
        first, second = sent(protocol, "a", "b"), sent(protocol, "c")
        connection = connection_on(protocol)
        peer.send(text(b"a"))
        await wait_until(lambda: first.replies)
        end(peer)
        a, b = await connection.replies(first, within=scaled(5))
        (c,) = await connection.replies(second, within=scaled(5))
        assert a == b"a"
        for error in (b, c):
            assert isinstance(error, ConnectionFailed)
            assert error.maybe_done
        assert protocol.is_closed
        assert (protocol.outstanding, protocol.oldest) == (0, None)

    @pytest.mark.parametrize("garbage", [b"nonsense\r\n", b"\x00", b"*1\r\nx", b"$x\r\n"])
    async def test_garbage(self, ends: Ends, garbage: bytes) -> None:
        """Bytes that are not RESP fail all outstanding requests and are not quoted; earlier replies are returned."""
        protocol, peer = ends
        first, second = sent(protocol, "a"), sent(protocol, "s3cret")
        peer.send(text(b"a"), garbage)
        connection = connection_on(protocol)
        assert await connection.replies(first, within=scaled(5)) == [b"a"]
        (error,) = await connection.replies(second, within=scaled(5))
        assert isinstance(error, ConnectionFailed)
        assert error.maybe_done
        assert str(error) == "ECHO at 127.0.0.1:6379 for 'k' failed: the answer makes no sense"

    async def test_waiting_for_data(self, ends: Ends) -> None:
        """`wait_for_data` returns when the socket is closed, and from then on at once."""
        protocol, peer = ends
        async with running(protocol.wait_for_data()) as waiting:
            await asyncio.sleep(0)
            peer.close()
            await soon(waiting)
        await soon(protocol.wait_for_data())
        await soon(protocol.wait_for_data())

    async def test_nothing_is_sent_after_abort(self, ends: Ends) -> None:
        """Requests that are buffered when the socket is aborted are dropped, and their callers are woken."""
        protocol, peer = ends
        requests = [sent(protocol, word) for word in "abc"]
        protocol.abort()
        for request in requests:
            await soon(request.settled)
            assert request.replies == []
        await wait_until(lambda: peer.is_closed)
        assert bytes(peer.received) in (b"", command(b"ECHO", b"a"))

    async def test_closing_waits_no_longer_than_told(self, ends: Ends) -> None:
        """If the peer reads nothing, closing aborts the socket after its time; it may be repeated."""
        protocol, peer = ends
        peer.stop_reading()
        protocol.write([("SUBSCRIBE", "x" * 30_000_000)])
        await soon(protocol.aclose(within=0.01))
        await soon(protocol.aclose(within=0.01))
        assert protocol.is_closed
        peer.abort()

    async def test_reading_was_paused_before(self) -> None:
        """Reading continues even if the streams of asyncio had paused it."""
        peer = Peer()
        async with await asyncio.start_server(peer.serve, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname(), limit=1)
            await wait_until(lambda: peer.is_there)
            peer.send(bytes(1_000))
            await reader.readexactly(1_000)
            protocol = RespProtocol(writer)
            request = sent(protocol, "a")
            peer.send(text(b"a"))
            await soon(request.settled)
            await protocol.aclose(within=scaled(5))
            await wait_until(lambda: peer.is_closed)
