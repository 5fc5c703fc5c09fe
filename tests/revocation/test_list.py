"""The revocation list: catching up, following, verdicts, options, failures and callbacks."""

from __future__ import annotations

import asyncio
import math
import statistics
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from redis.asyncio import Redis

from bench.ports import free_port
from jwt_events import (
    Closed,
    ConnectionFailed,
    Event,
    EventType,
    Gap,
    InvalidClaims,
    InvalidOption,
    KeyRotated,
    MemoryTransport,
    RedisPubSub,
    RedisStream,
    RegionalStreams,
    RevocationList,
    RevokedTokenError,
    ServerRefused,
    SessionDestroyed,
    StaleRevocationsError,
    TokenRevoked,
    TransportError,
    UnknownEvent,
    Verdict,
    ViewState,
)
from jwt_events.embedded import EmbeddedServer
from jwt_events.envelope import Envelope, encode
from jwt_events.revocation import _feed
from jwt_events.testing import ManualClock
from jwt_events.testing.conformance import MakeTransport
from jwt_events.transport._redis import reconnecting
from jwt_events.transport.base import Receiver
from tests.faults.cancelling import cancelled_everywhere
from tests.support.examples import revoked
from tests.support.handling import Gate, Recorder, publish, running, soon
from tests.support.raw import call, trim
from tests.support.records import recorded
from tests.support.scripted import ScriptedTransport
from tests.support.transports import OnCluster, OnMemory, OnStream
from tests.support.waiting import scaled, wait_until

NOT_OPEN = "revocation list is not open, so every token is stale"

READ_ONLY = ("+xread", "+xrange", "+xinfo|stream", "+info", "+zrange", "+zcount", "+zscan")


def token(number: int = 1) -> dict[str, object]:
    """Return the claims of a token that `revoked` revokes."""
    return {"jti": f"token-{number}", "sub": "alice", "iat": 1}


async def knows(revocations: RevocationList, number: int) -> None:
    """Wait until the list has a token's revocation in force."""
    await wait_until(lambda: revocations.check(token(number)) is Verdict.REVOKED, what=lambda: repr(revocations))


