"""Faults that a test can inject into a transport."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from jwt_events._internal import options
from jwt_events.errors import ConnectionFailed, ServerRefused, SubscriptionRefused, TransportError
from jwt_events.testing._delivery_path import DeliveryPath
from jwt_events.transport.base import Gap


@dataclass(frozen=True, slots=True)
class SendOutcome:
    """Outcome of sending one payload.

    Attributes:
        arrives: whether the payload reaches the transport.
        error: error that the sender gets; ``None`` means the result of the transport.
    """

    arrives: bool = True
    error: TransportError | None = None


class Faults:
    """Injects faults into a `FaultyTransport`, on request and never at random. It never sleeps.

    A fault that concerns deliveries applies to every open receiver, or, if there is none, to the next one that opens.
    Faults for a number of deliveries apply one after another: after ``lose(2)`` and ``duplicate(1)`` the next two
    deliveries are lost and the third is made twice.

    Use it in the event loop of the transport.
    """

    def __init__(self) -> None:
        self._paths: list[DeliveryPath] = []
        self._pending: list[Callable[[DeliveryPath], None]] = []
        self._send_outcomes: deque[SendOutcome] = deque()
        self._refused_subscriptions = 0
        self._is_disconnected = self._is_held = False

    def __repr__(self) -> str:
        state = "disconnected" if self._is_disconnected else "held" if self._is_held else "connected"
        return f"<Faults {state}, {len(self._paths)} receivers>"

    @property
    def kept_back(self) -> int:
        """Number of deliveries kept back over all receivers: delayed ones, and those to be reordered."""
        return sum(path.kept_back for path in self._paths)

    @property
    def is_quiet(self) -> bool:
        """Whether no read is under way: once this is so after `hold`, what is sent then is not read before `heal`."""
        return not any(path.is_reading for path in self._paths)

    def drop(self) -> None:
        """Drop the connections of all receivers, and restore them at once.

        As on a real server, a durable transport continues at its position, and one that is not durable reports a gap.
        """
        self._apply(DeliveryPath.drop)

    def disconnect(self) -> None:
        """Lose all connections until `heal`: receivers get no deliveries, and sending and opening fail.

        A publish is retried until its ``timeout`` and then raises `PublishFailed`.
        """
        self._is_disconnected = True
        for path in self._paths:
            path.disconnect()
            path.notify()

    def hold(self) -> None:
        """Hold all deliveries silently until `heal`, like a half-open connection.

        This makes a `RevocationList` stale: at once with `ManualClock.advance`, otherwise after ``max_staleness``.
        """
        self._is_held = True
        for path in self._paths:
            path.hold()
            path.notify()

    def lose(self, count: int = 1, *, cause: str | None = "trimmed") -> None:
        """Lose the next deliveries, and report them as a `Gap`.

        Args:
            count: number of deliveries.
            cause: cause of the gap; ``None`` reports no gap, which no transport of this library would do.
        """
        count = options.count("count", count)
        self._apply(lambda path: path.lose(count, cause))

    def duplicate(self, count: int = 1) -> None:
        """Make each of the next deliveries twice. A `Subscriber` handles only the first."""
        count = options.count("count", count)
        self._apply(lambda path: path.duplicate(count))

    def reorder(self, count: int = 2) -> None:
        """Keep the next deliveries back until all have arrived, then make them in reverse order."""
        count = options.count("count", count)
        self._apply(lambda path: path.reorder(count))

    def delay(self, count: int = 1) -> None:
        """Keep the next deliveries back until `heal`, while later ones arrive."""
        count = options.count("count", count)
        self._apply(lambda path: path.delay(count))

    def gap(self, cause: str = "restarted", *, lost: int | None = None) -> None:
        """Report a `Gap` without losing a delivery."""
        self._apply(lambda path: path.report(Gap(None, cause, lost)))

    def refuse_subscription(self, times: int = 1) -> None:
        """Fail the next attempts to open a receiver with `SubscriptionRefused`."""
        self._refused_subscriptions += options.count("times", times)

    def end_subscriptions(self) -> None:
        """Fail every open receiver for good with `SubscriptionRefused`. A `Subscriber` ends."""
        for path in self._paths:
            path.failure = SubscriptionRefused("the test ended the subscription")
            path.notify()

    def refuse(self, count: int = 1) -> None:
        """Refuse the next payloads: they do not arrive, and publishing raises `PublishFailed`."""
        error = ServerRefused("the test refuses it", code="NOPERM")
        self._send_outcomes += [SendOutcome(arrives=False, error=error)] * options.count("count", count)

    def leave_unknown(self, count: int = 1, *, arrives: bool = True) -> None:
        """Make publishing the next payloads raise `PublishOutcomeUnknown`.

        Args:
            count: number of payloads.
            arrives: whether they arrive nevertheless.
        """
        error = TransportError("the test leaves it open", maybe_done=True)
        self._send_outcomes += [SendOutcome(arrives, error)] * options.count("count", count)

    def heal(self) -> None:
        """End all faults: reconnect, release the deliveries that were kept back, and discard faults not yet applied.

        Lost deliveries stay lost, and ended subscriptions stay ended.
        """
        self._is_disconnected = self._is_held = False
        self._refused_subscriptions = 0
        self._pending.clear()
        self._send_outcomes.clear()
        for path in self._paths:
            path.heal()
            path.notify()

    def next_send_outcome(self) -> SendOutcome:
        """Return the outcome of the next payload; for the transport."""
        if self._is_disconnected:
            return SendOutcome(arrives=False, error=ConnectionFailed("the test cut the connection"))
        return self._send_outcomes.popleft() if self._send_outcomes else SendOutcome()

    @contextmanager
    def listening(self, *, is_live: bool) -> Iterator[DeliveryPath]:
        """Open the path to a receiver; for the transport.

        Raises:
            TransportError: the receiver cannot be opened.
        """
        if self._refused_subscriptions:
            self._refused_subscriptions -= 1
            raise SubscriptionRefused("the test refuses the subscription")
        if self._is_disconnected:
            raise ConnectionFailed("the test cut the connection")
        path = DeliveryPath(is_live=is_live)
        if self._is_held:
            path.hold()
        pending, self._pending = self._pending, []
        for fault in pending:
            fault(path)
        self._paths.append(path)
        try:
            yield path
        finally:
            self._paths.remove(path)

    def _apply(self, fault: Callable[[DeliveryPath], None]) -> None:
        if not self._paths:
            self._pending.append(fault)
        for path in self._paths:
            fault(path)
            path.notify()
