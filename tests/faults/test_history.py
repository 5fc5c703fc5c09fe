"""A stream is trimmed, removed or replaced: readers report it, go on, and do not spin."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from jwt_events.embedded import EmbeddedServer
from jwt_events.testing import Listener
from tests.faults.scenes import STREAMS, Source, some_gap, transport_of
from tests.support.raw import count_where_known, counts_what_was_added, entries
from tests.support.waiting import wait_until

MakeServer = Callable[..., EmbeddedServer]


@dataclass
class Scene:
    """A listener to a stream, a publisher, and an administrator's client."""

    listener: Listener
    source: Source
    client: Redis
    key: str

    async def connections(self) -> int:
        """Return how many connections the server has had."""
        return int((await self.client.info("stats"))["total_connections_received"])

    async def readers(self) -> list[str]:
        """Return the ids of the connections of readers."""
        found = await self.client.client_list()
        return [one["id"] for one in found if one["cmd"] in ("xread", "xreadgroup") and "b" in one["flags"]]

    @asynccontextmanager
    async def while_reader_is_away(self) -> AsyncIterator[Pipeline]:
        """Run the commands of the pipeline between the reader's disconnection and its return: in one transaction."""
        await wait_until(self.readers, what="a reader")
        async with self.client.pipeline(transaction=True) as pipeline:
            for name in await self.readers():
                pipeline.client_kill_filter(_id=name)
            yield pipeline
            await pipeline.execute()

    async def goes_on(self) -> None:
        """Check that the listener receives what is published now."""
        await self.source.is_heard_by(self.listener)
        await self.listener.hears(self.source.confirmed[-1])

    async def goes_on_quietly(self) -> None:
        """The same, for long enough that the reader compares its cursor with the stream again."""
        await self.goes_on()
        start = await self.client.time()

        async def a_while_later() -> bool:
            await self.source.publish()
            now = await self.client.time()
            return bool((now[0] - start[0]) * 1_000_000 + now[1] - start[1] > 1_100_000)

        await wait_until(a_while_later)
        await self.goes_on()


@asynccontextmanager
async def scene_on(kind: str, url: str, key: str) -> AsyncIterator[Scene]:
    """Run a listener that has read the first three events of a stream."""
    transport = transport_of(kind, url, key, block=0.2)
    async with Redis.from_url(url) as client, Listener(transport) as listener, Source(transport) as source:
        await listener.hears(await source.publish(3))
        yield Scene(listener, source, client, key)


@pytest.fixture(params=STREAMS)
async def scene(url: str, key: str, request: pytest.FixtureRequest) -> AsyncIterator[Scene]:
    """A scene in which three events were read."""
    async with scene_on(request.param, url, key) as scene:
        yield scene


class TestRemoved:
    """The stream or the group is removed under a reader."""

    async def test_the_stream(self, scene: Scene) -> None:
        """There is one gap, later events are read, and the reader does not spin in between."""
        before = await scene.connections()
        await scene.client.delete(scene.key)
        await some_gap(scene.listener)
        await scene.listener.hears(await scene.source.publish(3))
        await scene.goes_on_quietly()
        assert scene.listener.causes == ["deleted"]
        assert scene.listener.subjects[:6] == ["t0", "t1", "t2", "t3", "t4", "t5"]
        assert await scene.connections() - before < 20

    @pytest.mark.parametrize("kind", STREAMS)
    async def test_everything(self, own_server: MakeServer, kind: str) -> None:
        """The same, when the server is flushed while events are published."""
        async with own_server() as server, scene_on(kind, server.url, "k") as scene:
            async with scene.source.flowing():
                await scene.client.flushall()
                await some_gap(scene.listener)
            await scene.goes_on()
            await scene.listener.hears(*scene.source.confirmed[-5:])
            assert scene.listener.causes == ["deleted"]
            assert await scene.connections() < 30

    async def test_the_stream_and_made_anew_at_once(self, scene: Scene) -> None:
        """A stream that was removed and made anew before the next read is reported, and read from its beginning.

        Where the server does not count, a reader with a cursor takes it for a stream that was trimmed.
        """
        async with scene.while_reader_is_away() as meanwhile:
            meanwhile.delete(scene.key)
        await scene.source.publish(2)
        await scene.listener.hears("t3", "t4")
        await scene.goes_on()
        (cause,) = scene.listener.causes
        assert cause == "deleted" or (cause == "trimmed" and not await counts_what_was_added(scene.client))

    @pytest.mark.parametrize("scene", ["group"], indirect=True)
    async def test_the_group(self, scene: Scene) -> None:
        """A removed group is created again at this reader's position: entries added in between are read."""
        before = await scene.connections()
        async with scene.while_reader_is_away() as meanwhile:
            meanwhile.xgroup_destroy(scene.key, "workers")
        await scene.source.publish(3)
        await scene.listener.hears(*scene.source.confirmed)
        await scene.goes_on()
        assert scene.listener.causes == ["deleted"]
        assert scene.listener.subjects[:6] == ["t0", "t1", "t2", "t3", "t4", "t5"]
        assert await scene.connections() - before < 20

    @pytest.mark.parametrize("scene", ["group"], indirect=True)
    async def test_the_group_while_it_is_quiet(self, scene: Scene) -> None:
        """A group that is removed while a reader waits is noticed without an event."""
        await scene.client.xgroup_destroy(scene.key, "workers")
        await scene.listener.hears_of_gap("deleted")
        await scene.goes_on()
        assert scene.listener.causes == ["deleted"]

    @pytest.mark.parametrize("scene", ["group"], indirect=True)
    async def test_the_group_of_two(self, scene: Scene, url: str) -> None:
        """When two consumers lose their group, one creates it again and reports it; together they lose nothing."""
        async with Listener(transport_of("group", url, scene.key, block=0.2)) as other:
            async with scene.source.flowing():
                await wait_until(lambda: other.events and len(scene.listener.events) > 3)
                await scene.client.xgroup_destroy(scene.key, "workers")
                await wait_until(lambda: scene.listener.gaps or other.gaps, what="a gap")
            await scene.source.publish()
            await wait_until(
                lambda: set(scene.source.confirmed) <= {*scene.listener.subjects, *other.subjects},
                what=lambda: f"all events; gaps: {scene.listener.gaps}, {other.gaps}",
            )
        assert {*scene.listener.causes, *other.causes} <= {
            "deleted",
            "rewound",
        }  # rewound: created again by the other consumer


