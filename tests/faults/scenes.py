"""Publishers and listeners that run while something fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Any, Self

import pytest

from jwt_events import Publisher, PublishError, RedisPubSub, RedisStream, TokenRevoked, Transport
from jwt_events.testing import Listener
from tests.support.handling import running
from tests.support.waiting import scaled, wait_until

TRANSPORTS = ("pubsub", "stream", "group")
STREAMS = ("stream", "group")

# Short, to keep tests short: an event that is claimed too early is handled twice, which does no harm here.
CLAIM_AFTER = 1.0


def transport_of(kind: str, url: str, key: str, **options: Any) -> Transport:
    """Make a transport: ``pubsub``, ``stream`` or ``group``."""
    if kind == "pubsub":
        return RedisPubSub(url, key)
    if kind == "group":
        options = {"group": "workers", "claim_after": scaled(CLAIM_AFTER)} | options
    return RedisStream(url, key, **options)


async def for_ever() -> None:
    """Wait until cancelled, for 30 seconds at most (before scaling)."""
    async with asyncio.timeout(scaled(30)):
        await asyncio.Event().wait()


@asynccontextmanager
async def ending(*errors: type[Exception], within: float = 5.0) -> AsyncIterator[None]:
    """Require that the block ends with one of these errors, and in time (before scaling)."""
    with pytest.raises(errors):
        async with asyncio.timeout(scaled(within)):
            yield


async def some_gap(listener: Listener, *, within: float = 10.0) -> None:
    """Wait until a gap was reported to the listener."""
    await wait_until(lambda: listener.gaps, within=within, what="a gap")


class Source:
    """Publishes events, each about a subject of its own, and records which the server confirmed.

    Attributes:
        confirmed: the subjects of the events with a receipt.
        publisher: the publisher itself.
    """

    def __init__(self, transport: Transport, *, timeout: float = 10.0) -> None:
        self.confirmed: list[str] = []
        self.publisher = Publisher(transport, source="tests", timeout=scaled(timeout))
        self._number = 0

    async def __aenter__(self) -> Self:
        await self.publisher.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.publisher.aclose()

    async def publish(self, number: int = 1) -> str:
        """Publish ``number`` events one after another, and return the subject of the last."""
        for _ in range(number):
            subject = f"t{self._number}"
            self._number += 1
            await self.publisher.publish(TokenRevoked(token_id=subject))
            self.confirmed.append(subject)
        return self.confirmed[-1]

    async def is_heard_by(self, listener: Listener, *, within: float = 15.0) -> None:
        """Publish until the listener has received one of the events: only then is it known to be subscribed."""

        async def one_arrives() -> bool:
            subject = await self.publish()
            try:
                await wait_until(lambda: subject in listener.subjects, within=0.05)
            except AssertionError:
                return False
            return True

        await wait_until(one_arrives, within=within, what=lambda: f"an event; gaps: {listener.gaps}")

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        """Publish all the time; events without a receipt are not counted."""

        async def flow() -> None:
            while True:
                with suppress(PublishError):
                    await self.publish(5)
                await asyncio.sleep(0.001)

        async with running(flow()):
            yield
