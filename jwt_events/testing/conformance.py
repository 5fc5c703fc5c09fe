"""Conformance tests that every transport passes; run them for your own transport.

::

    class TestMine(TransportConformance):
        @pytest.fixture
        def make_transport(self, address):
            def make(name="", *, start="new"):
                return MyTransport(address, "test" + name, start=start)

            return make

The tests are asynchronous: set pytest-asyncio's mode to "auto", or mark the class. A test that requires a guarantee
which the transport does not give is skipped. With the plugin `jwt_events.testing.plugin`, a failure shows the values.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jwt_events._internal.clock import boottime
from jwt_events.events import Event, KeyRotated, SessionCreated, SessionDestroyed, TokenExpired, TokenRevoked
from jwt_events.publisher import Publisher
from jwt_events.subscriber import Subscriber
from jwt_events.testing._listener import Listener
from jwt_events.testing._poison import MakeTransport, PoisonConformance
from jwt_events.testing._waiting import eventually, scaled
from jwt_events.transport.base import Batch, Receiver, Transport

__all__ = ["MakeTransport", "TransportConformance"]

NOW = datetime.now(UTC)
COMMON: dict[str, Any] = {
    "source": "auth-1.example",
    "metadata": {"zażółć": ["gęślą", 1, -2.5, None, True, {"nested": {"emoji": "🔑"}}], 'quote"\\\n\u2028': ""},
}
EVENTS = (
    TokenRevoked(
        token_id="jti:ü/1",
        user_id="用户",
        session_id="s 1",
        client_id="app",
        issued_before=NOW - timedelta(days=400, microseconds=1),
        expires_at=NOW + timedelta(hours=1),
        reason="стащили ноутбук\n“really”",
        **COMMON,
    ),
    TokenExpired(token_id="jti-2", user_id="u", session_id="s", expired_at=NOW, **COMMON),
    KeyRotated(
        key_id="2026-11",
        previous_key_id="2026-10",
        issuer="https://issuer.example/",
        algorithm="ES256",
        active_from=NOW,
        retire_at=NOW + timedelta(days=3),
        **COMMON,
    ),
    KeyRotated(key_id="2026-09", issuer="https://issuer.example/", compromised=True, **COMMON),
    SessionCreated(session_id="s", user_id="u", client_id="app", expires_at=NOW + timedelta(hours=2), **COMMON),
    SessionDestroyed(session_id="s", user_id="u", expires_at=NOW, reason="logout", **COMMON),
)


def revoked(number: int) -> TokenRevoked:
    """Return an event that is identified by its number."""
    return TokenRevoked(token_id=f"t{number}")


def require_durable(transport: Transport) -> None:
    """Skip the test unless the transport is durable."""
    if not transport.guarantees.durable:
        pytest.skip("only for transports that are durable")


def require_fan_out(transport: Transport) -> None:
    """Skip the test unless every receiver sees every event."""
    if not transport.guarantees.fan_out:
        pytest.skip("only for transports that fan out")


def proves(transport: Transport) -> bool:
    """Whether a receiver can know that it has all events: it sees each, and none while it was away is lost."""
    return transport.guarantees.durable and transport.guarantees.fan_out


async def start_waiting_read(transport: Transport, receiver: Receiver) -> asyncio.Task[Batch]:
    """Start a read, and return its task once it waits for deliveries."""
    if transport.guarantees.durable:
        await receiver.receive()  # reaches the end of the stream, so the next read waits
    while True:
        reading = asyncio.create_task(receiver.receive())
        for _ in range(10):
            await asyncio.sleep(0)
        if not reading.done():
            return reading


async def read(receiver: Receiver, count: int) -> list[tuple[str | None, bytes]]:
    """Receive ``count`` deliveries, and return their positions and payloads."""
    found: list[tuple[str | None, bytes]] = []
    async with asyncio.timeout(scaled(10)):
        while len(found) < count:
            found += [(delivery.position, delivery.payload) for delivery in (await receiver.receive()).deliveries]
    return found


class TransportConformance(PoisonConformance):
    """Conformance suite. Derive a test class from it that has the fixture ``make_transport``: a `MakeTransport`."""

    @pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.type)
    async def test_an_event_arrives_as_it_was_published(self, make_transport: MakeTransport, event: Event) -> None:
        """Every field of every type of event arrives unchanged."""
        transport = make_transport()
        async with Listener(transport) as listener, Publisher(transport) as publisher:
            await publisher.publish(event)
            await eventually(lambda: listener.events)
        assert listener.events == [event]
        assert type(listener.events[0]) is type(event)

    async def test_destinations_are_apart(self, make_transport: MakeTransport) -> None:
        """An event sent to one channel or key is not delivered on another."""
        here, there = make_transport(), make_transport(":there")
        async with Listener(here) as listener, Publisher(here) as to_here, Publisher(there) as to_there:
            await to_there.publish(revoked(1))
            await to_here.publish(revoked(2))
            await listener.hears("t2")
        assert listener.subjects == ["t2"]

    async def test_every_subscriber_sees_every_event(self, make_transport: MakeTransport) -> None:
        """Three subscribers each receive all of ten events, once."""
        transport = make_transport()
        require_fan_out(transport)
        async with AsyncExitStack() as stack:
            listeners = [await stack.enter_async_context(Listener(transport)) for _ in range(3)]
            publisher = await stack.enter_async_context(Publisher(transport))
            for number in range(10):
                await publisher.publish(revoked(number))
            for listener in listeners:
                await listener.hears(*(f"t{number}" for number in range(10)))
        for listener in listeners:
            assert len(listener.events) == 10

    async def test_one_publishers_events_arrive_in_order(self, make_transport: MakeTransport) -> None:
        """Events published one after another are handled in that order."""
        transport = make_transport()
        found = []
        async with Subscriber(transport) as subscriber, Publisher(transport) as publisher:
            for number in range(100):
                await publisher.publish(revoked(number))
            async for event in subscriber.events():
                found.append(event.subject)
                if len(found) == 100:
                    break
        assert found == [f"t{number}" for number in range(100)]

    async def test_receivers_agree_on_one_order(self, make_transport: MakeTransport) -> None:
        """If order is guaranteed, two receivers get the events of concurrent publishers in the same order."""
        transport = make_transport()
        if not transport.guarantees.ordered:
            pytest.skip("only for transports that are ordered")
        require_fan_out(transport)
        async with (
            transport.receiver() as one,
            transport.receiver() as other,
            Publisher(transport) as first,
            Publisher(transport) as second,
        ):
            await asyncio.gather(*((first, second)[number % 2].publish(revoked(number)) for number in range(100)))
            assert await read(one, 100) == await read(other, 100)

    async def test_entered_means_subscribed(self, make_transport: MakeTransport) -> None:
        """Every event published after a subscription was entered arrives."""
        transport = make_transport()
        async with Publisher(transport) as publisher:
            for number in range(50):
                async with Listener(transport) as listener:
                    await publisher.publish(revoked(number))
                    await listener.hears(f"t{number}")

    async def test_many_events_in_one_call_arrive_in_order(self, make_transport: MakeTransport) -> None:
        """publish_many of 3,000 events returns their receipts in order, and they arrive in order; of none, none."""
        transport = make_transport()
        events = [revoked(number) for number in range(3_000)]
        async with transport.receiver() as receiver, Publisher(transport) as publisher:
            assert await publisher.publish_many([]) == []
            receipts = await publisher.publish_many(events)
            deliveries = await read(receiver, len(events))
        assert [receipt.event_id for receipt in receipts] == [event.id for event in events]
        for event, (_, payload) in zip(events, deliveries, strict=True):
            assert event.id.encode() in payload

    async def test_the_past_is_replayed_on_request(self, make_transport: MakeTransport) -> None:
        """With start="all" a subscriber gets the events published before it started, and then later ones."""
        transport = make_transport(start="all")
        require_durable(transport)
        async with Publisher(transport) as publisher:
            await publisher.publish(revoked(1))
            await publisher.publish(revoked(2))
            async with Listener(transport) as listener:
                await listener.hears("t1", "t2")
                await publisher.publish(revoked(3))
                await listener.hears("t3")
        assert listener.subjects == ["t1", "t2", "t3"]
        assert listener.gaps == []

    async def test_a_receiver_can_ask_for_the_oldest(self, make_transport: MakeTransport) -> None:
        """from_oldest starts at the oldest event, even if the transport would start with new ones."""
        transport = make_transport(start="new")
        require_durable(transport)
        async with transport.sender() as sender:
            await sender.send([b"1", b"2"], within=scaled(5))
        async with transport.receiver(from_oldest=True) as receiver:
            assert [payload for _, payload in await read(receiver, 2)] == [b"1", b"2"]

    async def test_new_means_new(self, make_transport: MakeTransport) -> None:
        """With start="new" nothing is replayed."""
        transport = make_transport(start="new")
        async with Publisher(transport) as publisher:
            await publisher.publish(revoked(1))
            async with Listener(transport) as listener:
                await publisher.publish(revoked(2))
                await listener.hears("t2")
        assert listener.subjects == ["t2"]

    async def test_receipts_name_positions(self, make_transport: MakeTransport) -> None:
        """A receipt names the position at which the event is delivered, which no other event has."""
        transport = make_transport()
        require_durable(transport)
        async with transport.receiver() as receiver, Publisher(transport) as publisher:
            receipts = await publisher.publish_many([revoked(number) for number in range(20)])
            deliveries = await read(receiver, 20)
        positions = [position for position, _ in deliveries]
        assert [receipt.position for receipt in receipts] == positions
        assert len(set(positions)) == 20
        assert None not in positions

    async def test_a_batch_says_whether_the_end_was_reached(self, make_transport: MakeTransport) -> None:
        """A batch is current only if it reaches the end of the stream."""
        transport = make_transport()
        require_durable(transport)
        require_fan_out(transport)
        entered_at = boottime()
        async with transport.receiver() as receiver, transport.sender() as sender:
            await sender.send([b"x"] * 1_200, within=scaled(5))
            batches: list[Batch] = []
            async with asyncio.timeout(scaled(10)):
                while not batches or batches[-1].current_as_of is None:
                    batches.append(await receiver.receive())
        assert sum(len(batch.deliveries) for batch in batches) == 1_200
        assert batches[-1].current_as_of is not None
        assert entered_at <= batches[-1].current_as_of <= boottime()

    async def test_a_batch_is_current_as_of_its_request(self, make_transport: MakeTransport) -> None:
        """A batch is current as of the start of its read, even if a delivery arrived during the read."""
        transport = make_transport()
        async with transport.receiver() as receiver, transport.sender() as sender:
            batch, sent = Batch(), list[bytes]()
            async with asyncio.timeout(scaled(20)):
                while not batch.deliveries:  # that read was about something else, or over before this was sent
                    reading = await start_waiting_read(transport, receiver)
                    sent_at = boottime()
                    sent.append(b"%d" % len(sent))
                    await sender.send(sent[-1:], within=scaled(5))
                    batch = await reading
        received = [delivery.payload for delivery in batch.deliveries]
        assert received == sent[-len(received) :]
        if proves(transport):
            assert batch.current_as_of is not None
            assert batch.current_as_of <= sent_at
        else:
            assert batch.current_as_of is None

    async def test_a_quiet_read_returns_an_empty_batch(self, make_transport: MakeTransport) -> None:
        """Without deliveries a read still returns after about a second, with an empty batch and no gap."""
        transport = make_transport()
        started = asyncio.get_running_loop().time()
        async with transport.receiver() as receiver:
            batch = await receiver.receive()
        assert asyncio.get_running_loop().time() - started < scaled(2.5)
        assert (list(batch.deliveries), list(batch.gaps)) == ([], [])
        assert (batch.current_as_of is not None) == proves(transport)

    async def test_a_read_can_be_cancelled(self, make_transport: MakeTransport) -> None:
        """A receiver whose read was cancelled delivers what is sent afterwards, or reports a gap."""
        transport = make_transport()
        async with transport.receiver() as receiver, transport.sender() as sender:
            reading = await start_waiting_read(transport, receiver)
            reading.cancel()
            await asyncio.wait([reading])
            assert reading.cancelled()
            await sender.send([b"x"], within=scaled(5))
            batches: list[Batch] = []
            async with asyncio.timeout(scaled(10)):
                while not any(batch.deliveries or batch.gaps for batch in batches):
                    batches.append(await receiver.receive())
        assert any(batch.deliveries for batch in batches) or not transport.guarantees.durable

    async def test_closing_twice_is_closing_once(self, make_transport: MakeTransport) -> None:
        """aclose, stop and drain are idempotent, also after the context was left."""
        transport = make_transport()
        listener = Listener(transport)
        async with listener, Publisher(transport) as publisher:
            await publisher.publish(revoked(1))
            await listener.hears("t1")
            await publisher.aclose()
            await publisher.aclose()
            await listener.subscriber.drain()
            await listener.subscriber.drain()
            await listener.subscriber.stop()
        await publisher.aclose()
        await listener.subscriber.stop()
        await listener.subscriber.drain()
        assert listener.subjects == ["t1"]
