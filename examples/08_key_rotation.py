"""Learn to rotate signing keys: a new key is known before its first token, a leaked one is refused at once."""

import os
import time
import uuid
from typing import Annotated, Any

import jwt
import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import Depends, FastAPI
from jwt.algorithms import OKPAlgorithm

from jwt_events import KeyRotated, Publisher, RedisStream, RevocationList, SigningKeys
from jwt_events.fastapi import BearerGuard, lifespan

pairs = {uuid.uuid4().hex: Ed25519PrivateKey.generate()}  # of the issuer; the last one signs. Ids are never reused


async def fetch() -> dict[str, Any]:  # in another service: GET /.well-known/jwks.json
    return {"keys": [OKPAlgorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": kid} for kid, key in pairs.items()]}


stream = RedisStream(os.environ.get("JWT_EVENTS_URL", "redis://localhost:6379"), key="jwt:events:keys")
revocations, publisher = RevocationList(stream), Publisher(stream, source="example")
keys = SigningKeys(fetch)
keys.attach(revocations)


async def decode(token: str) -> dict[str, Any]:
    return jwt.decode(token, await keys.get(jwt.get_unverified_header(token).get("kid")))


# Entered from left to right: the revocation list calls a handler that uses the keys, so it is closed before them.
app = FastAPI(lifespan=lifespan(publisher, keys, revocations))


@app.post("/login/{user}")
async def login(user: str) -> str:  # check a password here
    kid, key = list(pairs.items())[-1]
    return jwt.encode({"sub": user, "exp": time.time() + 3600}, key, "EdDSA", {"kid": kid})


@app.post("/rotate")
async def rotate(*, leaked: bool = False) -> None:  # and for an administrator here
    old, new = list(pairs)[-1], uuid.uuid4().hex
    pairs[new] = Ed25519PrivateKey.generate()
    announced = KeyRotated(key_id=new, previous_key_id=old)
    await publisher.publish(KeyRotated(key_id=old, compromised=True) if leaked else announced)


@app.get("/me")
async def me(claims: Annotated[dict[str, Any], Depends(BearerGuard(revocations, decode))]) -> str:
    return f"you are {claims['sub']}"


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ.get("PORT", "8000")))
