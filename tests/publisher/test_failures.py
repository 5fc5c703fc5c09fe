"""Publishing to servers that are away or frozen: in time, and with the truth about what was sent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial

import pytest
from loguru import logger

from bench.ports import free_port
from jwt_events import (
    ConnectionFailed,
    Publisher,
    PublishError,
    PublishFailed,
    PublishOutcomeUnknown,
    Receipt,
    RedisPubSub,
    RedisStream,
    TokenRevoked,
    TransportError,
)
from jwt_events.embedded import EmbeddedServer
from jwt_events.instrumentation import UNOBSERVED
from jwt_events.publisher._call import PublishCall
from jwt_events.publisher._under_way import CallsUnderWay
from jwt_events.testing import Listener
from jwt_events.transport.base import Sent
from tests.support.fake_server import HANG_UP, FakeServer
from tests.support.faults import frozen
from tests.support.waiting import scaled

RECEIVED_BY_ONE = b":1\r\n"
TRANSPORTS = pytest.mark.parametrize("make", [RedisPubSub, RedisStream])
MakeTransport = Callable[[str], RedisPubSub | RedisStream]


def revoked(number: int = 0) -> TokenRevoked:
    """An event that is told from others by its number."""
    return TokenRevoked(token_id=f"t{number}")


async def failure(publisher: Publisher, *events: TokenRevoked, timeout: float, at_least: float = 0.0) -> PublishError:
    """Publish and return the error, which must come in time."""
    started = asyncio.get_running_loop().time()
    with pytest.raises(PublishError) as caught:
        await publisher.publish_many(events, timeout=timeout)
    took = asyncio.get_running_loop().time() - started
    assert at_least <= took < timeout + scaled(0.5)
    return caught.value


class TestFrozen:
    """A server that accepts connections and answers nothing."""

    @TRANSPORTS
    async def test_after_sending_the_outcome_is_unknown(
        self, own_server: Callable[..., EmbeddedServer], make: MakeTransport
    ) -> None:
        """A publish ends in time, says that the event may have been published, and publishing again is safe."""
        event = revoked()
        async with own_server() as server:
            transport = make(server.url)
            async with Listener(transport) as listener, Publisher(transport) as publisher:
                await publisher.publish(revoked(1))
                with frozen(server):
                    error = await failure(publisher, event, timeout=0.3, at_least=0.29)
                    # The first is still being waited for, so this one is not even sent.
                    later = await failure(publisher, revoked(2), timeout=0.1, at_least=0.09)
                await publisher.publish(event, timeout=scaled(10))
                await listener.hears("t1", "t0")
                await listener.subscriber.drain()
        assert (type(error), error.event_ids) == (PublishOutcomeUnknown, (event.id,))
        assert type(later) is PublishFailed
        assert listener.subjects.count("t0") == 1
        assert "t2" not in listener.subjects

    @TRANSPORTS
    async def test_while_connecting_nothing_was_sent(
        self, own_server: Callable[..., EmbeddedServer], make: MakeTransport
    ) -> None:
        """A publish that did not get past connecting ends in time as surely not published, for as long as it takes."""
        async with own_server() as server, Publisher(make(server.url)) as publisher:
            with frozen(server):
                for _ in range(2):
                    error = await failure(publisher, revoked(), timeout=0.2, at_least=0.19)
                    assert type(error) is PublishFailed
                    assert "no answer in time from unix:" in str(error)
            await publisher.publish(revoked(), timeout=scaled(10))

    async def test_closing_waits_no_longer_than_the_publish(self, own_server: Callable[..., EmbeddedServer]) -> None:
        """Closing returns when what was accepted has run out of time, although the server does not answer."""
        async with own_server() as server:
            publisher = Publisher(RedisStream(server.url), timeout=0.4)
            await publisher.publish(revoked(), timeout=scaled(10))
            with frozen(server):
                publishing = asyncio.create_task(publisher.publish(revoked()))
                await asyncio.sleep(0)
                async with asyncio.timeout(scaled(3)):
                    await publisher.aclose()
                assert publishing.done()
                assert isinstance(publishing.exception(), PublishOutcomeUnknown)


class TestAway:
    """A server that is not there."""

    @TRANSPORTS
    async def test_a_closed_port_is_named(self, make: MakeTransport) -> None:
        """Where nobody listens the event is surely not published; the message has host and port and no password."""
        port = free_port()
        event = revoked()
        async with Publisher(make(f"redis://me:s3cret@127.0.0.1:{port}/3")) as publisher:
            error = await failure(publisher, event, timeout=0.6)
            assert type(error) is PublishFailed
            assert f"127.0.0.1:{port}" in str(error)
            assert "Connection refused" in str(error)
            assert "s3cret" not in f"{error!r}{error}{publisher!r}"
        assert (error.event_ids, error.receipts) == ((event.id,), ())

    async def test_it_comes_in_time(self, own_server: Callable[..., EmbeddedServer]) -> None:
        """A server that starts while a publish is under way gets the event."""
        port = free_port()
        async with Publisher(RedisStream(f"redis://127.0.0.1:{port}")) as publisher:
            publishing = asyncio.create_task(publisher.publish(revoked(), timeout=scaled(10)))
            async with own_server(port=port):
                assert (await publishing).position is not None

    @TRANSPORTS
    async def test_a_restart_while_idle_goes_unnoticed(
        self, own_server: Callable[..., EmbeddedServer], make: MakeTransport
    ) -> None:
        """A server that was restarted between two publishes costs the second one no error."""
        port = free_port()
        start = partial(own_server, port=port)
        async with AsyncExitStack() as stack:
            publisher = await stack.enter_async_context(Publisher(make(f"redis://127.0.0.1:{port}")))
            async with start():
                await publisher.publish(revoked())
            await stack.enter_async_context(start())
            await publisher.publish(revoked(), timeout=scaled(5))

    async def test_a_lost_answer_is_asked_for_again(self) -> None:
        """When the connection is lost instead of an answer, the same bytes are sent once more."""
        answers = iter([HANG_UP, RECEIVED_BY_ONE])
        async with FakeServer(lambda _: next(answers)) as server, Publisher(RedisPubSub(server.url)) as publisher:
            receipt = await publisher.publish(revoked())
            first, second = server.received(b"PUBLISH")
        assert first == second
        assert receipt.event_id.encode() in first[2]

    async def test_a_lost_answer_at_the_end_leaves_the_outcome_unknown(self) -> None:
        """When no attempt was answered, the event may have been published."""
        async with FakeServer(lambda _: HANG_UP) as server, Publisher(RedisPubSub(server.url)) as publisher:
            error = await failure(publisher, revoked(), timeout=scaled(0.6))
        assert type(error) is PublishOutcomeUnknown
        assert server.address in str(error)

    async def test_what_was_lost_before_the_event_is_no_doubt(self) -> None:
        """When the connection is lost before the event's turn came, it is surely not sent."""
        transport = partial(RedisStream, ledger=False)  # which trims before
        async with FakeServer(lambda _: HANG_UP) as server, transport(server.url).sender() as sender:
            (outcome,) = await sender.send([b"x"], within=scaled(5))
            assert not server.received(b"XADD")
        assert isinstance(outcome, ConnectionFailed)
        assert not outcome.maybe_done

    async def test_what_follows_does_not_overtake(self) -> None:
        """When the connection is lost in the middle of many events, the rest is not sent before those."""
        answers = iter([RECEIVED_BY_ONE, RECEIVED_BY_ONE, HANG_UP])
        events = [revoked(number) for number in range(2_500)]
        async with (
            FakeServer(lambda _: next(answers, RECEIVED_BY_ONE)) as server,
            Publisher(RedisPubSub(server.url), timeout=scaled(10)) as publisher,
        ):
            receipts = await publisher.publish_many(events)
            received = [words[2] for words in server.received(b"PUBLISH")]
        assert [receipt.event_id for receipt in receipts] == [event.id for event in events]
        assert len(received) == len(events) + 1
        for event, payload in zip([*events[:3], *events[2:]], received, strict=True):
            assert event.id.encode() in payload

    async def test_part_of_many(self) -> None:
        """An error about many events has the receipts of those that were accepted and the ids of the others."""
        answers = iter([RECEIVED_BY_ONE, RECEIVED_BY_ONE])
        events = [revoked(number) for number in range(4)]
        async with (
            FakeServer(lambda _: next(answers, HANG_UP)) as server,
            Publisher(RedisPubSub(server.url)) as publisher,
        ):
            error = await failure(publisher, *events, timeout=scaled(0.6))
        assert type(error) is PublishOutcomeUnknown
        assert "2 of 4 events" in str(error)
        assert [receipt.event_id for receipt in error.receipts] == [event.id for event in events[:2]]
        assert error.event_ids == tuple(event.id for event in events[2:])

    async def test_what_was_accepted_is_kept(self) -> None:
        """What was accepted of many is kept for a server that takes over, whatever became of the rest."""
        events, kept = [revoked(number) for number in range(3)], list[tuple[Sequence[bytes], Sequence[Receipt]]]()

        class Refusing:
            """A sender whose server refuses the second payload."""

            async def send(self, payloads: Sequence[bytes], *, within: float) -> Sequence[Sent | TransportError]:
                """Send payloads."""
                return [Sent("5-1"), TransportError("refused"), Sent("5-2")]

        calls = CallsUnderWay()

        def keep(payloads: Sequence[bytes], receipts: Sequence[Receipt]) -> None:
            kept.append((payloads, receipts))

        call = PublishCall(Refusing(), UNOBSERVED, logger, events, [b"1", b"2", b"3"], keep, calls)
        with pytest.raises(PublishFailed):
            await call.run(time.monotonic() + 5)
        assert not calls
        assert kept == [([b"1", b"3"], [Receipt(events[0].id, "5-1"), Receipt(events[2].id, "5-2")])]

    async def test_a_transport_that_tells_too_little(self) -> None:
        """A sender that tells the outcome of fewer payloads than it got is no success."""

        class Forgetful:
            """A sender that forgets the last payload."""

            async def send(self, payloads: Sequence[bytes], *, within: float) -> Sequence[Sent | TransportError]:
                """Send payloads."""
                return [Sent("5-1")]

        events, calls = [revoked(number) for number in range(2)], CallsUnderWay()
        call = PublishCall(Forgetful(), UNOBSERVED, logger, events, [b"1", b"2"], None, calls)
        with pytest.raises(ValueError, match="1 outcomes of 2 payloads"):
            await call.run(time.monotonic() + 5)
        assert not calls
