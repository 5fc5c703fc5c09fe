"""A transport within one process: for tests of programs that use this library, without a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Literal

from jwt_events import options
from jwt_events.errors import InvalidOption
from jwt_events.transport.base import Delivery, Guarantees, Page, Receiver, Sender, Sent, Verdict

_PAGE = 500

# How long a quiet read waits before it returns an empty page, like the Redis transports.
_BLOCK = 1.0


class MemoryTransport:
    """Events within one process and one event loop; behaves like `RedisStream` and remembers as long as it lives.

    Pass the same object to the publisher and to the subscribers.

    Args:
        start: where a receiver begins: ``"new"`` with what is sent from now on, ``"all"`` with the first event.
        retention: refuse events that expire later than this from now, as a stream with this retention does. Nothing is
            ever forgotten. ``None`` refuses none.

    Attributes:
        dead_letters: what was given up, and why.
    """

    name = "memory"
    destination = "memory"
    claim_after: float | None = None
    guarantees = Guarantees(durable=True, redelivers=False, ordered=True, fan_out=True)

    def __init__(self, *, start: Literal["new", "all"] = "new", retention: timedelta | None = None) -> None:
        if start not in ("new", "all"):
            raise InvalidOption("start", "must be 'new' or 'all'")
        self.retention = None if retention is None else options.duration("retention", retention)
        self._start = start
        self.dead_letters: list[tuple[Delivery, Verdict]] = []
        self._log: list[Delivery] = []
        self._grown = asyncio.Event()  # replaced whenever something is appended

    def __repr__(self) -> str:
        return f"<MemoryTransport with {len(self._log)} events>"

    @asynccontextmanager
    async def sender(self) -> AsyncIterator[Sender]:
        """Open a way to send; see `Transport.sender`."""
        yield _MemorySender(self)

    @asynccontextmanager
    async def receiver(self, *, from_oldest: bool = False) -> AsyncIterator[Receiver]:
        """Subscribe; see `Transport.receiver`."""
        yield _MemoryReceiver(self, 0 if from_oldest or self._start == "all" else len(self._log))

    def append(self, payloads: Sequence[bytes]) -> list[Sent]:
        """Remember payloads and wake whoever waits for them."""
        sent = []
        for payload in payloads:
            position = f"{len(self._log) + 1}-0"
            self._log.append(Delivery(payload, position))
            sent.append(Sent(position=position))
        self._grown.set()
        self._grown = asyncio.Event()
        return sent

    async def read(self, index: int) -> Sequence[Delivery]:
        """Return what follows the first ``index`` payloads, waiting about a second for it."""
        if index >= len(self._log):
            with suppress(TimeoutError):
                async with asyncio.timeout(_BLOCK):
                    await self._grown.wait()
        return self._log[index : index + _PAGE]


class _MemorySender:
    def __init__(self, transport: MemoryTransport) -> None:
        self._transport = transport

    async def send(self, payloads: Sequence[bytes], *, within: float) -> Sequence[Sent]:
        return self._transport.append(payloads)


class _MemoryReceiver:
    def __init__(self, transport: MemoryTransport, index: int) -> None:
        self._transport = transport
        self._index = index

    async def receive(self) -> Page:
        asked_at = asyncio.get_running_loop().time()
        deliveries = await self._transport.read(self._index)
        self._index += len(deliveries)
        return Page(deliveries, current_as_of=asked_at if len(deliveries) < _PAGE else None)

    def settle(self, delivery: Delivery, verdict: Verdict | None = None) -> None:
        if verdict is not None:
            self._transport.dead_letters.append((delivery, verdict))
