"""A cluster whose nodes speak TLS to clients: real TLS where the server has it, else terminated before each node."""

from __future__ import annotations

import re
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trustme
from redis.asyncio import RedisCluster

from bench.ports import free_port
from jwt_events import (
    ConnectionFailed,
    Publisher,
    PublishFailed,
    RedisPubSub,
    RedisStream,
    RevocationList,
    TokenRevoked,
    Verdict,
)
from jwt_events.testing import Listener
from jwt_events.transport._redis.connection import Connector
from tests.support.cluster import Cluster, key_in
from tests.support.cluster import cluster as run_cluster
from tests.support.handling import publish
from tests.support.proxy import Proxy
from tests.support.servers import OWN_KINDS, embedded
from tests.support.waiting import scaled, wait_until

STOLEN = {"jti": "stolen"}

NODES = 2

OpenCluster = Callable[..., AbstractAsyncContextManager["Secured"]]


def _port_of(proxy: Proxy) -> int:
    return int(proxy.url.rpartition(":")[2])


class Secured:
    """A cluster that speaks TLS.

    Attributes:
        cluster: the cluster, whose own ports speak plain.
        ports: the port of each node that it announces to clients.
    """

    def __init__(self, cluster: Cluster, ports: Sequence[int], authority: Path) -> None:
        self.cluster = cluster
        self.ports = ports
        self.authority = authority

    def url(self, number: int, host: str = "127.0.0.1") -> str:
        """The URL of the cluster that names this node only."""
        return f"rediss+cluster://{host}:{self.ports[number]}?ssl_ca_certs={self.authority}"


@pytest.fixture(params=OWN_KINDS)
def secured(request: pytest.FixtureRequest, tmp_path: Path) -> OpenCluster:
    """Factory of a cluster of two primaries, for which certificates are issued: ``names``, and ``plain`` nodes."""
    authority = trustme.CA()
    authority_file = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(authority_file)

    @asynccontextmanager
    async def run(*names: str, plain: Sequence[int] = (), announced_host: str | None = None) -> AsyncIterator[Secured]:
        certificate = authority.issue_cert(*(names or ("127.0.0.1",)))
        files = {"tls-cert-file": tmp_path / "certificate.pem", "tls-key-file": tmp_path / "key.pem"}
        certificate.cert_chain_pems[0].write_to_path(files["tls-cert-file"])
        certificate.private_key_pem.write_to_path(files["tls-key-file"])
        config: dict[str, str] = {}
        if announced_host is not None:
            config |= {"cluster-announce-hostname": announced_host, "cluster-preferred-endpoint-type": "hostname"}
        has_tls = request.param == "redis"
        async with AsyncExitStack() as stack:
            proxies: list[Proxy] = []
            own: list[dict[str, str]] = []
            if has_tls:
                config |= {name: str(path) for name, path in files.items()}
                config |= {"tls-ca-cert-file": str(authority_file), "tls-auth-clients": "no", "tls-cluster": "yes"}
                own = [{"tls-port": str(free_port())} for _ in range(NODES)]
                ports = [int(one["tls-port"]) for one in own]
                # What a node announces leads to a proxy that passes on what comes, to its other port.
                for number in plain:
                    proxies.append(await stack.enter_async_context(Proxy("")))
                    ports[number] = _port_of(proxies[-1])
                    own[number]["cluster-announce-tls-port"] = str(ports[number])
            else:
                for number in range(NODES):
                    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
                    certificate.configure_cert(context)
                    proxy = Proxy("", tls=None if number in plain else context)
                    proxies.append(await stack.enter_async_context(proxy))
                ports = [_port_of(proxy) for proxy in proxies]
                own = [{"cluster-announce-port": str(port)} for port in ports]
            make = partial(embedded, request.param)
            nodes = run_cluster(make, tmp_path, primaries=NODES, replicas=0, config=config, own_configs=own)
            cluster = await stack.enter_async_context(nodes)
            for proxy, number in zip(proxies, plain if has_tls else range(NODES), strict=True):
                proxy.upstream = cluster.nodes[number].url
            yield Secured(cluster, ports, authority_file)

    return run


