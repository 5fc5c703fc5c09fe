"""A stream that moves from one server to a cluster: nothing is forgotten, and nothing is told that did not happen."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from jwt_events import (
    DeadLetters,
    Event,
    Gap,
    RedisStream,
    Retry,
    RevocationList,
    ServerRefused,
    TokenRevoked,
    TransportError,
    Verdict,
)
from jwt_events.revocation import Folding
from jwt_events.testing import FaultyTransport, Listener
from jwt_events.transport._redis.connection import Connection, Connector
from jwt_events.transport._stream.folder import Folder
from jwt_events.transport._stream.horizon import LongestRetention
from jwt_events.transport._stream.keys import StreamKeys
from jwt_events.transport._stream.ledger import Ledger
from jwt_events.transport._stream.plain import PlainKeys
from jwt_events.transport.ledger import LedgerAccess
from tests.support.cluster import Cluster
from tests.support.documents import granted
from tests.support.handling import publish
from tests.support.raw import call, server_time
from tests.support.servers import Server
from tests.support.waiting import scaled, wait_until

MOMENT = timedelta(milliseconds=1)
_MEGABYTE = 1_048_576
HOUR = timedelta(hours=1)
LATER = datetime.now(UTC) + timedelta(days=2)


def revoked(name: str) -> TokenRevoked:
    """Return an event that revokes a token for two days."""
    return TokenRevoked(token_id=name, expires_at=LATER)


class Move:
    """A stream on one server, and the cluster that it moves to.

    Attributes:
        key: the key of the stream.
        keys: its names in the cluster.
        client: a client of the server.
        server: the stream on the server.
        cluster: the nodes of the cluster.
        stream: the stream in the cluster.
    """

    def __init__(self, url: str, key: str, client: Redis, cluster: Cluster) -> None:
        self.key, self.client, self.cluster, self._url = key, client, cluster, url
        self.server = RedisStream(url, key)
        self.stream = RedisStream(cluster.url, key)
        self.keys = self.stream.keys

    @property
    def plain(self) -> StreamKeys:
        """The plain names."""
        assert self.keys.plain is not None
        return self.keys.plain

    async def fold(self, *events: Event) -> None:
        """Publish events on the server, and fold all that is there."""
        await publish(self.server, *events)
        await self._until_old(self.client)
        folder = Folder(Connector(self._url, destination=self.key), Ledger(StreamKeys(self.key)), Folding(), MOMENT)
        await folder.fold_once()
        await self.client.delete(f"{self.key}:ledger:lock", f"{self.key}:retention")

    def folder(self, retention: timedelta = HOUR, url: str | None = None) -> Folder:
        """Return what folds in the cluster, in a program of its own."""
        connector = Connector(url or self.cluster.url, destination=self.key)
        return Folder(connector, Ledger(self.keys), Folding(), retention)

    async def fold_there(self, retention: timedelta = MOMENT) -> int:
        """Fold all that is in the cluster, and return how many events that were."""
        if retention == MOMENT:
            async with (await self.cluster.owner_of(self.key)).client as owner:
                await self._until_old(owner)
        folded = await self.folder(retention).fold_once()
        await self.on(self.keys.ledger_lock, "DEL")
        await self.on(self.keys.retention, "ZREM", "longest")
        return folded

    async def copy(self, *names: str) -> None:
        """Copy keys to the cluster under the names they have, as tools do; all without names."""
        for name in names or [bytes(found).decode() for found in await call(self.client, "KEYS", f"{self.key}*")]:
            dumped, lifetime = await call(self.client, "DUMP", name), await self.client.pttl(name)
            await self.on(name, "RESTORE", max(0, lifetime), dumped, "REPLACE")

    async def on(self, name: str, command: str, *words: str | bytes | int) -> Any:
        """Send a command about a key to the node that has it."""
        return await (await self.cluster.owner_of(name)).call(command, name, *words)

    async def exists(self, name: str) -> bool:
        """Whether there is such a key in the cluster."""
        return bool(await self.on(name, "EXISTS"))

    @asynccontextmanager
    async def list(self, transport: Any = None) -> AsyncIterator[tuple[RevocationList, list[Gap]]]:
        """Open a list in the cluster, with the gaps that it reports."""
        revocations = RevocationList(transport or self.stream, max_staleness=scaled(5))
        gaps: list[Gap] = []
        revocations.on_gap(gaps.append)
        async with revocations:
            yield revocations, gaps

    async def knows(self, *names: str) -> None:
        """Check that a list that starts now knows these tokens, lets in another one, and reports no gap."""
        async with self.list() as (revocations, gaps):
            found = {name: revocations.check({"jti": name, "iat": 1}) for name in names}
            assert found == dict.fromkeys(names, Verdict.REVOKED)
            assert revocations.check({"jti": "good", "iat": 1}) is Verdict.ALLOW
        assert gaps == []

    async def _until_old(self, client: Redis) -> None:
        newest = await call(client, "XREVRANGE", self.key, "+", "-", "COUNT", 1)

        async def is_old() -> bool:
            return not newest or int(newest[0][0].partition(b"-")[0]) < await server_time(client) - 1

        await wait_until(is_old)


@pytest.fixture
def server(_servers: Callable[[str], Server]) -> Server:
    """A server of the same version as the nodes: one of an earlier version does not restore what a later one dumps."""
    return _servers("valkey")


@pytest.fixture
async def move(url: str, key: str, client: Redis, cluster: Cluster) -> Move:
    """A stream to move."""
    return Move(url, key, client, cluster)


@asynccontextmanager
async def connected(move: Move) -> AsyncIterator[Connection]:
    """Open a connection to the server of the stream in the cluster."""
    async with aclosing(await move.stream.connector.connect(within=scaled(5))) as connection:
        yield connection


async def rules(move: Move, name: str) -> dict[bytes, float]:
    """Return what a ledger of the cluster holds, without its head."""
    found = await move.on(name, "ZRANGE", "(-inf", "+inf", "BYSCORE", "WITHSCORES")
    parts = [part for each in found for part in (each if isinstance(each, list | tuple) else [each])]
    return dict(zip(parts[::2], map(float, parts[1::2]), strict=True))


async def each(cluster: Cluster, *words: str) -> None:
    """Send a command to every node."""
    for node in cluster.nodes:
        await node.call(*words)


@pytest.fixture
async def user(cluster: Cluster) -> AsyncIterator[str]:
    """The URL of the cluster for a user that the test has to make, and that is removed afterwards."""
    yield cluster.url.replace("://", "://mover:secret@")
    await each(cluster, "ACL", "DELUSER", "mover")


def plain_keys(move: Move) -> PlainKeys:
    """Return what lies under plain names."""
    return PlainKeys(move.stream.connector, move.keys)


class TestLists:
    """Lists read what was copied, whoever has taken it over by then."""

    async def test_everything(self, move: Move) -> None:
        """All that was revoked is known: of the ledger that was copied, of the stream, and of what came afterwards."""
        await move.fold(revoked("folded"), TokenRevoked(token_id="endless"))
        await publish(move.server, revoked("streamed"))
        await move.copy()
        await move.knows("folded", "endless", "streamed")
        await publish(move.stream, revoked("new"))
        await move.knows("folded", "endless", "streamed", "new")

    async def test_after_taking_over(self, move: Move) -> None:
        """A publisher of the cluster takes over the ledger, then goes on folding; lists know the same at any time."""
        await move.fold(revoked("folded"))
        await publish(move.server, revoked("streamed"))
        await move.copy()
        async with move.list() as (running, gaps):
            assert await move.fold_there(HOUR) == 0
            assert not await move.exists(move.plain.ledger)
            await move.knows("folded", "streamed")
            assert await move.fold_there() == 1
            await move.knows("folded", "streamed")
            await publish(move.stream, revoked("new"))
            await wait_until(lambda: running.check({"jti": "new", "iat": 1}) is Verdict.REVOKED)
            assert await move.fold_there() == 1
        await move.knows("folded", "streamed", "new")
        assert gaps == []

    async def test_a_list_that_falls_behind(self, move: Move) -> None:
        """A list that has to read the ledger again, after that was taken over and went on, reports nothing."""
        await move.fold(revoked("folded"))
        await move.copy()
        faulty = FaultyTransport(move.stream)
        async with move.list(faulty) as (running, gaps):
            faulty.faults.hold()
            await publish(move.stream, revoked("read"))  # ends the read that is under way
            await wait_until(lambda: faulty.faults.is_quiet, what="the end of that read")
            await publish(move.stream, revoked("trimmed"))
            assert await move.fold_there() == 2
            faulty.faults.heal()
            await wait_until(lambda: running.check({"jti": "trimmed", "iat": 1}) is Verdict.REVOKED)
            await wait_until(lambda: running.check({"jti": "good", "iat": 1}) is Verdict.ALLOW)
        assert gaps == []

    async def test_only_the_ledger(self, move: Move) -> None:
        """Without the stream, what was folded is known, and the rest is told to be missing."""
        await move.fold(revoked("folded"))
        await publish(move.server, revoked("streamed"))
        await move.copy(move.plain.ledger)
        async with move.list() as (revocations, gaps):
            assert revocations.check({"jti": "folded", "iat": 1}) is Verdict.REVOKED
        assert [gap.cause for gap in gaps] == ["deleted"]

    async def test_only_the_stream(self, move: Move) -> None:
        """Without the ledger, as many are told to be missing as were folded."""
        await move.fold(revoked("a"), revoked("b"))
        await publish(move.server, revoked("streamed"))
        await move.copy(move.key)
        async with move.list() as (revocations, gaps):
            assert revocations.check({"jti": "streamed", "iat": 1}) is Verdict.REVOKED
        assert [(gap.cause, gap.lost) for gap in gaps] == [("trimmed", 2)]

    async def test_damage(self, move: Move) -> None:
        """A ledger that was copied in part is told to be one, before and after it was taken over."""
        await move.fold(revoked("first"))
        await move.fold(revoked("a"))
        await move.copy()
        await move.on(move.plain.ledger, "ZREM", "tfirst", "ta")
        for _ in range(2):
            async with move.list() as (_, gaps):
                pass
            assert [(gap.cause, gap.lost) for gap in gaps] == [("ledger", 1)]
            await move.fold_there(HOUR)

    async def test_no_right(self, move: Move, user: str) -> None:
        """A list that may not read the ledger under its plain name does not open, and the error names it."""
        await move.fold(revoked("folded"))
        await move.copy()
        places = [f"~{move.key}", f"~{{{move.key}}}:*"]
        await each(move.cluster, "ACL", "SETUSER", "mover", "reset", "on", ">secret", *places, "+@all")
        with pytest.raises(ServerRefused, match=rf"the ledger '{move.plain.ledger}' cannot be read: .*NOPERM"):
            async with move.list(RedisStream(user, move.key)):
                pass

    async def test_something_else(self, move: Move) -> None:
        """What is no ledger is left alone if it could be one, and refused if not."""
        await publish(move.stream, revoked("a"))
        await move.on(move.plain.ledger, "ZADD", 1, "something")
        await move.fold_there(HOUR)
        await move.knows("a")
        assert await rules(move, move.plain.ledger) == {b"something": 1.0}
        await move.on(move.plain.ledger, "SET", "text")
        with pytest.raises(ServerRefused, match=rf"the ledger '{move.plain.ledger}' cannot be read: .*WRONGTYPE"):
            async with move.list():
                pass
        with pytest.raises(TransportError, match=move.plain.ledger):
            await move.fold_there(HOUR)


class TestTakingOver:
    """What folds takes over the ledger."""

    async def test_merged_by_maximum(self, move: Move) -> None:
        """Of rules that are in both, the later time counts; none is lost."""
        await move.fold(revoked("a"), revoked("b"))
        await move.copy()
        before = await rules(move, move.plain.ledger)
        await move.on(move.keys.ledger, "ZADD", 5, "ta", 2**40, "tb", 7, "tc")
        await move.fold_there(HOUR)
        found = await rules(move, move.keys.ledger)
        assert found.keys() == {b"ta", b"tb"}, "what is over is removed"
        assert found[b"ta"] == before[b"ta"]
        assert found[b"tb"] == 2**40

    async def test_without_the_right_to_remove(self, move: Move, user: str) -> None:
        """A publisher that is stopped right before the removal has lost nothing; with the right it goes on."""
        await move.fold(revoked("a"))
        await move.copy()
        rights = ["~*", "+@all", "-unlink"]
        await each(move.cluster, "ACL", "SETUSER", "mover", "reset", "on", ">secret", *rights)
        for _ in range(2):
            with pytest.raises(ServerRefused, match="unlink"):
                await move.folder(url=user).fold_once()
            await move.on(move.keys.ledger_lock, "DEL")
            assert await rules(move, move.keys.ledger) == await rules(move, move.plain.ledger) != {}
            await move.knows("a")
        await each(move.cluster, "ACL", "SETUSER", "mover", "+unlink")
        await move.folder(url=user).fold_once()
        assert not await move.exists(move.plain.ledger)
        await move.knows("a")

    async def test_cancelled_anywhere(self, move: Move) -> None:
        """Wherever it is cancelled, everything is in one of the two, and it can be done again."""
        events = [revoked(str(number)) for number in range(20)]
        await move.fold(*events)
        expected = {f"t{number}".encode() for number in range(20)}
        steps, is_done = 0, False
        while not is_done:
            steps += 1 + steps // 2
            await move.copy(move.plain.ledger)
            await move.on(move.keys.ledger, "DEL")
            async with connected(move) as connection:
                task = asyncio.create_task(plain_keys(move).take_over_ledger(connection, Ledger(move.keys)))
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                is_done = not task.cancelled()
            found = [await rules(move, name) for name in (move.plain.ledger, move.keys.ledger)]
            assert found[0].keys() == expected or found[1].keys() == expected, steps
            async with connected(move) as connection:
                await plain_keys(move).take_over_ledger(connection, Ledger(move.keys))
                head = await Ledger(move.keys).read_head(connection)
            assert head is not None
            assert (await rules(move, move.keys.ledger)).keys() == expected
            assert not await move.exists(move.plain.ledger)

    async def test_the_rights_on_the_page(self, move: Move, user: str) -> None:
        """With the rights that the page names, and no others, it is read, taken over and folded."""
        publisher, reader = granted("publisher, stream"), granted("revocation list")
        more = granted("publisher in a cluster, of a stream without a hash tag")
        await move.fold(revoked("folded"))
        await publish(move.server, revoked("streamed"))
        await call(move.client, "ZADD", move.plain.retention, 1, "longest")
        await move.copy()
        nodes = ("+cluster|slots", "+cluster|info", "+cluster|nodes", "+time")
        words = ("reset", "on", ">secret", *nodes, f"~{move.plain.ledger}", f"~{move.key}")
        own = f"~{{{move.key}}}:ledger"
        await each(move.cluster, "ACL", "SETUSER", "mover", *words, own, *reader)
        async with move.list(RedisStream(user, move.key)) as (revocations, gaps):
            assert revocations.check({"jti": "folded", "iat": 1}) is Verdict.REVOKED
        assert gaps == []
        places = (f"~{{{move.key}}}:*", f"~{move.plain.retention}")
        await each(move.cluster, "ACL", "SETUSER", "mover", *words, *places, *publisher, *more)
        assert await move.folder(MOMENT, user).fold_once() == 1
        assert not await move.exists(move.plain.ledger)
        assert not await move.exists(move.plain.retention)
        await move.knows("folded", "streamed")

    async def test_two_at_once(self, move: Move) -> None:
        """Two programs that take over at the same time do each other no harm."""
        await move.fold(*(revoked(str(number)) for number in range(50)))
        await move.copy()
        expected = await rules(move, move.plain.ledger)
        async with AsyncExitStack() as stack:
            connections = [await stack.enter_async_context(connected(move)) for _ in range(4)]
            await asyncio.gather(*(plain_keys(move).take_over_ledger(one, Ledger(move.keys)) for one in connections))
        assert await rules(move, move.keys.ledger) == expected
        assert not await move.exists(move.plain.ledger)
        await move.knows(*map(str, range(50)))

    async def test_copied_late(self, move: Move) -> None:
        """A ledger that is copied when the cluster has one already is merged into it."""
        await move.fold(revoked("folded"))
        await publish(move.server, revoked("streamed"))
        await move.copy(move.key)
        assert await move.fold_there() == 1
        await move.copy(move.plain.ledger)
        await move.knows("folded", "streamed")
        await move.fold_there(HOUR)
        assert not await move.exists(move.plain.ledger)
        await move.knows("folded", "streamed")

    async def test_copied_again(self, move: Move) -> None:
        """All is copied again, as after a trial, when the server has gone on; nothing of either is forgotten."""
        await move.fold(revoked("folded"))
        await publish(move.server, revoked("streamed"))
        await move.copy()
        await move.fold_there()
        await publish(move.stream, revoked("trial"))
        await move.fold_there()
        await move.fold(revoked("more"))
        await publish(move.server, revoked("last"))
        await move.copy()
        await move.knows("folded", "streamed", "trial", "more", "last")
        await move.fold_there()
        await move.knows("folded", "streamed", "trial", "more", "last")

    async def test_the_ledger_of_another_stream(self, move: Move) -> None:
        """What was revoked counts, although the stream that it came from was left behind, which is told."""
        await move.fold(revoked("folded"))
        await publish(move.stream, revoked("new"))
        await move.copy(move.plain.ledger)
        async with move.list() as (revocations, gaps):
            assert revocations.check({"jti": "folded", "iat": 1}) is Verdict.REVOKED
            assert revocations.check({"jti": "new", "iat": 1}) is Verdict.REVOKED
        assert {gap.cause for gap in gaps} <= {"deleted"}

    async def test_for_operators(self, move: Move) -> None:
        """What is to be taken over is counted, can be listed, and a wrong rule can be taken back there, too."""
        await move.fold(revoked("a"), revoked("wrong"), TokenRevoked(token_id="endless"))
        await move.copy()
        access = LedgerAccess(move.stream)
        summary = await access.summary()
        assert (summary.key, summary.exists, summary.entries, summary.endless) == (move.keys.ledger, True, 3, 1)
        assert (summary.lost, summary.to_be_taken_over) == (0, move.plain.ledger)
        removed = await access.remove(lambda content, until: content == b"twrong", reason="a mistake")
        assert removed == 1
        await move.on(move.plain.retention, "ZADD", 3_600_000, "longest")
        assert await access.fold(Folding()) == 0
        after = await access.summary()
        assert (after.exists, after.entries, after.lost, after.to_be_taken_over) == (True, 2, 0, None)
        assert len({content async for batch in access.entries() for content, _ in batch}) == 2
        await move.knows("a", "endless")


class TestRetention:
    """The longest retention moves, too."""

    async def announced(self, move: Move, retention: timedelta) -> float:
        """Announce a retention in the cluster; return seconds before now of which entries are kept."""
        async with connected(move) as connection:
            horizon = await LongestRetention(move.keys, retention, plain_keys(move)).announce(connection)
        return horizon.now - horizon.before / 1000

    async def test_the_longest(self, move: Move) -> None:
        """What a publisher on the server announced counts in the cluster, and is known under one name afterwards."""
        await call(move.client, "ZADD", move.plain.retention, 7_200_000, "longest", 1, "ledger")
        await move.copy()
        for _ in range(2):
            assert round(await self.announced(move, HOUR)) == 7_200
            assert not await move.exists(move.plain.retention)
        assert await rules(move, move.keys.retention) == {b"ledger": 1, b"longest": 7_200_000}

    async def test_a_shorter_one(self, move: Move) -> None:
        """One that is shorter changes nothing."""
        await call(move.client, "ZADD", f"{move.key}:retention", 1_000, "longest")
        await move.copy()
        assert round(await self.announced(move, HOUR)) == 3_600

    async def test_without_a_ledger(self, move: Move) -> None:
        """Publishers that fold nothing keep to it as well."""
        await call(move.client, "ZADD", f"{move.key}:retention", 7_200_000, "longest")
        now = await server_time(move.client)
        for age in (3 * 3_600, 5_400):
            await call(move.client, "XADD", move.key, f"{now - age * 1000}-0", "event", "old")
        await move.copy()
        await publish(RedisStream(move.cluster.url, move.key, ledger=False, retention=HOUR), TokenRevoked(user_id="u"))
        assert await move.on(move.key, "XLEN") == 2
        assert not await move.exists(move.plain.retention)

    async def test_no_marker(self, move: Move) -> None:
        """What cannot be read lets nothing be removed."""
        await move.on(move.plain.retention, "SET", "text")
        with pytest.raises(TransportError, match="WRONGTYPE"):
            await self.announced(move, HOUR)


class TestLarge:
    """What is brought over is bounded by its bytes, and not by its number alone."""

    async def test_dead_letters(self, move: Move) -> None:
        """Many that are large, between small ones, are brought over in their order, a few at once."""
        sizes = [10] * 30 + [2 * _MEGABYTE] * 24 + [10] * 30
        for size in sizes:
            await move.on(move.plain.dead_letter, "XADD", "*", "event", b"x" * size)
        async with DeadLetters(move.stream, timeout=scaled(10)) as dead:
            tracemalloc.start()
            try:
                assert await dead.take_over() == len(sizes)
                assert tracemalloc.get_traced_memory()[1] < 90 * _MEGABYTE
            finally:
                tracemalloc.stop()
            assert (await dead.count(), await dead.left_behind()) == (len(sizes), 0)
            found, part = list[int](), await dead.list(limit=1_000)
            while part:
                found += [len(letter.payload) for letter in part]
                part = await dead.list(after=part[-1].id, limit=1_000)
            assert found == sizes


class TestDeadLetters:
    """Dead letters are brought to where the cluster keeps them."""

    async def test_all(self, move: Move) -> None:
        """They are counted, brought over as they were, and can be replayed then."""

        async def fail(event: Event) -> None:
            raise ValueError

        async def all_failed() -> bool:
            return int(await move.client.xlen(move.plain.dead_letter)) == 45

        listener = Listener(move.server, retry=Retry(attempts=1))
        listener.subscriber.on()(fail)
        async with listener:
            await publish(move.server, *(revoked(str(number)) for number in range(45)))
            await wait_until(all_failed)
        async with DeadLetters(move.server) as dead:
            expected = [(letter.payload, letter.error, letter.dead_lettered_at) for letter in await dead.list()]
        await move.copy()
        async with DeadLetters(move.stream) as dead:
            assert (await dead.count(), await dead.left_behind()) == (0, 45)
            assert dead.left_behind_key == move.plain.dead_letter
            assert await dead.take_over() == 45
            assert (await dead.count(), await dead.left_behind(), await dead.take_over()) == (45, 0, 0)
            found = await dead.list()
            assert [(letter.payload, letter.error, letter.dead_lettered_at) for letter in found] == expected
            await dead.replay(found[0].id)
        assert await move.on(move.key, "XLEN") == 46

    async def test_on_one_server(self, move: Move) -> None:
        """Where there are no other names there is nothing to bring."""
        async with DeadLetters(move.server) as dead:
            assert dead.left_behind_key is None
            assert (await dead.left_behind(), await dead.take_over()) == (0, 0)


def _fields(reply: Any) -> dict[bytes, Any]:
    """Return the fields of a map, which older versions of redis-py return as they come: names and values in turn."""
    return reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=True))


class TestTools:
    """What tools do keeps the stream's ids and counts."""

    @pytest.mark.parametrize("tool", ["restore", "migrate"])
    async def test_the_stream(self, move: Move, tool: str) -> None:
        """Ids, counts, groups and what is pending are the same."""
        await publish(move.server, *(revoked(str(number)) for number in range(5)))
        await call(move.client, "XGROUP", "CREATE", move.key, "g", "0")
        await call(move.client, "XREADGROUP", "GROUP", "g", "c", "COUNT", 2, "STREAMS", move.key, ">")
        await call(move.client, "XTRIM", move.key, "MAXLEN", 4)
        before = _fields(await call(move.client, "XINFO", "STREAM", move.key))
        was_pending = await call(move.client, "XPENDING", move.key, "g")
        owner = await move.cluster.owner_of(move.key)
        if tool == "restore":
            await move.copy()
        else:
            words = ("127.0.0.1", owner.port, "", 0, 5_000, "COPY", "KEYS", move.key)
            await call(move.client, "MIGRATE", *words)
            await owner.call("CLIENT", "KILL", "TYPE", "normal")  # the server keeps its connection for a while
        after = _fields(await owner.call("XINFO", "STREAM", move.key))
        for name in ("length", "last-generated-id", "max-deleted-entry-id", "entries-added", "groups", "first-entry"):
            assert after[name.encode()] == before[name.encode()], name
        assert await owner.call("XPENDING", move.key, "g") == was_pending

    async def test_entry_by_entry(self, move: Move) -> None:
        """A tool that adds the entries anew loses the counts; so it is told that some may be missing."""
        await move.fold(revoked("folded"))
        await publish(move.server, revoked("streamed"))
        await move.copy(move.plain.ledger)
        for position, fields in await call(move.client, "XRANGE", move.key, "-", "+"):
            await move.on(move.key, "XADD", position, *(part for field in fields.items() for part in field))
        async with move.list() as (revocations, gaps):
            for name in ("folded", "streamed"):
                assert revocations.check({"jti": name, "iat": 1}) is Verdict.REVOKED
        assert [gap.cause for gap in gaps] == ["deleted"]

    async def test_a_group(self, move: Move, url: str) -> None:
        """A group goes on in the cluster where it was, without a gap."""
        shared: dict[str, Any] = {"group": "g", "start": "all"}
        async with Listener(RedisStream(url, move.key, **shared)) as listener:
            await publish(move.server, revoked("a"), revoked("b"))
            await listener.hears("a", "b")
        await publish(move.server, revoked("c"))
        await move.copy()
        async with Listener(RedisStream(move.cluster.url, move.key, **shared)) as listener:
            await publish(move.stream, revoked("d"))
            await listener.hears("c", "d")
        assert (listener.subjects, listener.gaps) == (["c", "d"], [])
