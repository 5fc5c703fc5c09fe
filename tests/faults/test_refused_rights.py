"""Each right that a role needs, refused by itself: never a false "allow", never silence, and it works when granted.

What a role needs is read from the documents, so the table there is neither too short nor too long.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from jwt_events import (
    DeadLetters,
    JWTEventsError,
    Publisher,
    RedisPubSub,
    RedisStream,
    RevocationList,
    TokenRevoked,
    Verdict,
)
from jwt_events.cli.doctor._rights import lacking, needed_for_pubsub, needed_for_stream
from jwt_events.testing import Listener
from jwt_events.transport._redis import reconnecting
from jwt_events.transport._stream import folder
from jwt_events.transport.connection import Connection, Connector
from jwt_events.transport.stream import StreamKeys
from tests.faults.restarting import MakeServer
from tests.support.commands import run
from tests.support.documents import DOCS, granted
from tests.support.groups import RawGroup
from tests.support.handling import Gate, publish, running
from tests.support.raw import call
from tests.support.records import Records, recorded
from tests.support.servers import OWN_KINDS, Server, shared
from tests.support.waiting import scaled, wait_until

STOLEN = {"jti": "stolen", "iat": 1}
GOOD = {"jti": "good", "iat": 1}

# Rights without which all works, and more is left behind on the server.
TIDYING = {"+eval", "+xgroup|delconsumer"}


@contextmanager
def brief() -> Iterator[None]:
    """Try for a shorter time to open what lacks a right, and fold sooner."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reconnecting, "OPEN_WITHIN", scaled(1.5))
        patch.setattr(folder, "_FIRST_AFTER", 0.05)
        yield


@dataclass
class Scene:
    """A server, and a user of it with some rights.

    Attributes:
        admin: a client that may do everything.
        server_url: the server, for whom everything is allowed.
        user_url: the same, as the user.
        verdicts: what a list said of a stolen token.
    """

    admin: Redis
    server_url: str
    user_url: str
    verdicts: list[Verdict] = field(default_factory=list)

    async def grant(self, *rights: str) -> None:
        """Let the user have these rights and no others."""
        words = (
            "reset",
            "on",
            ">secret",
            "resetchannels",
            "&k",
            "~k",
            "~k:dead*",
            "~k:retention",
            "~k:ledger*",
            *rights,
        )
        await call(self.admin, "ACL", "SETUSER", "user", *words)

    async def begin(self) -> None:
        """Delete everything, then publish the revocation of the stolen token and something that is no event."""
        await call(self.admin, "FLUSHALL")
        await call(self.admin, "CONFIG", "RESETSTAT")
        await publish(RedisStream(self.server_url, "k"), TokenRevoked(token_id="stolen"))
        await call(self.admin, "XADD", "k", "*", "event", "poison")


@asynccontextmanager
async def scene(make: MakeServer) -> AsyncIterator[Scene]:
    """Start a server."""
    async with make(port=0) as server, Redis.from_url(server.url) as admin:
        yield Scene(admin, server.url, server.url.replace("redis://", "redis://user:secret@"))


async def publish_to_channel(at: Scene) -> None:
    """Publish."""
    await publish(RedisPubSub(at.user_url, "k"), TokenRevoked(token_id="t"))


async def hear_a_channel(at: Scene) -> None:
    """Subscribe, and hear an event."""
    async with Listener(RedisPubSub(at.user_url, "k")) as listener:
        await publish(RedisPubSub(at.server_url, "k"), TokenRevoked(token_id="t"))
        await listener.hears("t")


async def publish_to_stream(at: Scene) -> None:
    """Publish, and stay until all that is old was folded and trimmed."""
    # Not redis-py, which swallows cancellations on Python 3.11.
    async with (
        aclosing(await Connector(at.server_url).connect(within=scaled(5))) as connection,
        Publisher(RedisStream(at.user_url, "k", retention=timedelta(milliseconds=1))) as publisher,
    ):
        await publisher.publish(TokenRevoked(token_id="t"))
        await wait_until(lambda: _is_folded(connection), what="an empty stream")


async def _is_folded(connection: Connection) -> bool:
    return not await connection.call("XLEN", "k", within=scaled(5))


async def check_tokens(at: Scene) -> None:
    """Keep a list until it knows that the token is stolen."""
    async with RevocationList(RedisStream(at.user_url, "k"), max_staleness=scaled(1)) as revocations:

        def knows() -> bool:
            at.verdicts.append(revocations.check(STOLEN))
            return at.verdicts[-1] is Verdict.REVOKED

        await wait_until(knows)


