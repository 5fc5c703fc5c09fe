"""Connections that cannot be made: the errors name the reason and never a password."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from typing import Any

import pytest
import redis
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.credentials import CredentialProvider

from bench.ports import free_port
from jwt_events import (
    ConnectionFailed,
    InvalidOption,
    Publisher,
    PublishFailed,
    RedisPubSub,
    RedisStream,
    ServerRefused,
    Subscriber,
    TokenRevoked,
    TransportError,
)
from jwt_events.embedded import EmbeddedServer
from jwt_events.errors import SubscriptionRefused
from tests.support.logs import everything_logged
from tests.support.waiting import scaled

EVENT = TokenRevoked(token_id="t")
SECRET = "s3cret"
TRANSPORTS = pytest.mark.parametrize("make", [RedisPubSub, RedisStream])
MakeTransport = Callable[..., RedisPubSub | RedisStream]


@pytest.fixture
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the time for opening a subscription."""
    monkeypatch.setattr("jwt_events.transport._redis.reconnecting.OPEN_WITHIN", scaled(0.6))


async def entering(transport: RedisPubSub | RedisStream) -> TransportError:
    """Return the error of subscribing."""
    with pytest.raises(TransportError) as caught:
        await Subscriber(transport).__aenter__()
    return caught.value


async def publishing(transport: RedisPubSub | RedisStream, *, timeout: float = 0.6) -> PublishFailed:
    """Return the error of publishing."""
    async with Publisher(transport) as publisher:
        with pytest.raises(PublishFailed) as caught:
            await publisher.publish(EVENT, timeout=timeout)
    return caught.value


def shown(error: Exception) -> str:
    """Return every text of an error that can reach a log."""
    return "".join(traceback.format_exception(error)) + repr(error)


class TestArguments:
    """Arguments that are neither a client nor a URL."""

    @TRANSPORTS
    @pytest.mark.parametrize(
        ("argument", "problem"),
        [
            (None, "needs a Redis or RedisCluster client of redis.asyncio, or a URL, not NoneType"),
            (5, "not int"),
            (b"redis://localhost", "not bytes"),
            (redis.Redis, "not redis.client.Redis"),
            (lambda: Redis().connection_pool, "not redis.asyncio.connection.ConnectionPool"),
            (lambda: [RedisCluster(host="127.0.0.1", port=1, password=SECRET)], "not list"),
            (f"redis+cluster://:{SECRET}@host:7000/5", "names a database, and a cluster has none but 0"),
            (f"redis+cluster://:{SECRET}@host:7000?db=1", "names a database, and a cluster has none but 0"),
            (f"redis+cluster://:{SECRET}@", "is no valid Redis URL: it has no host"),
            (f"redis+cluster://:{SECRET}@h:7000,h:7000", "is no valid Redis URL: it names a node twice"),
            (f"redis+cluster://:{SECRET}/x@h:7000", "is no valid Redis URL"),
            (f"unix+cluster://:{SECRET}@h:7000", "must start with"),
            ("", "must start with redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://"),
            ("localhost:6379", "must start with"),
            (f"http://me:{SECRET}@x", "must start with"),
            (f"redis:/me:{SECRET}@x", "must start with"),
            (f"redis://:{SECRET}/ss@host", "is no valid Redis URL; percent-encode"),
            (f"redis://me:{SECRET}@host:port", "is no valid Redis URL"),
            (f"redis://me:{SECRET}@host:99999", "is no valid Redis URL"),
            (f"redis://me:{SECRET}@[host", "is no valid Redis URL"),
            (f"redis://me:{SECRET}@host?db=x", "is no valid Redis URL"),
            (f"redis://me:{SECRET}@host?socket_timeout=soon", "is no valid Redis URL"),
            (f"redis://me:{SECRET}@host?{SECRET}={SECRET}", "has an option that redis-py does not accept"),
            (f"redis://me:{SECRET}@host?ssl_cert_reqs=none", "has an option that redis-py does not accept"),
        ],
    )
    async def test_are_refused_where_they_are_given(self, make: MakeTransport, argument: Any, problem: str) -> None:
        """The error tells what is needed and what was given, and quotes no URL."""
        made = argument() if callable(argument) else argument
        with pytest.raises(InvalidOption) as caught:
            make(made)
        assert caught.value.option == "client_or_url"
        assert problem in str(caught.value)
        assert SECRET not in shown(caught.value)

    @pytest.mark.parametrize("name", ["", " ", None, 5, b"x", "a\nb", "x" * 513, ("a",)])
    def test_names_are_checked(self, name: Any) -> None:
        """A channel or key without a proper name is refused."""
        with pytest.raises(InvalidOption, match=r"^channel: "):
            RedisPubSub("redis://127.0.0.1", name)
        with pytest.raises(InvalidOption, match=r"^key: "):
            RedisStream("redis://127.0.0.1", name)

    @TRANSPORTS
    @pytest.mark.parametrize(
        "url",
        [
            f"redis://me:{SECRET}@127.0.0.1:1/2",
            f"rediss://127.0.0.1:1?password={SECRET}",
            f"unix://me:{SECRET}@/nowhere.sock",
        ],
    )
    async def test_no_password_is_shown(self, make: MakeTransport, url: str) -> None:
        """No repr contains a password, whether from a URL or from a client; each names the server."""
        async with Redis.from_url(url) as client:
            for transport in (make(url), make(client)):
                for thing in (transport, Publisher(transport), Subscriber(transport), transport.connector):
                    assert SECRET not in f"{thing!r} {thing}"
                    assert "127.0.0.1:1" in repr(thing) or "unix:/nowhere.sock" in repr(thing)


