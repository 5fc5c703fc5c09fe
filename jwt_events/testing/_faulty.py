"""Transport that wraps another one and injects faults on request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

from jwt_events._internal.cancellation import end
from jwt_events.errors import TransportError
from jwt_events.testing._delivery_path import DeliveryPath, DuplicateDelivery
from jwt_events.testing._faults import Faults
from jwt_events.transport.base import Batch, Delivery, Failure, Guarantees, Receiver, Sender, Sent, Transport
from jwt_events.transport.optional import Fold, Ledgered, LedgerReport

# Seconds. Reads are short, so that the transport works normally again soon after a fault has ended.
_POLL_TIMEOUT = 0.1


class FaultyTransport:
    """Wrapper around a transport, on which a test can inject faults.

    ::

        transport = FaultyTransport(MemoryTransport())
        async with RevocationList(transport) as revocations:
            transport.faults.disconnect()

    Without a fault it behaves like the wrapped transport.

    Args:
        inner: transport that carries the events.
        is_live: whether messages sent while a receiver is disconnected are lost, and batches are no proof of currency,
            as with `RedisPubSub`.

    Attributes:
        faults: injects the faults.
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
        """Open a sender; see `Transport.sender`."""
        async with self._inner.sender() as sender:
            yield _FaultySender(sender, self.faults)

    @property
    def ledger(self) -> str | None:
        """The key of the ledger of the wrapped transport, if it has one; see `Ledgered`."""
        return self._inner.ledger if self.guarantees.durable and isinstance(self._inner, Ledgered) else None

    @asynccontextmanager
    async def folding(self, fold: Fold, report: Callable[[LedgerReport], None] | None = None) -> AsyncIterator[None]:
        """Fold in the background; see `Ledgered.folding`."""
        if isinstance(self._inner, Ledgered):
            async with self._inner.folding(fold, report):
                yield
        else:
            yield

    @asynccontextmanager
    async def receiver(
        self, *, from_oldest: bool = False, poll_timeout: float | None = None
    ) -> AsyncIterator[Receiver]:
        """Subscribe; see `Transport.receiver`."""
        from_oldest = from_oldest and self.guarantees.durable
        async with self._faulty(partial(self._inner.receiver, from_oldest=from_oldest), poll_timeout) as receiver:
            yield receiver

    @asynccontextmanager
    async def replica_receiver(self, *, poll_timeout: float | None = None) -> AsyncIterator[Receiver]:
        """Read the stream, then its ledger; see `Ledgered.replica_receiver`."""
        if not self.guarantees.durable or not isinstance(self._inner, Ledgered):
            async with self.receiver(from_oldest=True, poll_timeout=poll_timeout) as receiver:
                yield receiver
            return
        async with self._faulty(self._inner.replica_receiver, poll_timeout) as receiver:
            yield receiver

    @asynccontextmanager
    async def _faulty(
        self, subscribe: Callable[..., AbstractAsyncContextManager[Receiver]], poll_timeout: float | None
    ) -> AsyncIterator[Receiver]:
        is_live = not self.guarantees.durable
        with self.faults.listening(is_live=is_live) as path:
            poll_timeout = _POLL_TIMEOUT if poll_timeout is None else min(poll_timeout, _POLL_TIMEOUT)
            receiver = _FaultyReceiver(partial(subscribe, poll_timeout=poll_timeout), path)
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
        outcomes = [self._faults.next_send_outcome() for _ in payloads]
        arriving = [payload for payload, outcome in zip(payloads, outcomes, strict=True) if outcome.arrives]
        inner = iter(await self._inner.send(arriving, within=within) if arriving else ())
        results = [next(inner) if outcome.arrives else None for outcome in outcomes]
        return [outcome.error or result or Sent() for outcome, result in zip(outcomes, results, strict=True)]


class _FaultyReceiver:
    def __init__(self, subscribe: Callable[[], AbstractAsyncContextManager[Receiver]], path: DeliveryPath) -> None:
        self._subscribe = subscribe
        self._path = path
        self._stack = AsyncExitStack()
        self._reading: asyncio.Task[Batch] | None = None

    async def open(self) -> None:
        self._inner = await self._stack.enter_async_context(self._subscribe())

    async def aclose(self) -> None:
        reading, self._reading = self._reading, None
        if reading is not None:
            await end([reading])
        await self._stack.aclose()

    async def receive(self) -> Batch:
        path = self._path
        while True:
            if path.failure is not None:
                raise path.failure
            if path.must_reopen:
                await self.aclose()
                await self.open()
                path.must_reopen = False
            if (report := path.next_report()) is not None:
                return report
            changed = path.changed()
            if path.is_disconnected or path.is_held:
                await changed
                continue
            if self._reading is None:
                self._reading = asyncio.create_task(self._inner.receive())
                path.begin_read(self._reading)
            waiting: set[asyncio.Future[Any]] = {self._reading, changed}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if self._reading.done() and not changed.done():
                reading, self._reading = self._reading, None
                return path.apply_faults(reading.result())

    def settle(self, delivery: Delivery, failure: Failure | None = None) -> None:
        if not isinstance(delivery, DuplicateDelivery):
            self._inner.settle(delivery, failure)
