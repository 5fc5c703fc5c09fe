"""Learn to publish events: a token is revoked, a session is destroyed, a key is rotated."""

import asyncio
import os
import time

from jwt_events import EventType, KeyRotated, Publisher, RedisStream, SessionDestroyed, TokenRevoked

URL = os.environ.get("JWT_EVENTS_URL", "redis://localhost:6379")


async def main() -> None:
    async with Publisher(RedisStream(URL), source="auth-service") as publisher:
        # From the claims of a decoded token: jti selects the token, exp limits how long the rule is kept.
        claims = {"jti": "token-1", "sub": "alice", "exp": int(time.time()) + 900}
        receipt = await publisher.publish(TokenRevoked.from_claims(claims, reason="logout"))
        print("token revoked at", receipt.position)

        # By type and fields, for example when they come from another system.
        await publisher.publish(EventType.KEY_ROTATED, {"key_id": "2026-11", "previous_key_id": "2026-10"})
        print("key rotated")

        # Several in one call: log a user out on every device.
        receipts = await publisher.publish_many(
            [
                SessionDestroyed(session_id="laptop", user_id="alice"),
                SessionDestroyed(session_id="phone", user_id="alice"),
                KeyRotated(key_id="2026-10", compromised=True),
            ]
        )
        print(len(receipts), "more published")


asyncio.run(main())
