"""Every transport passes the conformance suite that the library offers for custom transports."""

from __future__ import annotations

from jwt_events import Event, Publisher, TokenRevoked
from jwt_events.testing import Listener
from jwt_events.testing._poison import POISON, SECRET, MakeTransport, altered, send
from jwt_events.testing.conformance import TransportConformance
from tests.support.logs import everything_logged
from tests.support.transports import OnCluster, OnClusterGroup, OnFaulty, OnGroup, OnMemory, OnPubSub, OnStream
from tests.support.waiting import wait_until


class Conformance(TransportConformance):
    """The suite, with one more test for the library's own transports."""

    async def test_a_run_of_poison_is_survived(self, make_transport: MakeTransport) -> None:
        """Each of many undecodable deliveries is counted; neither their content nor that of events is logged."""
        transport = make_transport()
        typed: list[Event] = []
        listener = Listener(transport)
        listener.subscriber.on(TokenRevoked)(typed.append)
        with everything_logged() as lines:
            async with listener, Publisher(transport) as publisher:
                for payload in POISON.values():
                    await send(transport, payload)
                await send(transport, altered(id="an-id"))
                await publisher.publish(TokenRevoked(token_id=SECRET + "2", reason=SECRET, metadata={SECRET: SECRET}))
                await listener.hears(SECRET, SECRET + "2")
                await wait_until(lambda: len(typed) == 2)
                stats = listener.subscriber.stats
        assert stats.decode_errors == len(POISON)
        assert stats.received == len(POISON) + 2
        assert any("delivery skipped" in line for line in lines)
        assert SECRET not in "\n".join(lines)


class TestPubSub(OnPubSub, Conformance):
    """Redis Pub/Sub."""


class TestStream(OnStream, Conformance):
    """Redis Streams."""


class TestGroup(OnGroup, Conformance):
    """Redis Streams with a group."""


class TestCluster(OnCluster, Conformance):
    """Redis Streams in a cluster."""


class TestClusterGroup(OnClusterGroup, Conformance):
    """Redis Streams with a group in a cluster."""


class TestMemory(OnMemory, Conformance):
    """`MemoryTransport`."""


class TestFaulty(OnFaulty, Conformance):
    """`FaultyTransport` without a fault."""
