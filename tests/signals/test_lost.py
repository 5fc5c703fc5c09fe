"""No signal is accepted and lost: the server hangs or is killed while they arrive, and what was accepted is there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import redis.asyncio

from jwt_events import Publisher, RedisStream
from jwt_events.embedded import EmbeddedServer
from jwt_events.signals import CAEP, SecurityEvents, SetEndpoint
from jwt_events.signals._identity import event_id
from jwt_events.testing import Transmitter
from tests.faults.restarting import Restartable
from tests.signals.losing import push_while_killed
from tests.support.faults import frozen
from tests.support.waiting import scaled

NUMBER = 60
IDP = Transmitter()


async def body(token: str) -> AsyncIterator[bytes]:
    """Send a token as a body."""
    yield token.encode()


async def push(endpoint: SetEndpoint, token: str) -> int:
    """Push a token and return the status."""
    response = await endpoint.respond("POST", [("Content-Type", endpoint.content_type)], body(token))
    return response.status


async def ids_in(client: redis.asyncio.Redis, key: str) -> list[str]:
    """Return the ids of the events in a stream."""
    entries: Any = await client.xrange(key)
    return [json.loads(value)["id"] for _, fields in entries for value in fields.values()]


async def test_a_server_that_hangs(own_server: Callable[[], EmbeddedServer]) -> None:
    """What was accepted is in the stream then; what was sent again is there under the same id."""
    tokens = {
        f"jti-{number}": IDP.security_event(f"{CAEP}session-revoked", IDP.subject(f"u{number}"), jti=f"jti-{number}")
        for number in range(NUMBER)
    }
    async with (
        own_server() as server,
        redis.asyncio.Redis.from_url(server.url) as client,
        Publisher(RedisStream(server.url, "test:lost"), timeout=0.2) as publisher,
        asyncio.timeout(scaled(60)),
    ):
        endpoint = SetEndpoint(publisher, SecurityEvents(IDP.issuer, IDP.audience, IDP.keys()), rate=1e6)
        for number, (jti, token) in enumerate(tokens.items()):
            if number % 6 == 3:
                with frozen(server):
                    assert await push(endpoint, token) == 503
            while (status := await push(endpoint, token)) != 202:
                assert status == 503
            assert event_id(IDP.issuer, jti) in await ids_in(client, "test:lost")
        ids = await ids_in(client, "test:lost")
    assert set(ids) == {event_id(IDP.issuer, jti) for jti in tokens}
    assert len(ids) > NUMBER  # some were accepted although the server did not say so, and are there twice


async def test_a_server_that_is_killed(own_server: Callable[[], EmbeddedServer], tmp_path: Path) -> None:
    """The server is killed at steps of pushes over HTTP, and keeps what it confirmed: what was accepted is there."""
    server = Restartable(own_server, tmp_path)
    try:
        async with asyncio.timeout(scaled(60)):
            await push_while_killed(server, 12)
    finally:
        await server.kill()
