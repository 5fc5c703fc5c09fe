"""Learn to guard a whole application, with its static files and streams, by a token in a cookie."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.staticfiles import StaticFiles

from jwt_events import Publisher, RedisStream, RevocationList, TokenRevoked
from jwt_events.asgi import BearerMiddleware
from jwt_events.fastapi import lifespan
from jwt_events.guard import Guard

SECRET = os.environ.get("JWT_SECRET", "a secret of 32 bytes at the least")
stream = RedisStream(os.environ.get("JWT_EVENTS_URL", "redis://localhost:6379"))
revocations, publisher = RevocationList(stream), Publisher(stream, source="example")


def decode(token: str) -> dict[str, Any]:
    return jwt.decode(token, SECRET, algorithms=["HS256"], options={"require": ["exp", "iat", "jti", "sub"]})


inner = FastAPI(lifespan=lifespan(revocations, publisher))
inner.mount("/files", StaticFiles(directory=Path(__file__).parent))
guard = Guard(revocations, decode, cookie="__Host-token")
app = BearerMiddleware(inner, guard, public=["/login/*"])  # around all of it, so also around /files and /docs


@inner.post("/login/{user}")
async def login(user: str, response: Response) -> None:  # check a password here
    claims = {"sub": user, "jti": f"{user} at {time.time()}", "iat": time.time(), "exp": time.time() + 3600}
    # Lax: other sites may link here, but their forms, scripts and WebSockets bring no cookie.
    response.set_cookie("__Host-token", jwt.encode(claims, SECRET), secure=True, httponly=True, samesite="lax")


@inner.post("/logout")  # not GET, which a link of another site could send
async def logout(request: Request) -> None:
    await publisher.publish(TokenRevoked.from_claims(request.state.claims))


@inner.get("/clock")
async def clock(request: Request) -> StreamingResponse:
    async def ticks() -> AsyncIterator[str]:
        while True:  # until the token is revoked
            yield f"{request.state.claims['sub']}: {time.time():.0f}\n"
            await asyncio.sleep(1)

    return StreamingResponse(ticks())


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ.get("PORT", "8000")))
