"""Opening a receiver of a group: what an attempt found is not forgotten when the attempt fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from redis.asyncio import Redis

from jwt_events import ConnectionFailed, Gap, RedisStream
from jwt_events.embedded import EmbeddedServer
from jwt_events.transport._redis import multiplexer, reconnecting
from jwt_events.transport._stream import group, group_losses
from tests.support.fake_server import FakeServer, array, text
from tests.support.faults import frozen
from tests.support.handling import soon


async def test_a_first_attempt_that_fails(
    own_server: Callable[..., EmbeddedServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second attempt reports, once, that the server may have lost what an earlier run of it confirmed."""
    find, calls = group_losses.list_consumers, []

    async def fail_once(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == 1:
            raise ConnectionFailed("cut off in the middle of an attempt")
        return await find(*arguments)  # type: ignore[arg-type] # passed on as they come

    monkeypatch.setattr(group_losses, "list_consumers", fail_once)
    async with own_server(config={"save": "3600 1"}) as server, Redis.from_url(server.url) as client:
        await client.xadd("k", {"event": "x"}, id="1-1")  # long before the server began
        await client.xgroup_create("k", "g", "1-1")
        async with RedisStream(server.url, "k", group="g").receiver() as receiver:
            batch = await receiver.receive()
    assert len(calls) > 1
    assert batch.gaps == [Gap("1-1", "restarted")]


async def test_cancelled(own_server: Callable[..., EmbeddedServer], monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening that is cancelled before the consumer joined ends at once: there is nothing to remove."""
    for module, name in ((group, "ATTEMPT_WITHIN"), (multiplexer, "_REPLY_WITHIN")):
        monkeypatch.setattr(module, name, 600.0)
    async with own_server() as server:
        with frozen(server):
            opening = asyncio.create_task(RedisStream(server.url, "k", group="g").receiver().__aenter__())
            await asyncio.wait([opening], timeout=0.1)
            opening.cancel()
            await soon(asyncio.wait([opening]))
        assert opening.cancelled()


async def test_a_group_that_exists_but_is_not_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that says that there is the group, and does not list it, is asked again at a pace, and then given up."""
    replies: dict[bytes, Callable[[list[bytes]], bytes]] = {
        b"XINFO": lambda words: array() if words[1] == b"GROUPS" else b"-ERR no such key\r\n",
        b"XPENDING": lambda _: b"-NOGROUP No such key\r\n",
        b"XGROUP": lambda _: b"-BUSYGROUP Consumer Group name already exists\r\n",
        b"INFO": lambda _: text(b"role:master\r\nrun_id:1\r\n"),
        b"CONFIG": lambda _: array(),
    }
    monkeypatch.setattr(reconnecting, "OPEN_WITHIN", 0.5)
    async with FakeServer(lambda words: replies[words[0]](words)) as server:
        with pytest.raises(ConnectionFailed, match="the group 'g' exists, and XINFO GROUPS does not list it"):
            async with RedisStream(server.url, "k", group="g").receiver():
                pass
    assert 1 <= len(server.received(b"XGROUP")) <= 10
