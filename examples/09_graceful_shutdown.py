"""Learn to stop well: on SIGTERM finish what was begun, up to a deadline, and leave the rest to whoever comes next."""

import asyncio
import os
import signal

from jwt_events import RedisStream, SessionDestroyed, Subscriber

URL = os.environ.get("JWT_EVENTS_URL", "redis://localhost:6379")
# Seconds. Stay well below the patience of what stops you: Kubernetes kills 30 s after SIGTERM, `docker stop` after 10.
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
    except asyncio.CancelledError:  # the deadline has passed: tidy up, and let it go on
        print("cancelled:", event.session_id, flush=True)
        raise
    print("finished:", event.session_id, flush=True)  # only now it is acknowledged


async def main() -> None:
    running = asyncio.create_task(subscriber.run())
    for number in (signal.SIGINT, signal.SIGTERM):
        # Once: read no more, let handlers finish, cancel those that do not. Twice: somebody is impatient, end at once.
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    await asyncio.wait([running])
    if not running.cancelled():
        running.result()  # it ended by itself, so this raises the reason
    print("handled", subscriber.stats.handled, "and left", subscriber.stats.failed)


asyncio.run(main())