async def handle_all(at: Scene) -> None:
    """Handle what the stream holds with two subscribers, one of which keeps what is no event."""
    transport = RedisStream(at.user_url, "k", start="all")
    async with Listener(transport) as one, Listener(transport) as two:
        for listener in (one, two):
            await listener.hears("stolen")
        await wait_until(lambda: at.admin.xlen("k:dead"), what="the dead letter")
        await _commands_seen(at.admin, "get")


async def share_work(at: Scene) -> None:
    """Handle as one of a new group, slowly; then as one who was restarted, while something was removed."""
    gate = Gate()
    transport = RedisStream(at.user_url, "k", start="all", group="new", claim_after=0.3)
    listener = Listener(transport, drain_timeout=0.1)
    listener.subscriber.on()(gate)
    async with listener:
        await gate.has_seen(1)
        await wait_until(lambda: at.admin.xlen("k:dead"), what="the dead letter")
        await _commands_seen(at.admin, "xclaim")
        gate.open()
        await wait_until(lambda: listener.subscriber.stats.in_flight == 0)
    await call(at.admin, "XGROUP", "CREATE", "k", "g", "0")
    removed, *_ = await RawGroup(at.admin, "k").give("me")
    await call(at.admin, "XDEL", "k", removed)
    async with Listener(RedisStream(at.user_url, "k", group="g", consumer="me")):
        await RawGroup(at.admin, "k").all_acknowledged()


async def _commands_seen(admin: Redis, name: str) -> None:
    async def is_seen() -> bool:
        return f"cmdstat_{name}" in await admin.info("commandstats")

    await wait_until(is_seen, what=name)


async def look_after_dead_letters(at: Scene) -> None:
    """Count, list, replay and purge dead letters."""
    for _ in range(2):
        await call(at.admin, "XADD", "k:dead", "*", "event", "x", "error", "e")
    async with DeadLetters(RedisStream(at.user_url, "k")) as dead:
        assert await dead.count() == 2
        one, two = await dead.list()
        await dead.replay(one.id)
        await dead.purge(two.id)


LIVES: dict[str, Callable[[Scene], Awaitable[None]]] = {
    "publisher, Pub/Sub": publish_to_channel,
    "subscriber, Pub/Sub": hear_a_channel,
    "publisher, stream": publish_to_stream,
    "revocation list": check_tokens,
    "subscriber, stream": handle_all,
    "subscriber, group": share_work,
    "dead letters": look_after_dead_letters,
}

# Rights to read a ledger.
LEDGER = {"+zrange", "+zcount", "+zscan"}

ROLES = {"subscriber, group": "subscriber in a group"}


async def trouble(life: Callable[[Scene], Awaitable[None]], at: Scene, records: Records) -> str:
    """Live until something goes wrong, and return what is said about it; empty if nothing did."""

    def refusals() -> str:
        """Return what was logged about what the server refused."""
        told = [str(record["extra"].get("error")) for record in records if record["level"].no >= 30]
        return "\n".join(text for text in told if "refused" in text)

    async with running(life(at)) as living:
        await wait_until(lambda: living.done() or refusals(), what="an error or a warning")
        error = living.exception() if living.done() else None
    assert error is None or isinstance(error, JWTEventsError), repr(error)
    return "\n".join(text for text in ("" if error is None else str(error), refusals()) if text)


@pytest.mark.parametrize("role", LIVES)
async def test_each_right_is_needed_and_named(own_server: MakeServer, role: str) -> None:
    """Without one of them there is an error or a warning that names it; with all of them there is neither."""
    rights, life = granted(role), LIVES[role]
    async with scene(own_server) as at:
        for refused in [right for right in rights if right not in TIDYING]:
            await at.grant(*(right for right in rights if right != refused))
            await at.begin()
            with recorded() as records, brief():
                said = await trouble(life, at, records)
            assert refused.removeprefix("+").partition("|")[0] in said.lower(), f"without {refused}: {said}"
            assert "secret" not in said
        assert Verdict.ALLOW not in at.verdicts
        await at.grant(*rights)
        await at.begin()
        with recorded() as records:
            assert await trouble(life, at, records) == ""


