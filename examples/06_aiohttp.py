"""Learn to guard an aiohttp service: log in, log out, log out everywhere; revoked tokens are refused."""

import os
import time
import uuid
from datetime import timedelta
from typing import Any

import jwt
from aiohttp import web

from jwt_events import Publisher, RedisStream, RevocationList, TokenRevoked
from jwt_events.aiohttp import PUBLISHER, BearerGuard, lifespan, public, readiness_handler

URL = os.environ.get("JWT_EVENTS_URL", "redis://localhost:6379")
SECRET = os.environ.get("JWT_SECRET", "a secret of 32 bytes at the least")
LIFETIME = timedelta(hours=1)

stream = RedisStream(URL, retention=LIFETIME)  # keep revocations for the lifetime of a token
revocations, publisher = RevocationList(stream), Publisher(stream, source="example")


def decode(token: str) -> dict[str, Any]:
    return jwt.decode(token, SECRET, algorithms=["HS256"], options={"require": ["exp", "iat", "jti", "sub"]})


guard = BearerGuard(revocations, decode)


@public
async def login(request: web.Request) -> web.Response:  # check a password here
    now = time.time()  # with fractions, so that a login in the same second as "logout everywhere" works
    times = {"iat": now, "exp": now + LIFETIME.total_seconds()}
    claims = {"sub": request.match_info["user"], "jti": uuid.uuid4().hex} | times
    return web.json_response(jwt.encode(claims, SECRET, algorithm="HS256"))


async def me(request: web.Request) -> web.Response:
    return web.json_response(f"you are {guard.claims(request)['sub']}")


async def logout(request: web.Request) -> web.Response:
    await request.app[PUBLISHER].publish(TokenRevoked.from_claims(guard.claims(request), reason="logout"))
    return web.json_response(None)


async def logout_everywhere(request: web.Request) -> web.Response:
    await request.app[PUBLISHER].publish(TokenRevoked(user_id=guard.claims(request)["sub"]))
    return web.json_response(None)


app = web.Application(middlewares=[guard.middleware()])
app.cleanup_ctx.append(lifespan(revocations, publisher))
app.add_routes([web.post("/login/{user}", login), web.get("/me", me), web.post("/logout", logout)])
app.add_routes([web.post("/logout-everywhere", logout_everywhere), web.get("/ready", readiness_handler(revocations))])

if __name__ == "__main__":
    web.run_app(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")), print=None)
