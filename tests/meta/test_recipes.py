"""The services that the documents show, asked as clients ask them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from fastapi import FastAPI
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from jwt_events import KeyRotated, Publisher, RedisStream, RevocationList, SigningKeyError, TokenRevoked, Verdict
from jwt_events.embedded import EmbeddedServer
from tests.support.documents import DOCS, blocks
from tests.support.handling import soon
from tests.support.issuers import Issuer, private_key
from tests.support.services import aiohttp_server, uvicorn_server
from tests.support.tokens import bearer
from tests.support.transcripts import follow
from tests.support.waiting import wait_until

GUIDED = (DOCS / "getting-started.md", DOCS / "recipes.md")
RECIPES = blocks(DOCS / "recipes.md")
SERVICES = ("FastAPI and PyJWT", "aiohttp and Authlib", "FastAPI and joserfc")
SECRET = "a secret of 32 bytes at the least"


def token(jti: str, **claims: Any) -> str:
    """Sign a token that the services accept."""
    now = int(time.time())
    usual: dict[str, Any] = {"iss": "https://issuer.example", "aud": "orders", "sub": "user", "client_id": "web"}
    usual |= {"jti": jti, "iat": now - 5, "exp": now + 600}
    return jwt.encode(usual | claims, SECRET, headers={"typ": "at+jwt"})


def run(section: str, url: str, **others: str) -> dict[str, Any]:
    """Run the service of a recipe, at another URL, and return its names."""
    (code,) = [block.text for block in RECIPES if block.section == section and block.file == "service.py"]
    for written, meant in {"redis://localhost:6379": url, **others}.items():
        assert written in code
        code = code.replace(written, meant)
    names: dict[str, Any] = {"__name__": "recipe"}
    exec(code, names)
    return names


@asynccontextmanager
async def serving(app: FastAPI | web.Application) -> AsyncIterator[httpx.AsyncClient]:
    """Run a service, and return a client of it."""
    if isinstance(app, FastAPI):
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client,
        ):
            yield client
    else:
        async with TestServer(app) as server, httpx.AsyncClient(base_url=str(server.make_url("/"))) as client:
            yield client


@pytest.mark.timeout(600)  # a page starts dozens of programs
@pytest.mark.parametrize("own_server", ["valkey"], indirect=True)  # it is the pages that are tested here
@pytest.mark.parametrize("page", GUIDED, ids=lambda page: page.stem)
async def test_transcript(own_server: Callable[[], EmbeddedServer], tmp_path: Path, page: Path) -> None:
    """A reader who goes through a page, saves the files and types the commands, sees what the page shows."""
    async with own_server() as server:
        await asyncio.to_thread(follow, blocks(page), tmp_path, server.url)


@pytest.mark.parametrize("section", SERVICES)
async def test_service(own_server: Callable[[], EmbeddedServer], section: str) -> None:
    """It lets a good token in, and no token, a bad, an expired, another's, or a revoked one out."""
    async with own_server() as server:
        names = run(section, server.url)
        revocations: RevocationList = names["revocations"]
        async with serving(names["app"]) as client, Publisher(RedisStream(server.url)) as publisher:

            async def status(bearer: str) -> int:
                return (await client.get("/me", headers={"Authorization": f"Bearer {bearer}"})).status_code

            assert (await client.get("/me")).status_code == 401
            assert await status(token("good")) == 200
            assert await status(token("good") + "x") == 401
            assert await status(token("good", exp=int(time.time()) - 60)) == 401
            assert await status(token("good", aud="others")) == 401
            await publisher.publish(TokenRevoked(token_id="bad"))
            await wait_until(lambda: revocations.stats.events, what="the revocation")
            assert await status(token("bad")) == 401
            assert await status(token("good")) == 200


async def test_logging_out(own_server: Callable[[], EmbeddedServer]) -> None:
    """Each way to log out ends the tokens that it names, and no others."""
    times = {"iat": time.time() - 60, "exp": time.time() + 600}
    laptop = times | {"jti": "1", "sub": "alice", "sid": "alice's laptop", "client_id": "web"}
    phone = times | {"jti": "2", "sub": "alice", "sid": "alice's phone", "client_id": "app"}
    tablet = times | {"jti": "3", "sub": "alice", "sid": "alice's tablet", "client_id": "app"}
    bob = times | {"jti": "4", "sub": "bob", "sid": "bob's laptop", "client_id": "old"}
    carol = times | {"jti": "5", "sub": "carol", "sid": "carol's laptop", "client_id": "web"}
    everybody = [laptop, phone, tablet, bob, carol]
    async with own_server() as server:
        names = run("Log out, log out everywhere", server.url)
        async with names["publisher"], RevocationList(RedisStream(server.url)) as revocations:

            def refused() -> list[Any]:
                return [claims for claims in everybody if revocations.check(claims) is Verdict.REVOKED]

            for act, argument, ended in (
                ("log_out", laptop, [laptop]),
                ("lose", "alice's phone", [laptop, phone]),
                ("log_out_everywhere", {"sub": "alice"}, [laptop, phone, tablet]),
                ("shut_out", "old", [laptop, phone, tablet, bob]),
            ):
                before = revocations.stats.events
                await names[act](argument)
                await wait_until(partial(_has_heard, revocations, before), what=act)
                assert refused() == ended


