"""What a doctor looks at. What the server will not tell is left out, and nothing is changed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from jwt_events.cli.findings import Facts
from jwt_events.cli.groups import Group, groups_of
from jwt_events.cli.rights import lacking, needed_for_pubsub, needed_for_stream
from jwt_events.errors import ServerRefused
from jwt_events.transport.connection import Connection, canonical_url
from jwt_events.transport.pubsub import RedisPubSub
from jwt_events.transport.stream import RedisStream, StreamInfo, stream_info

_WITHIN = 5.0
_SETTINGS = ("appendonly", "appendfsync", "save", "maxmemory", "maxmemory-policy", "client-output-buffer-limit")
_SECTIONS = ("server", "replication", "persistence", "memory")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


async def examine(url: str, transport: RedisStream | RedisPubSub, *, retention: timedelta) -> Facts:
    """Look at a server, and at what a transport uses of it.

    Raises:
        TransportError: it does not answer, or not to us.
    """
    key = transport.destination
    is_stream = isinstance(transport, RedisStream)
    if isinstance(transport, RedisStream):
        needed = needed_for_stream(key, transport.dead_letter)
    else:
        needed = needed_for_pubsub(key)
    async with aclosing(await transport.connector.connect(within=_WITHIN)) as connection:
        await _answers(connection)
        clock, skew = await _clock(connection)
        return Facts(
            scheme=urlsplit(canonical_url(url)).scheme,
            is_local=urlsplit(url).scheme == "unix" or transport.connector.host in _LOOPBACK,
            retention=retention,
            info=await _info(connection),
            settings=await _settings(connection),
            skew=skew,
            clock=clock,
            history=await _history(connection, key) if is_stream else None,
            groups=await _groups(connection, key) if is_stream else None,
            lacking={role: await lacking(connection, commands) for role, commands in needed.items()},
        )


async def _answers(connection: Connection) -> None:
    """Make sure that it answers at all: one that is loading, or wants a password, tells nothing.

    Raises:
        TransportError: it does not.
    """
    await _told(connection, "PING")


async def _info(connection: Connection) -> Mapping[str, str]:
    answers = [await _told(connection, "INFO", section) for section in _SECTIONS]
    lines = b"\n".join(answer for answer in answers if answer is not None).decode().splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


async def _settings(connection: Connection) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for name in _SETTINGS:
        answer: Sequence[bytes] = await _told(connection, "CONFIG", "GET", name) or ()
        words = [word.decode("utf-8", "replace") for word in answer]
        found |= dict(zip(words[::2], words[1::2], strict=True))
    return found


async def _clock(connection: Connection) -> tuple[float | None, float | None]:
    """Return the server's clock, and by how much it is ahead, halfway between asking and being answered."""
    asked = time.time()
    answer = await _told(connection, "TIME")
    if answer is None:
        return None, None
    clock = int(answer[0]) + int(answer[1]) / 1_000_000
    return clock, clock - (asked + time.time()) / 2


async def _history(connection: Connection, key: str) -> StreamInfo | None:
    (answer,) = await connection.execute_many([("XINFO", "STREAM", key)], within=_WITHIN)
    if isinstance(answer, ServerRefused) and answer.code == "NOPERM":
        return None
    return stream_info(answer) or StreamInfo()


async def _groups(connection: Connection, key: str) -> Sequence[Group] | None:
    try:
        return await groups_of(connection, key) or []
    except ServerRefused as error:
        if error.code != "NOPERM":
            raise
        return None


async def _told(connection: Connection, *command: str) -> Any:
    """Return the answer; ``None`` if the server will not tell this user."""
    try:
        return await connection.call(*command, within=_WITHIN)
    except ServerRefused as error:
        if error.code not in {"NOPERM", "ERR"}:
            raise
        return None