class TestNoServer:
    """Addresses without a server."""

    @TRANSPORTS
    async def test_a_closed_port(self, make: MakeTransport, in_a_hurry: None) -> None:
        """The message names host, port and reason."""
        address = f"127.0.0.1:{free_port()}"
        transport = make(f"redis://me:{SECRET}@{address}", "the name")
        with everything_logged() as lines:
            errors = [await entering(transport), await publishing(transport)]
        assert isinstance(errors[0], ConnectionFailed)
        for error in errors:
            assert f"connecting to {address} for 'the name' failed: Connection refused" in str(error)
            assert SECRET not in shown(error)
        assert address in "".join(lines)
        assert SECRET not in "".join(lines)

    @TRANSPORTS
    async def test_a_socket_that_does_not_exist(self, make: MakeTransport, in_a_hurry: None) -> None:
        """The message names path and reason."""
        transport = make("unix:///nowhere/to/be/found.sock")
        for error in (await entering(transport), await publishing(transport)):
            assert "connecting to unix:/nowhere/to/be/found.sock for 'jwt:events' failed: No such file" in str(error)

    @TRANSPORTS
    async def test_an_unknown_host(self, make: MakeTransport, in_a_hurry: None) -> None:
        """The message names host and reason."""
        # The blanks make it a name that is never looked up at a name server.
        async with Redis(host="no such host", port=1, password=SECRET) as client:
            transport = make(client)
            for error in (await entering(transport), await publishing(transport)):
                assert "connecting to no such host:1 for 'jwt:events' failed: " in str(error)
                assert SECRET not in shown(error)


class TestRefused:
    """Connections that the server refuses."""

    @TRANSPORTS
    @pytest.mark.parametrize("port", [None, 0], ids=["unix", "tcp"])
    async def test_a_wrong_password_or_none(
        self, own_server: Callable[..., EmbeddedServer], make: MakeTransport, port: int | None
    ) -> None:
        """It fails at once and for good, with a code, and no password in message, repr, traceback or log."""
        async with own_server(port=port, config={"requirepass": "the-right-one"}) as server:
            for user, code in (("", "NOAUTH"), (f":{SECRET}@", "WRONGPASS"), (f"{SECRET}:{SECRET}@", "WRONGPASS")):
                transport = make(server.url.replace("://", f"://{user}"))
                with everything_logged() as lines:
                    async with asyncio.timeout(scaled(1)):
                        entered, published = await entering(transport), await publishing(transport, timeout=5)
                assert isinstance(entered, (ServerRefused, SubscriptionRefused))
                assert not entered.retryable
                assert code in str(entered)
                assert code in str(published)
                assert SECRET not in shown(entered) + shown(published) + "".join(lines)

    @TRANSPORTS
    async def test_a_database_that_does_not_exist(self, url: str, make: MakeTransport) -> None:
        """It fails at once and for good, with the server's reason."""
        transport = make(f"{url}?db=99999")
        async with asyncio.timeout(scaled(1)):
            for error in (await entering(transport), await publishing(transport, timeout=5)):
                assert "refused: ERR" in str(error)
                assert "out of range" in str(error)

    @TRANSPORTS
    async def test_a_credential_provider_that_fails(self, url: str, make: MakeTransport, in_a_hurry: None) -> None:
        """A failure of the application's provider is retried like one of the network, and named without its message."""

        class Broken(CredentialProvider):
            def get_credentials(self) -> tuple[str, str]:
                raise KeyError(SECRET)

        async with Redis.from_url(url, credential_provider=Broken()) as client:
            transport = make(client)
            for error in (await entering(transport), await publishing(transport)):
                assert "KeyError" in str(error)
                assert SECRET not in shown(error)
