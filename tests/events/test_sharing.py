"""Readers of one destination in one process: each message is decoded once, and each reader has its own event."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jwt_events import Event, MemoryTransport, RedisPubSub, RedisStream, RevocationList, Subscriber, TokenRevoked
from jwt_events.envelope import Envelope, Readership, _sharing, decode, encode
from jwt_events.testing import Listener
from jwt_events.transport.base import Transport
from tests.support.decoding import decoded, forms
from tests.support.mutations import ORIGINALS, mutated
from tests.support.strategies import known_events
from tests.support.waiting import wait_until

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def channel(name: str) -> Transport:
    """Return a transport to a server that nobody asks for anything."""
    return RedisPubSub("redis://127.0.0.1", channel=name)


@pytest.fixture
def readers() -> Iterator[list[Readership]]:
    """Make three readers of one destination."""
    with ExitStack() as stack:
        yield [stack.enter_context(Readership(channel("shared"))) for _ in range(3)]


def bytes_of(event: Event, trace: str | None = None) -> bytes:
    """Return an event as it travels."""
    return encode(Envelope(event, trace), source="auth")


def count_decoding(readers: list[Readership], payload: bytes) -> int:
    """Let each reader decode a message, and return how often that was work."""
    with patch.object(_sharing, "decode", wraps=decode) as work:
        for reader in readers:
            reader.decoder()(payload)
    return work.call_count


class TestEvents:
    """The events that readers get."""

    @pytest.mark.parametrize("event", ORIGINALS, ids=lambda event: f"{type(event).__name__}-{event.subject}")
    @pytest.mark.parametrize("trace", [None, TRACE])
    def test_all_get_the_same_in_every_detail(self, readers: list[Readership], event: Event, trace: str | None) -> None:
        """No reader can tell whether it was the first."""
        payload = bytes_of(event, trace)
        assert [decoded(payload, reader.decoder()) for reader in readers] == [decoded(payload)] * 3
        assert [forms(payload, reader.decoder()) for reader in readers] == [forms(payload)] * 3

    @given(event=known_events, seed=st.integers(0, 2**32))
    def test_any_message(self, event: Event, seed: int) -> None:
        """So it is with every message, valid or not."""
        with ExitStack() as stack:
            readers = [stack.enter_context(Readership(channel("any"))) for _ in range(3)]
            for payload in (bytes_of(event), *mutated(5, seed)):
                for reader in (*readers, *readers):
                    assert decoded(payload, reader.decoder()) == decoded(payload)

    @pytest.mark.parametrize(
        "event",
        [
            TokenRevoked(token_id="t"),
            TokenRevoked(token_id="t", metadata={"ip": "192.0.2.1"}),
            TokenRevoked(claims={"tenant": "a"}),
        ],
        ids=["plain", "metadata", "claims"],
    )
    def test_none_sees_what_another_does_to_its_event(self, readers: list[Readership], event: TokenRevoked) -> None:
        """Each has an event of its own, down to what can be changed."""
        payload = bytes_of(event)
        for reader in (*readers, *readers):
            received = reader.decoder()(payload).event
            assert isinstance(received, TokenRevoked)
            assert received == event.model_copy(update={"source": "auth"})
            received.metadata["mine"] = True
            if received.claims is not None:
                received.claims["mine"] = True

    def test_a_question_is_answered_by_each(self, readers: list[Readership]) -> None:
        """Each learns that the publisher waits for it."""
        payload = encode(Envelope(TokenRevoked(token_id="t"), confirm=True), source="auth")
        assert [reader.decoder()(payload).confirm for reader in readers] == [True] * 3


class TestWork:
    """Who decodes, and what is kept."""

    def test_once(self, readers: list[Readership]) -> None:
        """Of several readers, one decodes."""
        assert count_decoding(readers, bytes_of(TokenRevoked(token_id="t"))) == 1

    def test_few(self) -> None:
        """One reader, or two, keep nothing and look nothing up."""
        with Readership(channel("few")) as reader:
            assert reader.decoder() is decode
            with Readership(channel("few")) as beside:
                assert [reader.decoder(), beside.decoder()] == [decode, decode]

    @pytest.mark.parametrize(
        ("one", "another"),
        [
            (channel("one"), channel("another")),
            (RedisStream("redis://127.0.0.1", "k", group="g"), RedisStream("redis://127.0.0.1", "k", group="g")),
        ],
        ids=["destinations", "group"],
    )
    def test_others(self, one: Transport, another: Transport) -> None:
        """Readers of other destinations, and members of a group, receive other messages, and share nothing."""
        with ExitStack() as stack:
            readers = [stack.enter_context(Readership(transport)) for transport in (one, one, another, another)]
            assert [reader.decoder() for reader in readers] == [decode] * 4

    def test_the_last_one_left(self, readers: list[Readership]) -> None:
        """A reader that is left alone keeps nothing: neither those that left nor what was decoded."""
        count_decoding(readers, payload := bytes_of(TokenRevoked(token_id="t")))
        for reader in readers[1:]:
            reader.__exit__()
            reader.__exit__()
        assert readers[0].decoder() is decode
        with Readership(channel("shared")) as again, Readership(channel("shared")):
            assert count_decoding([readers[0], again], payload) == 1

    def test_forgotten(self) -> None:
        """A reader that was dropped without leaving does not count."""
        readers = [Readership(channel("forgotten")).__enter__() for _ in range(3)]
        del readers[1]
        assert readers[0].decoder() is decode

    def test_bounds(self, readers: list[Readership]) -> None:
        """What is far behind is decoded again, and so is what is large."""
        first = bytes_of(TokenRevoked(token_id="first"))
        count_decoding(readers, first)
        for number in range(1_100):
            count_decoding(readers[:1], bytes_of(TokenRevoked(token_id=str(number))))
        assert count_decoding(readers[:1], first) == 1
        name = "x" * 512
        large = bytes_of(TokenRevoked(token_id=name, user_id=name, session_id=name, client_id=name))
        assert len(large) > 2_048
        assert count_decoding(readers, large) == 3


class TestComponents:
    """Subscribers and lists."""

    async def test_each_has_its_own_event(self) -> None:
        """Subscribers and lists of one transport, in one process, get equal events and not the same one."""
        transport = MemoryTransport(retention=timedelta(hours=1))
        received: list[Event] = []
        listeners = [Listener(transport) for _ in range(2)]
        live = RevocationList(transport)
        live.on(TokenRevoked)(received.append)
        async with listeners[0], listeners[1], live:
            async with transport.sender() as sender:
                await sender.send([bytes_of(TokenRevoked(token_id="t"))], within=5.0)
            for listener in listeners:
                await listener.hears("t")
                received += listener.events
            await wait_until(lambda: len(received) == 3)
        assert received[0] == received[1] == received[2]
        assert len({id(event) for event in received}) == 3

    async def test_leaving(self, url: str, key: str) -> None:
        """A subscriber that ended, or never began, is no reader any more."""
        transport = RedisStream(url, key)
        with Readership(transport) as reader, Readership(transport):
            subscriber = Subscriber(transport)
            assert reader.decoder() is decode
            async with subscriber:
                assert reader.decoder() is not decode
            assert reader.decoder() is decode
