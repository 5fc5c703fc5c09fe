"""Learn to share work: each event goes to one worker of a group, and what fails for good becomes a dead letter."""

import asyncio
import os

from jwt_events import DeadLetters, Publisher, RedisStream, Retry, SessionCreated, Subscriber
from jwt_events.testing import eventually  # waits for what others do, which no service needs

URL = os.environ.get("JWT_EVENTS_URL", "redis://localhost:6379")
KEY = "jwt:events:mail"

mailed: list[str] = []
unreachable = {"erin"}


def worker(name: str) -> Subscriber:
    subscriber = Subscriber(
        # A worker that keeps its name when it starts again gets back at once what it had not finished.
        RedisStream(URL, key=KEY, group="mailer", consumer=name, start="all"),
        retry=Retry(attempts=2, initial=0.05),  # seconds
    )

    @subscriber.on(SessionCreated)
    async def mail(event: SessionCreated) -> None:  # returns: acknowledged; raises: tried again, then a dead letter
        if event.user_id in unreachable:
            raise OSError("the mail server does not answer")
        mailed.append(event.user_id)  # once, but for crashes; where that matters, remember `event.id` with the effect

    return subscriber


async def main() -> None:
    users = ["alice", "bob", "carol", "dave", "erin"]
    async with Publisher(RedisStream(URL, key=KEY)) as publisher, worker("one"), worker("two"):
        await publisher.publish_many(SessionCreated(session_id=f"{user}'s phone", user_id=user) for user in users)

        async with DeadLetters(RedisStream(URL, key=KEY)) as dead:  # or from a terminal: jwt-events dead list
            await eventually(dead.count)
            (letter,) = await dead.list()
            print(f"given up after {letter.attempts} attempts: {letter.error}")

            unreachable.clear()  # the cause is mended, so
            await dead.replay(letter.id)
            await eventually(lambda: len(mailed) == len(users))
    print("mailed:", *sorted(mailed))


asyncio.run(main())
