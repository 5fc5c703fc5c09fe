"""When no open sender waits for a reply."""

from __future__ import annotations

import asyncio

from jwt_events.transport._redis.connection import Connector
from jwt_events.transport._redis.multiplexer import Multiplexer
from jwt_events.transport._redis.senders import Senders
from tests.support.fake_server import SILENCE, FakeServer
from tests.support.handling import running, soon
from tests.support.waiting import scaled, wait_until


async def test_after_the_last_reply(url: str) -> None:
    """What was sent before, or is about to be, has its reply then."""
    senders = Senders()
    async with Multiplexer(Connector(url)) as multiplexer:
        with senders.noting(multiplexer):
            await senders.quiet()
            await multiplexer.run([("PING",)], within=scaled(5.0))
            async with running(multiplexer.run([("PING",)], within=scaled(5.0))) as task:
                await senders.quiet()
                assert multiplexer.newest is None
                await soon(task)


async def test_without_a_reply() -> None:
    """It is not waited for long: the server may be away. In another loop it is not waited for at all."""
    senders = Senders()
    async with (
        FakeServer(lambda _: SILENCE) as server,
        Multiplexer(Connector(server.url)) as multiplexer,
        running(multiplexer.run([("ECHO", "one")], within=scaled(60))) as task,
    ):
        await wait_until(lambda: len(server.commands) == 1)
        with senders.noting(multiplexer):
            await soon(senders.quiet())
            await asyncio.to_thread(asyncio.run, senders.quiet())
            assert not task.done()
        assert multiplexer.newest is not None
        await soon(senders.quiet())
