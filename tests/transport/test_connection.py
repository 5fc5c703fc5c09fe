"""Connections as a client describes them, which is left alone, or a URL."""

from __future__ import annotations

import asyncio
import copy
import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.credentials import UsernamePasswordCredentialProvider

from jwt_events import ConnectionFailed, Publisher, RedisPubSub, RedisStream, TokenRevoked
from jwt_events.embedded import EmbeddedServer
from jwt_events.testing import Listener
from jwt_events.transport._redis.connection import Connector
from tests.support.raw import call
from tests.support.sentinels import sentinel
from tests.support.servers import Server
from tests.support.waiting import scaled, wait_until

TRANSPORTS = pytest.mark.parametrize("make", [RedisPubSub, RedisStream])
MakeTransport = Callable[..., RedisPubSub | RedisStream]


def state(value: object) -> object:
    """Return the identity and content of an option, for comparison."""
    held = {name: repr(part) for name, part in vars(value).items()} if hasattr(value, "__dict__") else repr(value)
    return id(value), copy.copy(held)


async def answers(client: Redis) -> bool:
    """Whether the server replies to a client, in its own time-out, which may be too short for a busy machine."""
    try:
        return bool(await call(client, "PING"))
    except (redis.ConnectionError, redis.TimeoutError):
        return False


async def use(transport: RedisPubSub | RedisStream) -> None:
    """Send one event from a publisher to a listener."""
    async with Listener(transport) as listener, Publisher(transport) as publisher:
        await publisher.publish(TokenRevoked(token_id="t", metadata={"ключ": "ü"}))
        await listener.hears("t")
    assert listener.subjects == ["t"]


def block_the_loop(seconds: float) -> None:
    """Block the event loop, as no program should."""
    time.sleep(seconds)


