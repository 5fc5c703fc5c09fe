"""A list of several regions, without faults: its proofs as arithmetic, what is accepted, and whose events it knows."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jwt_events import (
    Fleet,
    InvalidOption,
    MemoryTransport,
    Publisher,
    RedisPubSub,
    RedisStream,
    RegionalStreams,
    RevocationList,
    StaleRevocationsError,
    Subscriber,
    TokenRevoked,
    Verdict,
)
from jwt_events.revocation._proofs import Proofs
from jwt_events.revocation._sources import Sources
from tests.support.waiting import wait_until

URL = "redis://localhost"
OTHER = "redis://elsewhere"
REGIONS = ("eu", "us", "ap")

tolerances = st.fixed_dictionaries({name: st.sampled_from([0.0, 1.0, 60.0]) for name in REGIONS})
recorded = st.lists(st.tuples(st.sampled_from(REGIONS), st.floats(0, 1_000)), max_size=30)


class TestProofs:
    """The proof of a list is the least of all regions' proofs, each with its tolerance."""

    @given(tolerances, recorded)
    def test_model(self, tolerate: dict[str, float], proofs: list[tuple[str, float]]) -> None:
        """A list is current as of a time only if each region was proven then, or at most its tolerance before."""
        together, last = Proofs(tolerate, max_staleness=5.0), dict[str, float]()
        before = together.current_as_of
        for region, proven_at in proofs:
            together.record(region, proven_at)
            last[region] = max(proven_at, last.get(region, proven_at))
            assert together.current_as_of >= before
            before = together.current_as_of
        if last.keys() != set(REGIONS):
            assert together.current_as_of == float("-inf")
            return
        as_of = together.current_as_of
        assert all(proven_at + tolerate[region] >= as_of for region, proven_at in last.items())
        assert any(proven_at >= as_of for proven_at in last.values())
        if not any(tolerate.values()):
            assert as_of == min(last.values())

    def test_cut_off(self) -> None:
        """A region is cut off once the others were proven for longer than a proof is good, and it was not."""
        proofs = Proofs({"eu": 60.0, "us": 0.0}, max_staleness=5.0)
        proofs.record("us", 100.0)
        assert not proofs.cut_off()  # of the region that was never proven, its feed tells what is wrong
        proofs.record("eu", 100.0)
        proofs.record("us", 105.0)
        assert not proofs.cut_off()
        proofs.record("us", 105.1)
        assert proofs.cut_off() == ["eu"]
        assert (proofs.current_as_of, proofs.age("eu", 107.0)) == (105.1, 7.0)
        proofs.record("us", 161.0)
        assert proofs.current_as_of == 160.0
        proofs.record("eu", 161.0)
        assert not proofs.cut_off()

    def test_one_is_needed(self) -> None:
        """However much is tolerated, a list is not current without a proof of at least one region."""
        proofs = Proofs({"eu": 60.0, "us": 60.0}, max_staleness=5.0)
        proofs.record("eu", 100.0)
        proofs.record("us", 101.0)
        assert proofs.current_as_of == 101.0


class TestRefused:
    """What cannot be followed together is refused when it is put together."""

    @pytest.mark.parametrize(
        ("regions", "option"),
        [
            ({"eu": RedisPubSub(URL)}, "eu"),
            ({"us": RedisStream(URL), "eu": RedisStream(OTHER, group="g")}, "eu"),
            ({"us": RedisStream(URL), "eu": RedisStream(URL)}, "eu"),
            ({"eu": URL}, "transport"),
            ({"e:u": RedisStream(URL)}, "regions"),
            ({"": RedisStream(URL)}, "regions"),
            ({}, "regions"),
            ({"tolerate": RedisStream(URL)}, "tolerate"),
            ({"eu": RedisStream(URL), "tolerate": {"us": 1.0}}, "tolerate"),
            ({"eu": RedisStream(URL), "tolerate": {"eu": -1.0}}, "tolerate"),
            ({"eu": RedisStream(URL), "tolerate": {"eu": float("inf")}}, "tolerate"),
        ],
    )
    def test_regions(self, regions: Mapping[str, Any], option: str) -> None:
        """The error names the region, or the option."""
        with pytest.raises(InvalidOption) as caught:
            RegionalStreams(**regions)
        assert caught.value.option == option

    def test_by_place(self) -> None:
        """Streams without names are numbered; one name is not for two."""
        streams = RegionalStreams(RedisStream(URL), RedisStream(OTHER), tolerate={"2": 1.0})
        assert list(streams.regions) == ["1", "2"]
        assert streams.tolerances == {"1": 0.0, "2": 1.0}
        with pytest.raises(InvalidOption, match="two streams"):
            RegionalStreams(RedisStream(URL), tolerate=None, **{"1": RedisStream(OTHER)})

    def test_same_server(self) -> None:
        """Two keys, or two databases, of a server are two streams."""
        RegionalStreams(a=RedisStream(URL, "a"), b=RedisStream(URL, "b"), c=RedisStream(f"{URL}/1", "a"))

    @pytest.mark.parametrize("owner", [Publisher, Subscriber])
    def test_one_transport_is_needed(self, owner: Any) -> None:
        """Publishers and subscribers use the stream of one region."""
        streams = RegionalStreams(eu=RedisStream(URL), us=RedisStream(OTHER))
        with pytest.raises(InvalidOption, match="must be one transport, not RegionalStreams"):
            owner(streams)
        assert streams["us"] is streams.regions["us"]

    def test_retention(self) -> None:
        """A rule without an end is kept for the longest retention, and for ever if there is a ledger."""
        short = MemoryTransport(retention=timedelta(hours=1))
        long = RedisStream(URL, ledger=False, retention=timedelta(hours=2))
        assert Sources.of(RegionalStreams(short, long)).retention == timedelta(hours=2)
        assert Sources.of(RegionalStreams(short, RedisStream(OTHER))).retention is None
        assert Sources.of(short).retention == timedelta(hours=1)


