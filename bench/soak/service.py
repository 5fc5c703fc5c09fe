"""A primary, two replicas and three Sentinels, and what can happen to them."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from bench.ports import free_port
from bench.soak.name import Name
from bench.soak.plan import Fault
from bench.soak.processes import Server, execute, freeze
from bench.soak.topology import Inject
from jwt_events.embedded import _find_binary
from jwt_events.errors import TransportError
from jwt_events.transport._redis.commands import Argument

SERVICE = "soak"
DOWN_AFTER = 1.0
"""Seconds without a reply after which a Sentinel calls a server down."""

_QUORUM = 2
_REPLICAS = 2
_WITHIN = 1.0
_INTERVAL = 0.05
_SETTLE_WITHIN = 50.0
_ATTEMPTS = 20
_NUDGE_AFTER = 1.0
"""Seconds after which a server that follows nobody is told to follow the primary; Sentinels take eight."""

# Clients are the default user. Replicas and Sentinels connect as these users, so that a server can be cut off from
# them, and not from its clients.
_PASSWORD = "secret"
_USERS = {"peer": "peers", "watcher": "watches"}
_NOBODY = ("REPLICAOF", "127.0.0.1", 1)


class Sentinel:
    """A Sentinel, which keeps its port and what it knows when it is killed."""

    def __init__(self, directory: Path, primary: int) -> None:
        self.port = free_port()
        self._file = directory / f"sentinel-{self.port}.conf"
        self._file.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {directory}\nsentinel resolve-hostnames no\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {primary} {_QUORUM}\n"
            f"sentinel auth-user {SERVICE} watcher\nsentinel auth-pass {SERVICE} {_USERS['watcher']}\n"
            f"sentinel down-after-milliseconds {SERVICE} {int(DOWN_AFTER * 1000)}\n"
            f"sentinel failover-timeout {SERVICE} 3000\nsentinel parallel-syncs {SERVICE} 2\n"
        )
        self._process: Process | None = None

    async def start(self) -> None:
        """Start it, or restart it."""
        binary = await asyncio.to_thread(_find_binary, None)
        command = (binary, str(self._file), "--sentinel")
        self._process = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stdout=DEVNULL)

    async def kill(self) -> None:
        """Kill it; idempotent."""
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):  # it ended by itself
                process.kill()
            await process.wait()

    async def ask(self, *command: Argument) -> object:
        """Return its reply; ``None`` if it has none."""
        try:
            return await execute(f"redis://127.0.0.1:{self.port}", "SENTINEL", *command, within=_WITHIN)
        except (TransportError, OSError):
            return None

    async def primary(self) -> int | None:
        """Return the port of the server that it names; ``None`` if it names none."""
        reply = await self.ask("GET-MASTER-ADDR-BY-NAME", SERVICE)
        return int(reply[1]) if isinstance(reply, list) else None

    async def is_content(self) -> bool:
        """Whether it knows all replicas and Sentinels, and calls nobody down."""
        reply = await self.ask("REPLICAS", SERVICE)
        if not isinstance(reply, list) or await self.ask("CKQUORUM", SERVICE) is None:
            return False
        flags = [_fields(replica).get("flags") for replica in reply]
        (primary,) = (_fields(await self.ask("MASTER", SERVICE)),)
        return flags == ["slave"] * _REPLICAS and primary.get("flags") == "master"


class Service:
    """A `Topology` of servers behind Sentinels.

    Args:
        directory: an empty directory.
        fsync: what each server keeps when it is killed.
        has_name: whether every second worker connects to a name, which is late, and not by the Sentinels.
        seed: of the choice among replicas and Sentinels.
    """

    def __init__(self, directory: Path, fsync: str, *, has_name: bool, seed: int) -> None:
        self._servers = [_server(directory / f"server-{number}", fsync) for number in range(1 + _REPLICAS)]
        self._sentinels = [Sentinel(directory, self._servers[0].port) for _ in range(3)]
        self._name = Name(free_port()) if has_name else None
        self._is_late_by = 0.2
        self._naming: asyncio.Task[None] | None = None
        self._chance = random.Random(seed)

    @property
    def url(self) -> str:
        """The URL of the service."""
        places = ",".join(f"127.0.0.1:{one.port}" for one in self._sentinels)
        return f"redis+sentinel://:{_PASSWORD}@{places}/{SERVICE}"

    def url_of(self, worker: str) -> str:
        """Return the URL that a worker connects to: the name, or the service."""
        if self._name is None or int(worker.rpartition("-")[2]) % 2:
            return self.url
        return f"redis://:{_PASSWORD}@127.0.0.1:{self._name.port}"

    @property
    def faults(self) -> Mapping[str, Inject]:
        """What can happen to the servers, by kind."""
        kinds: Mapping[str, Inject] = {
            "kill primary": self._kill_primary,
            "restart primary": self._restart_primary,
            "freeze primary": self._freeze_primary,
            "cut off primary": self._cut_off_primary,
            "cut off replica": self._cut_off_replica,
            "restart replica": self._restart_replica,
            "planned failover": self._planned_failover,
            "late name": self._late_name,
            "demote primary": self._demote_primary,
            "kill sentinel": self._kill_sentinel,
            "kill connections": self._kill_connections,
        }

        def settling(inject: Inject) -> Inject:
            async def inject_and_settle(fault: Fault) -> None:
                await inject(fault)
                await self.settle()

            return inject_and_settle

        return {kind: settling(inject) for kind, inject in kinds.items()}

    async def start(self) -> None:
        """Start the servers and the Sentinels, and wait until they know one another."""
        for server in self._servers:
            await server.start()
        for replica in self._servers[1:]:
            await replica.execute("REPLICAOF", "127.0.0.1", self._servers[0].port)
        for one in self._sentinels:
            await one.start()
        await self.settle()
        if self._name is not None:
            self._name.leads_to = self._servers[0].port
            await self._name.start()
            self._naming = asyncio.create_task(self._follow(self._name))

    async def primary(self) -> Server:
        """Return the server that a majority of the Sentinels names; wait until there is one."""
        while True:
            if (found := await self._named()) is not None:
                return found
            await asyncio.sleep(_INTERVAL)

    async def promoted(self, old: Server) -> None:
        """Wait until the Sentinels name another server than the old primary."""
        async with asyncio.timeout(_SETTLE_WITHIN):
            while True:
                if await self.primary() is not old:
                    return
                await asyncio.sleep(_INTERVAL)

    async def settle(self) -> None:
        """Wait until there is one primary by all accounts, and all others follow it and have what it has."""
        began = named_since = time.monotonic()
        named: Server | None = None
        while True:
            told = await asyncio.gather(*(one.primary() for one in self._sentinels))
            primary = next((server for server in self._servers if told.count(server.port) == len(told)), None)
            now = time.monotonic()
            if primary is not named:
                named, named_since = primary, now
            if primary is not None and await self._is_settled(primary, nudge=now - named_since > _NUDGE_AFTER):
                return
            if now - began > _SETTLE_WITHIN:
                raise TimeoutError("the servers did not settle")
            await asyncio.sleep(_INTERVAL)

    async def kill(self) -> None:
        """Kill the servers."""
        for server in self._servers:
            await server.kill()

    async def aclose(self) -> None:
        """Stop everything for good; idempotent."""
        if self._naming is not None:
            self._naming.cancel()
            await asyncio.wait([self._naming])
        if self._name is not None:
            await self._name.aclose()
        for one in self._sentinels:
            await one.kill()
        for server in self._servers:
            await server.aclose()

    def observe(self) -> None:
        """Note how much the servers have written. To be called often."""
        for server in self._servers:
            server.observe()

    async def _follow(self, name: Name) -> None:
        """Let the name lead to the primary, late."""
        while True:
            await asyncio.sleep(_INTERVAL)
            found = await self._named()
            if found is not None and found.port != name.leads_to:
                await asyncio.sleep(self._is_late_by)
                name.leads_to = found.port

    async def _named(self) -> Server | None:
        """Return the server that a majority of the Sentinels names."""
        told = await asyncio.gather(*(one.primary() for one in self._sentinels))
        return next((server for server in self._servers if told.count(server.port) >= _QUORUM), None)

    async def _replica(self) -> Server:
        primary = await self.primary()
        return self._chance.choice([server for server in self._servers if server is not primary])

    async def _is_settled(self, primary: Server, *, nudge: bool) -> bool:
        """Return whether all follow the primary that all Sentinels name; tell those to that do not, if `nudge`."""
        is_well = (await _replication(primary)).get("role") == "master"
        nudge &= is_well
        for server in self._servers:
            replication = await _replication(server)
            if server is primary:
                is_well &= replication.get("connected_slaves") == str(_REPLICAS)
            elif replication and replication.get("master_port") != str(primary.port) and nudge:
                is_well = False
                with suppress(TransportError):
                    await server.execute("REPLICAOF", "127.0.0.1", primary.port)
            else:
                is_well &= replication.get("master_port") == str(primary.port)
                is_well &= replication.get("master_link_status") == "up"
        return is_well and all([await one.is_content() for one in self._sentinels])

    async def _kill_primary(self, fault: Fault) -> None:
        primary = await self.primary()
        await primary.kill()
        await self.promoted(primary)
        await asyncio.sleep(fault.seconds / 2)
        await primary.start()

    async def _restart_primary(self, fault: Fault) -> None:
        primary = await self.primary()
        await primary.kill()
        await asyncio.sleep(fault.seconds / 6)
        await primary.start()

    async def _freeze_primary(self, fault: Fault) -> None:
        primary = await self.primary()
        await freeze(primary.pid, DOWN_AFTER + fault.seconds)
        await asyncio.sleep(fault.seconds / 2)  # it goes on as a primary, for those who have not heard

    async def _cut_off_primary(self, fault: Fault) -> None:
        """Cut the primary off from Sentinels and replicas; clients reach it."""
        primary = await self.primary()
        await primary.execute("ACL", "DELUSER", *_USERS)
        try:
            await self.promoted(primary)
            await asyncio.sleep(fault.seconds)
        finally:
            for name, password in _USERS.items():
                await primary.execute("ACL", "SETUSER", name, "on", f">{password}", "~*", "&*", "+@all")

    async def _cut_off_replica(self, fault: Fault) -> None:
        primary, replica = await self.primary(), await self._replica()
        os.kill(replica.pid, signal.SIGSTOP)
        try:
            await primary.execute("CLIENT", "KILL", "TYPE", "replica")
            await asyncio.sleep(fault.seconds)
        finally:
            os.kill(replica.pid, signal.SIGCONT)

    async def _restart_replica(self, fault: Fault) -> None:
        replica = await self._replica()
        await replica.kill()
        await asyncio.sleep(fault.seconds / 2)
        await replica.start()

    async def _planned_failover(self, _: Fault) -> None:
        primary = await self.primary()
        for _ in range(_ATTEMPTS):
            if await self._chance.choice(self._sentinels).ask("FAILOVER", SERVICE, "COORDINATED") is not None:
                break
            await asyncio.sleep(_NUDGE_AFTER)
        await self.promoted(primary)

    async def _late_name(self, fault: Fault) -> None:
        """Fail over, and let the name lead to the old primary for a while."""
        self._is_late_by, before = fault.seconds, self._is_late_by
        try:
            await self._planned_failover(fault)
            await asyncio.sleep(fault.seconds)
        finally:
            self._is_late_by = before

    async def _demote_primary(self, fault: Fault) -> None:
        """Demote the primary, and promote it back, unless another one was promoted in between."""
        primary = await self.primary()
        await primary.execute(*_NOBODY)
        await asyncio.sleep(fault.seconds)
        if await self.primary() is primary:
            await primary.execute("REPLICAOF", "NO", "ONE")

    async def _kill_sentinel(self, fault: Fault) -> None:
        sentinel = self._chance.choice(self._sentinels)
        await sentinel.kill()
        await asyncio.sleep(fault.seconds)
        await sentinel.start()

    async def _kill_connections(self, _: Fault) -> None:
        await (await self.primary()).execute("CLIENT", "KILL", "TYPE", "normal")


def _server(directory: Path, fsync: str) -> Server:
    directory.mkdir()
    users = [f"user default on >{_PASSWORD} ~* &* +@all"]
    users += [f"user {name} on >{password} ~* &* +@all" for name, password in _USERS.items()]
    (directory / "users.acl").write_text("\n".join(users) + "\n")
    config = {
        "aclfile": str(directory / "users.acl"),
        "repl-diskless-sync-delay": "0",
        "masteruser": "peer",
        "masterauth": _USERS["peer"],
    }
    return Server(directory, fsync, config=config, password=_PASSWORD)


async def _replication(server: Server) -> Mapping[str, str]:
    try:
        reply = await server.execute("INFO", "replication", within=_WITHIN)
    except (TransportError, OSError):
        return {}
    return dict(re.findall(r"(?m)^(\w+):([^\r\n]*)", reply.decode()))


def _fields(reply: object) -> Mapping[str, str]:
    """Return the fields of a server as a Sentinel describes it."""
    if isinstance(reply, dict):
        return {name.decode(): value.decode() for name, value in reply.items()}
    flat: Sequence[bytes] = reply if isinstance(reply, list) else ()
    return {name.decode(): value.decode() for name, value in zip(flat[::2], flat[1::2], strict=True)}
