"""Several pollers of one stream: one polls, another takes over, and a token that two of them take is one event."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import redis.asyncio

from jwt_events import Publisher, RedisPubSub, RedisStream
from jwt_events.embedded import EmbeddedServer
from jwt_events.errors import ServerRefused
from jwt_events.signals import CAEP, PollerState, SecurityEvents, SetPoller, SetStream
from jwt_events.signals._identity import event_id
from jwt_events.testing import Transmitter
from jwt_events.testing._transmitter_server import TransmitterServer
from jwt_events.transport.lease import ServerLease
from tests.signals.test_poller import events, ids_in
from tests.support.documents import DOCS, granted
from tests.support.faults import frozen
from tests.support.raw import call
from tests.support.waiting import scaled, wait_until

IDP = Transmitter()
REVOKED = f"{CAEP}session-revoked"
LEASE = 1.0
ROOT = Path(__file__).parents[2]


def receiver() -> SecurityEvents:
    """Return a receiver of the events of this transmitter."""
    return SecurityEvents(IDP.issuer, IDP.audience, IDP.keys())


def poller(publisher: Publisher, served: TransmitterServer, *, lease: float = 3.0) -> SetPoller:
    """Return a poller with a short lease."""
    return SetPoller(publisher, receiver(), served.poll_url, lease=scaled(lease), timeout=scaled(5.0))


@asynccontextmanager
async def process(url: str, key: str, served: TransmitterServer) -> AsyncIterator[Process]:
    """Run a process with a poller; it is killed if it has not ended by then."""
    program = ("-m", "tests.signals.poller_process", url, key, served.poll_url, str(scaled(LEASE)))
    running = await asyncio.create_subprocess_exec(sys.executable, *program, cwd=ROOT, stdin=PIPE, stdout=PIPE)
    assert running.stdin is not None
    about = {"issuer": IDP.issuer, "audience": IDP.audience, "key": IDP.jwks()["keys"][0]}
    running.stdin.write(json.dumps(about).encode() + b"\n")
    try:
        yield running
    finally:
        if running.returncode is None:
            running.kill()
        await running.wait()


async def holds(running: Process) -> None:
    """Wait until a process holds the lease."""
    assert running.stdout is not None
    async with asyncio.timeout(scaled(60)):
        assert await running.stdout.readline() == b"holds\n"


class TestFleet:
    """Several pollers on one server."""

    async def test_one_polls(self, url: str, key: str) -> None:
        """Of three, one polls; the others are live and know its staleness; when it leaves, another goes on at once."""
        async with AsyncExitStack() as stack:
            served = await stack.enter_async_context(IDP.serve(long_poll=0.05))
            publisher = await stack.enter_async_context(Publisher(RedisStream(url, key)))
            fleet = [poller(publisher, served) for _ in range(3)]
            for one in fleet:
                await stack.enter_async_context(one)
            await wait_until(lambda: all(one.is_live for one in fleet))
            assert sorted(one.state for one in fleet) == [
                PollerState.POLLING,
                PollerState.STANDBY,
                PollerState.STANDBY,
            ]
            assert all(0 <= one.staleness < 60 for one in fleet)
            names = [served.emit(REVOKED, IDP.subject(f"u{number}")) for number in range(5)]
            await wait_until(lambda: len(served.acknowledged) == 5)
            assert sorted(served.acknowledged) == sorted(str(name) for name in names)
            holder = next(one for one in fleet if one.is_holder)
            await holder.__aexit__(None, None, None)
            await wait_until(lambda: sum(one.is_holder for one in fleet) == 1)
            late = served.emit(REVOKED, IDP.subject("late"))
            await wait_until(lambda: late in served.acknowledged)

    @pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "terminated"])
    async def test_the_holder_ends(self, url: str, key: str, client: redis.asyncio.Redis, end: signal.Signals) -> None:
        """When the process that holds the lease is killed, another takes over; each token is one event on the bus."""
        async with IDP.serve(long_poll=0.05) as served, process(url, key, served) as one:
            await holds(one)
            async with process(url, key, served) as two:
                names = [str(served.emit(REVOKED, IDP.subject(f"u{number}"))) for number in range(20)]
                await wait_until(lambda: served.acknowledged)
                one.send_signal(end)
                await one.wait()
                await holds(two)
                names.append(str(served.emit(REVOKED, IDP.subject("last"))))
                await wait_until(lambda: not served.pending, within=60)
                two.terminate()
                assert await two.wait() == 0
            assert {*served.acknowledged} == {*names}
            assert served.refused == {}
            assert {*await ids_in(client, key)} == {event_id(IDP.issuer, name) for name in names}

    async def test_a_holder_that_hangs(self, url: str, key: str, client: redis.asyncio.Redis) -> None:
        """A process that is suspended and goes on after another took over stops polling, and does no harm."""
        async with IDP.serve(long_poll=0.05) as served, process(url, key, served) as one:
            await holds(one)
            async with process(url, key, served) as two:
                os.kill(one.pid, signal.SIGSTOP)
                await holds(two)
                names = [str(served.emit(REVOKED, IDP.subject(f"u{number}"))) for number in range(5)]
                await wait_until(lambda: {*names} <= {*served.acknowledged})
                os.kill(one.pid, signal.SIGCONT)
                names.append(str(served.emit(REVOKED, IDP.subject("after"))))
                await wait_until(lambda: {*names} <= {*served.acknowledged})
                for running in (two, one):
                    running.terminate()
                    assert await running.wait() == 0
            assert {*await ids_in(client, key)} == {event_id(IDP.issuer, name) for name in names}

    async def test_the_server_forgets_the_lease(self, url: str, key: str, client: redis.asyncio.Redis) -> None:
        """After a failover that loses it, two may poll for a moment: one stops, and each token is one event."""
        async with AsyncExitStack() as stack:
            served = await stack.enter_async_context(IDP.serve(long_poll=0.02))
            publisher = await stack.enter_async_context(Publisher(RedisStream(url, key)))
            one = await stack.enter_async_context(poller(publisher, served, lease=1.0))
            two = await stack.enter_async_context(poller(publisher, served, lease=1.0))
            await wait_until(lambda: one.is_live and two.is_live)
            before, after = (one, two) if one.is_holder else (two, one)
            assert before._lease is not None
            assert after._lease is not None
            await client.delete(before._lease.key)
            await after._lease.renew()
            assert before.is_holder  # it does not know yet
            assert after.is_holder
            names = [str(served.emit(REVOKED, IDP.subject(f"u{number}"))) for number in range(20)]
            await wait_until(lambda: not before.is_holder)
            await wait_until(lambda: not served.pending)
            assert after.is_holder
        assert {*served.acknowledged} == {*names}
        assert served.refused == {}
        assert {*await ids_in(client, key)} == {event_id(IDP.issuer, name) for name in names}

    async def test_the_next_holder_expects_the_verification(self, url: str, key: str) -> None:
        """A verification event that one instance asked for is accepted by the one that took over meanwhile."""
        async with IDP.serve(long_poll=0.05) as served, Publisher(RedisStream(url, key)) as publisher:
            stream = SetStream(IDP.issuer, configuration_url=served.configuration_url)
            async with stream:
                await stream.create()
                released = served.hang()
                one = SetPoller(publisher, receiver(), served.poll_url, stream=stream, lease=scaled(3.0))
                async with one:
                    await wait_until(lambda: len(served.pending) == 1)
                (name,) = served.pending
                async with poller(publisher, served):
                    await wait_until(lambda: name in served.acknowledged)
                released.set()
            assert served.refused == {}

    async def test_no_lease_without_the_server(self, own_server: Callable[[], EmbeddedServer]) -> None:
        """While the server hangs, the lease runs out and nothing is polled; afterwards it goes on."""
        async with (
            own_server() as server,
            IDP.serve(long_poll=0.05) as served,
            Publisher(RedisStream(server.url, "test:lease"), timeout=0.2) as publisher,
            poller(publisher, served, lease=0.6) as one,
        ):
            await wait_until(lambda: one.state is PollerState.POLLING)
            with frozen(server):
                await wait_until(lambda: not one.is_holder)
                await wait_until(lambda: one.failure is not None)
            await wait_until(lambda: one.is_holder)
            name = served.emit(REVOKED, IDP.subject("alice"))
            await wait_until(lambda: name in served.acknowledged)


class TestLease:
    """`ServerLease` alone."""

    async def test_key(self, url: str, key: str, client: redis.asyncio.Redis) -> None:
        """It is beside the stream, in the same slot, ends by itself, and is gone after the holder has left."""
        async with ServerLease(RedisStream(url, key), "work", seconds=scaled(5.0), report=lambda: 1.5) as lease:
            await lease.wait()
            assert lease.key == f"{{{key}}}:work"
            assert 0 < await client.pttl(lease.key) <= scaled(5.0) * 1000
        assert await client.exists(lease.key) == 0
        assert not lease.is_held

    def test_slot(self) -> None:
        """A name that has a hash tag keeps it."""
        lease = ServerLease(RedisPubSub("redis://localhost", "{a}:b"), "work", seconds=1, report=lambda: 0)
        assert lease.key == "{a}:b:work"

    async def test_another_program(self, url: str, key: str, client: redis.asyncio.Redis) -> None:
        """A key that holds something else is neither overwritten nor removed, and the failure names it."""
        async with ServerLease(RedisStream(url, key), "work", seconds=0.3, report=lambda: float("inf")) as lease:
            await lease.wait()
            await client.set(lease.key, "something else")
            await wait_until(lambda: lease.failure is not None)
            assert not lease.is_held
            assert "does not hold a lease" in str(lease.failure)
        assert await client.get(lease.key) == b"something else"

    async def test_what_the_holder_tells(self, url: str, key: str) -> None:
        """The others learn the number that the holder reports, counted on; infinite is told as such."""
        told = [3.0]
        stream = RedisStream(url, key)
        async with ServerLease(stream, "work", seconds=scaled(0.6), report=lambda: told[0]) as holder:
            await holder.wait()
            async with ServerLease(stream, "work", seconds=scaled(0.6), report=lambda: 0.0) as other:
                await wait_until(lambda: 3.0 <= other.reported < 60)
                told[0] = float("inf")
                await wait_until(lambda: other.reported == float("inf"))
                assert not other.is_held

    async def test_notes(self, url: str, key: str) -> None:
        """A note stays for the next holder."""
        stream = RedisStream(url, key)
        for expected in (None, "a note"):
            async with ServerLease(stream, "work", seconds=scaled(5.0), report=lambda: 0.0) as lease:
                assert await lease.recall() == expected
                await lease.remember("a note")


class TestRights:
    """What a user of the server needs, as the page has it."""

    async def test_they_suffice(self, own_server: Callable[..., EmbeddedServer]) -> None:
        """With the rights of a publisher and of a poller, and no others, tokens are polled and published."""
        rights = [*granted("publisher, stream"), *granted("poller of signals")]
        (pattern,) = re.findall(r"`(\{<key>\}:poller:\*)`", (DOCS / "operations.md").read_text())
        places = ["~k", "~k:retention", "~" + pattern.replace("<key>", "k")]
        async with own_server(port=0) as server, redis.asyncio.Redis.from_url(server.url) as client:
            await call(client, "ACL", "SETUSER", "poller", "reset", "on", ">secret", *places, *rights)
            url = server.url.replace("redis://", "redis://poller:secret@")
            async with (
                IDP.serve() as served,
                Publisher(RedisStream(url, "k")) as publisher,
                SetStream(IDP.issuer, configuration_url=served.configuration_url) as stream,
            ):
                await stream.create()
                async with SetPoller(publisher, receiver(), served.poll_url, stream=stream) as one:
                    name = served.emit(REVOKED, IDP.subject("alice"))
                    await wait_until(lambda: name in served.acknowledged)
                    await wait_until(lambda: one.is_live)
                    assert one.failure is None
            notes = await client.keys("{k}:poller:*:note")
            assert len(notes) == 1

    async def test_they_are_needed(self, own_server: Callable[..., EmbeddedServer]) -> None:
        """Without them it polls nothing, and the failure names the command."""
        rights = granted("publisher, stream")
        async with own_server(port=0) as server, redis.asyncio.Redis.from_url(server.url) as client:
            await call(client, "ACL", "SETUSER", "poller", "reset", "on", ">secret", "~k*", "~{k}*", *rights)
            url = server.url.replace("redis://", "redis://poller:secret@")
            async with (
                IDP.serve() as served,
                Publisher(RedisStream(url, "k")) as publisher,
                SetPoller(publisher, events(), served.poll_url) as one,
            ):
                await wait_until(lambda: one.failure is not None)
                assert isinstance(one.failure, ServerRefused)
                assert one.failure.code == "NOPERM"
                assert "eval" in str(one.failure).lower()
                assert served.polls == []
