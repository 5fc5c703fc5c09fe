"""Learn to stop gracefully: on SIGTERM let handlers finish until a deadline; the next worker gets the rest."""

import asyncio
import os
import signal

from jwt_events import RedisStream, SessionDestroyed, Subscriber

URL = os.environ.get("JWT_EVENTS_URL", "redis://localhost:6379")
# Seconds. Stay below the grace period of your platform: Kubernetes kills 30 s after SIGTERM, `docker stop` after 10 s.
DRAIN_TIMEOUT = float(os.environ.get("DRAIN_TIMEOUT", "8"))

subscriber = Subscriber(
    RedisStream(URL, key="jwt:events:archive", group="archive", consumer="archive-1", start="all"),
    drain_timeout=DRAIN_TIMEOUT,
)


@subscriber.on(SessionDestroyed)
async def archive(event: SessionDestroyed) -> None:
    print("begun:", event.session_id, flush=True)
    try:
        await asyncio.sleep(float(str(event.metadata.get("seconds", 0))))  # work
    except asyncio.CancelledError:  # the deadline has passed: clean up and re-raise
        print("cancelled:", event.session_id, flush=True)
        raise
    print("finished:", event.session_id, flush=True)  # acknowledged after this


async def main() -> None:
    running = asyncio.create_task(subscriber.run())
    for number in (signal.SIGINT, signal.SIGTERM):
        # First signal: stop reading, let handlers finish until the deadline. Second signal: cancel them at once.
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    await asyncio.wait([running])
    if not running.cancelled():
        running.result()  # raises if the subscriber failed
    print("handled", subscriber.stats.handled, "and left", subscriber.stats.failed)


asyncio.run(main())
