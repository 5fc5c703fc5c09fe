"""The way from a transport to one receiver, and what happens to deliveries on it. Pure, but for waking the receiver."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from jwt_events.errors import TransportError
from jwt_events.transport.base import Batch, Delivery, Gap


class Repeated(Delivery):
    """A delivery that the transport did not make: a copy of one that it made."""

    __slots__ = ()


@dataclass(slots=True)
class _Order:
    """What to do with the next deliveries.

    Attributes:
        left: with how many.
        carry_out: takes one of them, and whether it is the last, and returns what is delivered instead.
    """

    left: int
    carry_out: Callable[[Delivery, bool], Sequence[Delivery]]


class Line:
    """The way to one receiver. Orders wait in a queue, each for its number of deliveries.

    Args:
        is_live: whether what is sent while the receiver is away is gone, as with Pub/Sub.

    Attributes:
        refusal: why nothing is received any more; ``None`` while something is.
        is_away: whether the connection is lost.
        is_held: whether nothing gets through.
        must_reopen: whether the receiver has to subscribe anew.
    """

    def __init__(self, *, is_live: bool) -> None:
        self.refusal: TransportError | None = None
        self.is_away: bool = False
        self.is_held: bool = False
        self.must_reopen: bool = False
        self._is_live = is_live
        self._orders: deque[_Order] = deque()
        self._kept: list[Delivery] = []
        self._gaps: list[Gap] = []
        self._news: list[Batch] = []
        self._last_position: str | None = None
        self._proves_nothing = False
        self._bell: asyncio.Future[None] | None = None

    @property
    def kept_back(self) -> int:
        """How many deliveries wait."""
        return len(self._kept)

    def bell(self) -> asyncio.Future[None]:
        """Return what is done as soon as something happens to this line."""
        if self._bell is None or self._bell.done():
            self._bell = asyncio.get_running_loop().create_future()
        return self._bell

    def ring(self) -> None:
        """Wake the receiver: something has happened."""
        if self._bell is not None and not self._bell.done():
            self._bell.set_result(None)

    def news(self) -> Batch | None:
        """Return what the receiver is told before it reads on; ``None`` for nothing."""
        return self._news.pop(0) if self._news else None

    def pass_on(self, page: Batch) -> Batch:
        """Do with a page what was ordered. It proves nothing if its read was cut off, or if some of it is kept back."""
        deliveries: list[Delivery] = []
        for delivery in page.deliveries:
            deliveries += self._pass_on(delivery)
            self._last_position = delivery.position
        proves_nothing, self._proves_nothing = self._proves_nothing, False
        current_as_of = None if self._is_live or proves_nothing or self._kept else page.current_as_of
        gaps, self._gaps = [*page.gaps, *self._gaps], []
        return replace(page, deliveries=deliveries, gaps=gaps, current_as_of=current_as_of)

    def _pass_on(self, delivery: Delivery) -> Sequence[Delivery]:
        if not self._orders:
            return (delivery,)
        order = self._orders[0]
        order.left -= 1
        if not order.left:
            self._orders.popleft()
        return order.carry_out(delivery, not order.left)

    def lose(self, number: int, cause: str | None) -> None:
        """Deliver none of the next ones, and report a gap with this cause; ``None`` reports nothing."""
        since: list[str | None] = []

        def carry_out(delivery: Delivery, is_last: bool) -> Sequence[Delivery]:
            if not since:
                since.append(self._last_position)
            if is_last and cause is not None:
                self._gaps.append(Gap(since[0], cause, number))
            return ()

        self._orders.append(_Order(number, carry_out))

    def duplicate(self, number: int) -> None:
        """Deliver each of the next ones twice."""

        def carry_out(delivery: Delivery, is_last: bool) -> Sequence[Delivery]:
            return delivery, Repeated(delivery.payload, delivery.position, delivery.attempt + 1)

        self._orders.append(_Order(number, carry_out))

    def reorder(self, number: int) -> None:
        """Deliver the next ones together, the last one first."""

        def carry_out(delivery: Delivery, is_last: bool) -> Sequence[Delivery]:
            self._kept.append(delivery)
            if not is_last:
                return ()
            reversed_ = self._kept[: -number - 1 : -1]
            del self._kept[-number:]
            return reversed_

        self._orders.append(_Order(number, carry_out))

    def delay(self, number: int) -> None:
        """Keep the next ones back until all is well."""

        def carry_out(delivery: Delivery, is_last: bool) -> Sequence[Delivery]:
            self._kept.append(delivery)
            return ()

        self._orders.append(_Order(number, carry_out))

    def report(self, gap: Gap) -> None:
        """Report a gap without losing anything."""
        self._news.append(Batch(gaps=(gap,)))

    def hold(self) -> None:
        """Let nothing through. The read that is under way will prove nothing."""
        self.is_held = self._proves_nothing = True

    def cut_short(self) -> None:
        """Lose the connection and have it back at once."""
        if not self.is_away:
            self.is_away = self._proves_nothing = True
            self.mend()

    def cut(self) -> None:
        """Lose the connection."""
        if not self.is_away and self._is_live:
            self._news.append(Batch(gaps=(Gap(None, "disconnected"),)))
        self.is_away = self._proves_nothing = True

    def mend(self) -> None:
        """Have the connection back, if it was lost."""
        if self.is_away:
            self.is_away, self.must_reopen = False, self._is_live
            gaps = (Gap(None, "reconnected"),) if self._is_live else ()
            self._news.append(Batch(gaps=gaps, reconnected=True))

    def heal(self) -> None:
        """Let everything through, what was kept back first, and forget the orders that are left."""
        self.mend()
        self.is_held = False
        self._orders.clear()
        if self._kept:
            self._news.append(Batch(self._kept))
            self._kept = []
