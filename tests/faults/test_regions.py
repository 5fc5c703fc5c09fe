"""Regions that are cut off, come back, lose entries, or are down when a list starts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from jwt_events import (
    Gap,
    Metrics,
    NotProven,
    Publisher,
    RedisStream,
    RegionalStreams,
    RevocationList,
    ServerRefused,
    TokenRevoked,
    TransportError,
    Verdict,
    ViewState,
)
from jwt_events.embedded import EmbeddedServer
from jwt_events.guard import readiness_of
from jwt_events.transport._redis import reconnecting
from tests.faults.auditing import Auditor
from tests.support.faults import frozen
from tests.support.handling import running
from tests.support.logs import everything_logged
from tests.support.proxy import Proxy
from tests.support.waiting import scaled, wait_until

MAX_STALENESS = 0.5
GOOD = {"jti": "good"}


@dataclass
class Region:
    """One region: a server, and the network between it and the list."""

    server: EmbeddedServer
    proxy: Proxy
    stream: RedisStream  # as the list sees it

    async def publish(self, token: str) -> None:
        """Revoke a token in this region, whatever the network to the list."""
        async with Publisher(RedisStream(self.server.url), source="tests", timeout=scaled(5)) as publisher:
            await publisher.publish(TokenRevoked(token_id=token))

    def cut_off(self) -> None:
        """Cut the region off from the list: what is open is dead, what connects gets no answer."""
        self.proxy.to_client.lose()
        self.proxy.to_server.lose()


@pytest.fixture
async def regions(own_server: Callable[..., EmbeddedServer]) -> AsyncIterator[dict[str, Region]]:
    """Three regions on three servers."""
    async with AsyncExitStack() as stack:
        found = {}
        for name in ("eu", "us", "ap"):
            server = await stack.enter_async_context(own_server())
            proxy = await stack.enter_async_context(Proxy(server.url))
            found[name] = Region(server, proxy, RedisStream(proxy.url))
        yield found


def streams_of(regions: Mapping[str, Region], *, tolerate: Mapping[str, float] | None = None) -> RegionalStreams:
    """Put the streams of all regions together."""
    return RegionalStreams(tolerate=tolerate, **{name: region.stream for name, region in regions.items()})


def listed(
    regions: Mapping[str, Region], *, tolerate: Mapping[str, float] | None = None, **options: Any
) -> RevocationList:
    """Make a list of all regions."""
    return RevocationList(streams_of(regions, tolerate=tolerate), max_staleness=scaled(MAX_STALENESS), **options)


async def knows(revocations: RevocationList, token: str) -> None:
    """Wait until a token is revoked."""
    await wait_until(lambda: revocations.check({"jti": token}) is Verdict.REVOKED, what=f"revocation of {token}")


@asynccontextmanager
async def unreachable(region: Region) -> AsyncIterator[None]:
    """Let nothing through from the beginning."""
    region.cut_off()
    try:
        yield
    finally:
        region.proxy.heal()


class TestCutOff:
    """A region that is cut off makes the list stale, and the others stay in force."""

    async def test_stale_until_it_returns(self, regions: dict[str, Region]) -> None:
        """The list turns stale and names the region; events of the others come in force; then it catches up."""
        with everything_logged() as lines:
            async with listed(regions) as revocations:
                regions["eu"].cut_off()
                await wait_until(lambda: revocations.check(GOOD) is Verdict.STALE)
                await wait_until(lambda: revocations.cut_off == ("eu",))
                failure = revocations.failure
                assert isinstance(failure, NotProven)
                assert failure.reason == "region_cut_off"
                assert "'eu'" in str(failure)
                assert "without eu" in repr(revocations)
                status, body = readiness_of(revocations)
                assert (status, body["revocations"][0]["reason"]) == (503, "region_cut_off")
                await regions["us"].publish("in us")
                await knows(revocations, "in us")
                await regions["eu"].publish("in eu")
                assert revocations.check({"jti": "in eu"}) is Verdict.STALE
                regions["eu"].proxy.heal()
                await knows(revocations, "in eu")
                await wait_until(lambda: revocations.check(GOOD) is Verdict.ALLOW)
                await wait_until(lambda: not revocations.cut_off and revocations.failure is None)
        assert [line for line in lines if "region is cut off" in line and "eu" in line]

    async def test_no_stale_allow(self, regions: dict[str, Region]) -> None:
        """However often regions are cut off, no token is let in that was revoked longer ago than ``max_staleness``."""
        limit = scaled(MAX_STALENESS)
        async with AsyncExitStack() as stack:
            revocations = await stack.enter_async_context(listed(regions))
            auditor = Auditor(revocations, max_staleness=limit)
            await stack.enter_async_context(running(auditor.check_all_the_time()))
            for number, region in enumerate(regions.values()):
                publisher = await stack.enter_async_context(
                    Publisher(RedisStream(region.server.url), source=f"tests{number}")
                )
                await stack.enter_async_context(running(auditor.revoke_all_the_time(publisher, prefix=f"r{number}-")))
            for region in regions.values():
                region.cut_off()
                await auditor.sees_it_stale()
                region.proxy.heal()
                await auditor.sees_it_fresh()
        auditor.is_satisfied()

    async def test_frozen(self, regions: dict[str, Region]) -> None:
        """A server that does not answer is as one that is cut off, and a list that is closed then ends in time."""
        async with listed(regions) as revocations:
            with frozen(regions["us"].server):
                await wait_until(lambda: revocations.cut_off == ("us",))
                async with asyncio.timeout(scaled(5)):
                    await revocations.aclose()
        assert revocations.state is ViewState.CLOSED


class TestTolerated:
    """A region that is tolerated is left out for so long, and no longer."""

    async def test_left_out(self, regions: dict[str, Region]) -> None:
        """The list is fresh without it, and loud: in `failure`, readiness, ``repr``, metrics and the log, once."""
        registry = CollectorRegistry()
        with everything_logged() as lines:
            async with listed(regions, tolerate={"eu": 600.0}, metrics=Metrics(registry)) as revocations:
                regions["eu"].cut_off()
                await wait_until(lambda: revocations.cut_off == ("eu",))
                await regions["eu"].publish("in eu")
                await regions["ap"].publish("in ap")
                await knows(revocations, "in ap")
                assert revocations.check({"jti": "in eu"}) is Verdict.ALLOW  # what tolerating means
                assert isinstance(revocations.failure, NotProven)
                assert "without eu" in repr(revocations)
                status, body = readiness_of(revocations)
                assert (status, body["revocations"][0]["reason"]) == (200, "region_cut_off")
                labels = {"region": "eu"}
                assert registry.get_sample_value("jwt_events_regions_cut_off_total", labels) == 1
                age = registry.get_sample_value("jwt_events_region_staleness_seconds", labels)
                assert age is not None
                assert age > revocations.staleness
                regions["eu"].proxy.heal()
                await knows(revocations, "in eu")
                await wait_until(lambda: not revocations.cut_off and revocations.failure is None)
            assert registry.get_sample_value("jwt_events_region_staleness_seconds", labels) is None
        assert len([line for line in lines if "region is cut off" in line]) == 1

    async def test_no_longer(self, regions: dict[str, Region]) -> None:
        """When the time is over, the list is stale."""
        tolerance = scaled(0.5)
        async with listed(regions, tolerate={"eu": tolerance}) as revocations:
            loop = asyncio.get_running_loop()
            cut_off_at = loop.time()
            regions["eu"].cut_off()
            await wait_until(lambda: revocations.check(GOOD) is Verdict.STALE)
            last_proof = cut_off_at - scaled(MAX_STALENESS)  # at the earliest, or it had been stale before
            assert loop.time() >= last_proof + scaled(MAX_STALENESS) + tolerance
            assert revocations.check(GOOD) is Verdict.STALE
            regions["eu"].proxy.heal()
            await wait_until(lambda: revocations.check(GOOD) is Verdict.ALLOW)

    async def test_only_that_region(self, regions: dict[str, Region]) -> None:
        """Another region that is cut off makes the list stale all the same."""
        async with listed(regions, tolerate={"eu": 600.0}) as revocations:
            regions["eu"].cut_off()
            regions["us"].cut_off()
            await wait_until(lambda: revocations.check(GOOD) is Verdict.STALE)

    async def test_not_all(self, regions: dict[str, Region]) -> None:
        """At least one region must be proven, whatever is tolerated."""
        async with listed(regions, tolerate=dict.fromkeys(regions, 600.0)) as revocations:
            for region in regions.values():
                region.cut_off()
            await wait_until(lambda: revocations.check(GOOD) is Verdict.STALE)


class TestStart:
    """A list that starts while a region is down."""

    @pytest.fixture(autouse=True)
    def _brief(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reconnecting, "OPEN_WITHIN", scaled(1.0))

    @pytest.mark.parametrize("tolerate", [None, {"eu": 600.0}])
    async def test_it_does_not_open(self, regions: dict[str, Region], tolerate: Mapping[str, float] | None) -> None:
        """It knows nothing of that region, not even what it would have known before: it does not open."""
        async with unreachable(regions["eu"]):
            with pytest.raises(TransportError):
                async with listed(regions, tolerate=tolerate):
                    pytest.fail("opened")

    @pytest.mark.parametrize("options", [{"wait": False}, {"on_stale": "allow"}])
    async def test_others_are_in_force(self, regions: dict[str, Region], options: dict[str, Any]) -> None:
        """Where it may open early, the other regions' rules are in force while that one is down; later, its own are."""
        await regions["us"].publish("in us")
        await regions["eu"].publish("in eu")
        starting = listed(regions, tolerate={"eu": 600.0}, **options)
        async with unreachable(regions["eu"]), starting as revocations:
            await knows(revocations, "in us")
            expected = Verdict.ALLOW if "on_stale" in options else Verdict.STALE
            assert revocations.check({"jti": "in eu"}) is expected
            assert not revocations.is_fresh
            regions["eu"].proxy.heal()
            await knows(revocations, "in eu")
            await wait_until(lambda: revocations.is_fresh)

    async def test_cancelled(self, regions: dict[str, Region]) -> None:
        """Entering that is cancelled while one region does not answer leaves nothing behind."""
        async with unreachable(regions["eu"]):
            revocations = listed(regions)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3), revocations:
                    pytest.fail("opened")
        assert revocations.state is ViewState.CLOSED


