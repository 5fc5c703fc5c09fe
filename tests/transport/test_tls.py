"""TLS to a real server: the same behaviour as on plain TCP, on another transport of asyncio."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
from redis.asyncio import Redis

from bench.ports import free_port
from jwt_events import (
    ConnectionFailed,
    Publisher,
    PublishError,
    RedisPubSub,
    RedisStream,
    TokenRevoked,
    TransportError,
)
from jwt_events.embedded import EmbeddedServer
from jwt_events.testing import Listener
from jwt_events.transport._redis.connection import Connector
from tests.support.handling import soon
from tests.support.proxy import Proxy
from tests.support.servers import OWN_KINDS, embedded
from tests.support.waiting import scaled, wait_until

TRANSPORTS = pytest.mark.parametrize("make", [RedisPubSub, RedisStream])
MakeTransport = type[RedisPubSub] | type[RedisStream]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """The authority that issues certificates."""
    return trustme.CA()


@dataclass(frozen=True)
class Secured:
    """A server and its TLS address."""

    server: EmbeddedServer
    address: str


@pytest.fixture(params=OWN_KINDS)
async def secured(request: pytest.FixtureRequest, authority: trustme.CA, tmp_path: Path) -> AsyncIterator[Secured]:
    """A server with TLS of its own, or one behind a TLS terminator, as in production."""
    certificate = authority.issue_cert("127.0.0.1")
    files = {name: tmp_path / f"{name}.pem" for name in ("tls-ca-cert-file", "tls-cert-file", "tls-key-file")}
    authority.cert_pem.write_to_path(files["tls-ca-cert-file"])
    if request.param == "redis":
        certificate.cert_chain_pems[0].write_to_path(files["tls-cert-file"])
        certificate.private_key_pem.write_to_path(files["tls-key-file"])
        port = free_port()
        config = {name: str(path) for name, path in files.items()} | {"tls-port": str(port), "tls-auth-clients": "no"}
        async with embedded("redis", config=config) as server:
            yield Secured(server, f"rediss://127.0.0.1:{port}")
    else:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        certificate.configure_cert(context)
        async with embedded(request.param) as server, Proxy(server.url, tls=context) as proxy:
            yield Secured(server, proxy.url)


@pytest.fixture
def secure_server(secured: Secured) -> EmbeddedServer:
    """The server behind the TLS address."""
    return secured.server


@pytest.fixture
def url(secured: Secured, tmp_path: Path) -> str:
    """The URL of the server by TLS."""
    return f"{secured.address}?ssl_ca_certs={tmp_path / 'tls-ca-cert-file.pem'}"


@TRANSPORTS
async def test_events_flow(secure_server: EmbeddedServer, url: str, make: MakeTransport) -> None:
    """Events arrive, also after the server closed all connections; only Pub/Sub reports a gap."""
    transport = make(url, "k")
    subjects = [f"t{number}" for number in range(200)]
    async with (
        Listener(transport) as listener,
        Publisher(transport, timeout=scaled(10)) as publisher,
        Redis.from_url(secure_server.url) as client,
    ):
        await asyncio.gather(*(publisher.publish(TokenRevoked(token_id=subject)) for subject in subjects))
        await listener.hears(*subjects)
        for _type in ("normal", "pubsub"):
            await client.client_kill_filter(_type=_type, skipme=True)
        await publisher.publish(TokenRevoked(token_id="meanwhile"))
        if make is RedisPubSub:
            await wait_until(lambda: listener.causes == ["reconnected"])
        await publisher.publish(TokenRevoked(token_id="last"))
        await listener.hears("last")
        assert (listener.gaps == []) == (make is RedisStream)


async def test_slow_reader(secure_server: EmbeddedServer, url: str) -> None:
    """Reading pauses above the limit and resumes when messages were taken; none is lost."""
    connection = await Connector(url).connect(within=scaled(5))
    connection.write("SUBSCRIBE", "k")
    await connection.pushed(within=scaled(5), maximum=1)
    async with Redis.from_url(secure_server.url) as client:
        for number in range(50):
            await client.publish("k", b"%06d" % number + bytes(100_000))
    await wait_until(lambda: connection.protocol._unread > 262_144)
    assert len(connection.protocol.pushed) < 50
    taken: list[bytes] = []
    while len(taken) < 50:
        taken += [message[2] for message in await connection.pushed(within=scaled(10), maximum=2)]
    assert [int(message[:6]) for message in taken] == list(range(50))
    await connection.aclose()


async def test_the_server_is_killed(secure_server: EmbeddedServer, url: str) -> None:
    """Waiting callers get an error at once, a publish fails at its deadline, and closing is quick."""
    publisher = Publisher(RedisStream(url, "k"), timeout=scaled(10))
    await publisher.publish(TokenRevoked(token_id="t"))
    connection = await Connector(url).connect(within=scaled(5))
    request = connection.send([("BLPOP", "nothing", 0)])
    os.kill(secure_server.pid, signal.SIGKILL)
    (error,) = await soon(connection.replies(request, within=scaled(60)))
    assert isinstance(error, ConnectionFailed)
    assert error.maybe_done
    await soon(connection.aclose(), within=2)
    with pytest.raises(PublishError):
        await soon(publisher.publish(TokenRevoked(token_id="t"), timeout=0.5), within=2)
    await soon(publisher.aclose(), within=2)


async def test_unknown_authority(secure_server: EmbeddedServer, url: str, tmp_path: Path) -> None:
    """A server with a certificate of an unknown authority is refused, with an error that is not retryable."""
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    with pytest.raises(TransportError, match="certificate verify failed") as caught:
        await Connector(url.replace("tls-ca-cert-file.pem", "other.pem")).connect(within=scaled(5))
    assert not caught.value.retryable
