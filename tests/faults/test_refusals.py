"""Error replies of the server: temporary ones are retried, lasting ones are reported."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from jwt_events import (
    Publisher,
    PublishError,
    PublishFailed,
    RedisStream,
    ServerRefused,
    SubscriptionRefused,
    TokenRevoked,
)
from jwt_events.embedded import EmbeddedServer
from jwt_events.testing import Listener
from tests.faults.scenes import STREAMS, TRANSPORTS, Source, ending, for_ever, transport_of
from tests.support.handling import soon
from tests.support.proxy import Proxy
from tests.support.raw import call
from tests.support.waiting import scaled, wait_until

MakeServer = Callable[..., EmbeddedServer]


@asynccontextmanager
async def refusing(client: Redis, name: str, value: int, normal: int) -> AsyncIterator[None]:
    """Set an option of the server during a block."""
    await client.config_set(name, value)
    try:
        yield
    finally:
        await client.config_set(name, normal)


@asynccontextmanager
async def disk_full(client: Redis, data_dir: Path) -> AsyncIterator[None]:
    """Make the server refuse writes because it cannot save: a directory has the name of its file."""
    in_the_way = data_dir / "dump.rdb"
    in_the_way.unlink(missing_ok=True)
    in_the_way.mkdir()
    await client.config_set("save", "3600 1000000")

    async def state() -> Any:
        return await client.info("persistence")

    async def saved(status: str) -> None:
        await client.bgsave()
        await wait_until(lambda: _has_saved(state, status), what=f"a save that ends {status}")

    await saved("err")
    try:
        yield
    finally:
        in_the_way.rmdir()
        await saved("ok")


async def _has_saved(state: Callable[[], Any], status: str) -> bool:
    facts = await state()
    return not facts["rdb_bgsave_in_progress"] and facts["rdb_last_bgsave_status"] == status


async def fails(source: Source, reason: str) -> None:
    """Check that publishing fails at its deadline with the reason, unless the deadline cut off the last attempt."""
    with pytest.raises(PublishError, match=f"{reason}|no answer in time"):
        await source.publisher.publish(TokenRevoked(token_id="refused"), timeout=0.5)


class TestForAWhile:
    """Writes that the server refuses for a time."""

    @pytest.mark.parametrize("kind", STREAMS)
    async def test_out_of_memory(self, own_server: MakeServer, kind: str) -> None:
        """Without memory a publish fails at its deadline, or is retried until there is some; listeners go on."""
        async with own_server() as server, Redis.from_url(server.url) as client:
            transport = transport_of(kind, server.url, "k")
            async with Listener(transport) as listener, Source(transport) as source:
                await listener.hears(await source.publish(3))
                async with refusing(client, "maxmemory", 1, 0):
                    await fails(source, "OOM|maxmemory")
                    waiting = asyncio.create_task(source.publish())
                await listener.hears(await soon(waiting))
            assert (listener.subjects, listener.gaps) == (["t0", "t1", "t2", "t3"], [])

    @pytest.mark.parametrize("kind", STREAMS)
    async def test_unable_to_save(self, own_server: MakeServer, tmp_path: Path, kind: str) -> None:
        """While a server refuses all writes because its disk is full, they are retried, without spinning or loss."""
        async with (
            own_server(data_dir=tmp_path) as server,
            Redis.from_url(server.url) as client,
            Proxy(server.url) as proxy,
            Source(transport_of(kind, server.url, "k")) as source,
            Listener(transport_of(kind, proxy.url, "k")) as listener,
        ):
            await listener.hears(await source.publish(3))
            async with disk_full(client, tmp_path):
                connections, start = proxy.accepted, asyncio.get_running_loop().time()
                await fails(source, "MISCONF")
                await wait_until(lambda: asyncio.get_running_loop().time() > start + 1.0)
                assert proxy.accepted - connections < 30
                waiting = asyncio.create_task(source.publish())
            await listener.hears(await soon(waiting))
            assert (listener.subjects, listener.gaps) == (["t0", "t1", "t2", "t3"], [])

    @pytest.mark.parametrize("kind", TRANSPORTS)
    async def test_too_many_clients(self, own_server: MakeServer, kind: str) -> None:
        """A listener that is refused because the server has too many clients reconnects later, and reports a gap."""
        async with own_server() as server, Redis.from_url(server.url, single_connection_client=True) as client:
            async with Proxy(server.url) as proxy, Source(transport_of(kind, server.url, "k")) as source:
                await source.publish()
                async with Listener(transport_of(kind, proxy.url, "k")) as listener:
                    await source.is_heard_by(listener)
                    normal = int((await client.config_get("maxclients"))["maxclients"] or 0)
                    async with refusing(client, "maxclients", 1, normal):
                        connections = proxy.accepted
                        proxy.reset()
                        await wait_until(lambda: proxy.accepted > connections + 2)
                        await source.publish(3)
                    await source.is_heard_by(listener)
                    if kind != "pubsub":
                        await listener.hears(*source.confirmed[1:])
            assert listener.causes == (["disconnected", "reconnected"] if kind == "pubsub" else [])


RIGHTS = {"pubsub": ("subscribe", "publish"), "stream": ("xread", "xadd"), "group": ("xreadgroup", "xadd")}


@pytest.mark.parametrize("kind", TRANSPORTS)
class TestForGood:
    """Rights that are removed from a connected user."""

    @asynccontextmanager
    async def _as_user(self, own_server: MakeServer) -> AsyncIterator[tuple[Redis, str]]:
        async with own_server(port=0) as server, Redis.from_url(server.url) as client:
            await call(client, "ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all")
            yield client, server.url.replace("redis://", "redis://app:secret@")

    async def test_the_right_to_listen(self, own_server: MakeServer, kind: str) -> None:
        """A user that may no longer subscribe gets a typed error soon."""
        async with (
            self._as_user(own_server) as (client, url),
            ending(ServerRefused, SubscriptionRefused, within=3),
            Listener(transport_of(kind, url, "k")),
        ):
            await call(client, "ACL", "SETUSER", "app", f"-{RIGHTS[kind][0]}")
            await client.client_kill_filter(_type="pubsub")
            await for_ever()

    async def test_the_right_to_the_channel_or_key(self, own_server: MakeServer, kind: str) -> None:
        """A user that may no longer use the channel or the key gets one, too."""
        async with (
            self._as_user(own_server) as (client, url),
            ending(ServerRefused, SubscriptionRefused, within=3),
            Listener(transport_of(kind, url, "k")),
        ):
            rule = "resetchannels" if kind == "pubsub" else "resetkeys"
            await call(client, "ACL", "SETUSER", "app", rule)
            await for_ever()

    async def test_the_user(self, own_server: MakeServer, kind: str) -> None:
        """A user that was deleted gets one, too."""
        async with (
            self._as_user(own_server) as (client, url),
            ending(ServerRefused, SubscriptionRefused, within=3),
            Listener(transport_of(kind, url, "k")),
        ):
            await call(client, "ACL", "DELUSER", "app")
            await for_ever()

    async def test_the_right_to_publish(self, own_server: MakeServer, kind: str) -> None:
        """A publish that is refused for good fails at once with the reason, and does not show the password."""
        async with (
            self._as_user(own_server) as (client, url),
            Publisher(transport_of(kind, url, "k"), timeout=scaled(30)) as publisher,
        ):
            await publisher.publish(TokenRevoked(token_id="t"))
            await call(client, "ACL", "SETUSER", "app", f"-{RIGHTS[kind][1]}")
            with pytest.raises(PublishFailed) as caught:
                await soon(publisher.publish(TokenRevoked(token_id="t")), within=5)
            assert "secret" not in str(caught.value)
            await call(client, "ACL", "SETUSER", "app", f"+{RIGHTS[kind][1]}")
            await soon(publisher.publish(TokenRevoked(token_id="t")), within=5)


class TestDeadLettersRefused:
    """A server that accepts acknowledgements and no dead letters."""

    async def test_the_others_are_acknowledged(self, url: str, key: str, client: Redis) -> None:
        """If dead letters cannot be written, handled events are acknowledged, and failed ones stay pending."""

        async def pending() -> int:
            return int((await client.xpending(key, "g"))["pending"])

        async def wait_for_pending(number: int) -> None:
            async def is_so() -> bool:
                return await pending() == number

            await wait_until(is_so, what=f"{number} pending")

        await client.set(f"{key}:dead", "no stream")
        await call(client, "XADD", key, "*", "event", "no event")
        transport = RedisStream(url, key, group="g", start="all")
        async with Source(transport) as source, Listener(transport) as listener:
            await listener.hears(await source.publish(3))
            await wait_for_pending(1)
            await client.delete(f"{key}:dead")
            await wait_for_pending(0)
        assert await client.xlen(f"{key}:dead") == 1
