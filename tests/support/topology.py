"""A primary, two replicas and three Sentinels: real processes on free ports, ended by their ids."""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from bench.ports import free_port
from jwt_events.embedded import EmbeddedServer, _find_binary
from tests.support.raw import are_linked, call
from tests.support.waiting import FACTOR, wait_until

SERVICE = "main"
QUORUM = 2

MakeServer = Callable[..., EmbeddedServer]

# Clients are the default user. Replicas and Sentinels connect as these users, so that a server can be cut off from
# them, and not from its clients.
_PASSWORD = "secret"
_USERS = {"peer": "peers", "watcher": "watches"}


class SentinelProcess:
    """A Sentinel, which keeps its port and what it knows across restarts.

    Args:
        binary: the program of the servers.
        directory: where its configuration is.
        config: what it watches.
    """

    def __init__(self, binary: str, directory: Path, config: str) -> None:
        self.port = free_port()
        self._command = (binary, str(directory / f"sentinel-{self.port}.conf"), "--sentinel")
        (directory / f"sentinel-{self.port}.conf").write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {directory}\nsentinel resolve-hostnames no\n{config}"
        )
        self._process: Process | None = None

    @property
    def client(self) -> Redis:
        """A client for it, to be closed by the caller."""
        return Redis(port=self.port, socket_timeout=2.0, socket_connect_timeout=2.0)

    async def start(self) -> None:
        """Start it."""
        self._process = await asyncio.create_subprocess_exec(*self._command, stdin=DEVNULL, stdout=DEVNULL)

    async def kill(self) -> None:
        """Kill it; idempotent."""
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):  # it ended by itself
                process.kill()
            await process.wait()

    def freeze(self) -> None:
        """Let it accept connections, and reply to none."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    async def primary(self) -> str | None:
        """Return host and port of the server that it names; ``None`` if it does not reply."""
        try:
            async with self.client as client:
                found = await call(client, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        except (RedisError, OSError):
            return None
        return None if found is None else ":".join(part.decode() for part in found)

    async def knows_all(self, *, replicas: int, others: int) -> bool:
        """Whether it has found the replicas and the other Sentinels."""
        try:
            async with self.client as client:
                reply = await call(client, "SENTINEL", "MASTER", SERVICE)
        except (RedisError, OSError):
            return False
        fields = reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=True))
        found = int(fields[b"num-slaves"]), int(fields[b"num-other-sentinels"])
        return found == (replicas, others)


class Topology:
    """Servers behind Sentinels.

    Attributes:
        servers: the servers; the first is the primary at first.
        clients: a client of each.
        sentinels: the Sentinels.
        addresses: host and port of each server.
    """

    def __init__(
        self, servers: Sequence[EmbeddedServer], clients: Sequence[Redis], sentinels: Sequence[SentinelProcess]
    ) -> None:
        self.servers = servers
        self.clients = clients
        self.sentinels = sentinels
        self.addresses = [urlsplit(server.url).netloc for server in servers]

    @property
    def url(self) -> str:
        """The URL of the service."""
        return f"redis+sentinel://:{_PASSWORD}@{','.join(f'127.0.0.1:{one.port}' for one in self.sentinels)}/{SERVICE}"

    def url_of(self, index: int) -> str:
        """Return the URL of a server."""
        return f"redis://:{_PASSWORD}@{self.addresses[index]}"

    async def cut_off(self, index: int = 0) -> None:
        """Cut a server off from all other servers and all Sentinels, and not from its clients."""
        await call(self.clients[index], "ACL", "DELUSER", *_USERS)

    async def monitor(self, index: int) -> None:
        """Let all Sentinels watch a server by the name of the service, which they do not know any more."""
        host, _, port = self.addresses[index].partition(":")
        for one in self.sentinels:
            async with one.client as client:
                await call(client, "SENTINEL", "MONITOR", SERVICE, host, port, QUORUM)
                user = "auth-user", "watcher", "auth-pass", _USERS["watcher"]
                await call(client, "SENTINEL", "SET", SERVICE, *user)

    async def reach_again(self, index: int = 0) -> None:
        """End what `cut_off` began."""
        await _add_users(self.clients[index])

    async def promoted(self, *, after: int = 0) -> int:
        """Wait until a majority of the Sentinels names another server than this one, and return which."""
        found: list[str] = []

        async def is_named() -> bool:
            named = [await one.primary() for one in self.sentinels]
            found[:] = [name for name in self.addresses if named.count(name) > len(named) // 2]
            return bool(found) and found[0] != self.addresses[after]

        await wait_until(is_named, within=30.0, what="another primary")
        return self.addresses.index(found[0])

    async def is_primary(self, index: int) -> bool:
        """Whether a server says that it is the primary."""
        return bool((await self.clients[index].info("replication"))["role"] == "master")


def _url_of(server: EmbeddedServer) -> str:
    return server.url.replace("://", f"://:{_PASSWORD}@")


async def _add_users(client: Redis) -> None:
    for name, password in _USERS.items():
        await call(client, "ACL", "SETUSER", name, "on", f">{password}", "~*", "&*", "+@all")


@asynccontextmanager
async def topology(make: MakeServer, directory: Path, *, down_after: float = 1.0) -> AsyncIterator[Topology]:
    """Start a primary, two replicas and three Sentinels, which call a server down after so many seconds."""
    config = {"repl-diskless-sync-delay": "0", "masteruser": "peer", "masterauth": _USERS["peer"]}
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(make(port=0, config=config)) for _ in range(3)]
        for server in servers:
            async with Redis.from_url(server.url) as client:
                await _add_users(client)
                await call(client, "ACL", "SETUSER", "default", "resetpass", f">{_PASSWORD}")
        again = Retry(NoBackoff(), 3)  # the Sentinels close the connections of clients during a failover
        clients = [
            await stack.enter_async_context(
                Redis.from_url(_url_of(server), retry=again, retry_on_error=[RedisConnectionError])
            )
            for server in servers
        ]
        port = urlsplit(servers[0].url).port or 0
        for replica in clients[1:]:
            await call(replica, "REPLICAOF", "127.0.0.1", port)
        await wait_until(lambda: are_linked(clients[0], clients[1:]), what="the replicas")
        watched = (
            f"sentinel monitor {SERVICE} 127.0.0.1 {port} {QUORUM}\n"
            f"sentinel auth-user {SERVICE} watcher\nsentinel auth-pass {SERVICE} {_USERS['watcher']}\n"
            f"sentinel down-after-milliseconds {SERVICE} {int(down_after * 1000 * max(1.0, FACTOR / 2))}\n"
            f"sentinel failover-timeout {SERVICE} 5000\nsentinel parallel-syncs {SERVICE} 2\n"
        )
        binary = await asyncio.to_thread(_find_binary, servers[0]._binary)
        sentinels = [SentinelProcess(binary, directory, watched) for _ in range(3)]
        for one in sentinels:
            await one.start()
            stack.push_async_callback(one.kill)

        async def are_ready() -> bool:
            return all([await one.knows_all(replicas=2, others=2) for one in sentinels])

        await wait_until(are_ready, within=20.0, what="the Sentinels")
        yield Topology(servers, clients, sentinels)
