"""Lists that read a ledger, at real servers: no trimming loses a rule."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from jwt_events import (
    Event,
    Gap,
    KeyRotated,
    Publisher,
    RedisStream,
    RevocationList,
    ServerRefused,
    SessionDestroyed,
    SigningKeys,
    TokenRevoked,
    TransportError,
    Verdict,
)
from jwt_events.embedded import EmbeddedServer
from jwt_events.revocation import Folding
from jwt_events.testing import FaultyTransport
from jwt_events.transport._redis.connection import Connector
from jwt_events.transport._stream.folder import Folder
from jwt_events.transport._stream.keys import StreamKeys
from jwt_events.transport._stream.ledger import Ledger
from jwt_events.transport._stream.ledger_head import LedgerHead
from jwt_events.transport.base import Batch
from jwt_events.transport.optional import LedgerEntry
from tests.support.handling import publish
from tests.support.raw import call, counts
from tests.support.records import recorded
from tests.support.waiting import scaled, wait_until

MOMENT = timedelta(milliseconds=1)
LATER = datetime.now(UTC) + timedelta(days=2)

# An event of each kind of rule, and a token that it covers.
EVERY_KIND: list[tuple[Event, dict[str, object]]] = [
    (TokenRevoked(token_id="t", expires_at=LATER), {"jti": "t", "iat": 1}),
    (TokenRevoked(token_id="endless"), {"jti": "endless", "iat": 1}),
    (SessionDestroyed(session_id="s", expires_at=LATER), {"sid": "s", "iat": 1}),
    (TokenRevoked(user_id="u"), {"sub": "u", "iat": 1}),
    (TokenRevoked(user_id="v", client_id="c", expires_at=LATER), {"sub": "v", "azp": "c", "iat": 1}),
    (TokenRevoked(client_id="d"), {"client_id": "d", "iat": 1}),
    (TokenRevoked(claims={"iss": "https://a"}, expires_at=LATER), {"iss": "https://a", "iat": 1}),
    (TokenRevoked(user_id="w", except_session_id="this"), {"sub": "w", "sid": "other", "iat": 1}),
    (KeyRotated(key_id="old", compromised=True), {"kid": "old", "iat": 1}),
]


async def _no_keys() -> dict[str, object]:
    return {"keys": []}


def _known(keys: SigningKeys) -> tuple[object, object]:
    return keys._keyring._compromised, keys._keyring._retirements


class Scene:
    """A stream, one program that folds it, and lists."""

    def __init__(self, url: str, key: str, client: Redis) -> None:
        self.stream = RedisStream(url, key)
        self.ledger = str(self.stream.ledger)
        self.key = key
        self.client = client
        self.folder = Folder(Connector(url, destination=key), Ledger(StreamKeys(key)), Folding(), MOMENT)

    async def fold(self, *events: Event) -> None:
        """Publish events, and fold all that there is."""
        if events:
            await publish(self.stream, *events)
        await self.until_old()
        await self.folder.fold_once()

    async def until_old(self) -> None:
        """Wait until everything that was published is older than the retention."""
        newest = await call(self.client, "XREVRANGE", self.key, "+", "-", "COUNT", 1)

        async def is_old() -> bool:
            seconds, microseconds = await call(self.client, "TIME")
            return not newest or int(newest[0][0].partition(b"-")[0]) < seconds * 1000 + microseconds // 1000 - 1

        await wait_until(is_old)

    async def trim(self) -> None:
        """Remove everything from the stream, as nobody does who knows the ledger."""
        await call(self.client, "XTRIM", self.key, "MAXLEN", 0)

    def list(self, transport: Any = None) -> tuple[RevocationList, list[Gap]]:
        """Return a list, and the gaps that it will report."""
        revocations = RevocationList(transport or self.stream, max_staleness=scaled(5))
        gaps: list[Gap] = []
        revocations.on_gap(gaps.append)
        return revocations, gaps


@pytest.fixture
def scene(url: str, key: str, client: Redis) -> Scene:
    """Return a stream that nobody has written to."""
    return Scene(url, key, client)


async def is_revoked(revocations: RevocationList, name: str) -> None:
    """Wait until a token is revoked."""
    await wait_until(lambda: revocations.check({"jti": name, "iat": 1}) is Verdict.REVOKED, what=lambda: repr(name))


class TestStarting:
    """A list that starts when the events are long gone."""

    async def test_every_kind(self, scene: Scene) -> None:
        """Whatever was revoked is revoked, and whatever was not is let in; nothing may have been missed."""
        await scene.fold(*(event for event, _ in EVERY_KIND))
        assert await scene.client.xlen(scene.key) == 0
        revocations, gaps = scene.list()
        async with revocations:
            for _, claims in EVERY_KIND:
                assert revocations.check(claims) is Verdict.REVOKED, claims
            for claims in ({"jti": "x", "sub": "x", "iat": 1}, {"sub": "w", "sid": "this", "iat": 1}):
                assert revocations.check(claims) is Verdict.ALLOW, claims
        assert not gaps

    async def test_everyone(self, scene: Scene) -> None:
        """The rule about all tokens is there, too, and spares those that were issued since."""
        await scene.fold(TokenRevoked(everyone=True))
        async with scene.list()[0] as revocations:
            assert revocations.check({"jti": "a", "iat": 1}) is Verdict.REVOKED
            assert revocations.check({"jti": "a", "iat": int(LATER.timestamp())}) is Verdict.ALLOW

    async def test_keys_after_any_time(self, scene: Scene) -> None:
        """Signing keys that are attached to a list learn of retired and compromised keys that were folded."""
        retired = KeyRotated(key_id="b", previous_key_id="a", retire_at=datetime.now(UTC) - timedelta(days=30))
        await scene.fold(retired, KeyRotated(key_id="c", compromised=True))

        keys = SigningKeys(_no_keys)
        revocations, _ = scene.list()
        keys.attach(revocations)
        async with revocations:
            await wait_until(lambda: "a" in keys._keyring._retirements and "c" in keys._keyring._compromised)

    @pytest.mark.parametrize("seed", range(5))
    async def test_keys_in_any_order(self, scene: Scene, seed: int) -> None:
        """Whatever was folded when, the keys are in force, retired or compromised as if all rotations were read."""
        chance, now = random.Random(seed), datetime.now(UTC)
        names = ["a", "b", "c", "d"]
        rotations: list[KeyRotated] = []
        for _ in range(12):
            new, old = chance.sample(names, 2)
            at = now - timedelta(hours=chance.randint(1, 1_000))
            if chance.random() < 0.1:
                rotations.append(KeyRotated(key_id=new, compromised=True, occurred_at=at))
            else:
                retire_at = chance.choice([None, at, now + timedelta(hours=1)])
                rotations.append(KeyRotated(key_id=new, previous_key_id=old, retire_at=retire_at, occurred_at=at))
        expected, found = SigningKeys(_no_keys), SigningKeys(_no_keys)
        for rotation in rotations:
            expected.apply(rotation)
        chance.shuffle(rotations)
        await scene.fold(*rotations[:5])
        await scene.fold(*rotations[3:9])  # some of them again
        await publish(scene.stream, *rotations[9:])
        revocations, _ = scene.list()
        found.attach(revocations)
        async with revocations:
            await wait_until(lambda: _known(found) == _known(expected), what=lambda: f"{_known(expected)}")

    async def test_both_places(self, scene: Scene) -> None:
        """What is still in the stream counts as well, and what comes afterwards."""
        await scene.fold(TokenRevoked(token_id="old"))
        await publish(scene.stream, TokenRevoked(token_id="young"))
        async with scene.list()[0] as revocations:
            assert [revocations.check({"jti": name, "iat": 1}) for name in ("old", "young")] == [Verdict.REVOKED] * 2
            await publish(scene.stream, TokenRevoked(token_id="new"))
            await is_revoked(revocations, "new")

    async def test_many_parts(self, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        """A ledger of several parts is read to its end before a token is let in."""
        monkeypatch.setattr("jwt_events.transport._stream.ledger._READ_BATCH", 10)
        await scene.fold(*(TokenRevoked(token_id=f"t{number}", expires_at=LATER) for number in range(1_000)))
        async with scene.list()[0] as revocations:
            assert revocations.stats.rules["token"] == 1_000

    async def test_publisher(self, url: str, key: str, client: Redis) -> None:
        """A publisher with a short retention folds by itself, and what it published stays in force."""
        transport = RedisStream(url, key, retention=MOMENT)
        async with Publisher(transport) as publisher:
            await publisher.publish(TokenRevoked(token_id="t", expires_at=LATER))
            await wait_until(lambda: _is_empty(client, key))
        async with RevocationList(transport) as revocations:
            assert revocations.check({"jti": "t", "iat": 1}) is Verdict.REVOKED

    async def test_without_a_ledger(self, url: str, key: str, client: Redis) -> None:
        """A stream that has none is trimmed as before, and what is gone is forgotten."""
        transport = RedisStream(url, key, retention=MOMENT, ledger=False)
        await publish(transport, TokenRevoked(token_id="a"))
        await wait_until(lambda: _publish_and_count(transport, client, key))
        assert not await client.exists(f"{key}:ledger")
        async with RevocationList(transport) as revocations:
            assert revocations.check({"jti": "a", "iat": 1}) is Verdict.ALLOW
            assert not revocations.stats.gaps

    async def test_another_name(self, scene: Scene, url: str) -> None:
        """The ledger has the name that it is given."""
        stream = RedisStream(url, scene.key, ledger=f"{scene.key}:rules", retention=MOMENT)
        async with Publisher(stream) as publisher:
            await publisher.publish(TokenRevoked(token_id="t"))
            await wait_until(lambda: _is_empty(scene.client, scene.key))
        async with RevocationList(stream) as revocations:
            assert revocations.check({"jti": "t", "iat": 1}) is Verdict.REVOKED
        assert await scene.client.exists(f"{scene.key}:rules")


async def _is_empty(client: Redis, key: str) -> bool:
    return not await client.xlen(key) and bool(await client.exists(f"{key}:retention"))


async def _publish_and_count(transport: RedisStream, client: Redis, key: str) -> bool:
    await publish(transport, TokenRevoked(token_id="b"))
    return await client.xlen(key) < 2


@asynccontextmanager
async def held(faulty: FaultyTransport, scene: Scene) -> AsyncIterator[None]:
    """Let readers read nothing meanwhile, but perhaps the one event that ends the read which is under way."""
    faulty.faults.hold()
    await publish(scene.stream, TokenRevoked(token_id="last"))
    await wait_until(lambda: faulty.faults.is_quiet, what="the end of the read that is under way")
    try:
        yield
    finally:
        faulty.faults.heal()


def test_no_identifier_in_a_repr() -> None:
    """What is read from a ledger does not show whom it is about."""
    entry = LedgerEntry(b"talice", 1.0)
    assert "alice" not in repr(entry) + repr(Batch(ledger=[(b"talice", 1.0)]))


class TestFallingBehind:
    """A list that runs, and did not read an event before it was trimmed."""

    @pytest.fixture
    def faulty(self, scene: Scene) -> FaultyTransport:
        """Return the stream, on whose readers faults can be injected."""
        return FaultyTransport(scene.stream)

    async def test_folded(self, scene: Scene, faulty: FaultyTransport) -> None:
        """It reads the ledger again, and that is no gap."""
        revocations, gaps = scene.list(faulty)
        async with revocations:
            await scene.fold(TokenRevoked(token_id="a"))
            await is_revoked(revocations, "a")
            async with held(faulty, scene):
                await scene.fold(TokenRevoked(token_id="b"), TokenRevoked(token_id="c"))
                await scene.fold(TokenRevoked(user_id="u"))
            for name in ("b", "c"):
                await is_revoked(revocations, name)
            await wait_until(lambda: revocations.check({"sub": "u", "iat": 1}) is Verdict.REVOKED)
            await wait_until(lambda: revocations.is_fresh)
        assert not gaps

    async def test_watched(self, scene: Scene, faulty: FaultyTransport) -> None:
        """A token that is watched is revoked by what the ledger says."""
        revocations, _ = scene.list(faulty)
        async with revocations, revocations.watch({"sub": "u", "jti": "j", "iat": 1}) as watch:
            async with held(faulty, scene):
                await scene.fold(TokenRevoked(user_id="u"))
            await asyncio.wait_for(watch.revoked.wait(), scaled(10))

    async def test_trimmed_by_others(self, scene: Scene, faulty: FaultyTransport) -> None:
        """What others removed beyond the head is a gap, as far as the server counts."""
        is_counted = await _counts(scene)
        revocations, gaps = scene.list(faulty)
        async with revocations:
            async with held(faulty, scene):
                await scene.fold(TokenRevoked(token_id="a"))
                await publish(scene.stream, TokenRevoked(token_id="b"), TokenRevoked(token_id="c"))
                await scene.trim()
                await publish(scene.stream, TokenRevoked(token_id="d"))
            await is_revoked(revocations, "a")
            await is_revoked(revocations, "d")
            if is_counted:
                await wait_until(lambda: gaps)
                assert [(gap.cause, gap.lost) for gap in gaps] == [("trimmed", 2)]

    async def test_ledger_that_vanished(self, scene: Scene, faulty: FaultyTransport) -> None:
        """A list that has seen the ledger notices that it is gone: a gap, and an error in the log."""
        if not await _counts(scene):
            return  # nothing tells that entries which were read are gone, so there is no reason to look at the ledger
        await scene.fold(TokenRevoked(token_id="a"))
        revocations, gaps = scene.list(faulty)
        with recorded() as records:
            async with revocations:
                async with held(faulty, scene):
                    await scene.fold(TokenRevoked(token_id="b"))
                    await scene.client.delete(scene.ledger)
                    await publish(scene.stream, TokenRevoked(token_id="c"))
                await wait_until(lambda: gaps)
                await is_revoked(revocations, "a")
                await is_revoked(revocations, "c")
        assert gaps[0].cause == "ledger"
        assert records.of(_DAMAGED, "ERROR")


async def _counts(scene: Scene) -> bool:
    await publish(scene.stream, TokenRevoked(token_id="first"))
    return await counts(scene.client, scene.key)


class TestForeignHands:
    """What others did to the ledger."""

    async def test_no_ledger(self, scene: Scene) -> None:
        """A list that starts at a stream from which something was removed, without a ledger, may have missed it."""
        await publish(scene.stream, TokenRevoked(token_id="a"), TokenRevoked(token_id="b"))
        await scene.trim()
        revocations, gaps = scene.list()
        async with revocations:
            assert revocations.is_fresh
        if await counts(scene.client, scene.key):
            assert gaps == [Gap("0-0", "trimmed", 2)]

    async def test_vanished_and_made_anew(self, scene: Scene) -> None:
        """A ledger that vanished is made anew of what is left, and lists that start later are told."""
        await scene.fold(TokenRevoked(token_id="a"))
        await scene.client.delete(scene.ledger)
        with recorded() as records:
            await scene.fold(TokenRevoked(token_id="b"))
        if await counts(scene.client, scene.key):
            assert records.of("events were removed from the stream that were not folded", "ERROR")
        revocations, gaps = scene.list()
        async with revocations:
            await is_revoked(revocations, "b")
        assert [gap.cause for gap in gaps] == ["trimmed"]

    async def test_trimmed_before(self, scene: Scene) -> None:
        """Lists that start later are told of what others removed."""
        await scene.fold(TokenRevoked(token_id="a"))
        await publish(scene.stream, TokenRevoked(token_id="b"))
        await scene.trim()
        await scene.fold(TokenRevoked(token_id="c"))
        revocations, gaps = scene.list()
        async with revocations:
            assert revocations.check({"jti": "c", "iat": 1}) is Verdict.REVOKED
        if await counts(scene.client, scene.key):
            assert gaps == [Gap("0-0", "trimmed", 1)]

    async def test_shrank(self, scene: Scene) -> None:
        """Rules that somebody removed are missed, as long as nobody has folded since that were needed for a day."""
        await scene.fold(TokenRevoked(token_id="a", expires_at=LATER), TokenRevoked(user_id="u"))
        await scene.fold(TokenRevoked(token_id="b"))
        await call(scene.client, "ZREM", scene.ledger, "ta")
        revocations, gaps = scene.list()
        async with revocations:
            assert revocations.check({"sub": "u", "iat": 1}) is Verdict.REVOKED
        assert gaps == []  # two are left of the two that the head knows; one less is one too few
        await call(scene.client, "ZREM", scene.ledger, "nuu")
        revocations, gaps = scene.list()
        with recorded() as records:
            async with revocations:
                assert revocations.check({"jti": "b", "iat": 1}) is Verdict.REVOKED
        assert gaps == [Gap("0-0", "ledger", 1)]
        assert records.of(_DAMAGED, "ERROR")

    async def test_entries_that_are_not_ours(self, scene: Scene) -> None:
        """They are a gap and an error; all others are in force."""
        await scene.fold(TokenRevoked(token_id="a"), SessionDestroyed(session_id="s"))
        await call(scene.client, "ZADD", scene.ledger, 2_000_000_000, "hello", "+inf", b"\xff")
        revocations, gaps = scene.list()
        with recorded() as records:
            async with revocations:
                assert revocations.check({"jti": "a", "iat": 1}) is Verdict.REVOKED
                assert revocations.check({"sid": "s", "iat": 1}) is Verdict.REVOKED
        assert gaps == [Gap(None, "ledger", 2)]
        assert records.of(_DAMAGED, "ERROR")[0]["lost"] == 2

    async def test_a_head_in_the_future(self, scene: Scene) -> None:
        """A head that is ahead of its stream belongs to another one."""
        await scene.fold(TokenRevoked(token_id="a"))
        (head,) = await call(scene.client, "ZRANGE", scene.ledger, "-inf", "-inf", "BYSCORE")
        await call(scene.client, "ZREM", scene.ledger, head)
        await call(scene.client, "ZADD", scene.ledger, "-inf", LedgerHead(f"{2**50}-0", 1).encode())
        revocations, gaps = scene.list()
        async with revocations:
            await is_revoked(revocations, "a")
        assert [gap.cause for gap in gaps] == ["deleted"]

    async def test_a_later_version(self, scene: Scene) -> None:
        """A list that does not know the version of the ledger does not open, and the error says what to do."""
        await call(scene.client, "ZADD", scene.ledger, "-inf", b"\x002 whatever", 2_000_000_000, "ta")
        with pytest.raises(TransportError, match=r"has version 2, .*: upgrade it"):
            await scene.list()[0].__aenter__()

    async def test_another_type(self, scene: Scene) -> None:
        """A key of another type is refused, and named."""
        await scene.client.set(scene.ledger, "text")
        with pytest.raises(ServerRefused, match=rf"the ledger '{scene.ledger}' cannot be read: .*WRONGTYPE"):
            await scene.list()[0].__aenter__()

    async def test_without_the_right(self, own_server: Callable[..., EmbeddedServer]) -> None:
        """A list that may not read the ledger does not open, and the error names the right."""
        async with own_server(port=0) as server, Redis.from_url(server.url) as client:
            await publish(RedisStream(server.url, "k"), TokenRevoked(token_id="a"))
            for rights in (("~k", "+@all"), ("~*", "+@all", "-zcount"), ("~*", "+@all", "-zscan")):
                await call(client, "ACL", "SETUSER", "u", "reset", "on", ">secret", *rights)
                stream = RedisStream(server.url.replace("redis://", "redis://u:secret@"), "k")
                with pytest.raises(ServerRefused, match=r"the ledger 'k:ledger' cannot be read: .* \+zrange"):
                    await RevocationList(stream).__aenter__()

    async def test_what_is_over(self, scene: Scene) -> None:
        """Rules that are over leave the ledger; those about keys stay."""
        over = datetime.now(UTC) - timedelta(minutes=5)
        await scene.fold(TokenRevoked(token_id="a", expires_at=over), KeyRotated(key_id="k", compromised=True))
        assert await scene.client.zcard(scene.ledger) == 3
        await call(scene.client, "ZADD", scene.ledger, int(over.timestamp()) - 600, "ta")
        await scene.fold()
        assert await scene.client.zcard(scene.ledger) == 2


_DAMAGED = "the ledger lacks entries, or holds what is no rule"
