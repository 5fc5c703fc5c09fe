"""Random sequences of what others do to a stream, on real servers, against a model of what its reader must be told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from jwt_events import Gap, RedisStream, RevocationList, TokenRevoked, Verdict
from jwt_events._internal.positions import OLDEST, sort_key
from jwt_events.envelope import Envelope, encode
from jwt_events.transport._stream.cursor import CursorReceiver
from jwt_events.transport._stream.group import GroupReceiver
from jwt_events.transport.base import Batch
from tests.support.raw import call, counts_what_was_added
from tests.support.waiting import scaled, wait_until

Disconnect = Callable[[], Awaitable[None]]

GROUP = "workers"
CLAIM_AFTER = 0.05  # a group's receiver compares itself with the stream at least this often

READERS = pytest.mark.parametrize("kind", ["cursor", "group", "list"])


def one_of(*names: str) -> st.SearchStrategy[tuple[str, int]]:
    """Steps of these kinds, each with a small number."""
    return st.tuples(st.sampled_from(names), st.integers(0, 4))


CHANGES = (
    "add",
    "add_at_most",
    "delete_newest",
    "delete_oldest",
    "delete_middle",
    "delete_read",
    "trim",
    "trim_before",
)
histories = st.lists(one_of("add", *CHANGES), max_size=3)
REPLACEMENTS = ("expire", "rename_onto", "rename_away", "rename_back")
READS = ("read", "disconnect", "catch_up")
sequences = st.lists(
    one_of("add", *CHANGES, "set_id", "rename_away_and_back", *REPLACEMENTS, *READS), min_size=1, max_size=14
)


class Stream:
    """A stream, what others do to it, and what a reader of it must and may be told.

    Attributes:
        positions: where each entry is or was; the entries are numbered from 1.
        cursor: where the entry is that was read last.
        must_tell: whether something is lost of which even a server that does not count leaves a trace.
        may_tell: whether something may be lost, for all that a server that does not count can tell.
        is_moved: whether its last position was set.
        is_replaced: whether another stream took its place.
    """

    def __init__(self, client: Redis, key: str) -> None:
        self.positions: list[str] = []
        self.cursor = OLDEST
        self.must_tell = self.may_tell = self.is_moved = self.is_replaced = False
        self.numbers: dict[bytes, int] = {}  # by payload
        self._is_unread = False  # nothing is read of the stream that took the place of another
        self._client = client
        self._key = key
        self._away = f"{key}:away"

    async def entries(self) -> dict[str, int]:
        """Return the numbers of the entries in the stream, by position."""
        found = await call(self._client, "XRANGE", self._key, "-", "+")
        return {position.decode(): self.numbers[fields[b"event"]] for position, fields in found}

    async def info(self) -> dict[str, Any]:
        """Return what XINFO STREAM tells; empty if there is no stream."""
        if not await self._client.exists(self._key):
            return {}
        info: dict[str, Any] = await self._client.xinfo_stream(self._key)
        return info

    async def add(self, count: int) -> None:
        """Append entries."""
        for _ in range(count):
            await self._append(self._key)

    async def add_at_most(self, count: int) -> None:
        """Append an entry and cap the stream, in one command."""
        await self._trimming("XADD", self._key, "MAXLEN", count, "*", "event", self._payload())

    async def trim(self, count: int) -> None:
        """Trim to a length."""
        await self._trimming("XTRIM", self._key, "MAXLEN", count)

    async def trim_before(self, back: int) -> None:
        """Trim before a position."""
        if self.positions:
            await self._trimming("XTRIM", self._key, "MINID", self.positions[-back - 1 :][0])

    async def _trimming(self, *command: Any) -> None:
        before = await self.entries()
        reply = await call(self._client, *command)
        if command[0] == "XADD":
            self.positions.append(reply.decode())
            before[reply.decode()] = len(self.positions)
        if removed := before.keys() - (await self.entries()).keys():
            self.may_tell = True
            # Of a reader that has read nothing it is not known what it would have read.
            self.must_tell |= self.cursor != OLDEST and sort_key(max(removed, key=sort_key)) > sort_key(self.cursor)

    async def delete_newest(self, _: int) -> None:
        """Delete the newest entry."""
        await self._delete(list(await self.entries())[-1:])

    async def delete_oldest(self, _: int) -> None:
        """Delete the oldest entry."""
        await self._delete(list(await self.entries())[:1])

    async def delete_middle(self, _: int) -> None:
        """Delete an entry in the middle."""
        entries = list(await self.entries())
        await self._delete(entries[len(entries) // 2 :][:1])

    async def delete_read(self, _: int) -> None:
        """Delete the entry that was read last, as a worker that has handled it."""
        await self._delete([self.cursor] if self.cursor != OLDEST else [])

    async def _delete(self, positions: list[str]) -> None:
        for position in positions:
            with suppress(ResponseError):  # Redis 8.2 and newer have it, and this stream may have no group
                await call(self._client, "XACKDEL", self._key, GROUP, "IDS", 1, position)
            await call(self._client, "XDEL", self._key, position)
            self.may_tell = True

    async def set_id(self, ahead: int) -> None:
        """Set the last position of the stream to a later one."""
        if info := await self.info():
            milliseconds, sequence = sort_key(info["last-generated-id"].decode())
            await call(self._client, "XSETID", self._key, f"{milliseconds}-{sequence + ahead}")
            self.is_moved = self.may_tell = True

    async def expire(self, _: int) -> None:
        """Let the stream expire."""
        await call(self._client, "PEXPIREAT", self._key, 1)
        self.is_replaced = True

    async def rename_onto(self, count: int) -> None:
        """Rename another stream to the name of this one: some of its entries have positions before the cursor."""
        other = f"{self._key}:other"
        for number in range(count):
            await self._append(other, f"{number + 1}-{len(self.positions)}")
        await self._append(other)
        await self._client.rename(other, self._key)
        self.is_replaced = True

    async def rename_away(self, _: int) -> None:
        """Rename the stream to another name, unless one is away already."""
        if await self._client.exists(self._key):
            self.is_replaced |= bool(await self._client.renamenx(self._key, self._away))

    async def rename_back(self, _: int) -> None:
        """Rename the stream that is away to its own name, instead of what is there now."""
        if await self._client.exists(self._away):
            await self._client.rename(self._away, self._key)
            self.is_replaced = True

    async def rename_away_and_back(self, _: int) -> None:
        """Rename the stream to another name and back before it is missed."""
        if await self._client.exists(self._key):
            async with self._client.pipeline(transaction=True) as pipeline:
                pipeline.rename(self._key, f"{self._key}:other")
                pipeline.rename(f"{self._key}:other", self._key)
                await pipeline.execute()

    async def _append(self, key: str, position: str = "*") -> None:
        reply = await call(self._client, "XADD", key, position, "event", self._payload())
        self.positions.append(reply.decode())

    def _payload(self) -> bytes:
        number = len(self.positions) + 1
        payload = encode(Envelope(TokenRevoked(token_id=str(number))), source="model")
        self.numbers[payload] = number
        return payload

    async def begin(self) -> None:
        """Begin anew to note what must and may be told: the reader has read everything."""
        entries = await self.entries()
        if self.is_replaced and not entries:
            # It may stay behind what it has read, or begin anew: then nothing tells of what is gone before its first.
            self.cursor, self._is_unread = OLDEST, True
        self._is_unread &= self.cursor == OLDEST
        is_doubtful = self._is_unread or (self.cursor != OLDEST and self.cursor not in entries)
        self.must_tell, self.may_tell, self.is_moved, self.is_replaced = False, is_doubtful, False, False


class Reading:
    """A reader of a stream, and the verdict on what it reported.

    Args:
        stream: what it reads.
        counts: whether the server counts what was added.
        unread: the numbers of the entries that there are.
    """

    def __init__(self, stream: Stream, *, counts: bool, unread: set[int]) -> None:
        self._stream = stream
        self._counts = counts
        self._unread = unread  # entries that it has neither received nor been told of
        self._gaps: list[Gap] = []
        self._may_lose_count = False  # a group does, with its connection or its stream
        self._seen: int | None = None  # how many had been added to the stream, when it was last seen

    async def read(self) -> None:
        """Let the reader read."""
        raise NotImplementedError

    async def disconnect(self, steps: int) -> None:
        """Cut the connection, perhaps while the reader waits for a reply."""
        raise NotImplementedError

    async def reach_the_end(self) -> None:
        """Return when the reader has told all that it will tell."""
        raise NotImplementedError

    async def step(self, name: str, number: int) -> None:
        """Let others change the stream, or the reader read."""
        if name == "rename_back" or (name in REPLACEMENTS and self._seen is None):
            await self.catch_up()  # nothing tells of a stream that was there only between two looks
        self._may_lose_count |= name in {*REPLACEMENTS, "set_id"}
        known = len(self._stream.positions)
        match name:
            case "read":
                await self.read()
            case "disconnect":
                await self.disconnect(number)
            case "catch_up":
                await self.catch_up()
            case _:
                await getattr(self._stream, name)(number)
        self._unread |= set(range(known + 1, len(self._stream.positions) + 1))

    async def catch_up(self) -> None:
        """Read until nothing more comes, and judge what was reported meanwhile."""
        await self.reach_the_end()
        info = await self._stream.info()
        await self._judge(info)
        self._unread.clear()
        self._gaps.clear()
        self._seen = info.get("entries-added", 0) if info else None
        await self._stream.begin()

    async def _judge(self, info: dict[str, Any]) -> None:
        stream, lost = self._stream, len(self._unread)
        left = self._unread & set((await stream.entries()).values())
        report = f"unread {self._unread}, of them still there {left}, told {self._gaps}"
        if stream.is_replaced:
            # Another stream is not noticed if as many are gone from it as were read, nor without counts.
            is_alike = not self._counts or info.get("entries-added", 0) - info.get("length", 0) >= (self._seen or 0)
            assert self._gaps or not lost or is_alike, report
        elif self._counts and stream.is_moved:
            assert self._gaps or not lost, report
        elif self._counts:
            assert bool(self._gaps) == bool(lost), report
            assert self._may_lose_count or sum(gap.lost or 0 for gap in self._gaps) == lost, report
        else:
            assert stream.may_tell or not self._gaps, report
            assert self._gaps or not stream.must_tell, report
        assert not left or stream.is_replaced, report


class Receiving(Reading):
    """A receiver with a cursor or of a group, which reads only when it is told to."""

    def __init__(
        self, receiver: CursorReceiver | GroupReceiver, stream: Stream, *, counts: bool, unread: set[int]
    ) -> None:
        super().__init__(stream, counts=counts, unread=unread)
        self._receiver = receiver

    async def read(self) -> None:
        """Read once."""
        await self._receive()

    async def disconnect(self, steps: int) -> None:
        """Cut the connection so many steps of the event loop after a read began, if any."""
        connection = self._receiver.reconnecting.connection
        task = asyncio.create_task(self._receive())
        for _ in range(4 * steps):
            await asyncio.sleep(0)
        if connection is not None:
            connection.abort()
        await task
        self._may_lose_count |= isinstance(self._receiver, GroupReceiver)

    async def reach_the_end(self) -> None:
        """Read until there are two proofs, or until an idle group has compared itself with the stream twice."""
        began, proofs, is_idle = time.monotonic(), 0, False
        while proofs < 2:
            group = self._receiver if isinstance(self._receiver, GroupReceiver) else None
            reads_new, claimed = group is not None and group._own is None, group._next_claim if group else 0.0
            batch = await self._receive()
            if isinstance(self._receiver, CursorReceiver):
                proofs += batch.current_as_of is not None and batch.current_as_of > began
            elif batch.deliveries or batch.reconnected or self._receiver.reconnecting.connection is None:
                proofs, is_idle = 0, False
            elif self._receiver._next_claim != claimed:
                proofs += is_idle  # it claimed, and compared itself with the stream, after it had read everything
            else:
                is_idle |= reads_new
            assert time.monotonic() < began + scaled(20), "it does not catch up"

    async def _receive(self) -> Batch:
        batch = await self._receiver.receive()
        self._gaps += batch.gaps
        assert not (batch.gaps and batch.current_as_of), "a proof with a gap"
        for delivery in batch.deliveries:
            self._unread.discard(self._stream.numbers[delivery.payload])
            self._stream.cursor = delivery.position or ""
            self._receiver.settle(delivery)
        return batch


class Following(Reading):
    """A list, which reads by itself all the time."""

    def __init__(
        self, revocations: RevocationList, stream: Stream, disconnect: Disconnect, *, counts: bool, unread: set[int]
    ) -> None:
        super().__init__(stream, counts=counts, unread=unread)
        self._list = revocations
        self._disconnect = disconnect
        revocations.on_gap(self._gaps.append)

    async def read(self) -> None:
        """Wait for a proof."""
        began = time.monotonic()
        await wait_until(lambda: self._list._view.current_as_of > began)
        known = [number for number in self._stream.numbers.values() if self._knows(number)]
        if known:
            self._stream.cursor = self._stream.positions[known[-1] - 1]

    async def disconnect(self, steps: int) -> None:
        """Let the server cut the connection."""
        await self._disconnect()

    async def reach_the_end(self) -> None:
        """Wait for the first proof: a list that misses something must not say "allow" without a gap."""
        await self.read()
        self._unread -= {number for number in self._unread if self._knows(number)}
        self._stream.must_tell = False  # as it read in between, only a server that counts tells what it missed

    def _knows(self, number: int) -> bool:
        verdict = self._list.check({"jti": str(number), "iat": 0})
        assert verdict is not Verdict.STALE
        return verdict is Verdict.REVOKED


async def connections(client: Redis) -> set[str]:
    """Return the ids of the connections of the server."""
    return {connection["id"] for connection in await client.client_list()}


@asynccontextmanager
async def opened(url: str, key: str, kind: str, client: Redis, stream: Stream) -> AsyncIterator[Reading]:
    """Open a reader that begins with the oldest entry."""
    counts, unread = await counts_what_was_added(client), set((await stream.entries()).values())
    group = GROUP if kind == "group" else None
    transport = RedisStream(url, key, group=group, batch_size=2, block=0.002, claim_after=CLAIM_AFTER, start="all")
    if kind == "list":
        others = await connections(client)

        async def disconnect() -> None:
            for connection in await connections(client) - others:
                with suppress(ResponseError):  # it has just ended
                    await call(client, "CLIENT", "KILL", "ID", connection)

        async with RevocationList(transport, max_staleness=scaled(20)) as revocations:
            yield Following(revocations, stream, disconnect, counts=counts, unread=unread)
    else:
        async with transport.receiver() as receiver:
            assert isinstance(receiver, CursorReceiver | GroupReceiver)
            yield Receiving(receiver, stream, counts=counts, unread=unread)


async def run(url: str, key: str, kind: str, before: list[tuple[str, int]], then: list[tuple[str, int]]) -> None:
    """Make a stream with a history, open a reader, and run a sequence."""
    async with Redis.from_url(url) as client:
        try:
            stream = Stream(client, key)
            for name, number in before:
                await getattr(stream, name)(number)
            await stream.begin()
            async with opened(url, key, kind, client, stream) as reading:
                for name, number in then:
                    await reading.step(name, number)
                await reading.catch_up()
        finally:
            await client.delete(key, f"{key}:other", f"{key}:away")


def check(url: str, key: str, kind: str, *, number: int) -> None:
    """Run so many random sequences."""

    @settings(max_examples=number, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(histories, sequences)
    @example(before=[("add", 2), ("delete_newest", 0)], then=[("delete_newest", 0)])  # both ends, before the first read
    @example(  # in the middle, and the last position moved on
        before=[("add", 1), ("delete_oldest", 0)], then=[("add", 2), ("trim_before", 0), ("read", 0), ("set_id", 1)]
    )
    @example(  # the group is made anew, at a position before all that its stream ever had
        before=[],
        then=[("add", 1), ("rename_onto", 0), ("delete_newest", 0), ("catch_up", 0), ("add", 3), ("delete_middle", 0)],
    )
    @example(  # a stream that was deleted, and another of which the first entry is gone before it is read
        before=[], then=[("add", 1), ("expire", 0), ("catch_up", 0), ("add", 2), ("trim", 1), ("read", 0), ("trim", 0)]
    )
    def holds(before: list[tuple[str, int]], then: list[tuple[str, int]]) -> None:
        asyncio.run(run(url, key, kind, before, then))

    holds()


@READERS
def test_some_sequences(url: str, key: str, kind: str) -> None:
    """No loss without a gap, no gap without a possible loss."""
    check(url, key, kind, number=30)


@pytest.mark.stress
@pytest.mark.timeout(1800)
@READERS
def test_five_hundred_sequences(url: str, key: str, kind: str) -> None:
    """The same, five hundred times."""
    check(url, key, kind, number=500)
