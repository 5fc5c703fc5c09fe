"""Signing keys end to end: keys over HTTP, rotations over Redis, real tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import jwt
import pytest
from aiohttp import web

from jwt_events import (
    CompromisedKey,
    KeyRotated,
    KeysUnavailable,
    RedisStream,
    RevocationList,
    SigningKeys,
    Subscriber,
    UnknownKey,
)
from tests.support.handling import publish
from tests.support.issuers import Issuer
from tests.support.waiting import scaled, wait_until


class Served(Issuer):
    """An issuer that serves its keys over HTTP on this machine.

    Attributes:
        url: its address.
        status: the status of its responses.
    """

    url: str
    status = 200

    async def answer(self, _: web.Request) -> web.Response:
        """Serve one request."""
        return web.json_response(await self.fetch(), status=self.status)


@pytest.fixture
async def issuer() -> AsyncIterator[Served]:
    """An issuer with one key."""
    served = Served("one")
    application = web.Application()
    application.router.add_get("/jwks.json", served.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    served.url = f"http://{host}:{port}/jwks.json"
    yield served
    await runner.cleanup()


@pytest.fixture
async def fetch(issuer: Served) -> AsyncIterator[Callable[[], Awaitable[Any]]]:
    """Fetch the keys, as an application does."""
    async with aiohttp.ClientSession() as session:

        async def fetch() -> Any:
            async with session.get(issuer.url, raise_for_status=True) as response:
                return await response.json()

        yield fetch


async def claims(keys: SigningKeys, token: str) -> dict[str, Any]:
    """Verify a token, as an application does."""
    return jwt.decode(token, await keys.get(jwt.get_unverified_header(token).get("kid")))


async def test_rotation(issuer: Served, fetch: Callable[[], Awaitable[Any]], url: str, key: str) -> None:
    """A rotation brings the new key before its first token; a compromise evicts the old one everywhere."""
    transport = RedisStream(url, key)
    services = [SigningKeys(fetch, timeout=scaled(10)) for _ in range(3)]
    subscriber = Subscriber(transport)
    for keys in services:
        keys.attach(subscriber)
    async with services[0], services[1], services[2], subscriber:
        for keys in services:
            assert await claims(keys, issuer.token("one")) == {"sub": "user-1"}
        issuer.list("one", "two")
        active_from = datetime.now(UTC) + timedelta(hours=1)
        await publish(transport, KeyRotated(key_id="two", previous_key_id="one", active_from=active_from))
        await wait_until(lambda: all(keys.stats.keys == 2 for keys in services))
        calls = issuer.calls
        for keys in services:
            for kid in ("one", "two"):
                await claims(keys, issuer.token(kid))
        assert issuer.calls == calls == 6
        await publish(transport, KeyRotated(key_id="one", compromised=True))
        await wait_until(lambda: all(keys.stats.keys == 1 for keys in services))
        for keys in services:
            with pytest.raises(CompromisedKey):
                await keys.get("one")
            await claims(keys, issuer.token("two"))


async def test_history(issuer: Served, fetch: Callable[[], Awaitable[Any]], url: str, key: str) -> None:
    """A service that starts after a compromise reads it in the stream's history."""
    transport = RedisStream(url, key, start="all")
    await publish(transport, KeyRotated(key_id="one", compromised=True))
    issuer.list("one", "two")
    keys, subscriber = SigningKeys(fetch, timeout=scaled(10)), Subscriber(transport)
    keys.attach(subscriber)
    async with subscriber, keys:
        await wait_until(lambda: subscriber.stats.handled == 1)
        with pytest.raises(CompromisedKey):
            await claims(keys, issuer.token("one"))
        await claims(keys, issuer.token("two"))


async def test_replayed(issuer: Served, fetch: Callable[[], Awaitable[Any]], url: str, key: str) -> None:
    """Attached to a revocation list, a service refuses keys compromised before its start from the first call on."""
    transport = RedisStream(url, key)
    await publish(transport, KeyRotated(key_id="one", compromised=True))
    issuer.list("one", "two")
    keys, revocations = SigningKeys(fetch, timeout=scaled(10)), RevocationList(transport)
    keys.attach(revocations)
    async with revocations:
        with pytest.raises(CompromisedKey):
            await claims(keys, issuer.token("one"))
        await claims(keys, issuer.token("two"))
        await publish(transport, KeyRotated(key_id="two", compromised=True))
        await wait_until(lambda: keys.stats.keys == 0)


async def test_outage(issuer: Served, fetch: Callable[[], Awaitable[Any]]) -> None:
    """While the issuer responds with errors, known keys stay valid and unlisted ones raise `KeysUnavailable`."""
    keys = SigningKeys(fetch, cooldown=0.01, timeout=scaled(10))
    await claims(keys, issuer.token("one"))
    issuer.status = 503
    with pytest.raises(KeysUnavailable) as caught:
        await claims(keys, issuer.token("two"))
    assert isinstance(caught.value.__cause__, aiohttp.ClientResponseError)
    assert issuer.url not in str(caught.value)
    await claims(keys, issuer.token("one"))


async def test_algorithm_confusion(issuer: Served, fetch: Callable[[], Awaitable[Any]]) -> None:
    """A token that is "signed" with the text of the public key as a secret is refused, and one without a signature."""
    keys = SigningKeys(fetch, timeout=scaled(10))
    public = (await keys.get("one")).key.public_numbers().x.to_bytes(32, "big")
    for algorithm, secret in (("HS256", public), ("none", "")):
        token = jwt.encode({"sub": "admin"}, secret, algorithm, headers={"kid": "one"})
        with pytest.raises(jwt.InvalidAlgorithmError):
            await claims(keys, token)


async def test_strange_token(issuer: Served, fetch: Callable[[], Awaitable[Any]]) -> None:
    """A token of a key that the issuer never listed is refused after one request."""
    keys = SigningKeys(fetch, timeout=scaled(10))
    for _ in range(10):
        with pytest.raises(UnknownKey):
            await claims(keys, issuer.token("stranger"))
    assert issuer.calls == 1
