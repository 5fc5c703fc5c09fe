"""Learn to observe services: a login service that revokes tokens and a shop that refuses them, with metrics and traces.

Start ``python app.py login`` and any number of ``python app.py shop``. Environment variables: ``JWT_EVENTS_URL``, the
server; ``METRICS_PORT`` for Prometheus, 0 for a free one; ``OTLP_ENDPOINT`` for Jaeger, unset for no traces; ``RATE``,
publishes per second.
"""

import asyncio
import os
import random
import signal
import sys
import time
from datetime import timedelta

from prometheus_client import start_http_server

from jwt_events import (
    Publisher,
    PublishError,
    RedisStream,
    Retry,
    RevocationList,
    SessionCreated,
    SessionDestroyed,
    Subscriber,
    TokenRevoked,
)
from jwt_events.metrics import Metrics
from jwt_events.tracing import setup

URL = os.environ.get("JWT_EVENTS_URL", "redis://localhost:6379")
RATE = float(os.environ.get("RATE", "20"))
USERS = [f"user-{number}" for number in range(200)]

metrics = Metrics()
transport = RedisStream(URL, retention=timedelta(minutes=15))


def claims(user: str) -> dict[str, object]:
    """Return the claims of a token that was issued 30 s ago and expires in 30 s."""
    now = int(time.time())
    return {"jti": f"{user}-{random.randrange(20)}", "sub": user, "iat": now - 30, "exp": now + 30}


async def log_in_and_out(publisher: Publisher) -> None:
    user = random.choice(USERS)
    try:
        if random.random() < 0.05:  # log out on every device
            await publisher.publish_many([SessionDestroyed(session_id=f"{user}-{n}", user_id=user) for n in range(5)])
        elif random.random() < 0.3:
            await publisher.publish(SessionCreated(session_id=f"{user}-0", user_id=user))
        else:
            await publisher.publish(TokenRevoked.from_claims(claims(user), reason="logout"))
    except PublishError as error:
        print("not published:", error, flush=True)


async def login() -> None:
    async with Publisher(transport, source="login", metrics=metrics) as publisher, asyncio.TaskGroup() as tasks:
        while True:
            tasks.create_task(log_in_and_out(publisher))
            await asyncio.sleep(random.expovariate(RATE))


subscriber = Subscriber(transport, retry=Retry(attempts=3, initial=0.1), metrics=metrics)


@subscriber.on(TokenRevoked, SessionDestroyed)
async def close_cart(event: TokenRevoked | SessionDestroyed) -> None:
    await asyncio.sleep(random.lognormvariate(-5, 1))  # like a database: 7 ms, sometimes much more
    if random.random() < 0.02 or hash(event.id) % 2000 == 0:  # fails now and then, and always for some events
        raise OSError


@subscriber.on()
async def audit(_event: object) -> None:
    await asyncio.sleep(0.001)


async def shop() -> None:
    async with RevocationList(transport, metrics=metrics) as revocations, subscriber:
        while True:
            revocations.check(claims(random.choice(USERS)))  # as for every request
            await asyncio.sleep(random.expovariate(5 * RATE))


async def main() -> None:
    server, _ = start_http_server(int(os.environ.get("METRICS_PORT", "9000")))
    if endpoint := os.environ.get("OTLP_ENDPOINT"):
        setup(sys.argv[1], endpoint)
    task = asyncio.create_task({"login": login, "shop": shop}[sys.argv[1]]())
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    print("metrics on port", server.server_port, flush=True)
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()


asyncio.run(main())
