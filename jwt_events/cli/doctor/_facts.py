"""Facts about a server, collected without changing anything; those that the server does not tell are left out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from jwt_events.cli._groups import Group, groups_of
from jwt_events.cli._running import recognize
from jwt_events.cli.doctor._addresses import Announced, look
from jwt_events.cli.doctor._cluster import ClusterFacts
from jwt_events.cli.doctor._rights import lacking, needed_for_pubsub, needed_for_stream
from jwt_events.envelope import decode
from jwt_events.errors import DecodeError, ServerRefused, TransportError
from jwt_events.transport.connection import (
    MEMBERSHIP,
    Command,
    Connection,
    Connector,
    Membership,
    Replication,
    Survey,
    parse_info,
    server_url,
)
from jwt_events.transport.dead_letters import DeadLetters
from jwt_events.transport.ledger import LedgerAccess, LedgerSummary
from jwt_events.transport.pubsub import RedisPubSub
from jwt_events.transport.stream import FIELD, RedisStream, StreamInfo, stream_info

_WITHIN = 5.0
_SETTINGS = (
    "appendonly",
    "appendfsync",
    "save",
    "maxmemory",
    "maxmemory-policy",
    "client-output-buffer-limit",
    "min-replicas-to-write",
    "min-replicas-max-lag",
    "cluster-node-timeout",
    "cluster-allow-reads-when-down",
)
_SAMPLE = "10"  # entries at either end of the stream
_SECTIONS = ("server", "replication", "persistence", "memory")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts about a server. ``None`` stands for what the server did not tell.

    Attributes:
        scheme: the scheme of the URL.
        is_local: whether the server is on this machine.
        key: the stream or channel.
        info: the fields of INFO; empty if the server did not tell.
        settings: the settings that CONFIG GET returned.
        skew: seconds by which the server's clock is ahead of the one here.
        clock: seconds since 1970 on the server's clock.
        stream: the state of the stream; an empty one if there is no stream.
        is_unused: whether no event can have been published yet: the server holds nothing, or nothing of other
            programs beside what a service that waits for events leaves there.
        sample: for some entries of the stream, its oldest and newest ones, whether each is an event.
        dead_letters: how many dead letters there are.
        left_behind: how many lie in a cluster under the name they had on one server, and that name; ``None`` if there
            is no such name, or this user may not look.
        groups: the consumer groups of the stream.
        ledger: the state of the ledger; what prevents reading it; ``None`` if the stream has none.
        lacking: by role, the commands that this user may not use.
        survey: what the Sentinels say; ``None`` if there are none.
        priorities: the priority of each replica, as a Sentinel says; ``None`` if there are none, or none may be asked.
        replicas: how many replicas publishers and lists ask for.
        max_staleness: that of the lists.
        cluster: what the owner of the key says of its cluster; ``None`` if there is none.
        announced: which addresses the nodes of the cluster, or else the replicas, announce; ``None`` if not known.
        retention: how long the stream is to keep events.
    """

    scheme: str
    is_local: bool
    key: str
    retention: timedelta
    info: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    skew: float | None = None
    clock: float | None = None
    stream: StreamInfo | None = None
    is_unused: bool | None = None
    sample: Sequence[bool] | None = None
    dead_letters: int | None = None
    left_behind: tuple[int, str] | str | None = None
    groups: Sequence[Group] | None = None
    ledger: LedgerSummary | str | None = None
    lacking: Mapping[str, Sequence[str] | None] = field(default_factory=dict)
    survey: Survey | None = None
    priorities: Sequence[int] | None = None
    replicas: int = 0
    max_staleness: float = 5.0
    cluster: ClusterFacts | None = None
    announced: Announced | None = None


async def collect_facts(
    url: str,
    transport: RedisStream | RedisPubSub,
    *,
    retention: timedelta,
    replicas: int = 0,
    max_staleness: float = 5.0,
) -> Facts:
    """Collect the facts about a server, and a stream or channel; the options are those of publishers and lists.

    Raises:
        TransportError: the server does not reply, or refuses this user.
    """
    key = transport.destination
    is_stream = isinstance(transport, RedisStream)
    survey, priorities = await _survey(transport.connector)
    is_named = await recognize(transport.connector)
    async with aclosing(await transport.connector.connect(within=_WITHIN)) as connection:
        await _read(connection, "PING")  # fails if the server is loading, or wants a password
        clock, skew = await _clock(connection)
        info = await _info(connection)
        return Facts(
            scheme=urlsplit(server_url(url)).scheme,
            is_local=urlsplit(url).scheme == "unix" or transport.connector.host in _LOOPBACK,
            key=key,
            retention=retention,
            info=info,
            settings=await _settings(connection),
            skew=skew,
            clock=clock,
            stream=await _stream(connection, key) if is_stream else None,
            is_unused=await _is_unused(connection, transport) if isinstance(transport, RedisStream) else None,
            sample=await _sample(connection, key) if is_stream else None,
            dead_letters=await _dead_letters(connection, transport),
            left_behind=await _left_behind(transport),
            groups=await _groups(connection, key) if is_stream else None,
            ledger=await _ledger(transport),
            lacking={role: await lacking(connection, commands) for role, commands in _needed(transport).items()},
            survey=survey,
            priorities=priorities,
            replicas=replicas,
            max_staleness=max_staleness,
            cluster=await _cluster(transport.connector, connection, is_named=is_named),
            announced=await look(transport.connector, connection, Replication.parse(info).near),
        )


