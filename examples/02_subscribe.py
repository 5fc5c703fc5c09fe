"""Learn to subscribe: call handlers for events until Ctrl-C, then let running handlers finish."""

import asyncio
import os
import signal

from jwt_events import Event, Gap, RedisStream, SessionDestroyed, Subscriber, TokenRevoked

URL = os.environ.get("JWT_EVENTS_URL", "redis://localhost:6379")

subscriber = Subscriber(RedisStream(URL), drain_timeout=5.0)


@subscriber.on(TokenRevoked, SessionDestroyed)
async def forget(event: TokenRevoked | SessionDestroyed) -> None:
    print(f"no longer good: {event.subject}", flush=True)


@subscriber.on()  # every event; a plain function runs in a thread
def audit(event: Event) -> None:
    print(f"audit: {event.type} from {event.source}", flush=True)


@subscriber.on_gap
async def resynchronise(gap: Gap) -> None:
    print("something may have been missed:", gap.cause, flush=True)


async def main() -> None:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    async with subscriber:  # on entry the server has confirmed the subscription
        print("listening", flush=True)
        await stopped.wait()
    print("handled", subscriber.stats.handled, "events", flush=True)


asyncio.run(main())
