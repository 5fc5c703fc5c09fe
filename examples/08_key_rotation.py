"""Learn to rotate signing keys: a new one is known before its first token comes, a leaked one is refused at once."""

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

pairs = {uuid.uuid4().hex: Ed25519PrivateKey.generate()}  # the issuer's; the last one signs. No name comes twice


async def fetch() -> dict[str, Any]:  # from another service it would be: GET /.well-known/jwks.json
    return {"keys": [OKPAlgorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": kid} for kid, key in pairs.items()]}


stream = RedisStream(os.environ.get("JWT_EVENTS_URL", "redis://localhost:6379"), key="jwt:events:keys")
revocations, publisher = RevocationList(stream), Publisher(stream, source="example")
keys = SigningKeys(fetch)
keys.attach(revocations)


async def decode(token: str) -> dict[str, Any]:
    return jwt.decode(token, await keys.get(jwt.get_unverified_header(token).get("kid")))


app = FastAPI(lifespan=lifespan(revocations, keys, publisher))


@app.post("/login/{user}")
async def login(user: str) -> str:  # here you would ask for a password
    kid, key = list(pairs.items())[-1]
    return jwt.encode({"sub": user, "exp": time.time() + 3600}, key, "EdDSA", {"kid": kid})


@app.post("/rotate")
async def rotate(*, leaked: bool = False) -> None:  # and here for an administrator
    old, new = list(pairs)[-1], uuid.uuid4().hex
    pairs[new] = Ed25519PrivateKey.generate()
    announced = KeyRotated(key_id=new, previous_key_id=old)
    await publisher.publish(KeyRotated(key_id=old, compromised=True) if leaked else announced)


@app.get("/me")
async def me(claims: Annotated[dict[str, Any], Depends(BearerGuard(revocations, decode))]) -> str:
    return f"you are {claims['sub']}"


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ.get("PORT", "8000")))
