"""Learn to publish: tell every service that a token, a session or a key is no longer good."""

import asyncio
import os
import time

from jwt_events import EventType, KeyRotated, Publisher, RedisStream, SessionDestroyed, TokenRevoked

URL = os.environ.get("JWT_EVENTS_URL", "redis://localhost:6379")


async def main() -> None:
    async with Publisher(RedisStream(URL), source="auth-service") as publisher:
        # From the claims of a decoded token: its jti decides, its exp says how long this matters.
        claims = {"jti": "token-1", "sub": "alice", "exp": int(time.time()) + 900}
        receipt = await publisher.publish(TokenRevoked.from_claims(claims, reason="logout"))
        print("token revoked at", receipt.position)

        # By type and fields, when the event comes from somewhere else.
        await publisher.publish(EventType.KEY_ROTATED, {"key_id": "2026-11", "previous_key_id": "2026-10"})
        print("key rotated")

        # Many at a time: log a user out everywhere.
        receipts = await publisher.publish_many(
            [
                SessionDestroyed(session_id="laptop", user_id="alice"),
                SessionDestroyed(session_id="phone", user_id="alice"),
                KeyRotated(key_id="2026-10", compromised=True),
            ]
        )
        print(len(receipts), "more published")


asyncio.run(main())
