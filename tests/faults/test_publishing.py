"""Network failures of a publisher: it reports the true outcome of each event, and each is handled once."""

from __future__ import annotations

import asyncio

import pytest

from jwt_events import Publisher, PublishError, PublishOutcomeUnknown, TokenRevoked
from jwt_events.testing import Listener
from tests.faults.scenes import STREAMS, TRANSPORTS, Source, transport_of
from tests.faults.test_network import BREAKS, Fault
from tests.support.handling import soon
from tests.support.proxy import Proxy
from tests.support.waiting import scaled


@pytest.mark.parametrize("kind", STREAMS)
class TestMadeGood:
    """Failures after which a publish is retried."""

    @pytest.mark.parametrize("fault", BREAKS.values(), ids=BREAKS)
    async def test_a_break(self, url: str, key: str, kind: str, fault: Fault) -> None:
        """A connection that breaks under a publisher loses no event, and none is handled twice."""
        async with (
            Proxy(url) as proxy,
            Source(transport_of(kind, proxy.url, key)) as source,
            Listener(transport_of(kind, url, key)) as listener,
        ):
            for _ in range(3):
                await source.publish(3)
                fault(proxy)
                await soon(source.publish(3))
            await listener.hears(*source.confirmed)
        assert sorted(map(str, listener.subjects)) == sorted(source.confirmed)

    async def test_a_lost_reply(self, url: str, key: str, kind: str) -> None:
        """If the reply is lost, the outcome is unknown; the same event published again is handled once."""
        async with (
            Proxy(url) as proxy,
            Publisher(transport_of(kind, proxy.url, key), timeout=scaled(10)) as publisher,
            Listener(transport_of(kind, url, key)) as listener,
        ):
            await publisher.publish(TokenRevoked(token_id="first"))
            event = TokenRevoked(token_id="second")
            proxy.to_client.swallow_next()
            with pytest.raises(PublishOutcomeUnknown) as caught:
                await soon(publisher.publish(event, timeout=0.3))
            assert caught.value.event_ids == (event.id,)
            await publisher.publish(event)
            await publisher.publish(TokenRevoked(token_id="third"))
            await listener.hears("first", "second", "third")
        assert listener.subjects == ["first", "second", "third"]
        assert listener.subscriber.stats.duplicates == 1


@pytest.mark.parametrize("kind", TRANSPORTS)
class TestInTime:
    """Deadlines of publishing."""

    @pytest.mark.parametrize("way", ["to_server", "to_client"])
    async def test_half_open(self, url: str, key: str, kind: str, way: str) -> None:
        """If either direction is lost, a publish ends at its deadline, closing is quick, and a later publish works."""
        async with Proxy(url) as proxy:
            publisher = Publisher(transport_of(kind, proxy.url, key), timeout=scaled(10))
            await publisher.publish(TokenRevoked(token_id="t"))
            getattr(proxy, way).lose()
            publishing = [publisher.publish(TokenRevoked(token_id="t"), timeout=0.3) for _ in range(20)]
            outcomes = await soon(asyncio.gather(*publishing, return_exceptions=True), within=2)
            assert all(isinstance(outcome, PublishError) for outcome in outcomes)
            assert any(isinstance(outcome, PublishOutcomeUnknown) for outcome in outcomes)
            proxy.heal()
            await publisher.publish(TokenRevoked(token_id="t"))
            await soon(publisher.aclose(), within=3)