async def test_events_flow(secured: OpenCluster) -> None:
    """Any node leads to the owner of a key, at the address for TLS that it announces; a publisher and all readers."""
    async with secured() as running:
        for number in range(NODES):
            key = f"{{{key_in(number, 'k', of=NODES)}}}"
            transport = RedisStream(running.url(1 - number), key)
            async with (
                RevocationList(transport, max_staleness=scaled(5)) as revocations,
                Listener(RedisPubSub(running.url(1 - number), key)) as listener,
                Listener(RedisStream(running.url(1 - number), key, group="g")) as member,
            ):
                await publish(transport, TokenRevoked(token_id="stolen"))
                await publish(RedisPubSub(running.url(1 - number), key), TokenRevoked(token_id="heard"))
                await wait_until(lambda: revocations.check(STOLEN) is Verdict.REVOKED)
                await listener.hears("heard")
                await member.hears("stolen")


async def test_a_client(secured: OpenCluster) -> None:
    """The options for TLS of a client hold for each node."""
    async with secured() as running:
        options: dict[str, Any] = {"ssl": True, "ssl_ca_certs": str(running.authority)}
        client = RedisCluster(host="127.0.0.1", port=running.ports[1], **options)
        key = key_in(0, "k", of=NODES)
        async with RevocationList(RedisStream(client, key), max_staleness=scaled(5)) as revocations:
            await publish(RedisStream(client, key), TokenRevoked(token_id="stolen"))
            await wait_until(lambda: revocations.check(STOLEN) is Verdict.REVOKED)
        await client.aclose()


async def refused(url: str, key: str, problem: str) -> str:
    """Check that nothing is published, and that what is said names the problem; return that."""
    said = ""

    async def says_so() -> bool:  # on a busy machine, an attempt may find no time to get so far
        nonlocal said
        with pytest.raises(PublishFailed) as caught:
            await publisher.publish(TokenRevoked(token_id="stolen"), timeout=scaled(1))
        said = str(caught.value)
        is_named = re.search(problem, said) is not None
        assert is_named or "no answer in time" in said
        return is_named

    async with Publisher(RedisStream(url, key, ledger=False)) as publisher:
        await wait_until(says_so, within=20, what=lambda: f"{problem!r}, but {said!r}")
    return said


class TestHostnames:
    """Nodes that announce names, as certificates are issued for names."""

    async def test_they_are_verified(self, secured: OpenCluster) -> None:
        """The certificate has to be for the name that a node announces; its address is not asked for."""
        async with secured("localhost", announced_host="localhost") as running:
            key = key_in(0, "k", of=NODES)
            await publish(RedisStream(running.url(1, "localhost"), key), TokenRevoked(token_id="stolen"))
            await refused(running.url(1), key, "certificate")

    async def test_a_certificate_for_another_name(self, secured: OpenCluster) -> None:
        """A node that announces a name that its certificate lacks is refused, with that name."""
        async with secured("127.0.0.1", announced_host="localhost") as running:
            await refused(running.url(1), key_in(0, "k", of=NODES), f"localhost:{running.ports[0]}.*certificate")


class TestDifferentTls:
    """Nodes of which some speak TLS, and others do not."""

    async def test_the_owner_speaks_plain(self, secured: OpenCluster) -> None:
        """The error names that node, and nothing that is no TLS is sent to it: no event, and no password."""
        key = key_in(0, "k", of=NODES)
        async with secured(plain=[0]) as running:
            url = running.url(1)
            said = await refused(url, key, f" 127.0.0.1:{running.ports[0]}.*; the nodes name .* as the owner")
            assert "127.0.0.1" in said
            with pytest.raises(ConnectionFailed, match="if the server speaks no TLS there"):
                await Connector(url, destination=key).connect(within=scaled(1.0))
            commands = await running.cluster.nodes[0].call("INFO", "commandstats")
            assert b"cmdstat_hello" not in commands
            assert b"cmdstat_xadd" not in commands
            await publish(RedisStream(url, key_in(1, "k", of=NODES)), TokenRevoked(token_id="stolen"))

    async def test_a_url_without_tls(self, secured: OpenCluster) -> None:
        """A node that speaks TLS alone is named, with what to write."""
        async with secured() as running:
            url = running.url(0).replace("rediss", "redis").partition("?")[0]
            await refused(url, "k", f"127.0.0.1:{running.ports[0]} .*if the server speaks TLS there, use rediss")