class Durable:
    """Tests for every durable transport."""

    @pytest.mark.parametrize("start", ["new", "all"])
    async def test_entered_means_caught_up(self, make_transport: MakeTransport, start: Any) -> None:
        """Entering applies the whole history, whatever the transport's ``start``, and skips what it cannot decode."""
        transport = make_transport(start=start)
        unknown = encode(Envelope(UnknownEvent(type="jwt.other.v1")), source="tests")
        for first in range(0, 1_200, 400):
            async with transport.sender() as sender:
                await sender.send([b"no event", unknown], within=scaled(5))
            await publish(transport, *(revoked(number) for number in range(first, first + 400)))
        async with RevocationList(transport) as revocations:
            assert revocations.is_fresh
            assert revocations.state is ViewState.FRESH
            assert {revocations.check(token(number)) for number in range(1_200)} == {Verdict.REVOKED}
            assert revocations.check(token(1_200)) is Verdict.ALLOW
            stats = revocations.stats
            assert (stats.events, stats.decode_errors, stats.rules["token"], stats.gaps) == (1_203, 3, 1_200, 0)

    async def test_an_empty_history(self, make_transport: MakeTransport) -> None:
        """With an empty history every token is let in."""
        async with RevocationList(make_transport()) as revocations:
            assert revocations.check(token()) is Verdict.ALLOW
            assert 0 <= revocations.staleness < scaled(5)

    async def test_follows(self, make_transport: MakeTransport) -> None:
        """Events that are published while it is open are applied, by every list."""
        transport = make_transport()
        async with RevocationList(transport) as one, RevocationList(transport) as other:
            for number in range(3):
                assert one.check(token(number)) is Verdict.ALLOW
                await publish(transport, revoked(number))
                await knows(one, number)
                await knows(other, number)

    async def test_left_and_entered_again(self, make_transport: MakeTransport) -> None:
        """A closed list keeps its revocations, and is stale; reopened, it applies what was published in between."""
        transport = make_transport()
        revocations = RevocationList(transport)
        for number in range(3):
            assert revocations.state is ViewState.CLOSED
            assert revocations.check(token(number)) is Verdict.STALE
            await publish(transport, revoked(number))
            async with revocations:
                assert revocations.check(token(number)) is Verdict.REVOKED
                assert revocations.check(token(number + 1)) is Verdict.ALLOW
            assert revocations.check(token(number)) is Verdict.REVOKED
            assert revocations.staleness == math.inf
            assert not revocations.is_fresh

    async def test_entered_twice(self, make_transport: MakeTransport) -> None:
        """Entering an open list fails, and does not affect it."""
        async with RevocationList(make_transport()) as revocations:
            with pytest.raises(Closed):
                await revocations.__aenter__()
            assert revocations.check(token()) is Verdict.ALLOW
        await revocations.aclose()

    async def test_stays_fresh(self, make_transport: MakeTransport) -> None:
        """Without events, it is proven current again and again."""
        async with RevocationList(make_transport(), max_staleness=scaled(0.5)) as revocations:
            proven = set()

            def proves() -> bool:
                proven.add(revocations._view.current_as_of)
                return len(proven) > 6

            await wait_until(proves)
            assert revocations.stats.events == 0

    @pytest.mark.parametrize("max_staleness", [scaled(0.1), scaled(0.5)])
    async def test_a_short_staleness(self, make_transport: MakeTransport, max_staleness: float) -> None:
        """Without events, proofs come well within even the shortest ``max_staleness``."""
        async with RevocationList(make_transport(), max_staleness=max_staleness) as revocations:
            ages = []
            until = time.monotonic() + max(1.0, 2 * max_staleness)

            def looks() -> bool:
                ages.append(revocations.staleness)
                return time.monotonic() > until

            await wait_until(looks)
            assert statistics.median(ages) < max_staleness * 0.7

    async def test_handlers(self, make_transport: MakeTransport) -> None:
        """Handlers get the events they registered for, in order, those of the history first, with the rule in force."""
        transport = make_transport()
        revocations, all_of_them, sessions = RevocationList(transport), Recorder(), []
        revocations.on()(all_of_them)

        @revocations.on(SessionDestroyed, EventType.KEY_ROTATED)
        def note(event: Event) -> None:
            sessions.append((event.subject, revocations.check({"sid": event.subject})))

        await publish(transport, revoked(1), SessionDestroyed(session_id="s"))
        async with revocations:
            await publish(transport, KeyRotated(key_id="k"), revoked(2))
            await all_of_them.has_seen(4)
        assert all_of_them.subjects == ["token-1", "s", "k", "token-2"]
        assert sessions == [("s", Verdict.REVOKED), ("k", Verdict.ALLOW)]


class TestOnCluster(OnCluster, Durable):
    """`Durable` on `RedisStream` in a cluster."""


class TestOnStream(OnStream, Durable):
    """`Durable` on `RedisStream`."""

    @pytest.mark.parametrize(
        "start", ["new", "all", "1-1", datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)]
    )
    async def test_a_history_that_was_trimmed(self, url: str, key: str, client: Redis, start: Any) -> None:
        """Without a ledger, a history that was trimmed before entering is not a gap, whatever the ``start``."""
        transport = RedisStream(url, key, start=start, ledger=False)
        await publish(transport, *(revoked(number) for number in range(5)))
        await trim(client, key, 2)
        async with RevocationList(transport) as revocations:
            await publish(transport, revoked(5))
            await knows(revocations, 5)
            assert (revocations.stats.events, revocations.stats.gaps) == (3, 0)


class TestOnMemory(OnMemory, Durable):
    """`Durable` on `MemoryTransport`."""


