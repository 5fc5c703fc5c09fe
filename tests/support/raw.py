"""Commands to a server without the library: to prepare its state and to check the result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis


async def call(client: Redis, *words: str | bytes | int) -> Any:
    """Send a command and return its reply."""
    return await client.execute_command(*words)  # type: ignore[no-untyped-call]  # redis-py does not annotate it


async def are_linked(primary: Redis, replicas: Sequence[Redis]) -> bool:
    """Whether a primary and its replicas are in contact: each of them says so, as the one knows it before the other."""
    said = await primary.info("replication")
    states = {said.get(f"slave{index}", {}).get("state") for index in range(len(replicas))}
    links = {(await replica.info("replication"))["master_link_status"] for replica in replicas}
    return states <= {"online"} and links <= {"up"}


async def add(client: Redis, key: str, *positions: str) -> None:
    """Append entries to a stream whose payload is their position."""
    for position in positions:
        await call(client, "XADD", key, position, "event", position)


async def entries(client: Redis, key: str) -> list[tuple[str, dict[bytes, bytes]]]:
    """Return all entries of a stream."""
    return [(position.decode(), fields) for position, fields in await call(client, "XRANGE", key, "-", "+")]


async def trim(client: Redis, key: str, length: int) -> None:
    """Remove all but the newest entries."""
    await call(client, "XTRIM", key, "MAXLEN", length)


async def counts(client: Redis, key: str) -> bool:
    """Return whether the server counts how many entries were ever added to a stream: since Redis 7."""
    return b"entries-added" in await call(client, "XINFO", "STREAM", key)


async def server_time(client: Redis) -> int:
    """Return the server's clock, in milliseconds."""
    seconds, microseconds = await call(client, "TIME")
    return int(seconds) * 1000 + int(microseconds) // 1000


async def counts_what_was_added(client: Redis) -> bool:
    """Whether the server counts the entries that were ever added to a stream, as Redis does since version 7."""
    return int((await client.info("server"))["redis_version"].split(".")[0]) >= 7


async def count_where_known(client: Redis, count: int) -> int | None:
    """Return how many entries a gap names as lost, which a server that does not count cannot know."""
    return count if await counts_what_was_added(client) else None
