"""A transport on which things go wrong when a test says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

from jwt_events.errors import TransportError
from jwt_events.testing.faults import Faults
from jwt_events.testing.line import Line, Repeated
from jwt_events.transport.base import Batch, Delivery, Failure, Guarantees, Receiver, Sender, Sent, Transport

# Reads are short, so that all is as before soon after a fault has ended. In seconds.
_POLL_TIMEOUT = 0.1


class FaultyTransport:
    """Another transport, and what can go wrong with it.

    ::

        transport = FaultyTransport(MemoryTransport())
        async with RevocationList(transport) as revocations:
            transport.faults.disconnect()

    While nothing is wrong it does what the other transport does.

    Args:
        inner: what carries the events.
        is_live: forget what is sent while a receiver is away, and prove nothing, as `RedisPubSub` does.

    Attributes:
        faults: makes things go wrong.
    """

    def __init__(self, inner: Transport, *, is_live: bool = False) -> None:
        self.faults: Faults = Faults()
        self.name: str = inner.name
        self.destination: str = inner.destination
        self.guarantees: Guarantees = (
            replace(inner.guarantees, durable=False, redelivers=False) if is_live else inner.guarantees
        )
        self.retention: timedelta | None = None if is_live else inner.retention
        self.claim_after: float | None = inner.claim_after
        self._inner = inner

    def __repr__(self) -> str:
        return f"<FaultyTransport {self.faults!r}, {self._inner!r}>"

    @asynccontextmanager
    async def sender(self) -> AsyncIterator[Sender]:
        """Open a way to send; see `Transport.sender`."""
        async with self._inner.sender() as sender:
            yield _FaultySender(sender, self.faults)

    @asynccontextmanager
    async def receiver(
        self, *, from_oldest: bool = False, poll_timeout: float | None = None
    ) -> AsyncIterator[Receiver]:
        """Subscribe; see `Transport.receiver`."""
        is_live = not self.guarantees.durable
        with self.faults.listening(is_live=is_live) as line:
            poll_timeout = _POLL_TIMEOUT if poll_timeout is None else min(poll_timeout, _POLL_TIMEOUT)
            subscribe = partial(
                self._inner.receiver, from_oldest=from_oldest and not is_live, poll_timeout=poll_timeout
            )
            receiver = _FaultyReceiver(subscribe, line)
            await receiver.open()
            try:
                yield receiver
            finally:
                await receiver.aclose()


class _FaultySender:
    def __init__(self, inner: Sender, faults: Faults) -> None:
        self._inner = inner
        self._faults = faults

    async def send(self, payloads: Sequence[bytes], *, within: float) -> Sequence[Sent | TransportError]:
        fates = [self._faults.fate() for _ in payloads]
        arriving = [payload for payload, fate in zip(payloads, fates, strict=True) if fate.arrives]
        outcomes = iter(await self._inner.send(arriving, within=within) if arriving else ())
        truths = [next(outcomes) if fate.arrives else None for fate in fates]
        return [fate.error or truth or Sent() for fate, truth in zip(fates, truths, strict=True)]


class _FaultyReceiver:
    def __init__(self, subscribe: Callable[[], AbstractAsyncContextManager[Receiver]], line: Line) -> None:
        self._subscribe = subscribe
        self._line = line
        self._stack = AsyncExitStack()
        self._reading: asyncio.Future[Batch] | None = None

    async def open(self) -> None:
        self._inner = await self._stack.enter_async_context(self._subscribe())

    async def aclose(self) -> None:
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()
            await asyncio.wait([reading])
        await self._stack.aclose()

    async def receive(self) -> Batch:
        line = self._line
        while True:
            if line.refusal is not None:
                raise line.refusal
            if line.must_reopen:
                await self.aclose()
                await self.open()
                line.must_reopen = False
            if (page := line.news()) is not None:
                return page
            bell = line.bell()
            if line.is_away or line.is_held:
                await bell
                continue
            if self._reading is None:
                self._reading = asyncio.ensure_future(self._inner.receive())
            waiting: set[asyncio.Future[Any]] = {self._reading, bell}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if self._reading.done() and not bell.done():
                reading, self._reading = self._reading, None
                return line.pass_on(reading.result())

    def settle(self, delivery: Delivery, failure: Failure | None = None) -> None:
        if not isinstance(delivery, Repeated):
            self._inner.settle(delivery, failure)
