"""Clients without the private parts of redis-py that are used: an error that names both versions, at once."""

from __future__ import annotations

import asyncio
import importlib.metadata
import re
import traceback
from typing import Any, cast

import pytest
import redis
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import Connection

from jwt_events import (
    InvalidOption,
    Publisher,
    PublishFailed,
    RedisPubSub,
    RedisStream,
    RevocationList,
    Subscriber,
    TokenRevoked,
    TransportError,
)
from jwt_events.transport._redis.handover import SUPPORTED
from tests.support.logs import everything_logged
from tests.support.waiting import scaled

SECRET = "s3cret"


class StandIn:
    """A connection of a testing kit: it takes what redis-py's takes, and talks to no socket.

    Attributes:
        closed: how many were closed.
    """

    closed = 0

    def __init__(self, **options: Any) -> None:
        self.options = options

    async def connect(self) -> None:
        """Connect to nothing."""

    async def disconnect(self, nowait: bool = False) -> None:
        """Count it."""
        StandIn.closed += 1


class WithoutDisconnect(StandIn):
    """A connection of which not even closing is known."""

    disconnect = None  # type: ignore[assignment]  # it has none


class Renamed(Connection):
    """A connection of a later redis-py, which keeps its socket elsewhere."""

    async def connect(self) -> None:
        """Connect, and put the socket elsewhere."""
        await super().connect()  # type: ignore[no-untyped-call]  # redis-py does not annotate it
        self.streams = self._reader, self._writer
        del self._reader, self._writer

    async def disconnect(self, *args: Any, **options: Any) -> None:
        """Close it."""
        for stream in self.streams:
            if isinstance(stream, asyncio.StreamWriter):
                stream.close()


class Wrapped(StandIn):
    """A connection whose streams only look like those of asyncio."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._reader = self._writer = object()


def client_of(cls: type, **options: Any) -> Redis:
    """Return a client whose pool makes connections of this class."""
    return Redis(connection_pool=ConnectionPool(connection_class=cast("Any", cls), password=SECRET, **options))


def check(error: BaseException, cls: type) -> None:
    """Check that an error names the class and both versions, and no password."""
    assert f"{cls.__module__}.{cls.__qualname__} has no " in str(error)
    assert f"installed is redis {redis.__version__}, supported is redis{SUPPORTED}" in str(error)
    assert SECRET not in "".join(traceback.format_exception(error))


@pytest.mark.parametrize("make", [RedisStream, RedisPubSub])
@pytest.mark.parametrize("cls", [StandIn, WithoutDisconnect, Wrapped])
async def test_no_socket(make: type[RedisStream | RedisPubSub], cls: type) -> None:
    """It fails at the first connect, and is not tried again."""
    StandIn.closed = 0
    with everything_logged() as lines:
        async with asyncio.timeout(scaled(1)):
            async with Publisher(make(client_of(cls)), timeout=scaled(30)) as publisher:
                with pytest.raises(PublishFailed) as failed:
                    await publisher.publish(TokenRevoked(token_id="t"))
            with pytest.raises(TransportError) as caught:
                await Subscriber(make(client_of(cls))).__aenter__()
    assert type(caught.value) is TransportError
    assert not caught.value.retryable
    assert not caught.value.maybe_done
    for error in (failed.value, caught.value):
        check(error, cls)
    assert StandIn.closed == (0 if cls is WithoutDisconnect else 2)
    assert SECRET not in "".join(lines)


async def test_a_list() -> None:
    """A revocation list does not open."""
    with pytest.raises(TransportError) as caught:
        async with asyncio.timeout(scaled(1)):
            await RevocationList(RedisStream(client_of(StandIn))).__aenter__()
    check(caught.value, StandIn)


async def test_a_socket_elsewhere() -> None:
    """A connection that keeps its socket elsewhere is closed again."""
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1_000):
            writer.write(b"+OK\r\n" * data.count(b"*"))
        writer.close()
        ended.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        transport = RedisStream(client_of(Renamed, host=host, port=port))
        with pytest.raises(TransportError) as caught:
            await Subscriber(transport).__aenter__()
        check(caught.value, Renamed)
        async with asyncio.timeout(scaled(5)):
            await ended.wait()


def test_a_pool_that_does_not_tell_how_it_connects() -> None:
    """It is refused where it is passed."""
    client = client_of(StandIn)
    client.connection_pool = cast("Any", StandIn())
    with pytest.raises(InvalidOption, match="does not tell how it connects") as caught:
        RedisStream(client)
    assert f"installed is redis {redis.__version__}, supported is redis{SUPPORTED}" in str(caught.value)


def test_the_supported_versions() -> None:
    """The versions in the message are those in the package's metadata."""
    (wanted,) = [line for line in importlib.metadata.requires("jwt_events") or [] if re.match(r"redis\b", line)]
    assert set(wanted.partition("]")[2].split(",")) == set(SUPPORTED.split(","))
