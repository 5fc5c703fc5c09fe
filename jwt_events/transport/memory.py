"""A transport within one process: for tests of programs that use this library, without a server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from typing import Literal

from jwt_events._internal import options
from jwt_events._internal.clock import boottime
from jwt_events._internal.loops import OwnLoop
from jwt_events.errors import InvalidOption
from jwt_events.transport.base import Batch, Delivery, Failure, Guarantees, Receiver, Sender, Sent
from jwt_events.transport.optional import Reading, Registry, Stored

_BATCH_SIZE = 500

# Seconds that a read waits for an event before it returns an empty batch, as in the Redis transports.
_BLOCK = 1.0


class MemoryTransport:
    """Events within one process and one event loop; behaves like `RedisStream`, and never removes an event.

    Pass the same object to the publisher and to the subscribers. Opening it in a second event loop, while the first has
    not ended and it is open there, raises `WrongLoop`.

    Args:
        start: where a receiver begins: ``"new"`` with events that are sent from now on, ``"all"`` with the first event.
        retention: refuse events that expire later than this from now, as a stream with this retention does. ``None``
            refuses none.

    Attributes:
        dead_letters: deliveries that were given up, and why.
    """

    name = "memory"
    destination = "memory"
    claim_after: float | None = None
    guarantees: Guarantees = Guarantees(durable=True, redelivers=False, ordered=True, fan_out=True)

    def __init__(self, *, start: Literal["new", "all"] = "new", retention: timedelta | None = None) -> None:
        if start not in ("new", "all"):
            raise InvalidOption("start", "must be 'new' or 'all'")
        self.retention: timedelta | None = None if retention is None else options.duration("retention", retention)
        self._start = start
        self.dead_letters: list[tuple[Delivery, Failure]] = []
        self._log: list[Delivery] = []
        self._instances: dict[str, bytes] = {}
        self._loop = OwnLoop("the transport in memory")
        self._open = 0  # senders and receivers
        self._has_grown = asyncio.Event()  # replaced whenever something is appended

    def __repr__(self) -> str:
        return f"<MemoryTransport with {len(self._log)} events>"

    @asynccontextmanager
    async def sender(self) -> AsyncIterator[Sender]:
        """Open a sender; see `Transport.sender`."""
        with self._opened():
            yield _MemorySender(self)

    @asynccontextmanager
    async def receiver(
        self, *, from_oldest: bool = False, poll_timeout: float | None = None
    ) -> AsyncIterator[Receiver]:
        """Subscribe; see `Transport.receiver`."""
        index = 0 if from_oldest or self._start == "all" else len(self._log)
        within = _BLOCK if poll_timeout is None else min(poll_timeout, _BLOCK)
        with self._opened():
            yield _MemoryReceiver(self, index, poll_timeout=within)

    @asynccontextmanager
    async def registry(self) -> AsyncIterator[Registry]:
        """Open the registry of instances; see `Registering`."""
        yield _MemoryRegistry(self._instances)

    @contextmanager
    def _opened(self) -> Iterator[None]:
        """Belong to this event loop while anything is open: what waits in another one could not be woken."""
        if self._loop.has_ended:  # with what was open there
            self._loop.release()
            self._open = 0
        self._loop.bind()
        if not self._open:
            self._has_grown = asyncio.Event()  # the one before may belong to another event loop
        self._open += 1
        try:
            yield
        finally:
            if self._loop.is_current():
                self._open -= 1
                if not self._open:
                    self._loop.release()

    def append(self, payloads: Sequence[bytes]) -> list[Sent]:
        """Store payloads and wake the receivers that wait for them."""
        sent = []
        for payload in payloads:
            position = f"{len(self._log) + 1}-0"
            self._log.append(Delivery(payload, position))
            sent.append(Sent(position=position))
        self._has_grown.set()
        self._has_grown = asyncio.Event()
        return sent

    async def read(self, index: int, *, within: float) -> Sequence[Delivery]:
        """Return the deliveries after the first ``index``; if there are none, wait up to ``within`` seconds for one."""
        if index >= len(self._log) and within:
            with suppress(TimeoutError):
                async with asyncio.timeout(within):
                    await self._has_grown.wait()
        return self._log[index : index + _BATCH_SIZE]


class _MemorySender:
    def __init__(self, transport: MemoryTransport) -> None:
        self._transport = transport

    async def send(self, payloads: Sequence[bytes], *, within: float) -> Sequence[Sent]:
        return self._transport.append(payloads)


class _MemoryRegistry:
    def __init__(self, instances: dict[str, bytes]) -> None:
        self._instances = instances

    async def announce(self, name: str, entry: bytes, *, within: float) -> Stored:
        is_new = name not in self._instances
        self._instances[name] = entry
        return Stored(time.time(), is_new=is_new)

    async def entries(self, *, within: float) -> Reading:
        return Reading(dict(self._instances), time.time(), history="")

    async def forget(self, names: Sequence[str], *, within: float) -> None:
        for name in names:
            self._instances.pop(name, None)


class _MemoryReceiver:
    def __init__(self, transport: MemoryTransport, index: int, *, poll_timeout: float) -> None:
        self._transport = transport
        self._index = index
        self._poll_timeout = poll_timeout
        self._is_at_end = False

    async def receive(self) -> Batch:
        asked_at = boottime()
        deliveries = await self._transport.read(self._index, within=self._poll_timeout if self._is_at_end else 0.0)
        self._index += len(deliveries)
        self._is_at_end = len(deliveries) < _BATCH_SIZE
        return Batch(deliveries, current_as_of=asked_at if self._is_at_end else None)

    def settle(self, delivery: Delivery, failure: Failure | None = None) -> None:
        if failure is not None:
            self._transport.dead_letters.append((delivery, failure))