class TestOneRegion:
    """What happens in one region happens to the list."""

    async def test_gap(self, regions: dict[str, Region]) -> None:
        """A gap of one region is a gap of the list, and its position names the region; rules of the others stay."""
        gaps: list[Gap] = []
        await regions["us"].publish("in us")
        await regions["eu"].publish("in eu")
        async with listed(regions) as revocations:
            revocations.on_gap(gaps.append)
            async with Redis.from_url(regions["eu"].server.url) as client:
                await client.delete("jwt:events")
            await wait_until(lambda: gaps)
            assert gaps[0].cause == "deleted"
            assert gaps[0].since is not None
            assert gaps[0].since.startswith("eu:")
            await wait_until(lambda: revocations.check(GOOD) is Verdict.ALLOW)
            assert revocations.check({"jti": "in us"}) is Verdict.REVOKED
            assert revocations.check({"jti": "in eu"}) is Verdict.REVOKED

    async def test_refused_on_entering(self, regions: dict[str, Region]) -> None:
        """A region that refuses for good ends the entering, as one stream would."""
        async with Redis.from_url(regions["ap"].server.url) as client:
            await client.set("jwt:events", "no stream")
            with pytest.raises(ServerRefused, match="WRONGTYPE"):
                async with listed(regions, tolerate={"ap": 600.0}):
                    pytest.fail("opened")
            await client.delete("jwt:events")
            async with listed(regions) as revocations:
                assert revocations.is_fresh

    async def test_refused_later(self, regions: dict[str, Region]) -> None:
        """A region that refuses later makes the list stale and says why; the others' events come without delay."""
        async with listed(regions) as revocations:
            async with Redis.from_url(regions["ap"].server.url) as client:
                await client.set("jwt:events", "no stream")
                await wait_until(lambda: isinstance(revocations.failure, ServerRefused))
                await wait_until(lambda: revocations.check(GOOD) is Verdict.STALE)
                for number in range(20):
                    await regions["us"].publish(f"t{number}")
                    await knows(revocations, f"t{number}")
                await client.delete("jwt:events")
            await wait_until(lambda: revocations.check(GOOD) is Verdict.ALLOW, within=20.0)

    async def test_order(self, regions: dict[str, Region]) -> None:
        """The events of each region come in their order, whatever lies between them."""
        heard: list[tuple[str | None, str | None]] = []
        async with listed(regions) as revocations:
            revocations.on(TokenRevoked)(lambda event: heard.append((event.source, event.token_id)))
            async with AsyncExitStack() as stack:
                for name, region in regions.items():
                    publisher = await stack.enter_async_context(
                        Publisher(RedisStream(region.server.url), source=f"region-{name}")
                    )
                    await stack.enter_async_context(
                        running(publisher.publish_many(TokenRevoked(token_id=str(n)) for n in range(200)))
                    )
                await wait_until(lambda: len(heard) == 600)
        for name in regions:
            assert [token for source, token in heard if source == f"region-{name}"] == [str(n) for n in range(200)]
