"""Simulated path of deliveries from a transport to one receiver, on which faults apply. Does no I/O."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from jwt_events.errors import TransportError
from jwt_events.transport.base import Batch, Delivery, Gap


class DuplicateDelivery(Delivery, frozen=True):
    """Copy of a delivery, which the transport itself did not make."""


@dataclass(slots=True)
class _Fault:
    """Fault that applies to the next deliveries.

    Attributes:
        remaining: number of deliveries that it still applies to.
        apply: takes a delivery, and whether it is the last, and returns the deliveries that replace it.
    """

    remaining: int
    apply: Callable[[Delivery, bool], Sequence[Delivery]]


class DeliveryPath:
    """Path of deliveries to one receiver. Its faults form a queue; each applies to its number of deliveries.

    Args:
        is_live: whether messages sent while the receiver is disconnected are lost, as with Pub/Sub.

    Attributes:
        failure: error that ended the subscription; ``None`` while it is active.
        is_disconnected: whether the connection is lost.
        is_held: whether deliveries are held.
        must_reopen: whether the receiver must subscribe again.
    """

    def __init__(self, *, is_live: bool) -> None:
        self.failure: TransportError | None = None
        self.is_disconnected: bool = False
        self.is_held: bool = False
        self.must_reopen: bool = False
        self._reading: asyncio.Future[Batch] | None = None
        self._is_live = is_live
        self._faults: deque[_Fault] = deque()
        self._kept: list[Delivery] = []
        self._gaps: list[Gap] = []
        self._reports: list[Batch] = []
        self._last_position: str | None = None
        self._is_interrupted = False
        self._changed: asyncio.Future[None] | None = None

    @property
    def kept_back(self) -> int:
        """Number of deliveries that are kept back."""
        return len(self._kept)

    @property
    def is_reading(self) -> bool:
        """Whether a read of the wrapped receiver is under way."""
        return self._reading is not None and not self._reading.done()

    def begin_read(self, reading: asyncio.Future[Batch]) -> None:
        """Note a read of the wrapped receiver."""
        self._reading = reading

    def changed(self) -> asyncio.Future[None]:
        """Return a future that is done when the state of this path changes."""
        if self._changed is None or self._changed.done():
            self._changed = asyncio.get_running_loop().create_future()
        return self._changed

    def notify(self) -> None:
        """Wake the receiver after a change of state."""
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

    def next_report(self) -> Batch | None:
        """Return the next batch that the receiver gets before it reads on; ``None`` if there is none."""
        return self._reports.pop(0) if self._reports else None

    def apply_faults(self, batch: Batch) -> Batch:
        """Apply the faults to a batch. It is no proof if its read was interrupted or a delivery is kept back."""
        deliveries: list[Delivery] = []
        for delivery in batch.deliveries:
            deliveries += self._apply_next(delivery)
            self._last_position = delivery.position
        is_interrupted, self._is_interrupted = self._is_interrupted, False
        current_as_of = None if self._is_live or is_interrupted or self._kept else batch.current_as_of
        gaps, self._gaps = [*batch.gaps, *self._gaps], []
        return replace(batch, deliveries=deliveries, gaps=gaps, current_as_of=current_as_of)

    def _apply_next(self, delivery: Delivery) -> Sequence[Delivery]:
        if not self._faults:
            return (delivery,)
        fault = self._faults[0]
        fault.remaining -= 1
        if not fault.remaining:
            self._faults.popleft()
        return fault.apply(delivery, not fault.remaining)

    def lose(self, count: int, cause: str | None) -> None:
        """Lose the next deliveries and report a gap with this cause; ``None`` reports none."""
        since: list[str | None] = []

        def apply(delivery: Delivery, is_last: bool) -> Sequence[Delivery]:
            if not since:
                since.append(self._last_position)
            if is_last and cause is not None:
                self._gaps.append(Gap(since[0], cause, count))
            return ()

        self._faults.append(_Fault(count, apply))

    def duplicate(self, count: int) -> None:
        """Deliver each of the next deliveries twice."""

        def apply(delivery: Delivery, is_last: bool) -> Sequence[Delivery]:
            return delivery, DuplicateDelivery(
                delivery.payload, delivery.position, delivery.attempt + 1, delivery.fields
            )

        self._faults.append(_Fault(count, apply))

    def reorder(self, count: int) -> None:
        """Keep the next deliveries back until all have arrived, then deliver them in reverse order."""

        def apply(delivery: Delivery, is_last: bool) -> Sequence[Delivery]:
            self._kept.append(delivery)
            if not is_last:
                return ()
            reversed_ = self._kept[: -count - 1 : -1]
            del self._kept[-count:]
            return reversed_

        self._faults.append(_Fault(count, apply))

    def delay(self, count: int) -> None:
        """Keep the next deliveries back until `heal`."""

        def apply(delivery: Delivery, is_last: bool) -> Sequence[Delivery]:
            self._kept.append(delivery)
            return ()

        self._faults.append(_Fault(count, apply))

    def report(self, gap: Gap) -> None:
        """Report a gap without losing a delivery."""
        self._reports.append(Batch(gaps=(gap,)))

    def hold(self) -> None:
        """Hold all deliveries. The read in progress will be no proof."""
        self.is_held = self._is_interrupted = True

    def drop(self) -> None:
        """Lose the connection and restore it at once."""
        if not self.is_disconnected:
            self.is_disconnected = self._is_interrupted = True
            self.reconnect()

    def disconnect(self) -> None:
        """Lose the connection."""
        if not self.is_disconnected and self._is_live:
            self._reports.append(Batch(gaps=(Gap(None, "disconnected"),)))
        self.is_disconnected = self._is_interrupted = True

    def reconnect(self) -> None:
        """Restore the connection, if it is lost."""
        if self.is_disconnected:
            self.is_disconnected, self.must_reopen = False, self._is_live
            gaps = (Gap(None, "reconnected"),) if self._is_live else ()
            self._reports.append(Batch(gaps=gaps, reconnected=True))

    def heal(self) -> None:
        """End all faults: reconnect and release the deliveries that were kept back, before new ones."""
        self.reconnect()
        self.is_held = False
        self._faults.clear()
        if self._kept:
            self._reports.append(Batch(self._kept))
            self._kept = []