def _has_heard(revocations: RevocationList, before: int) -> bool:
    return revocations.stats.events > before


async def test_websocket(own_server: Callable[[], EmbeddedServer]) -> None:
    """A WebSocket serves until its token is revoked, and then ends with 4401."""
    async with own_server() as server:
        names = run("WebSockets and streams", server.url)
        async with uvicorn_server(names["app"]) as address, Publisher(RedisStream(server.url)) as publisher:
            headers = bearer(token("lost"))
            async with connect(f"ws://{address}/feed", additional_headers=headers) as websocket:
                await websocket.send("hello")
                assert await soon(websocket.recv()) == "user: hello"
                await publisher.publish(TokenRevoked(token_id="lost"))
                with pytest.raises(ConnectionClosed):
                    await soon(websocket.recv())
                assert websocket.close_code == 4401


async def test_several_issuers(own_server: Callable[[], EmbeddedServer]) -> None:
    """Keys and rules of one issuer are for its tokens alone: no key of another, whatever a token says, lets it in."""
    async with own_server() as server:
        names = run("Several issuers", server.url)
        revocations: RevocationList = names["revocations"]
        staff, shop = names["KEYS"]
        keys = {issuer: next(iter(names["KEYS"][issuer].items())) for issuer in (staff, shop)}

        def signed(issuer: Any, *, by: str, kid: str | None = None) -> str:
            own, secret = keys[by]
            now = int(time.time())
            claims = {"iss": issuer, "aud": "orders", "sub": "alice", "jti": "1", "iat": now - 5, "exp": now + 600}
            named = {name: value for name, value in claims.items() if value is not None}
            return jwt.encode(named, secret, headers={"kid": kid or own})

        async with serving(names["app"]) as client, Publisher(RedisStream(server.url)) as publisher:

            async def reply(token: str) -> tuple[int, Any]:
                response = await client.get("/me", headers=bearer(token))
                return response.status_code, response.json() if response.status_code == 200 else None

            for issuer in (staff, shop):
                assert await reply(signed(issuer, by=issuer)) == (200, f"alice of {issuer}")
            for odd in (
                signed(staff, by=shop),
                signed(staff, by=shop, kid=keys[staff][0]),
                signed(staff, by=staff, kid=keys[shop][0]),
                signed(shop, by=staff, kid=keys[shop][0]),
                signed("https://other.example", by=staff),
                signed(None, by=staff),
            ):
                assert (await reply(odd))[0] == 401
            await publisher.publish(TokenRevoked(user_id="alice", claims={"iss": staff}))
            await wait_until(lambda: revocations.stats.events == 1, what="the revocation")
            assert (await reply(signed(staff, by=staff)))[0] == 401
            assert (await reply(signed(shop, by=shop)))[0] == 200
            await publisher.publish(TokenRevoked(claims={"iss": shop}))
            await wait_until(lambda: revocations.stats.events == 2, what="the revocation")
            assert (await reply(signed(shop, by=shop)))[0] == 401


async def test_key_rotation(own_server: Callable[[], EmbeddedServer]) -> None:
    """Tokens of a new key are good as soon as it is announced, and of one that leaked no more."""
    issuer = Issuer("old")

    async def published(_request: web.Request) -> web.Response:
        return web.json_response(await issuer.fetch())

    def signed(kid: str) -> str:
        claims = {"iss": "https://issuer.example", "aud": "orders", "sub": "user"}
        return jwt.encode(claims, private_key(kid), "ES256", headers={"kid": kid})

    app = web.Application()
    app.router.add_get("/jwks.json", published)
    async with own_server() as server, aiohttp_server(app) as address:
        addresses = {"http://localhost:9000/jwks.json": f"http://{address}/jwks.json"}
        names = run("Rotate keys", server.url, **addresses)
        decode, keys = names["decode"], names["keys"]
        async with names["revocations"], keys, Publisher(RedisStream(server.url)) as publisher:
            assert (await decode(signed("old")))["sub"] == "user"
            issuer.list("old", "new")
            await publisher.publish(KeyRotated(key_id="new", previous_key_id="old"))
            await wait_until(lambda: keys.stats.keys == 2, what="the new key")
            for kid in ("old", "new"):
                assert (await decode(signed(kid)))["sub"] == "user"
            await publisher.publish(KeyRotated(key_id="old", compromised=True))
            await wait_until(lambda: keys.stats.keys == 1, what="the end of the old key")
            with pytest.raises(SigningKeyError):
                await decode(signed("old"))
