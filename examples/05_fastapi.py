"""Learn to guard a FastAPI service: log in, log out, log out everywhere; revoked tokens are refused."""

import os
import time
import uuid
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any

import jwt
import uvicorn
from fastapi import Depends, FastAPI

from jwt_events import Publisher, RedisStream, RevocationList, TokenRevoked
from jwt_events.fastapi import BearerGuard, lifespan, readiness_router

URL = os.environ.get("JWT_EVENTS_URL", "redis://localhost:6379")
SECRET = os.environ.get("JWT_SECRET", "a secret of 32 bytes at the least")
LIFETIME = timedelta(hours=1)

stream = RedisStream(URL, retention=LIFETIME)  # keep revocations for the lifetime of a token
revocations, publisher = RevocationList(stream), Publisher(stream, source="example")


def decode(token: str) -> dict[str, Any]:
    return jwt.decode(token, SECRET, algorithms=["HS256"], options={"require": ["exp", "iat", "jti", "sub"]})


Claims = Annotated[Mapping[str, Any], Depends(BearerGuard(revocations, decode))]

app = FastAPI(lifespan=lifespan(revocations, publisher))
app.include_router(readiness_router(revocations))


@app.post("/login/{user}")
async def login(user: str) -> str:  # check a password here
    now = time.time()  # with fractions, so that a login in the same second as "logout everywhere" works
    claims = {"sub": user, "jti": uuid.uuid4().hex, "iat": now, "exp": now + LIFETIME.total_seconds()}
    return jwt.encode(claims, SECRET, algorithm="HS256")


@app.get("/me")
async def me(claims: Claims) -> str:
    return f"you are {claims['sub']}"


@app.post("/logout")
async def logout(claims: Claims) -> None:
    await publisher.publish(TokenRevoked.from_claims(claims, reason="logout"))


@app.post("/logout-everywhere")
async def logout_everywhere(claims: Claims) -> None:
    await publisher.publish(TokenRevoked(user_id=claims["sub"], reason="logout everywhere"))


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ.get("PORT", "8000")))
