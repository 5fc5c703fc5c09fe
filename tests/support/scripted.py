"""A transport that delivers what the test tells it to, when the test tells it to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from jwt_events import Event, Gap, Guarantees, TransportError
from jwt_events.envelope import Envelope, encode
from jwt_events.transport.base import Batch, Delivery, Failure, Receiver, Sender


class ScriptedTransport:
    """Delivers batches, gaps and failures on request of a test. Cannot send.

    Attributes:
        opening: set it to let subscribing succeed; a test may clear it first.
        open: how many receivers are open.
        opened: how many receivers were opened so far.
        failed: how many reads failed.
        settled: the settled deliveries, with the failure of each that was given up.
    """

    name = "scripted"
    destination = "script"
    guarantees = Guarantees(durable=True, redelivers=False, ordered=True, fan_out=True)
    retention: timedelta | None = None
    claim_after: float | None = None

    def __init__(self) -> None:
        self.opening = asyncio.Event()
        self.opening.set()
        self.open = 0
        self.opened = 0
        self.failed = 0
        self.settled: list[tuple[Delivery, Failure | None]] = []
        self._script: asyncio.Queue[Batch | Exception] = asyncio.Queue()

    def deliver(self, *events: Event, gaps: tuple[Gap, ...] = (), payloads: tuple[bytes, ...] = ()) -> None:
        """Let the next read return one batch with these events, gaps and payloads."""
        encoded = [encode(Envelope(event), source="script") for event in events]
        self._script.put_nowait(Batch([Delivery(payload) for payload in (*encoded, *payloads)], gaps))

    def fail(self, error: Exception | None = None) -> Exception:
        """Let the next read raise an error that is not retryable, and return it."""
        error = error or TransportError("the script says so")
        self._script.put_nowait(error)
        return error

    @asynccontextmanager
    async def sender(self) -> AsyncIterator[Sender]:
        """Refuse: this transport cannot send."""
        raise NotImplementedError
        yield

    @asynccontextmanager
    async def receiver(
        self, *, from_oldest: bool = False, poll_timeout: float | None = None
    ) -> AsyncIterator[Receiver]:
        """Subscribe, as soon as the test allows it."""
        self.open += 1
        try:
            await self.opening.wait()
            self.opened += 1
            yield self
        finally:
            self.open -= 1

    async def receive(self) -> Batch:
        """Return the next batch of the script, or raise its next error."""
        item = await self._script.get()
        if isinstance(item, Exception):
            self.failed += 1
            raise item
        return item

    def settle(self, delivery: Delivery, failure: Failure | None = None) -> None:
        """Record the settled delivery."""
        self.settled.append((delivery, failure))
