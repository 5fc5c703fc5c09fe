"""A consumer group without the library, as the server sees it."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis

from tests.support.raw import call
from tests.support.waiting import wait_until


class RawGroup:
    """Access to the group ``g`` of a stream."""

    def __init__(self, client: Redis, key: str) -> None:
        self.client = client
        self.key = key

    async def give(self, consumer: str, count: int = 1_000_000) -> list[str]:
        """Deliver new entries to a consumer that does not handle them, and return their positions."""
        await call(self.client, "XGROUP", "CREATECONSUMER", self.key, "g", consumer)
        reply: Any = await self.client.xreadgroup("g", consumer, {self.key: ">"}, count=count)
        return [position.decode() for _, found in reply for position, _ in found]

    async def pretend(self, consumer: str, positions: list[str], *, idle: float, deliveries: int = 1) -> None:
        """Make entries look as if a consumer had held them for some seconds and got them several times."""
        names: list[Any] = list(positions)
        milliseconds = int(idle * 1000)
        await self.client.xclaim(
            self.key, "g", consumer, 0, names, idle=milliseconds, retrycount=deliveries, justid=True
        )

    async def pending(self) -> dict[str, str]:
        """Return the consumer that holds each pending entry."""
        rows: list[dict[str, Any]] = await self.client.xpending_range(self.key, "g", "-", "+", 100_000)
        return {row["message_id"].decode(): row["consumer"].decode() for row in rows}

    async def all_acknowledged(self, *, within: float = 10.0) -> None:
        """Wait until the whole stream is delivered and acknowledged."""

        async def is_so() -> bool:
            stream: Any = await self.client.xinfo_stream(self.key)
            groups: list[dict[str, Any]] = await self.client.xinfo_groups(self.key)
            delivered = next(group["last-delivered-id"] for group in groups if group["name"] == b"g")
            return delivered == stream["last-generated-id"] and not await self.pending()

        await wait_until(is_so, within=within, what="acknowledgements")

    async def consumers(self) -> set[str]:
        """Return the names of the consumers."""
        return {row["name"].decode() for row in await self.client.xinfo_consumers(self.key, "g")}