def _needed(transport: RedisStream | RedisPubSub) -> Mapping[str, Sequence[Command]]:
    if isinstance(transport, RedisStream):
        return needed_for_stream(transport.keys)
    return needed_for_pubsub(transport.destination, in_cluster=transport.connector.is_cluster)


async def _cluster(connector: Connector, connection: Connection, *, is_named: bool) -> ClusterFacts | None:
    if not connector.is_cluster:
        return None
    replies = await connection.execute_many(MEMBERSHIP, within=_WITHIN)
    try:
        membership = Membership.parse(replies, connector.destination)
    except TransportError:
        membership = None
    contradicting = await connector.topology.contradicting(connector, connection)
    return ClusterFacts(connection.address, is_named, membership, parse_info(replies[0]), contradicting)


async def _survey(connector: Connector) -> tuple[Survey | None, Sequence[int] | None]:
    """Return what the Sentinels say, when all have replied or had the time to, and the priorities of the replicas."""
    sentinels = connector.sentinels()
    try:
        sentinels.request()
        survey = await sentinels.wait(("", 0))
        return (survey, await sentinels.priorities()) if survey.replies else (None, None)
    finally:
        await sentinels.aclose()


async def _info(connection: Connection) -> Mapping[str, str]:
    replies = [await _read(connection, "INFO", section) for section in _SECTIONS]
    lines = b"\n".join(reply for reply in replies if reply is not None).decode().splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


async def _settings(connection: Connection) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for name in _SETTINGS:
        reply: Sequence[bytes] = await _read(connection, "CONFIG", "GET", name) or ()
        words = [word.decode("utf-8", "replace") for word in reply]
        found |= dict(zip(words[::2], words[1::2], strict=True))
    return found


async def _clock(connection: Connection) -> tuple[float | None, float | None]:
    """Return the server's clock, and the seconds by which it is ahead of the midpoint of request and reply."""
    sent = time.time()
    reply = await _read(connection, "TIME")
    if reply is None:
        return None, None
    clock = int(reply[0]) + int(reply[1]) / 1_000_000
    return clock, clock - (sent + time.time()) / 2


async def _stream(connection: Connection, key: str) -> StreamInfo | None:
    (reply,) = await connection.execute_many([("XINFO", "STREAM", key)], within=_WITHIN)
    if isinstance(reply, ServerRefused) and reply.code == "NOPERM":
        return None
    return stream_info(reply) or StreamInfo()


async def _is_unused(connection: Connection, transport: RedisStream) -> bool | None:
    """Return whether the server is new, or known to a service that waits for events on this stream."""
    if await _read(connection, "DBSIZE") == 0:
        return True
    found: int | None = await _read(connection, "EXISTS", transport.keys.fleet, transport.keys.retention)
    return None if found is None else found > 0


async def _sample(connection: Connection, key: str) -> Sequence[bool] | None:
    """Return whether each of the oldest and newest entries is an event; ``None`` if this user may not read them."""
    oldest = await _read(connection, "XRANGE", key, "-", "+", "COUNT", _SAMPLE)
    newest = await _read(connection, "XREVRANGE", key, "+", "-", "COUNT", _SAMPLE)
    if oldest is None and newest is None:
        return None
    return [_is_event(fields) for fields in dict([*(oldest or ()), *(newest or ())]).values()]


def _is_event(fields: Sequence[bytes]) -> bool:
    payload = dict(zip(fields[::2], fields[1::2], strict=True)).get(FIELD)
    try:
        return payload is not None and decode(payload) is not None
    except DecodeError:
        return False


async def _dead_letters(connection: Connection, transport: RedisStream | RedisPubSub) -> int | None:
    if not isinstance(transport, RedisStream):
        return None
    count: int | None = await _read(connection, "XLEN", transport.dead_letter)
    return count


async def _left_behind(transport: RedisStream | RedisPubSub) -> tuple[int, str] | str | None:
    if not isinstance(transport, RedisStream):
        return None
    async with DeadLetters(transport, timeout=_WITHIN) as dead:
        try:
            return None if dead.left_behind_key is None else (await dead.left_behind(), dead.left_behind_key)
        except ServerRefused:
            return None
        except TransportError as error:  # another node than the owner's has them
            return str(error)


async def _ledger(transport: RedisStream | RedisPubSub) -> LedgerSummary | str | None:
    if not isinstance(transport, RedisStream) or transport.ledger is None:
        return None
    try:
        return await LedgerAccess(transport).summary()
    except TransportError as error:
        return str(error)


async def _groups(connection: Connection, key: str) -> Sequence[Group] | None:
    try:
        return await groups_of(connection, key) or []
    except ServerRefused as error:
        if error.code != "NOPERM":
            raise
        return None


async def _read(connection: Connection, *command: str) -> Any:
    """Return the reply to a command; ``None`` if this user may not use it, or the server does not know it."""
    try:
        return await connection.call(*command, within=_WITHIN)
    except ServerRefused as error:
        if error.code not in {"NOPERM", "ERR"}:
            raise
        return None
