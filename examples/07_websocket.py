"""Learn to end long connections: a WebSocket closes with 4401 when its token ends, unless it was renewed before."""

import os
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any

import jwt
import uvicorn
from fastapi import Depends, FastAPI, WebSocket

from jwt_events import Publisher, RedisStream, RevocationList, SessionDestroyed
from jwt_events.fastapi import BearerGuard, WebSocketGuard, lifespan

URL = os.environ.get("JWT_EVENTS_URL", "redis://localhost:6379")
SECRET = os.environ.get("JWT_SECRET", "a secret of 32 bytes at the least")

stream = RedisStream(URL, retention=timedelta(hours=1))
revocations, publisher = RevocationList(stream), Publisher(stream, source="example")


def decode(token: str) -> dict[str, Any]:
    return jwt.decode(token, SECRET, algorithms=["HS256"], options={"require": ["exp", "iat", "sid", "sub"]})


def subprotocol(websocket: WebSocket) -> str | None:
    """Return the token from where browsers can put it: ``new WebSocket(url, ["bearer", token])``."""
    scheme, *token = [*websocket.scope["subprotocols"], ""]
    return token[0] if scheme == "bearer" else None


live = WebSocketGuard(BearerGuard(revocations, decode), token=subprotocol)

app = FastAPI(lifespan=lifespan(revocations, publisher))


@app.post("/login/{user}/{device}")
async def login(user: str, device: str) -> str:  # check a password here
    return jwt.encode({"sub": user, "sid": f"{user}'s {device}", "iat": time.time(), "exp": time.time() + 900}, SECRET)


@app.post("/lost/{user}/{device}")
async def lost(user: str, device: str) -> None:  # and here
    await publisher.publish(SessionDestroyed(session_id=f"{user}'s {device}", reason="the device is lost"))


@app.websocket("/echo")
async def echo(websocket: WebSocket, claims: Annotated[Mapping[str, Any], Depends(live)]) -> None:
    await websocket.accept("bearer" if "bearer" in websocket.scope["subprotocols"] else None)
    async for text in websocket.iter_text():  # cancelled here when the token ends; clean up in `finally`
        word, _, token = text.partition(" ")
        if word == "token":  # a new one of the same user; one that is refused closes the WebSocket
            claims = (await live.renew(websocket, token)).value
        await websocket.send_text(f"{claims['sub']} said {word}")


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ.get("PORT", "8000")))
