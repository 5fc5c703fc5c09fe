"""Learn to poll for security events: one instance of a fleet polls, and says when the stream is dead."""

import asyncio
import os
import time

from jwt_events import Publisher, RedisStream, RevocationList, Verdict
from jwt_events.guard import readiness_of
from jwt_events.signals import CAEP, SecurityEvents, SetPoller, SetStream
from jwt_events.testing import Transmitter, eventually

URL = os.environ.get("JWT_EVENTS_URL", "redis://localhost:6379")
USER = f"alice-{time.time_ns()}"  # so that the example can be run again

transmitter = Transmitter("https://id.example", "https://orders.example")  # stands for your identity provider


async def authorization() -> str:
    return "Bearer a secret"  # asked for each request, so that you can renew it


async def main() -> None:
    events = SecurityEvents(transmitter.issuer, transmitter.audience, transmitter.keys())
    transport = RedisStream(URL, key="jwt:events:polled")
    async with (
        transmitter.serve(authorization="Bearer a secret") as served,
        Publisher(transport, source="example") as publisher,
        RevocationList(transport) as revocations,
        SetStream(
            transmitter.issuer, authorization=authorization, configuration_url=served.configuration_url
        ) as stream,
    ):
        created = await stream.create(events_requested=[f"{CAEP}session-revoked"])

        def poller() -> SetPoller:
            return SetPoller(
                publisher, events, str(created.endpoint_url), authorization=authorization, stream=stream, lease=3.0
            )

        async with poller() as first, poller() as second:  # two instances of a service
            await eventually(lambda: first.is_live and second.is_live)
            print("states:", *sorted(one.state for one in (first, second)))
            served.emit(f"{CAEP}session-revoked", transmitter.subject(USER))
            await eventually(lambda: revocations.check({"sub": USER, "iat": 1}) is Verdict.REVOKED)
            await eventually(lambda: len(served.acknowledged) > 0)
            print("alice is out, and it is acknowledged")
            served.set_status(created.stream_id, "paused")
            holder = first if first.is_holder else second
            await eventually(lambda: not holder.is_live)
            print("paused:", readiness_of(holder)[0])


asyncio.run(main())
