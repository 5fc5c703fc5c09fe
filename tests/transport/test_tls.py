"""Over TLS, to a real server: what holds for a socket holds there, too, though asyncio has another transport for it."""

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
from tests.support.faults import free_port
from tests.support.handling import soon
from tests.support.proxy import Proxy
from tests.support.servers import OWN_KINDS, embedded
from tests.support.waiting import scaled, wait_until

TRANSPORTS = pytest.mark.parametrize("make", [RedisPubSub, RedisStream])
MakeTransport = type[RedisPubSub] | type[RedisStream]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Who issues certificates."""
    return trustme.CA()


@dataclass(frozen=True)
class Secured:
    """A server, and how to reach it by TLS."""

    server: EmbeddedServer
    address: str


@pytest.fixture(params=OWN_KINDS)
async def secured(request: pytest.FixtureRequest, authority: trustme.CA, tmp_path: Path) -> AsyncIterator[Secured]:
    """Speak TLS: by the server itself, or before one that cannot, as a TLS terminator does in production."""
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
    """The server behind."""
    return secured.server


@pytest.fixture
def url(secured: Secured, tmp_path: Path) -> str:
    """How to reach it by TLS."""
    return f"{secured.address}?ssl_ca_certs={tmp_path / 'tls-ca-cert-file.pem'}"


@TRANSPORTS
async def test_events_flow(secure_server: EmbeddedServer, url: str, make: MakeTransport) -> None:
    """Events arrive, also after the server closed all connections; there is a gap where there has to be one."""
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


async def test_a_reader_that_is_slow(secure_server: EmbeddedServer, url: str) -> None:
    """With enough unread, reading pauses, and goes on when that was taken; nothing is lost."""
    connection = await Connector(url).connect(within=scaled(5))
    connection.send("SUBSCRIBE", "k")
    await connection.frames(within=scaled(5), most=1)
    async with Redis.from_url(secure_server.url) as client:
        for number in range(50):
            await client.publish("k", b"%06d" % number + bytes(100_000))
    await wait_until(lambda: connection.wire._unread > 262_144)
    assert len(connection.wire.frames) < 50
    taken: list[bytes] = []
    while len(taken) < 50:
        taken += [frame[2] for frame in await connection.frames(within=scaled(10), most=2)]
    assert [int(frame[:6]) for frame in taken] == list(range(50))
    await connection.aclose()


async def test_the_server_is_killed(secure_server: EmbeddedServer, url: str) -> None:
    """Whoever waits for an answer is told at once, a publish fails in time, and closing does not take long."""
    publisher = Publisher(RedisStream(url, "k"), timeout=scaled(10))
    await publisher.publish(TokenRevoked(token_id="t"))
    connection = await Connector(url).connect(within=scaled(5))
    question = connection.ask([("BLPOP", "nothing", 0)])
    os.kill(secure_server.pid, signal.SIGKILL)
    (error,) = await soon(connection.answers(question, within=scaled(60)))
    assert isinstance(error, ConnectionFailed)
    assert error.maybe_done
    await soon(connection.aclose(), within=2)
    with pytest.raises(PublishError):
        await soon(publisher.publish(TokenRevoked(token_id="t"), timeout=0.5), within=2)
    await soon(publisher.aclose(), within=2)


async def test_a_stranger(secure_server: EmbeddedServer, url: str, tmp_path: Path) -> None:
    """A server whose certificate nobody vouches for is refused, and another try would not change that."""
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    with pytest.raises(TransportError, match="certificate verify failed") as caught:
        await Connector(url.replace("tls-ca-cert-file.pem", "other.pem")).connect(within=scaled(5))
    assert not caught.value.retryable
