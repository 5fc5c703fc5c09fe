"""Real tokens, and the functions that verify them."""

from __future__ import annotations

import time
import uuid
from typing import Any

import jwt

SECRET = "a secret that the tests and their services share"
KID = "key-1"


def token_of(user: str = "alice", *, kid: str | None = KID, secret: str = SECRET, **claims: Any) -> str:
    """Sign a token; claims that are ``None`` are left out."""
    now = time.time()
    payload = {"sub": user, "jti": uuid.uuid4().hex, "iat": int(now) - 1, "exp": int(now) + 3600} | claims
    named = {name: value for name, value in payload.items() if value is not None}
    return jwt.encode(named, secret, algorithm="HS256", headers=None if kid is None else {"kid": kid})


def decode(token: str) -> dict[str, Any]:
    """Verify a token and return its claims."""
    return jwt.decode(token, SECRET, algorithms=["HS256"])


async def decode_later(token: str) -> dict[str, Any]:
    """Do the same as a coroutine function."""
    return decode(token)


def bearer(token: str) -> dict[str, str]:
    """Return the ``Authorization`` header of a token."""
    return {"Authorization": f"Bearer {token}"}