class TestClient:
    """A client only describes the server and the options."""

    @TRANSPORTS
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"decode_responses": True},
            {"decode_responses": True, "protocol": 3, "encoding": "latin-1"},
            {"protocol": 2},
            {"protocol": 3},
            {"retry": Retry(ConstantBackoff(0.01), 7), "retry_on_error": [redis.ReadOnlyError]},
            {"socket_timeout": 0.05, "socket_connect_timeout": 1.5},
            {"client_name": "the-application", "health_check_interval": 1},
            {"single_connection_client": True},
            {"max_connections": 1},
        ],
        ids=lambda options: " ".join(options) or "none",
    )
    async def test_it_is_used_and_left_alone(
        self, url: str, key: str, make: MakeTransport, options: dict[str, Any]
    ) -> None:
        """With any options it works; the client is not reconfigured, not closed, and lends no connection."""
        async with Redis.from_url(url, **options) as client:
            await wait_until(lambda: answers(client))
            await self._use_and_compare(make(client, key), client)
            await wait_until(lambda: answers(client))

    @TRANSPORTS
    async def test_a_pool_that_blocks_is_not_blocked(self, url: str, key: str, make: MakeTransport) -> None:
        """A client whose only connection is in use can be passed as well."""
        pool = BlockingConnectionPool.from_url(url, max_connections=1, timeout=0.1)
        async with Redis.from_pool(pool) as client:
            taken = await pool.get_connection()  # type: ignore[no-untyped-call]  # redis-py's
            await self._use_and_compare(make(client, key), client)
            await pool.release(taken)
            await call(client, "PING")

    async def test_its_name_is_shown_by_the_server(self, url: str, key: str) -> None:
        """Connections introduce themselves by the client's name, and are gone afterwards."""
        async with Redis.from_url(url, client_name="the-application") as client, Redis.from_url(url) as other:

            async def named(number: int) -> bool:
                return sum(one["name"] == "the-application" for one in await other.client_list()) == number

            transport = RedisStream(client, key)
            async with Listener(transport), Publisher(transport) as publisher:
                await publisher.publish(TokenRevoked(token_id="t"))
                assert await named(2)
            await wait_until(lambda: named(0))

    async def test_connections_of_its_own_kind(self, url: str, key: str) -> None:
        """A class of connections that takes only some options is used as it is."""
        client = Redis.from_url(url)
        base = client.connection_pool.connection_class
        made: list[object] = []

        def refuse_others(self: Any, **options: Any) -> None:
            if "driver_info" in options:
                raise TypeError("unexpected keyword argument 'driver_info'")
            base.__init__(self, **options)
            made.append(self)

        given = {
            name: value for name, value in client.connection_pool.connection_kwargs.items() if name != "driver_info"
        }
        own: Any = type("Own", (base,), {"__init__": refuse_others})
        await use(RedisStream(Redis(connection_pool=ConnectionPool(connection_class=own, **given)), key))
        assert len(made) > 1

    @TRANSPORTS
    async def test_what_redis_py_reads_from_a_file(
        self, url: str, key: str, make: MakeTransport, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The version that a connection tells the server is found once, not for each connection."""
        transport = make(url, key)
        monkeypatch.setattr("redis.utils.get_lib_version", lambda: pytest.fail("it was read again"))
        await use(transport)

    async def test_it_may_be_closed_first(self, url: str, key: str) -> None:
        """A transport that was made from a client works after the client is closed."""
        async with Redis.from_url(url) as client:
            transport = RedisStream(client, key)
        await use(transport)

    @TRANSPORTS
    async def test_its_credentials_are_asked_for(
        self, own_server: Callable[..., EmbeddedServer], make: MakeTransport
    ) -> None:
        """A client's credential provider is used for every connection."""
        async with own_server(port=0, config={"requirepass": "pw"}) as server:
            provider = UsernamePasswordCredentialProvider(password="pw")
            async with Redis.from_url(server.url, credential_provider=provider) as client:
                await use(make(client))

    async def test_a_sentinels_client_finds_the_master(
        self, own_server: Callable[..., EmbeddedServer], tmp_path: Path
    ) -> None:
        """A client made by a Sentinel finds the master, even if no other reference keeps that client."""
        async with own_server(port=0) as server, sentinel(server, tmp_path) as watcher:
            transports: list[RedisStream | RedisPubSub] = [
                make(watcher.master_for("main"), "k") for make in (RedisStream, RedisPubSub)
            ]
            gc.collect()
            for transport in transports:
                assert "sentinel service 'main'" in repr(transport)
                await use(transport)

    async def _use_and_compare(self, transport: RedisPubSub | RedisStream, client: Redis) -> None:
        pool: ConnectionPool = client.connection_pool
        before = {name: state(value) for name, value in pool.connection_kwargs.items()}
        connections = {*pool._available_connections, *pool._in_use_connections}
        await use(transport)
        assert {name: state(value) for name, value in pool.connection_kwargs.items()} == before
        assert {*pool._available_connections, *pool._in_use_connections} == connections
        assert all(connection.is_connected for connection in connections)


class TestUrl:
    """Connections to the server of a URL."""

    @TRANSPORTS
    async def test_tcp_and_unix_with_database_and_password(
        self, own_server: Callable[..., EmbeddedServer], make: MakeTransport
    ) -> None:
        """redis:// and unix:// URLs work, with a password, a user, a database."""
        async with own_server(port=0, config={"requirepass": "p@ss/w%rd"}) as server:
            address = server.url.removeprefix("redis://")
            async with Redis.from_url(f"redis://:p%40ss%2Fw%25rd@{address}") as admin:
                path = (await admin.config_get("unixsocket"))["unixsocket"]
                for url in (
                    f"redis://:p%40ss%2Fw%25rd@{address}",
                    f"redis://default:p%40ss%2Fw%25rd@{address}/3",
                    f"redis://{address}/0?db=3&password=p%40ss/w%25rd",
                    f"unix://:p%40ss%2Fw%25rd@{path}?db=4",
                ):
                    await use(make(url, "k"))
            for database, exists in ((0, 1), (3, 1), (4, 1), (5, 0)):
                async with Redis.from_url(f"redis://:p%40ss%2Fw%25rd@{address}/{database}") as admin:
                    assert await call(admin, "EXISTS", "k") == (exists if make is RedisStream else 0)


class TestConnection:
    """`Connection`: one socket."""

    async def test_what_is_closed_stays_closed(self, server: Server, url: str) -> None:
        """A closed connection refuses every use and does not reconnect."""
        connection = await Connector(url).connect(within=scaled(5))
        await connection.call("PING", within=scaled(5))
        await connection.aclose()
        await connection.aclose()
        before = server.connections().keys()
        with pytest.raises(ConnectionFailed, match="closed"):
            await connection.call("PING", within=scaled(5))
        with pytest.raises(ConnectionFailed, match="closed"):
            connection.write("PING")
        with pytest.raises(ConnectionFailed):
            await connection.pushed(within=scaled(5))
        assert server.connections().keys() <= before
        assert connection.is_closed

    async def test_a_cancelled_call_closes_it(self, url: str) -> None:
        """A cancelled call closes the connection."""
        connection = await Connector(url).connect(within=scaled(5))
        calling = asyncio.create_task(connection.call("BLPOP", "nothing", 0, within=scaled(30)))
        await asyncio.sleep(0)
        calling.cancel()
        await asyncio.wait([calling])
        assert connection.is_closed
        with pytest.raises(ConnectionFailed, match="closed"):
            await connection.call("PING", within=scaled(5))

    async def test_a_reply_that_a_busy_process_has_not_read_yet(self, url: str) -> None:
        """A reply that arrived in time counts, although the event loop was blocked beyond the deadline."""
        connection = await Connector(url).connect(within=scaled(5))
        try:
            asyncio.get_running_loop().call_later(0.01, block_the_loop, scaled(0.3))
            assert await connection.replies(connection.send([("BLPOP", "nothing", "0.1")]), within=0.2) == [None]
            assert not connection.is_closed
        finally:
            await connection.aclose()

    async def test_a_missed_deadline_closes_it(self, url: str) -> None:
        """If a reply misses its deadline, the connection is closed, and the command may have been carried out."""
        connection = await Connector(url, destination="the key").connect(within=scaled(5))
        with pytest.raises(ConnectionFailed, match=r"BLPOP at \S+ for 'the key' failed: no answer in time") as caught:
            await connection.call("BLPOP", "nothing", 0, within=0.05)
        assert (caught.value.maybe_done, caught.value.retryable) == (True, True)
        assert connection.is_closed
