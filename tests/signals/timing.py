"""Parts of a fleet in processes of their own, for a test that measures how long a signal takes to be in force.

::

    python -m tests.signals.timing list REDIS_URL KEY NUMBER
    python -m tests.signals.timing receiver REDIS_URL KEY ISSUER AUDIENCE KEYS

The list prints, when the tokens of users 0 to NUMBER are revoked, when that was for each, as a JSON list; the receiver
serves ``/events``. The first line is READY, and the receiver's port. Both end with their standard input.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import uvicorn
from fastapi import FastAPI

import jwt_events.fastapi
from jwt_events import Publisher, RedisStream, RevocationList, SigningKeys, Verdict
from jwt_events.signals import SecurityEvents


def say(line: str) -> None:
    """Say a line to the test."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def user(number: int) -> str:
    """Return the name of a user."""
    return f"user-{number}"


async def hold_list(url: str, key: str, number: str) -> None:
    """Note when the list says that each user's token is revoked."""
    times = [0.0] * int(number)
    left, done = set(range(int(number))), asyncio.Event()
    async with AsyncExitStack() as stack:
        revocations = await stack.enter_async_context(RevocationList(RedisStream(url, key)))

        def note(which: int, claims: dict[str, Any]) -> None:
            times[which] = time.monotonic()
            assert revocations.check(claims) is Verdict.REVOKED
            left.discard(which)
            if not left:
                done.set()

        for which in range(int(number)):
            claims: dict[str, Any] = {"sub": user(which), "iat": 1}
            assert revocations.check(claims) is Verdict.ALLOW
            await stack.enter_async_context(revocations.watch(claims, partial(note, which, claims)))
        say("READY")
        await done.wait()
    say(json.dumps(times))


async def receive(url: str, key: str, issuer: str, audience: str, jwks: str) -> None:
    """Receive security events."""

    async def fetch() -> Any:
        return json.loads(jwks)

    publisher = Publisher(RedisStream(url, key))
    app = FastAPI(lifespan=jwt_events.fastapi.lifespan(publisher))
    events = SecurityEvents(issuer, audience, SigningKeys(fetch))
    app.include_router(jwt_events.fastapi.set_router(publisher, events))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        say(f"READY {listener.getsockname()[1]}")
        await uvicorn.Server(uvicorn.Config(app, log_level="warning")).serve(sockets=[listener])


if __name__ == "__main__":
    role: Any = {"list": hold_list, "receiver": receive}[sys.argv[1]]
    asyncio.run(role(*sys.argv[2:]))