@pytest.mark.parametrize("role", LIVES)
@pytest.mark.parametrize("asks", ["with ACL DRYRUN", "without"])
async def test_doctor_names_each(own_server: MakeServer, role: str, asks: str) -> None:
    """The doctor finds nothing wanting with all of them, and names the one that is refused."""
    rights = granted(role)
    needed = needed_for_pubsub("k") if "Pub/Sub" in role else needed_for_stream(StreamKeys("k"))
    commands = needed[ROLES.get(role, role.partition(",")[0])]
    may_ask = ["+acl|dryrun", "+acl|whoami"] if asks == "with ACL DRYRUN" else []
    async with scene(own_server) as at:
        for refused in (None, *rights):
            await at.grant(*(right for right in rights if right != refused), *may_ask)
            async with aclosing(await Connector(at.user_url).connect(within=scaled(5))) as connection:
                found = await lacking(connection, commands)
            if found is None:  # it would have to publish, or to subscribe
                assert "Pub/Sub" in role
                assert not may_ask
                continue
            names = {f"+{name.lower().replace(' ', '|')}" for name in found}
            expected = {"+xinfo|stream", "+xinfo|groups", "+xinfo|consumers"} if refused == "+xinfo" else {refused}
            assert names == expected - {None}


@pytest.mark.parametrize("refused", granted("revocation list"))
async def test_list_that_runs(own_server: MakeServer, refused: str) -> None:
    """A list that loses a right is stale, says why, and knows everything again when it gets the right back."""
    async with scene(own_server) as at:
        await at.grant(*granted("revocation list"))
        if reads_stream := refused in LEDGER:
            await at.begin()
        transport = RedisStream(at.user_url, "k")
        async with RevocationList(transport, max_staleness=scaled(0.5)) as revocations:
            await call(at.admin, "ACL", "SETUSER", "user", f"-{refused[1:]}")
            await at.admin.client_kill_filter(user="user")
            if reads_stream:
                await at.begin()  # only then the ledger has to be read again
            await wait_until(lambda: revocations.check(GOOD) is Verdict.STALE)
            await at.begin()
            name = refused[1:].partition("|")[0]
            await wait_until(lambda: name in str(revocations.failure).lower(), what=refused)
            assert revocations.check(STOLEN) is (Verdict.REVOKED if reads_stream else Verdict.STALE)
            await call(at.admin, "ACL", "SETUSER", "user", refused)
            await wait_until(lambda: revocations.check(STOLEN) is Verdict.REVOKED)
            await wait_until(lambda: revocations.check(GOOD) is Verdict.ALLOW)


@pytest.fixture(params=OWN_KINDS)
def own(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of the test's own."""
    with shared(request.param) as server:
        yield server


@pytest.mark.parametrize("refused", granted("revocation list"))
def test_check_command(own: Server, refused: str) -> None:
    """The command fails with one line that names the right, and gives no verdict."""
    inspector: Any = own.inspector
    rights = [right for right in granted("revocation list") if right != refused]
    inspector.execute_command("ACL", "SETUSER", "user", "on", ">secret", "%R~k", "%R~k:ledger", *rights)
    inspector.replicaof("127.0.0.1", "1")
    with brief():
        told = run("check", "--key", "k", url=own.url.replace("://", "://user:secret@"), given=json.dumps(STOLEN))
    assert told.code == 2
    assert refused[1:].partition("|")[0] in told.complaint.lower() or "replica" in told.complaint


@pytest.mark.parametrize("renamed", ["INFO", "XINFO", "XRANGE", "XREAD"])
async def test_renamed_command(own_server: MakeServer, renamed: str) -> None:
    """A command that has another name on the server is as good as refused: no list opens, and the error names it."""
    async with own_server(port=0, config={"rename-command": f"{renamed} {renamed}_OF_OPERATIONS"}) as server:
        with pytest.raises(JWTEventsError, match=renamed):
            await RevocationList(RedisStream(server.url, "k"), max_staleness=scaled(1)).__aenter__()


async def test_renamed_config(own_server: MakeServer) -> None:
    """CONFIG is no right that is needed: without it more gaps are told, and nothing else changes."""
    async with own_server(port=0, config={"rename-command": "CONFIG HIDDEN"}) as server:
        await publish(RedisStream(server.url, "k"), TokenRevoked(token_id="stolen"))
        async with RevocationList(RedisStream(server.url, "k")) as revocations:
            assert revocations.check(STOLEN) is Verdict.REVOKED


def test_table_is_whole() -> None:
    """Each row of the table is a role that is tried here."""
    page = (DOCS / "operations.md").read_text()
    table = page.partition("| who | commands |")[2].partition("\n\n")[0]
    assert {line.split("|")[1].strip() for line in table.splitlines()[2:]} == LIVES.keys()