class TestTrimmed:
    """Entries are removed before they were read."""

    @pytest.mark.parametrize(("added", "kept", "lost"), [(5, 2, 3), (1, 0, 1)])
    async def test_what_was_not_read(self, scene: Scene, added: int, kept: int, lost: int) -> None:
        """Entries added and trimmed during a disconnection are counted; those that are left are read."""
        (_, fields), *_ = await entries(scene.client, scene.key)
        async with scene.while_reader_is_away() as meanwhile:
            for number in range(added):
                subject, event_id = b"new%d" % number, b"%032d" % number
                payload = fields[b"event"].replace(b'"t0"', b'"%s"' % subject)
                meanwhile.xadd(scene.key, {"event": payload.replace(_id_of(payload), event_id)})
            meanwhile.xtrim(scene.key, maxlen=kept, approximate=False)
        await (scene.goes_on() if added == 1 else scene.goes_on_quietly())
        told = [(gap.cause, gap.lost) for gap in scene.listener.gaps]
        assert told == [("trimmed", await count_where_known(scene.client, lost))]
        assert [name for name in map(str, scene.listener.subjects) if name.startswith("new")] == [
            f"new{number}" for number in range(added - kept, added)
        ]

    async def test_what_was_read(self, scene: Scene) -> None:
        """Trimming entries that were read is no gap, connected or not; where the server does not count, it may be."""
        await scene.client.xtrim(scene.key, maxlen=1, approximate=False)
        await scene.source.publish()
        async with scene.while_reader_is_away() as meanwhile:
            meanwhile.xtrim(scene.key, maxlen=0, approximate=False)
        await scene.goes_on()
        await scene.listener.hears(*scene.source.confirmed)
        may_be = set() if await counts_what_was_added(scene.client) else {("trimmed", None)}
        assert {(gap.cause, gap.lost) for gap in scene.listener.gaps} <= may_be


class TestRestored:
    """The stream is replaced by an older or another state of itself."""

    async def test_from_an_older_state(self, scene: Scene) -> None:
        """A stream that ends before the cursor is reported, and later events are read."""
        await scene.client.copy(scene.key, f"{scene.key}:backup")
        await scene.listener.hears(await scene.source.publish(5))
        await scene.client.rename(f"{scene.key}:backup", scene.key)
        await scene.listener.hears_of_gap("rewound")
        await scene.goes_on()
        assert scene.listener.causes == ["rewound"]

    async def test_from_an_older_state_while_events_come(self, scene: Scene) -> None:
        """The same, when an event hides that the stream had ended earlier."""
        await scene.client.copy(scene.key, f"{scene.key}:backup")
        await scene.listener.hears(await scene.source.publish(5))
        async with scene.while_reader_is_away() as meanwhile:
            meanwhile.rename(f"{scene.key}:backup", scene.key)
            meanwhile.xadd(scene.key, {"event": "none"})
        await scene.goes_on()
        await scene.listener.hears(*scene.source.confirmed)
        assert scene.listener.gaps

    async def test_with_ids_behind_the_cursor(self, scene: Scene) -> None:
        """A stream whose server has an earlier clock is reported and read from its beginning."""
        (_, fields), *_ = await entries(scene.client, scene.key)
        payload = fields[b"event"]
        async with scene.while_reader_is_away() as meanwhile:
            meanwhile.delete(scene.key)
            for number in range(3):
                new = payload.replace(b'"t0"', b'"old%d"' % number).replace(_id_of(payload), b"%032d" % number)
                meanwhile.xadd(scene.key, {"event": new}, id=f"1000-{number + 1}")
        await scene.listener.hears("old0", "old1", "old2")
        await some_gap(scene.listener)
        await scene.goes_on()
        assert len(scene.listener.gaps) == 1


def _id_of(payload: bytes) -> bytes:
    """Return the id of the event in an envelope."""
    return payload.partition(b'"id":"')[2].partition(b'"')[0]