class TestTogether:
    """One list knows the events of all regions."""

    async def test_events_of_both(self, url: str, key: str) -> None:
        """History and new events, of a stream on a server and of one in memory, are in force, by positions of each."""
        streams = RegionalStreams(eu=RedisStream(url, key), us=MemoryTransport())
        async with Publisher(streams["eu"]) as eu, Publisher(streams["us"]) as us:
            first = await us.publish(TokenRevoked(token_id="before"))
            async with RevocationList(streams) as revocations:
                assert revocations.check({"jti": "before"}) is Verdict.REVOKED
                receipt = await eu.publish(TokenRevoked(token_id="after"))
                await wait_until(lambda: revocations.check({"jti": "after"}) is Verdict.REVOKED)
                assert revocations.check({"jti": "good"}, at_least=f"us:{first.position}") is Verdict.ALLOW
                assert revocations.check({"jti": "good"}, at_least=f"us:{receipt.position}") is Verdict.STALE
                await wait_until(
                    lambda: revocations.check({"jti": "good"}, at_least=f"eu:{receipt.position}") is Verdict.ALLOW
                )
                assert (revocations.cut_off, revocations.failure) == ((), None)
                assert "regions" not in repr(revocations)
                with pytest.raises(StaleRevocationsError):
                    revocations.ensure_live({"jti": "good"}, f"eu:{2**63}-0")

    @pytest.mark.parametrize("position", ["1-0", "ap:1-0", ":1-0", "eu:", "eu:1", "eu:x:1-0", f"eu:{2**64}-0", None])
    async def test_position_of_no_region(self, position: Any) -> None:
        """A position alone does not say of which stream it is, so it is refused with what to write."""
        revocations = RevocationList(RegionalStreams(eu=MemoryTransport(), us=MemoryTransport()))
        async with revocations:
            if position is None:
                assert revocations.check({"jti": "good"}, position) is Verdict.ALLOW
                return
            with pytest.raises(InvalidOption, match=r"region:position, of eu, us"):
                revocations.check({"jti": "good"}, position)

    async def test_region_where_there_is_none(self) -> None:
        """A list of one stream refuses a position with a region."""
        async with RevocationList(MemoryTransport()) as revocations:
            with pytest.raises(InvalidOption, match=r"as in Receipt\.position$"):
                revocations.check({"jti": "good"}, "eu:1-0")

    async def test_opened_again(self) -> None:
        """A list that was closed can be opened again."""
        revocations = RevocationList(RegionalStreams(MemoryTransport(), MemoryTransport()))
        for _ in range(2):
            async with revocations:
                assert revocations.is_fresh
            assert revocations.check({}) is Verdict.STALE

    async def test_fleet(self, url: str, key: str) -> None:
        """A list is announced in every region, so the publishers of each can wait for it."""
        streams = RegionalStreams(eu=RedisStream(url, key), us=MemoryTransport(), tolerate={"us": 30.0})
        one = RevocationList(streams, service="orders", instance="a", max_staleness=600.0)
        async with one, Publisher(streams["eu"]) as eu, Publisher(streams["us"]) as us:
            for number, publisher in enumerate((eu, us, us, eu)):
                receipt = await publisher.publish(TokenRevoked(token_id=f"t{number}"), in_force=Fleet("orders"))
                assert receipt.propagation is not None
                assert receipt.propagation.acknowledged == ["orders/a"]
                assert one.check({"jti": f"t{number}"}) is Verdict.REVOKED

    async def test_lease(self) -> None:
        """Publishers of a region that is tolerated wait for so much longer, as its events may be missing that long."""
        streams = RegionalStreams(eu=MemoryTransport(), us=MemoryTransport(), tolerate={"eu": 60.0})
        announcers = Sources.of(streams).announcers("orders", "a", max_staleness=5.0, allows_stale=False)
        assert {region: announcer.lease for region, announcer in announcers.items()} == {"eu": 65.0, "us": 5.0}
