"""A service in a process of its own: verifies the access tokens of a provider, and has a list; one receives logouts.

::

    python -m tests.signals.peers fastapi PORT REDIS_URL KEY ISSUER

``/me`` lets a token in that is not revoked, ``/ready`` is 200 when the list is fresh.
"""

from __future__ import annotations

import sys
from typing import Any

import httpx
import jwt
import uvicorn
from aiohttp import web
from fastapi import Depends, FastAPI

import jwt_events.aiohttp
import jwt_events.fastapi
from jwt_events import Publisher, RedisStream, RevocationList, SigningKeys
from jwt_events.signals import LogoutTokens

AUDIENCE = "urn:test:orders"
CLIENTS = ("app", "plain")


class Verifier:
    """Verifies access tokens (RFC 9068) of a provider."""

    def __init__(self, issuer: str) -> None:
        self.issuer = issuer
        self.keys = SigningKeys(self._fetch)

    async def _fetch(self) -> Any:
        async with httpx.AsyncClient() as client:
            return (await client.get(f"{self.issuer}/jwks")).raise_for_status().json()

    async def decode(self, token: str) -> dict[str, Any]:
        """Verify a token and return its claims."""
        key = await self.keys.get(jwt.get_unverified_header(token).get("kid"))
        return jwt.decode(token, key, audience=AUDIENCE, issuer=self.issuer)


def fastapi_service(stream: RedisStream, verifier: Verifier) -> FastAPI:
    """Return the service that receives the provider's logout tokens."""
    publisher, revocations = Publisher(stream, source="peer"), RevocationList(stream)
    guard: Any = jwt_events.fastapi.BearerGuard(revocations, verifier.decode)
    app = FastAPI(lifespan=jwt_events.fastapi.lifespan(verifier.keys, publisher, revocations))
    app.include_router(jwt_events.fastapi.readiness_router(revocations))
    tokens = LogoutTokens(verifier.issuer, CLIENTS, verifier.keys, require_typ=True)
    app.include_router(jwt_events.fastapi.logout_router(publisher, tokens))

    @app.get("/me", dependencies=[Depends(guard)])
    async def me() -> str:
        return "let in"

    return app


def aiohttp_service(stream: RedisStream, verifier: Verifier) -> web.Application:
    """Return a service that hears of logouts by the stream only."""
    revocations = RevocationList(stream)
    guard: Any = jwt_events.aiohttp.BearerGuard(revocations, verifier.decode)

    async def me(request: web.Request) -> web.Response:
        return web.json_response("let in")

    app = web.Application(middlewares=[guard.middleware()])
    app.cleanup_ctx.append(jwt_events.aiohttp.lifespan(verifier.keys, revocations))
    app.router.add_get("/me", me)
    app.router.add_get("/ready", jwt_events.aiohttp.readiness_handler(revocations))
    return app


def main(framework: str, port: str, url: str, key: str, issuer: str) -> None:
    """Run one of the services."""
    stream, verifier = RedisStream(url, key), Verifier(issuer)
    if framework == "fastapi":
        uvicorn.run(fastapi_service(stream, verifier), port=int(port), log_level="warning")
    else:
        web.run_app(aiohttp_service(stream, verifier), host="127.0.0.1", port=int(port), print=None)


if __name__ == "__main__":
    main(*sys.argv[1:])