class TestVerdicts:
    """Verdicts, errors, explanations and counts."""

    @pytest.fixture
    async def revocations(self) -> AsyncIterator[RevocationList]:
        """An open list with a few revocations."""
        async with RevocationList(MemoryTransport()) as revocations:
            revocations.apply(TokenRevoked(token_id="t"))
            revocations.apply(TokenRevoked(user_id="bob", issued_before=datetime.fromtimestamp(1_000, UTC)))
            revocations.apply(KeyRotated(key_id="k", compromised=True))
            yield revocations

    async def test_check(self, revocations: RevocationList) -> None:
        """Only `Verdict.ALLOW` is truthy."""
        assert revocations.check({"jti": "good", "iat": 1})
        assert not revocations.check({"jti": "t", "iat": 1})
        assert not revocations.check({"jti": "good", "kid": "k", "iat": 1})
        assert not Verdict.STALE

    async def test_ensure_live(self, revocations: RevocationList) -> None:
        """The error for a token that is not let in contains the reason, and no identifier."""
        revocations.ensure_live({"jti": "good", "iat": 1})
        with pytest.raises(RevokedTokenError) as refused:
            revocations.ensure_live({"sub": "bob", "iat": 1_000})
        assert refused.value.rule == "user"
        assert refused.value.issued_before == datetime.fromtimestamp(1_000, UTC)
        assert "bob" not in str(refused.value)
        with pytest.raises(RevokedTokenError, match=r"by a rule about its token$"):
            revocations.ensure_live({"jti": "t"})

    async def test_ensure_live_when_closed(self, revocations: RevocationList) -> None:
        """In a closed list a revoked token raises `RevokedTokenError`, every other one `StaleRevocationsError`."""
        await revocations.aclose()
        with pytest.raises(StaleRevocationsError, match="is not current: it is not open") as refused:
            revocations.ensure_live({"jti": "good"})
        assert (refused.value.staleness, refused.value.max_staleness) == (math.inf, 5.0)
        with pytest.raises(RevokedTokenError):
            revocations.ensure_live({"jti": "t"})

    async def test_ensure_live_while_the_rule_is_removed(
        self, revocations: RevocationList, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A rule that another thread removes between the check and its explanation does not let the token in."""
        monkeypatch.setattr(revocations, "check", lambda *_: Verdict.REVOKED)
        with pytest.raises(RevokedTokenError):
            revocations.ensure_live({"jti": "good"})

    @pytest.mark.parametrize("method", ["check", "explain", "at_least"])
    async def test_while_it_is_proven_current(self, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """A proof made while another thread is in a check says nothing about the rules which that had looked at."""

        class Meanwhile(ManualClock):
            """A clock that applies a revocation, and what proves that it was the last, while it is read in a check."""

            is_armed = False

            def monotonic(self) -> float:
                """Return seconds."""
                if self.is_armed:
                    self.is_armed = False
                    revoke()
                return super().monotonic()

        def revoke() -> None:
            revocations.apply(TokenRevoked(token_id="gone"))
            revocations._view.record_position("7-0", confirm=False)
            revocations._view.record_proof(clock.monotonic())

        def has_applied(position: str) -> bool:
            revoke()
            return applied(position)

        clock, claims = Meanwhile(), {"jti": "gone", "iat": 1}
        async with RevocationList(MemoryTransport(), clock=clock) as revocations:
            applied = revocations._view.progress.has_applied
            if method == "at_least":
                monkeypatch.setattr(revocations._view.progress, "has_applied", has_applied)
                assert revocations.check(claims, at_least="7-0") is not Verdict.ALLOW
            else:
                clock.advance(6.0)
                clock.is_armed = True
                verdict = revocations.check(claims) if method == "check" else revocations.explain(claims).verdict
                assert not clock.is_armed
                assert verdict is not Verdict.ALLOW
            assert revocations.check(claims) is Verdict.REVOKED

    async def test_explain(self, revocations: RevocationList) -> None:
        """The explanation names the verdict, the rule and the age, and is not counted."""
        verdict, rule, staleness = revocations.explain({"sub": "bob", "iat": 1})
        assert verdict is Verdict.REVOKED
        assert rule == ("user", datetime.fromtimestamp(1_000, UTC))
        assert 0 <= staleness < scaled(5)
        assert revocations.explain({"sub": "bob", "iat": 1_001})[:2] == (Verdict.ALLOW, None)
        await revocations.aclose()
        assert revocations.explain({"sub": "carol"}) == (Verdict.STALE, None, math.inf)
        stats = revocations.stats
        assert (stats.allowed, stats.revoked, stats.stale) == (0, 0, 0)

    async def test_stats(self, revocations: RevocationList) -> None:
        """Every check is counted once."""
        for _ in range(3):
            revocations.check({"jti": "good"})
        for _ in range(2):
            revocations.check({"jti": "t"})
        await revocations.aclose()
        revocations.check({"jti": "good"})
        stats = revocations.stats
        assert (stats.allowed, stats.revoked, stats.stale, stats.stale_allows) == (3, 2, 1, 0)
        assert {kind: number for kind, number in stats.rules.items() if number} == {"token": 1, "user": 1, "key": 1}

    async def test_bad_claims(self, revocations: RevocationList) -> None:
        """Invalid claims raise in every method, and get no verdict."""
        bad: Any
        for bad in (None, {"jti": 1}, {"iat": "now"}):
            for method in (revocations.check, revocations.ensure_live, revocations.explain):
                with pytest.raises(InvalidClaims):
                    method(bad)

    async def test_availability_before_security(self) -> None:
        """``on_stale="allow"`` lets tokens in that are not known to be revoked, and counts them."""
        clock = ManualClock()
        async with RevocationList(MemoryTransport(), on_stale="allow", clock=clock) as revocations:
            revocations.apply(TokenRevoked(token_id="t"))
            assert revocations.check({"jti": "good"}) is Verdict.ALLOW
            revocations._view.fresh_until = clock.monotonic() - 1  # as if nothing had been read for so long
            assert not revocations.is_fresh
            assert revocations.check({"jti": "good"}) is Verdict.ALLOW
            assert revocations.check({"jti": "t"}) is Verdict.REVOKED
            assert revocations.explain({"jti": "good"}).verdict is Verdict.ALLOW
            assert (revocations.stats.allowed, revocations.stats.stale_allows) == (2, 1)

    @pytest.mark.parametrize("on_stale", ["deny", "allow"])
    async def test_a_list_that_is_not_open(self, on_stale: Any) -> None:
        """A list that is not open believes nothing, in every mode, and says so once: it was forgotten to open it."""
        transport = MemoryTransport()
        await publish(transport, revoked(1))
        revocations = RevocationList(transport, on_stale=on_stale)
        for _ in range(2):
            with recorded() as records:
                assert [revocations.check(token(number)) for number in (1, 2)].count(Verdict.ALLOW) == 0
                assert revocations.check(token(2)) is Verdict.STALE
                assert revocations.explain(token(2)).verdict is Verdict.STALE
                with pytest.raises(StaleRevocationsError):
                    revocations.ensure_live(token(2))
            (line,) = records.of(NOT_OPEN, "ERROR")
            assert line["destination"] == transport.destination
            async with revocations:
                assert revocations.check(token(1)) is Verdict.REVOKED
                assert revocations.check(token(2)) is Verdict.ALLOW
        assert revocations.stats.stale_allows == 0

    async def test_a_list_that_catches_up(self) -> None:
        """A list that has not read the history yet believes nothing either, and that is no error."""
        revocations = RevocationList(ScriptedTransport(), on_stale="allow")
        with recorded() as records:
            entering = asyncio.create_task(revocations.__aenter__())
            await wait_until(lambda: revocations.state is ViewState.CATCHING_UP)
            assert revocations.check(token(1)) is Verdict.STALE
            entering.cancel()
            await asyncio.gather(entering, return_exceptions=True)
        assert records.of(NOT_OPEN, "ERROR") == []

    async def test_repr(self, revocations: RevocationList) -> None:
        """The repr shows state, count of rules and age, and no identifiers."""
        assert repr(revocations).startswith("<RevocationList fresh, 3 rules, 0.")
        assert "bob" not in repr(revocations)
        await revocations.aclose()
        assert repr(revocations).startswith("<RevocationList closed, 3 rules, inf s old")


class TestOptions:
    """Invalid options are refused by the constructor."""

    @pytest.mark.parametrize(
        ("options", "option"),
        [
            ({"max_staleness": 0.09}, "max_staleness"),
            ({"max_staleness": 0}, "max_staleness"),
            ({"max_staleness": -1}, "max_staleness"),
            ({"max_staleness": math.nan}, "max_staleness"),
            ({"max_staleness": math.inf}, "max_staleness"),
            ({"max_staleness": "5"}, "max_staleness"),
            ({"max_staleness": True}, "max_staleness"),
            ({"leeway": -1}, "leeway"),
            ({"leeway": math.nan}, "leeway"),
            ({"leeway": None}, "leeway"),
            ({"on_stale": "ignore"}, "on_stale"),
            ({"on_stale": True}, "on_stale"),
            ({"wait": "no"}, "wait"),
            ({"wait": None}, "wait"),
        ],
    )
    def test_options(self, options: dict[str, Any], option: str) -> None:
        """The error names the option."""
        with pytest.raises(InvalidOption) as refused:
            RevocationList(ScriptedTransport(), **options)
        assert refused.value.option == option

    @pytest.mark.parametrize(
        ("transport", "problem"),
        [
            (RedisPubSub("redis://localhost"), "is not durable"),
            (RedisStream("redis://localhost", group="g"), "group"),
            ("redis://:secret@localhost", "not str"),
            (None, "not NoneType"),
        ],
    )
    def test_transport(self, transport: Any, problem: str) -> None:
        """A transport that is not durable or not fan-out, or not a transport, is refused with a hint."""
        with pytest.raises(InvalidOption, match=problem) as refused:
            RevocationList(transport)
        assert refused.value.option == "transport"
        assert "secret" not in str(refused.value)

    def test_callbacks(self) -> None:
        """A callback that is not callable, and a value that is not an event, is refused."""
        revocations = RevocationList(ScriptedTransport())
        nothing: Any = None
        for register in (revocations.on_gap, revocations.on_state, revocations.on(), revocations.apply):
            with pytest.raises(InvalidOption):
                register(nothing)
        with pytest.raises(InvalidOption):
            revocations.on("no such type")(print)


class TestEntering:
    """Entering fails with the reason, and leaves no task or connection behind."""

    async def test_without_a_server(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without a server, entering raises `ConnectionFailed`."""
        monkeypatch.setattr(reconnecting, "OPEN_WITHIN", scaled(0.5))
        revocations = RevocationList(RedisStream(f"redis://127.0.0.1:{free_port()}"))
        with pytest.raises(ConnectionFailed):
            await revocations.__aenter__()
        assert revocations.state is ViewState.CLOSED
        assert revocations.check(token()) is Verdict.STALE

    @pytest.mark.parametrize("is_regional", [False, True])
    async def test_closed_before_it_reads(self, *, is_regional: bool) -> None:
        """If another task closes the list at the moment at which it is entered, entering ends."""
        stream = RedisStream(f"redis://127.0.0.1:{free_port()}")
        revocations = RevocationList(RegionalStreams(eu=stream) if is_regional else stream)
        entering = asyncio.create_task(revocations.__aenter__())
        await asyncio.sleep(0)
        await revocations.aclose()
        with pytest.raises(Closed, match="closed before the history was read"):
            await soon(entering)
        assert revocations.state is ViewState.CLOSED

    async def test_wrong_type(self, url: str, key: str, client: Redis) -> None:
        """A key of another type is refused by the server; once it is removed, entering works."""
        await client.set(key, "no stream")
        revocations = RevocationList(RedisStream(url, key))
        with pytest.raises(ServerRefused) as refused:
            await revocations.__aenter__()
        assert refused.value.code == "WRONGTYPE"
        await client.delete(key)
        async with revocations:
            assert revocations.check(token()) is Verdict.ALLOW

    @pytest.mark.parametrize("missing", ["+xread", "+xinfo|stream", "+zscan"])
    async def test_rights(self, own_server: Callable[..., EmbeddedServer], missing: str) -> None:
        """The rights to read are enough; without one of them entering fails with the server's error."""
        async with own_server(port=0) as server, Redis.from_url(server.url) as client:
            await call(client, "ACL", "SETUSER", "reader", "on", ">secret", "~k", "~k:ledger", *READ_ONLY)
            reader_url = server.url.replace("redis://", "redis://reader:secret@")
            await publish(RedisStream(server.url, "k"), revoked(1))
            async with RevocationList(RedisStream(reader_url, "k")) as revocations:
                await knows(revocations, 1)
                await client.client_kill_filter(user="reader")
                await publish(RedisStream(server.url, "k"), revoked(2))
                await knows(revocations, 2)
            await call(client, "ACL", "SETUSER", "reader", missing.replace("+", "-"))
            with pytest.raises(ServerRefused) as refused:
                await revocations.__aenter__()
            assert refused.value.code == "NOPERM"
            assert "secret" not in str(refused.value)

    async def test_replica(self, own_server: Callable[..., EmbeddedServer], monkeypatch: pytest.MonkeyPatch) -> None:
        """A replica, which may be cut off from its primary, is refused, and the error names it."""
        monkeypatch.setattr(_feed, "_MAX_STALL", 0.3)
        monkeypatch.setattr(reconnecting, "OPEN_WITHIN", scaled(1.0))
        async with own_server() as server, Redis.from_url(server.url) as client:
            await call(client, "REPLICAOF", "127.0.0.1", free_port())
            with pytest.raises(ConnectionFailed, match="replica"):
                await RevocationList(RedisStream(server.url, "k"), max_staleness=0.5).__aenter__()

    async def test_refused_for_good(self) -> None:
        """The error is the transport's own; nothing stays open, and entering can be retried."""
        transport = ScriptedTransport()
        revocations = RevocationList(transport)
        for _ in range(2):
            error = transport.fail()
            with pytest.raises(TransportError) as refused:
                await revocations.__aenter__()
            assert refused.value is error
            assert transport.open == 0
            assert revocations.failure is None

    async def test_cancelled_anywhere(self, url: str, key: str) -> None:
        """Cancelled at any await, entering leaves it closed, and it can be entered again."""
        transport = RedisStream(url, key)
        revocations = RevocationList(transport)

        async def enter() -> None:
            async with revocations:
                pass

        async for _ in cancelled_everywhere(enter):
            assert revocations.state is ViewState.CLOSED
            assert revocations._following is None
        await publish(transport, revoked(1))
        async with revocations:
            assert revocations.check(token(1)) is Verdict.REVOKED

    async def test_closed_while_entering(self) -> None:
        """Entering raises `Closed` if the list is closed meanwhile."""
        transport = ScriptedTransport()
        transport.opening.clear()
        revocations = RevocationList(transport)
        async with running(revocations.__aenter__()) as entering:
            await wait_until(lambda: transport.open == 1)
            assert revocations.state is ViewState.CATCHING_UP
            await soon(revocations.aclose())
            with pytest.raises(Closed):
                await soon(entering)
        assert transport.open == 0


class TestOpeningEarly:
    """A list that opens before its history was read."""

    @pytest.mark.parametrize("options", [{"on_stale": "allow"}, {"wait": False}, {"wait": False, "on_stale": "allow"}])
    async def test_without_a_server(
        self, own_server: Callable[..., EmbeddedServer], monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
    ) -> None:
        """It opens, says so, is not fresh, and knows what is revoked as soon as there is a server."""
        monkeypatch.setattr(reconnecting, "OPEN_WITHIN", 0.2)
        port = free_port()
        revocations = RevocationList(RedisStream(f"redis://127.0.0.1:{port}", "k"), **options)
        states: list[ViewState] = []
        revocations.on_state(states.append)
        with recorded() as records:
            await soon(revocations.__aenter__())
        assert len(records.of("opened before the history was read: stale until then", "WARNING")) == 1
        assert (revocations.state, revocations.is_fresh) == (ViewState.CATCHING_UP, False)
        allows = options.get("on_stale") == "allow"
        assert revocations.check(token(1)) is (Verdict.ALLOW if allows else Verdict.STALE)
        assert revocations.stats.stale_allows == allows
        await wait_until(lambda: isinstance(revocations.failure, ConnectionFailed))
        async with own_server(port=port) as server:
            await publish(RedisStream(server.url, "k"), revoked(1))
            await knows(revocations, 1)
            await wait_until(lambda: revocations.is_fresh)
            assert (revocations.failure, revocations.check(token(2))) == (None, Verdict.ALLOW)
            assert states == [ViewState.CATCHING_UP, ViewState.FRESH]
            await revocations.aclose()

    async def test_at_once(self) -> None:
        """Without waiting, it opens although the transport does not answer, and can be left."""
        transport = ScriptedTransport()
        transport.opening.clear()
        async with RevocationList(transport, wait=False) as revocations:
            assert revocations.state is ViewState.CATCHING_UP
            await wait_until(lambda: transport.open == 1)
            async with revocations.watch(token(1)) as watch:
                assert not watch.revoked.is_set()
        assert (revocations.state, transport.open) == (ViewState.CLOSED, 0)

    async def test_refused(self, url: str, key: str, client: Redis) -> None:
        """What lasts is raised also with `on_stale="allow"`; without waiting it is the list's failure until mended."""
        await client.set(key, "no stream")
        with pytest.raises(ServerRefused, match="WRONGTYPE"):
            await RevocationList(RedisStream(url, key), on_stale="allow").__aenter__()
        async with RevocationList(RedisStream(url, key), wait=False) as revocations:
            await wait_until(lambda: isinstance(revocations.failure, ServerRefused))
            assert revocations.check(token()) is Verdict.STALE
            await client.delete(key)
            await wait_until(lambda: revocations.is_fresh)

    async def test_cancelled_anywhere(self, url: str, key: str) -> None:
        """Cancelled at any await, it is closed, and nothing is left."""
        revocations = RevocationList(RedisStream(url, key), wait=False)

        async def enter() -> None:
            async with revocations:
                pass

        async for _ in cancelled_everywhere(enter):
            assert (revocations.state, revocations._following) == (ViewState.CLOSED, None)


class BreaksOnExit(MemoryTransport):
    """A transport whose receiver fails when it is closed."""

    @asynccontextmanager
    async def receiver(
        self, *, from_oldest: bool = False, poll_timeout: float | None = None
    ) -> AsyncIterator[Receiver]:
        """Subscribe."""
        async with super().receiver(from_oldest=from_oldest, poll_timeout=poll_timeout) as receiver:
            try:
                yield receiver
            finally:
                raise TransportError("cannot even be closed")


class TestLeaving:
    """Leaving ends all tasks."""

    async def test_a_receiver_that_cannot_be_closed(self) -> None:
        """A receiver that fails when it is closed does not keep the list open."""
        async with RevocationList(BreaksOnExit()) as revocations:
            pass
        await asyncio.sleep(0)
        assert revocations.check(token()) is Verdict.STALE

    async def test_callbacks_that_run(self) -> None:
        """A callback that is still running at the end is cancelled, and awaited."""
        transport, gate = MemoryTransport(), Gate()
        revocations = RevocationList(transport)
        revocations.on(TokenRevoked)(gate)
        async with revocations:
            await publish(transport, revoked(1))
            await gate.has_seen(1)
        assert gate.running == 0
        assert len(gate.cancelled) == 1

    async def test_by_a_callback(self) -> None:
        """A callback may close the list."""
        transport = MemoryTransport()
        revocations = RevocationList(transport)

        @revocations.on(TokenRevoked)
        async def close(_: Event) -> None:
            await revocations.aclose()

        async with revocations:
            await publish(transport, revoked(1))
            await wait_until(lambda: revocations.state is ViewState.CLOSED)


class TestCallbacks:
    """Callbacks for states, gaps and events, and those that fail."""

    async def test_states(self, own_server: Callable[..., EmbeddedServer]) -> None:
        """Each state is passed to functions and coroutine functions when it is entered."""
        async with own_server(port=0) as server, Redis.from_url(server.url) as client:
            await call(client, "ACL", "SETUSER", "reader", "on", ">secret", "~k", "~k:ledger", *READ_ONLY)
            url = server.url.replace("redis://", "redis://reader:secret@")
            revocations = RevocationList(RedisStream(url, "k"), max_staleness=scaled(0.5))
            states: list[ViewState] = []
            heard = Recorder()
            revocations.on_state(states.append)
            revocations.on_state(heard)
            async with revocations:
                await call(client, "ACL", "SETUSER", "reader", "-xread")
                await wait_until(lambda: ViewState.STALE in states)
                assert revocations.state is ViewState.STALE
                assert revocations.failure is not None
                with pytest.raises(StaleRevocationsError) as refused:
                    revocations.ensure_live(token())
                assert refused.value.__cause__ is revocations.failure
                await call(client, "ACL", "SETUSER", "reader", "+xread")
                await wait_until(lambda: revocations.is_fresh)
                assert revocations.failure is None
                await heard.has_seen(4)
        assert states == heard.seen == [ViewState.CATCHING_UP, ViewState.FRESH, ViewState.STALE, ViewState.FRESH]

    async def test_a_gap_while_it_may_not_read(self, own_server: Callable[..., EmbeddedServer]) -> None:
        """What is published and trimmed while the list has no right to read is told when it has it again."""
        async with own_server(port=0) as server, Redis.from_url(server.url) as client:
            await call(client, "ACL", "SETUSER", "reader", "on", ">secret", "~k", "~k:ledger", *READ_ONLY)
            url = server.url.replace("redis://", "redis://reader:secret@")
            revocations = RevocationList(RedisStream(url, "k"), max_staleness=scaled(0.5))
            gaps: list[Gap] = []
            revocations.on_gap(gaps.append)
            await publish(RedisStream(server.url, "k"), revoked(1))
            async with revocations:
                await call(client, "ACL", "SETUSER", "reader", "-xread")
                await wait_until(lambda: revocations.failure is not None)
                await publish(RedisStream(server.url, "k"), revoked(2))
                await client.xtrim("k", maxlen=0, approximate=False)
                await call(client, "ACL", "SETUSER", "reader", "+xread")
                await wait_until(lambda: revocations.failure is None)
                assert [(gap.cause, gap.lost) for gap in gaps] == [("trimmed", 1)]
                assert revocations.check(token(1)) is Verdict.REVOKED

    async def test_gaps(self, url: str, key: str, client: Redis) -> None:
        """A gap is passed on and counted, and events published afterwards are applied."""
        transport = RedisStream(url, key)
        gaps: list[Gap] = []
        await publish(transport, revoked(1))
        revocations = RevocationList(transport, max_staleness=scaled(1))
        revocations.on_gap(gaps.append)
        async with revocations:
            await client.delete(key)
            await wait_until(lambda: gaps)
            assert gaps[0].cause == "deleted"
            await publish(transport, revoked(2))
            await knows(revocations, 2)
            assert revocations.check(token(1)) is Verdict.REVOKED
            assert revocations.stats.gaps == 1

    async def test_failing_callbacks(self) -> None:
        """A callback that raises, even `CancelledError`, is logged, and does not affect the list or other callbacks."""
        transport = MemoryTransport()
        revocations, recorder = RevocationList(transport), Recorder()

        @revocations.on()
        def fail(_: Event) -> None:
            raise ValueError("token-1")

        @revocations.on()
        async def fail_later(_: Event) -> None:
            raise KeyError("token-1")

        @revocations.on()
        def give_up(_: Event) -> None:
            raise asyncio.CancelledError

        revocations.on_state(fail)
        revocations.on()(recorder)
        with recorded() as records:
            async with revocations:
                for number in range(3):
                    await publish(transport, revoked(number))
                    await knows(revocations, number)
                await recorder.has_seen(3)
        failed = records.of("callback failed", "ERROR")
        assert len(failed) == 3 * 3 + 2
        assert "token-1" not in str(failed)

    @pytest.mark.parametrize(
        "error",
        [asyncio.CancelledError(), GeneratorExit(), BaseException(), BaseExceptionGroup("several", [BaseException()])],
    )
    async def test_what_is_no_exception(self, error: BaseException) -> None:
        """A list goes on whatever a callback raises, at once or later."""

        def fail(_: Event) -> None:
            raise error

        async def fail_later(_: Event) -> None:
            await asyncio.sleep(0)
            if not isinstance(error, GeneratorExit):  # which ends a coroutine
                raise error

        transport = MemoryTransport()
        revocations, recorder = RevocationList(transport), Recorder()
        for callback in (fail, fail_later, recorder):
            revocations.on()(callback)
        with recorded() as records:
            async with revocations:
                for number in range(2):
                    await publish(transport, revoked(number))
                    await knows(revocations, number)
                await recorder.has_seen(2)
                await wait_until(lambda: len(records.of("callback failed", "ERROR")) >= 2)
        assert {type(error).__qualname__} == {fields["error"].split()[0] for fields in records.of("callback failed")}

    async def test_unknown_events(self) -> None:
        """Events of an unknown type reach handlers of every event, and are logged."""
        transport = MemoryTransport()
        recorder = Recorder()
        with recorded() as records:
            async with RevocationList(transport) as revocations:
                revocations.on()(recorder)
                await publish(transport, UnknownEvent(type="jwt.other.v1"))
                await recorder.has_seen(1)
        assert records.of("event of an unknown type passed over", "WARNING")
