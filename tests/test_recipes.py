"""The services that the README shows, asked as clients ask them."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from fastapi import FastAPI

from jwt_events import Publisher, RedisStream, RevocationList, TokenRevoked
from jwt_events.embedded import EmbeddedServer
from tests.support.waiting import wait_until

README = (Path(__file__).parent.parent / "README.md").read_text()
SERVICES = [block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if '"/me"' in block]
SECRET = "a secret of 32 bytes at the least"


def token(jti: str, **claims: Any) -> str:
    """Sign a token that the services accept."""
    now = int(time.time())
    usual: dict[str, Any] = {"iss": "https://issuer.example", "aud": "orders", "sub": "user", "client_id": "web"}
    usual |= {"jti": jti, "iat": now - 5, "exp": now + 600}
    return jwt.encode(usual | claims, SECRET, headers={"typ": "at+jwt"})


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


@pytest.mark.parametrize("number", range(len(SERVICES)), ids=["PyJWT", "Authlib", "joserfc"])
async def test_service(own_server: Callable[[], EmbeddedServer], number: int) -> None:
    """It lets a good token in, and no token, a bad, an expired, another's, or a revoked one out."""
    async with own_server() as server:
        names: dict[str, Any] = {"__name__": "recipe"}
        exec(SERVICES[number].replace("redis://localhost:6379", server.url), names)
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
