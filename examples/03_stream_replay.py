"""Learn to replay a stream: a service that starts later receives earlier events."""

import asyncio
import os
from contextlib import aclosing

from jwt_events import Publisher, RedisStream, Subscriber, TokenRevoked

URL = os.environ.get("JWT_EVENTS_URL", "redis://localhost:6379")
KEY = "jwt:events:example"


async def main() -> None:
    async with Publisher(RedisStream(URL, key=KEY)) as publisher:
        receipts = await publisher.publish_many(TokenRevoked(token_id=f"token-{number}") for number in range(5))

    # There was no subscriber. Read from the oldest event in the stream:
    everything = Subscriber(RedisStream(URL, key=KEY, start="all"))
    async with aclosing(everything.events()) as events:
        async for event in events:
            print("from the beginning:", event.subject)
            if event.id == receipts[-1].event_id:
                break

    # Read from a position, for example one that was saved before a restart:
    rest = Subscriber(RedisStream(URL, key=KEY, start=receipts[2].position or "all"))
    async with aclosing(rest.events()) as events:
        async for event in events:
            print("after the third:", event.subject)
            if event.id == receipts[-1].event_id:
                break


asyncio.run(main())
