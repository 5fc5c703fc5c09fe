"""Learn to share work: each event goes to one worker of a group; one that keeps failing is dead-lettered."""

import asyncio
import os

from jwt_events import DeadLetters, Publisher, RedisStream, Retry, SessionCreated, Subscriber
from jwt_events.testing import eventually  # only this example needs it, to wait for the workers

URL = os.environ.get("JWT_EVENTS_URL", "redis://localhost:6379")
KEY = "jwt:events:mail"

mailed: list[str] = []
unreachable = {"erin"}


def worker(name: str) -> Subscriber:
    subscriber = Subscriber(
        # A worker that restarts with the same name gets its unfinished events again at once.
        RedisStream(URL, key=KEY, group="mailer", consumer=name, start="all"),
        retry=Retry(attempts=2, initial=0.05),  # seconds
    )

    @subscriber.on(SessionCreated)
    async def mail(event: SessionCreated) -> None:  # return acknowledges; an exception retries, then dead-letters
        if event.user_id in unreachable:
            raise OSError("the mail server does not answer")
        mailed.append(event.user_id)  # possibly twice after a crash, unless you store event.id with it

    return subscriber


async def main() -> None:
    users = ["alice", "bob", "carol", "dave", "erin"]
    async with Publisher(RedisStream(URL, key=KEY)) as publisher, worker("one"), worker("two"):
        await publisher.publish_many(SessionCreated(session_id=f"{user}'s phone", user_id=user) for user in users)

        async with DeadLetters(RedisStream(URL, key=KEY)) as dead:  # or from a terminal: jwt-events dead list
            await eventually(dead.count)
            (letter,) = await dead.list()
            print(f"given up after {letter.attempts} attempts: {letter.error}")

            unreachable.clear()  # the cause is fixed
            await dead.replay(letter.id)
            await eventually(lambda: len(mailed) == len(users))
    print("mailed:", *sorted(mailed))


asyncio.run(main())
