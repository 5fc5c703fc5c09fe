"""A primary and its replicas, all real servers, and no Sentinels."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from urllib.parse import urlsplit

from redis.asyncio import Redis

from jwt_events.embedded import EmbeddedServer
from tests.faults.failover import MakeServer
from tests.support.faults import readers
from tests.support.raw import are_linked, call
from tests.support.waiting import wait_until


class Replicated:
    """A primary and its replicas.

    Attributes:
        servers: the servers; the first is the primary at first.
        clients: a client of each.
    """

    def __init__(self, servers: Sequence[EmbeddedServer], clients: Sequence[Redis]) -> None:
        self.servers = servers
        self.clients = clients

    @property
    def url(self) -> str:
        """The URL of the primary."""
        return self.servers[0].url

    @property
    def primary(self) -> Redis:
        """A client of the primary."""
        return self.clients[0]

    @property
    def replicas(self) -> range:
        """The numbers of the replicas."""
        return range(1, len(self.servers))

    def port(self, number: int) -> int:
        """Return the port of a server."""
        return urlsplit(self.servers[number].url).port or 0

    async def follow(self, number: int, primary: int = 0) -> None:
        """Let a server replicate another one."""
        await call(self.clients[number], "REPLICAOF", "127.0.0.1", self.port(primary))

    async def promote(self, number: int) -> None:
        """Make a replica a primary of its own."""
        await call(self.clients[number], "REPLICAOF", "NO", "ONE")

    async def cut_off(self, number: int) -> None:
        """Let a replica look for its primary where there is none."""
        await call(self.clients[number], "REPLICAOF", "127.0.0.1", 1)

    @contextmanager
    def frozen(self, number: int) -> Iterator[None]:
        """Stop the process of a server: it keeps its connections, accepts new ones, and sends nothing."""
        pid = self.servers[number].pid
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    async def reading(self) -> list[int]:
        """Return how many readers of a stream each server has."""
        return [len(await readers(client)) for client in self.clients]

    async def is_read(self, number: int, by: int = 1, *, within: float = 30.0) -> None:
        """Wait until a server has so many readers, and no other one has any."""
        expected = [by if index == number else 0 for index in range(len(self.servers))]

        async def is_so() -> bool:
            return await self.reading() == expected

        await wait_until(is_so, within=within, what=f"readers at server {number} only")

    async def the_one_read(self) -> int:
        """Wait until exactly one server has a reader, and return its number."""
        found: list[int] = []

        async def is_one() -> bool:
            found[:] = [number for number, count in enumerate(await self.reading()) if count]
            return len(found) == 1

        await wait_until(is_one, what="one server that is read")
        return found[0]

    async def are_linked(self) -> None:
        """Wait until the primary and all replicas are in contact."""
        await wait_until(lambda: are_linked(self.primary, self.clients[1:]), within=20.0, what="the replicas")


@asynccontextmanager
async def replicated(make: MakeServer, *, replicas: int = 2, **options: str) -> AsyncIterator[Replicated]:
    """Start a primary with so many replicas; the options are those of every server."""
    config = {"repl-diskless-sync-delay": "0"} | {name.replace("_", "-"): value for name, value in options.items()}
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(make(port=0, config=config)) for _ in range(1 + replicas)]
        clients = [await stack.enter_async_context(Redis.from_url(server.url)) for server in servers]
        all_of_them = Replicated(servers, clients)
        for number in all_of_them.replicas:
            await all_of_them.follow(number)
        await all_of_them.are_linked()
        yield all_of_them
