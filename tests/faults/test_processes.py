"""A process of a group is killed or terminated in the middle of its work: others finish it."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from jwt_events.testing import Listener
from tests.faults.scenes import CLAIM_AFTER, Source, transport_of
from tests.support.raw import call
from tests.support.waiting import scaled, wait_until

ROOT = Path(__file__).parents[2]


class Work:
    """The events that the processes began and handled, as they recorded them."""

    def __init__(self, client: Redis, url: str, key: str) -> None:
        self._client = client
        self._url = url
        self._key = key

    @asynccontextmanager
    async def process(self, consumer: str, *, seconds: float) -> AsyncIterator[Process]:
        """Run a consumer process that takes ``seconds`` for each event."""
        program = ("-m", "tests.faults.consumer_process", self._url, self._key, consumer)
        options = (str(scaled(CLAIM_AFTER)), str(seconds))
        process = await asyncio.create_subprocess_exec(sys.executable, *program, *options, cwd=ROOT)
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def _list(self, name: str) -> list[str]:
        return [entry.decode() for entry in await call(self._client, "LRANGE", f"{self._key}:{name}", 0, -1)]

    async def started(self) -> list[str]:
        """Return the events that the processes began to handle."""
        return await self._list("started")

    async def handled(self) -> list[str]:
        """Return the events that the processes have handled."""
        return await self._list("handled")

    async def has_started(self, number: int) -> None:
        """Wait until the processes began to handle ``number`` events."""

        async def is_so() -> bool:
            return len(await self.started()) >= number

        await wait_until(is_so, what=f"{number} events in the hands of the processes")

    async def pending(self) -> set[str]:
        """Return the positions that are delivered and not acknowledged."""
        rows: list[dict[str, Any]] = await self._client.xpending_range(self._key, "workers", "-", "+", 10_000)
        return {row["message_id"].decode() for row in rows}

    async def acknowledged(self) -> list[str]:
        """Return the subjects of the events that were delivered and acknowledged."""
        (group,) = await self._client.xinfo_groups(self._key)
        given_out = await call(self._client, "XRANGE", self._key, "-", group["last-delivered-id"])
        pending = await self.pending()
        return [subject_of(fields[b"event"]) for position, fields in given_out if position.decode() not in pending]


def subject_of(payload: bytes) -> str:
    """Return the subject of an event from its envelope."""
    return payload.partition(b'"subject":"')[2].partition(b'"')[0].decode()


@pytest.fixture
def work(client: Redis, url: str, key: str) -> Work:
    """The work of processes on this test's stream."""
    return Work(client, url, key)


class TestKilled:
    """``kill -9`` of a process that holds events."""

    async def test_others_take_over(self, url: str, key: str, work: Work) -> None:
        """Events that a killed process held are handled by another one, two seconds after its lease has ended."""
        transport = transport_of("group", url, key)
        async with Source(transport) as source:
            await source.publish(40)
            async with work.process("victim", seconds=60) as victim:
                await work.has_started(8)
                async with Listener(transport) as listener:
                    await source.publish(10)
                    victim.kill()
                    await victim.wait()
                    await listener.hears(*source.confirmed, within=scaled(CLAIM_AFTER) + 2)
            assert await work.handled() == []
            assert listener.gaps == []

    async def test_it_takes_up_its_own_work(self, url: str, key: str, work: Work) -> None:
        """A killed process that is started again under its name finishes its events, without waiting for a lease."""
        async with Source(transport_of("group", url, key)) as source:
            await source.publish(20)
            async with work.process("one", seconds=60) as victim:
                await work.has_started(8)
                victim.kill()
                await victim.wait()
            async with work.process("one", seconds=0):

                async def all_done() -> bool:
                    return set(source.confirmed) <= set(await work.handled()) and not await work.pending()

                await wait_until(all_done)


class TestTerminated:
    """SIGTERM to a process under load."""

    async def test_nothing_is_acknowledged_unhandled(self, url: str, key: str, work: Work) -> None:
        """A terminated process acknowledges exactly what it has handled; its successor handles the rest."""
        async with Source(transport_of("group", url, key)) as source:
            for _ in range(2):
                async with work.process("one", seconds=0.02) as process:
                    before = len(await work.started())
                    await source.publish(80)
                    await work.has_started(before + 30)
                    process.terminate()
                    assert await process.wait() == 0
                    acknowledged = await work.acknowledged()
                    assert set(acknowledged) <= set(await work.handled())
            async with work.process("two", seconds=0):

                async def all_done() -> bool:
                    return set(source.confirmed) <= set(await work.handled()) and not await work.pending()

                await wait_until(all_done)
