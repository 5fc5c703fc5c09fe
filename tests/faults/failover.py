"""Two real servers behind one name, and a failover between them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from redis.asyncio import Redis

from jwt_events.embedded import EmbeddedServer
from tests.support.proxy import Proxy
from tests.support.raw import are_linked, call
from tests.support.waiting import wait_until

MakeServer = Callable[..., EmbeddedServer]


class Pair:
    """A primary and its replica, with a name that points to the primary.

    Attributes:
        name: the name, as a proxy: connections that are open stay where they are when it points elsewhere.
        old: a client of the server that is the primary at first.
        new: a client of the other one.
        old_url: the address of the first.
        new_url: the address of the other one.
        new_pid: its process.
    """

    def __init__(self, name: Proxy, old: EmbeddedServer, new: EmbeddedServer, clients: tuple[Redis, Redis]) -> None:
        self.name = name
        self.old, self.new = clients
        self.old_url, self.new_url = old.url, new.url
        self.new_pid = new.pid
        self._old_port, self._new_port = (urlsplit(server.url).port or 0 for server in (old, new))

    async def replicate(self) -> None:
        """Let the new server follow the old one, and wait until it has everything."""
        await call(self.new, "REPLICAOF", "127.0.0.1", self._old_port)
        await wait_until(lambda: are_linked(self.old, [self.new]), what="the replica")

    async def demote(self) -> None:
        """Fail over: the old server follows the new one. The name still points to the old one."""
        await call(self.new, "REPLICAOF", "NO", "ONE")
        await call(self.old, "REPLICAOF", "127.0.0.1", self._new_port)

    async def cut_off(self) -> None:
        """Fail over to a server that the old one cannot reach."""
        await call(self.new, "REPLICAOF", "NO", "ONE")
        await call(self.old, "REPLICAOF", "127.0.0.1", 1)

    def switch(self) -> None:
        """Let the name point to the new server, for new connections."""
        self.name.upstream = self.new_url

    async def is_left(self, attempts: int = 3) -> None:
        """Wait until the name was asked for that many more connections."""
        before = self.name.accepted
        await wait_until(lambda: self.name.accepted >= before + attempts, what=f"{attempts} more connections")


@asynccontextmanager
async def pair(make: MakeServer, **options: str) -> AsyncIterator[Pair]:
    """Start two servers with these options, the second of which replicates the first."""
    config = {"repl-diskless-sync-delay": "0"} | {name.replace("_", "-"): value for name, value in options.items()}
    async with (
        make(port=0, config=config) as old,
        make(port=0, config=config) as new,
        Redis.from_url(old.url) as old_client,
        Redis.from_url(new.url) as new_client,
        Proxy(old.url) as name,
    ):
        both = Pair(name, old, new, (old_client, new_client))
        await both.replicate()
        yield both
