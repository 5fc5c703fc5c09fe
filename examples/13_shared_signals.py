"""Learn to receive security events (Shared Signals, CAEP, RISC): subjects of your own, a policy, verification."""

import asyncio
import os
import time

import uvicorn

from jwt_events import Publisher, RedisStream, RevocationList, Verdict
from jwt_events.asgi import set_router
from jwt_events.signals import CAEP, RISC, Effect, SecurityEvents, Signal, SubjectId
from jwt_events.testing import Transmitter, eventually

URL = os.environ.get("JWT_EVENTS_URL", "redis://localhost:6379")
PORT = int(os.environ.get("PORT", "8000"))
RUN = time.time_ns()  # so that the example can be run again
USERS = {"carol@example.com": f"carol-{RUN}"}  # a database, for example

transmitter = Transmitter("https://id.example", "https://orders.example")  # stands for your identity provider


async def subject(identifier: SubjectId) -> str | None:
    return USERS.get(identifier.value)  # None: unknown, and refused


def policy(signal: Signal) -> Effect:
    return Effect.IGNORE if signal.payload.get("current_level") == "LOW" else Effect.REVOKE


async def main() -> None:
    mapping = {f"{CAEP}risk-level-change": policy}
    events = SecurityEvents(
        transmitter.issuer, transmitter.audience, transmitter.keys(), subject=subject, mapping=mapping
    )
    stream = RedisStream(URL, key="jwt:events:signals")
    async with Publisher(stream, source="example") as publisher, RevocationList(stream) as revocations:
        app = set_router(publisher, events, authorization="Bearer a secret", verification=lambda state: state == "s1")
        server = uvicorn.Server(uvicorn.Config(app, port=PORT, lifespan="off", log_level="warning"))
        serving = asyncio.create_task(server.serve())
        await eventually(lambda: server.started)

        carol, alice = {"format": "email", "email": "carol@example.com"}, transmitter.subject(f"alice-{RUN}")
        for name, token in {
            "disabled": transmitter.security_event(f"{RISC}account-disabled", carol),
            "risk": transmitter.security_event(f"{CAEP}risk-level-change", alice, {"current_level": "HIGH"}),
            "stranger": transmitter.security_event(f"{RISC}account-disabled", carol | {"email": "x@y.example"}),
            "verification": transmitter.verification("s1"),
        }.items():
            pushed = await transmitter.push(f"http://127.0.0.1:{PORT}/events", token, authorization="Bearer a secret")
            print(f"{name}:", *pushed)
        for user in (f"carol-{RUN}", f"alice-{RUN}"):
            await eventually(lambda user=user: revocations.check({"sub": user, "iat": 1}) is Verdict.REVOKED)
            print(user.partition("-")[0], "is out")
        server.should_exit = True
        await serving


asyncio.run(main())
