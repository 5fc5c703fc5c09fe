"""FaultyTransport, as subscribers, publishers and revocation lists see it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from jwt_events import (
    ConnectionFailed,
    Gap,
    InvalidOption,
    MemoryTransport,
    Publisher,
    PublishFailed,
    PublishOutcomeUnknown,
    RedisPubSub,
    RedisStream,
    RevocationList,
    SubscriptionRefused,
    Transport,
    Verdict,
)
from jwt_events.testing import FaultyTransport, Listener, ManualClock, eventually
from jwt_events.transport.base import Failure
from tests.support.examples import revoked
from tests.support.waiting import scaled

CLAIMS = {"jti": "token-1", "iat": 1}


@pytest.fixture
def transport() -> FaultyTransport:
    """A durable transport in memory."""
    return FaultyTransport(MemoryTransport())


async def publish(transport: FaultyTransport, *numbers: int) -> None:
    """Publish events with these numbers."""
    async with Publisher(transport, source="tests") as publisher:
        await publisher.publish_many([revoked(number) for number in numbers])


async def heard(listener: Listener, *numbers: int) -> None:
    """Wait until exactly these events have arrived, in this order."""
    expected = [f"token-{number}" for number in numbers]
    await eventually(lambda: len(listener.events) >= len(expected), what=lambda: f"{expected}, not {listener.subjects}")
    assert listener.subjects == expected


class TestDeliveries:
    """Faults that apply to the next deliveries."""

    async def test_lost_deliveries_are_reported(self, transport: FaultyTransport) -> None:
        """The next deliveries are lost, and one gap has their number and start."""
        async with Listener(transport) as listener:
            await publish(transport, 1)
            await heard(listener, 1)
            transport.faults.lose(2)
            await publish(transport, 2, 3, 4)
            await heard(listener, 1, 4)
            await listener.hears_of_gap("trimmed")
        assert listener.gaps == [Gap("1-0", "trimmed", 2)]

    async def test_deliveries_can_be_lost_without_a_gap(self, transport: FaultyTransport) -> None:
        """Without a cause no gap is reported."""
        async with Listener(transport) as listener:
            transport.faults.lose(cause=None)
            await publish(transport, 1, 2)
            await heard(listener, 2)
        assert listener.gaps == []

    async def test_a_duplicate_is_skipped(self, transport: FaultyTransport) -> None:
        """A subscriber counts the second delivery as a duplicate."""
        async with Listener(transport) as listener:
            transport.faults.duplicate(2)
            await publish(transport, 1, 2, 3)
            await heard(listener, 1, 2, 3)
            assert listener.subscriber.stats.duplicates == 2

    async def test_only_the_first_of_two_is_settled(self) -> None:
        """A duplicated delivery is settled once on the wrapped transport."""
        inner = MemoryTransport()
        transport = FaultyTransport(inner)
        transport.faults.duplicate()
        async with transport.receiver(from_oldest=True) as receiver, transport.sender() as sender:
            await sender.send([b"x"], within=scaled(5))
            deliveries = (await receiver.receive()).deliveries
            for delivery in deliveries:
                receiver.settle(delivery, Failure("an error"))
        assert [delivery.attempt for delivery in deliveries] == [1, 2]
        assert inner.dead_letters == [(deliveries[0], Failure("an error"))]

    async def test_deliveries_are_reordered(self, transport: FaultyTransport) -> None:
        """The next deliveries arrive in reverse order."""
        async with Listener(transport) as listener:
            transport.faults.reorder(3)
            await publish(transport, 1, 2)
            await publish(transport, 3, 4)
            await heard(listener, 3, 2, 1, 4)

    async def test_delayed_deliveries_arrive_later(self, transport: FaultyTransport) -> None:
        """Delayed deliveries arrive after heal."""
        async with Listener(transport) as listener:
            transport.faults.delay(2)
            await publish(transport, 1, 2, 3)
            await heard(listener, 3)
            transport.faults.heal()
            await heard(listener, 3, 1, 2)

    async def test_faults_apply_in_turn(self, transport: FaultyTransport) -> None:
        """Faults apply one after another, each to its number of deliveries."""
        faults = transport.faults
        async with Listener(transport) as listener:
            faults.lose(1)
            faults.reorder(2)
            faults.duplicate(1)
            await publish(transport, 1, 2, 3, 4, 5)
            await heard(listener, 3, 2, 4, 5)
            assert listener.subscriber.stats.duplicates == 1

    async def test_faults_apply_to_every_receiver(self, transport: FaultyTransport) -> None:
        """Each open receiver loses its deliveries; one that opens later loses none."""
        async with Listener(transport) as one, Listener(transport) as other:
            transport.faults.lose(1)
            async with Listener(transport) as late:
                await publish(transport, 1, 2)
                await heard(one, 2)
                await heard(other, 2)
                await heard(late, 1, 2)

    async def test_a_fault_waits_for_a_receiver(self, transport: FaultyTransport) -> None:
        """A fault without an open receiver applies to the first one that opens."""
        transport.faults.lose(1)
        async with Listener(transport) as listener, Listener(transport) as other:
            await publish(transport, 1, 2)
            await heard(listener, 2)
            await heard(other, 1, 2)

    async def test_healing_discards_faults(self, transport: FaultyTransport) -> None:
        """After heal, faults not yet applied are discarded, and an incomplete reordering arrives in order."""
        async with Listener(transport) as listener:
            transport.faults.reorder(3)
            transport.faults.lose(5)
            await publish(transport, 1, 2)
            await eventually(lambda: transport.faults.kept_back == 2)
            transport.faults.heal()
            await publish(transport, 3, 4)
            await heard(listener, 1, 2, 3, 4)

    @pytest.mark.parametrize("fault", ["lose", "duplicate", "reorder", "delay", "refuse", "leave_unknown"])
    @pytest.mark.parametrize("number", [0, -1, 1.5])
    def test_an_invalid_count_is_refused(self, transport: FaultyTransport, fault: str, number: Any) -> None:
        """The number of deliveries must be a positive integer."""
        with pytest.raises(InvalidOption, match=r"^count: "):
            getattr(transport.faults, fault)(number)


class TestConnections:
    """Faults of the connection look as on real transports."""

    async def test_a_durable_transport_loses_nothing(self, transport: FaultyTransport) -> None:
        """On a durable transport a lost connection loses no event, and there is no gap."""
        async with Listener(transport) as listener, Publisher(transport, timeout=scaled(10)) as publisher:
            transport.faults.disconnect()
            publishing = asyncio.create_task(publisher.publish(revoked(1)))
            with pytest.raises(ConnectionFailed):
                await Listener(transport).__aenter__()
            assert not publishing.done()
            transport.faults.heal()
            await publishing
            await heard(listener, 1)
        assert listener.gaps == []

    async def test_a_live_transport_reports_a_gap(self) -> None:
        """On a live transport events are lost meanwhile; gaps report its start and end."""
        inner = MemoryTransport()
        transport = FaultyTransport(inner, is_live=True)
        async with Listener(transport) as listener, Publisher(inner, source="tests") as behind_its_back:
            transport.faults.disconnect()
            await listener.hears_of_gap("disconnected")
            await behind_its_back.publish(revoked(1))
            transport.faults.heal()
            await listener.hears_of_gap("disconnected", "reconnected")
            await publish(transport, 2)
            await heard(listener, 2)

    @pytest.mark.parametrize(("is_live", "causes"), [(False, []), (True, ["reconnected"])])
    async def test_a_short_loss(self, is_live: bool, causes: list[str]) -> None:
        """A short loss is a gap on a live transport only."""
        transport = FaultyTransport(MemoryTransport(), is_live=is_live)
        async with Listener(transport) as listener:
            transport.faults.drop()
            await listener.hears_of_gap(*causes)
            await publish(transport, 1)
            await heard(listener, 1)
        assert listener.causes == causes

    @pytest.mark.parametrize(("inner", "causes"), [(RedisStream, []), (RedisPubSub, ["disconnected", "reconnected"])])
    async def test_on_a_real_server(
        self, url: str, key: str, inner: Callable[..., Transport], causes: list[str]
    ) -> None:
        """The wrapped transport may use a real server; the test cuts and restores the connection."""
        transport = FaultyTransport(inner(url, key))
        async with Listener(transport) as listener:
            transport.faults.disconnect()
            await listener.hears_of_gap(*causes[:1])
            transport.faults.heal()
            await listener.hears_of_gap(*causes)
            await publish(transport, 1)
            await heard(listener, 1)

    async def test_a_gap_without_a_loss(self, transport: FaultyTransport) -> None:
        """Any gap can be reported."""
        async with Listener(transport) as listener:
            transport.faults.gap("restarted", lost=7)
            await listener.hears_of_gap("restarted")
        assert listener.gaps == [Gap(None, "restarted", 7)]

    async def test_a_subscription_is_refused(self, transport: FaultyTransport) -> None:
        """The next subscriptions are refused; a later one succeeds."""
        transport.faults.refuse_subscription()
        with pytest.raises(SubscriptionRefused):
            await Listener(transport).__aenter__()
        async with Listener(transport):
            pass

    async def test_a_subscription_ends(self, transport: FaultyTransport) -> None:
        """A subscriber whose subscription ended raises at the end of its block."""

        async def listen() -> None:
            async with Listener(transport):
                transport.faults.end_subscriptions()
                await asyncio.Event().wait()

        with pytest.raises(SubscriptionRefused):
            await listen()

    def test_the_repr_shows_the_state(self, transport: FaultyTransport) -> None:
        """The repr shows the state and the wrapped transport."""
        assert repr(transport) == "<FaultyTransport <Faults connected, 0 receivers>, <MemoryTransport with 0 events>>"
        transport.faults.hold()
        assert "held" in repr(transport)
        transport.faults.disconnect()
        assert "disconnected" in repr(transport)


class TestPublishing:
    """Faults of sending."""

    async def test_refused(self, transport: FaultyTransport) -> None:
        """The next events fail at once and do not arrive; the error has the receipts of the others."""
        transport.faults.refuse(2)
        async with Listener(transport) as listener:
            with pytest.raises(PublishFailed) as caught:
                await publish(transport, 1, 2, 3)
            await heard(listener, 3)
        assert (len(caught.value.event_ids), len(caught.value.receipts)) == (2, 1)

    @pytest.mark.parametrize(("arrives", "subjects"), [(True, [1, 2]), (False, [2])])
    async def test_unknown(self, transport: FaultyTransport, arrives: bool, subjects: list[int]) -> None:
        """The publisher cannot know whether the event arrived; the test decides it."""
        transport.faults.leave_unknown(arrives=arrives)
        async with Listener(transport) as listener:
            with pytest.raises(PublishOutcomeUnknown):
                await publish(transport, 1)
            await publish(transport, 2)
            await heard(listener, *subjects)

    async def test_disconnected(self, transport: FaultyTransport) -> None:
        """A publish is retried until its deadline."""
        transport.faults.disconnect()
        async with Publisher(transport, timeout=0.15) as publisher:
            with pytest.raises(PublishFailed, match="the test cut the connection"):
                await publisher.publish(revoked())


class TestViews:
    """A revocation list on a manual clock and a faulty transport."""

    async def test_stale_while_held(self, transport: FaultyTransport) -> None:
        """While reads are held the list is stale; afterwards it is current and has the events."""
        clock = ManualClock()
        async with RevocationList(transport, clock=clock) as revocations:
            assert revocations.check(CLAIMS) is Verdict.ALLOW
            transport.faults.hold()
            await publish(transport, 1)
            clock.advance(2.0)
            assert revocations.check(CLAIMS) is Verdict.ALLOW
            clock.advance(4.0)
            assert revocations.check(CLAIMS) is Verdict.STALE
            transport.faults.heal()
            await eventually(lambda: revocations.is_fresh)
            assert revocations.check(CLAIMS) is Verdict.REVOKED

    async def test_a_read_before_the_hold_is_no_proof(self, transport: FaultyTransport) -> None:
        """A read that began before the hold is no proof; the next one is."""
        async with transport.receiver() as receiver:
            await receiver.receive()
            reading = asyncio.create_task(receiver.receive())
            await asyncio.sleep(0)
            transport.faults.hold()
            transport.faults.heal()
            assert (await reading).current_as_of is None
            assert (await receiver.receive()).current_as_of is not None

    async def test_a_delayed_delivery_prevents_a_proof(self, transport: FaultyTransport) -> None:
        """A batch is no proof while a delivery is delayed or reordered."""
        clock = ManualClock()
        async with RevocationList(transport, clock=clock) as revocations:
            transport.faults.reorder(2)
            await publish(transport, 1)
            await eventually(lambda: transport.faults.kept_back)
            clock.advance(6.0)
            with pytest.raises(AssertionError, match="a proof"):
                await eventually(lambda: revocations.is_fresh, within=0.3, what="a proof")
            await publish(transport, 2)
            await eventually(lambda: revocations.is_fresh)
            assert revocations.check(CLAIMS) is Verdict.REVOKED

    async def test_quiet_once_the_read_under_way_has_ended(self, transport: FaultyTransport) -> None:
        """A read that began before the hold may still return something; afterwards nothing is read."""
        async with transport.receiver() as receiver:
            await receiver.receive()
            reading = asyncio.create_task(receiver.receive())
            await eventually(lambda: not transport.faults.is_quiet)
            transport.faults.hold()
            await publish(transport, 1)
            await eventually(lambda: transport.faults.is_quiet)
            transport.faults.heal()
            assert len((await reading).deliveries) == 1
            assert transport.faults.is_quiet

    async def test_it_can_be_entered_while_held(self, transport: FaultyTransport) -> None:
        """Entering waits while reads are held."""
        transport.faults.hold()
        revocations = RevocationList(transport)
        entering = asyncio.create_task(revocations.__aenter__())
        await asyncio.wait([entering], timeout=0.2)
        assert not entering.done()
        transport.faults.heal()
        async with asyncio.timeout(scaled(10)):
            await entering
        assert revocations.is_fresh
        await revocations.aclose()
