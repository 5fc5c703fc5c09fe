"""Learn to take a provider's word that a session ended: OpenID Connect Back-Channel Logout, in force everywhere."""

import asyncio
import os
import time
from datetime import timedelta

import uvicorn
from fastapi import FastAPI

from jwt_events import Publisher, RedisStream, RevocationList, Verdict
from jwt_events.fastapi import lifespan, logout_router
from jwt_events.signals import LogoutTokens
from jwt_events.testing import Transmitter, eventually

URL = os.environ.get("JWT_EVENTS_URL", "redis://localhost:6379")
PORT = int(os.environ.get("PORT", "8000"))

provider = Transmitter("https://id.example", "my-client-id")  # stands for Keycloak, Okta, Auth0, …
stream = RedisStream(URL, key="jwt:events:logout", retention=timedelta(hours=1))
publisher = Publisher(stream, source="example")

# With a real provider: SigningKeys(fetch), where fetch reads its JWK Set.
tokens = LogoutTokens(provider.issuer, "my-client-id", provider.keys())
app = FastAPI(lifespan=lifespan(publisher))
app.include_router(logout_router(publisher, tokens))  # register this address there


async def main() -> None:
    server = uvicorn.Server(uvicorn.Config(app, port=PORT, log_level="warning"))
    serving = asyncio.create_task(server.serve())
    await eventually(lambda: server.started)
    address = f"http://127.0.0.1:{PORT}/backchannel-logout"

    claims = {"sub": "alice", "sid": f"session-{time.time_ns()}"}  # of an access token of this session
    async with RevocationList(stream) as revocations:  # in another service, on another machine
        print("before:", revocations.check(claims).name)
        status, _ = await provider.log_out(address, provider.logout_token(sub="alice", sid=claims["sid"]))
        await eventually(lambda: revocations.check(claims) is Verdict.REVOKED)
        print("logout token:", status)
        print("after:", revocations.check(claims).name)

    forged, _ = provider.bad_logout_tokens()["signature of another key"]
    status, problem = await provider.log_out(address, forged)
    print("forged:", status, problem["error_description"])
    server.should_exit = True
    await serving


if __name__ == "__main__":
    asyncio.run(main())
