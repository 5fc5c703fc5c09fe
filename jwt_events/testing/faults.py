"""What a test can make happen to a transport."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from jwt_events._internal import options
from jwt_events.errors import ConnectionFailed, ServerRefused, SubscriptionRefused, TransportError
from jwt_events.testing.line import Line
from jwt_events.transport.base import Gap


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of one payload that is sent.

    Attributes:
        arrives: whether the transport gets it.
        error: what the sender is told; ``None`` for what the transport says.
    """

    arrives: bool = True
    error: TransportError | None = None


class Faults:
    """Makes things go wrong on a `FaultyTransport`, when it is told to and never by chance. It never sleeps.

    What concerns deliveries happens to every receiver that is open, or, if none is, to the next one that opens.
    Orders about a number of deliveries are carried out one after another: after ``lose(2)`` and ``duplicate(1)`` the
    next two are lost and the third is delivered twice.

    Use it in the event loop of the transport.
    """

    def __init__(self) -> None:
        self._lines: list[Line] = []
        self._waiting: list[Callable[[Line], None]] = []
        self._fates: deque[Fate] = deque()
        self._refused_subscriptions = 0
        self._is_away = self._is_held = False

    def __repr__(self) -> str:
        state = "disconnected" if self._is_away else "held" if self._is_held else "connected"
        return f"<Faults {state}, {len(self._lines)} receivers>"

    @property
    def kept_back(self) -> int:
        """How many deliveries wait on their way, over all receivers: late ones, and those to be reordered."""
        return sum(line.kept_back for line in self._lines)

    def drop(self) -> None:
        """Drop the connection; it is back at once.

        Receivers are told as real ones would be: a transport that remembers goes on where it was, one that does not
        reports a gap.
        """
        self._tell(Line.cut_short)

    def disconnect(self) -> None:
        """Lose the connection until `heal`: nothing is received, and nothing can be sent or opened.

        A publish is tried again until its ``timeout``, and then is a `PublishFailed`.
        """
        self._is_away = True
        for line in self._lines:
            line.cut()
            line.ring()

    def hold(self) -> None:
        """Let nothing through to receivers until `heal`, without a word, like a network that is half open.

        This is what makes a `RevocationList` stale: at once with `ManualClock.advance`, else after ``max_staleness``.
        """
        self._is_held = True
        for line in self._lines:
            line.hold()
            line.ring()

    def lose(self, number: int = 1, *, cause: str | None = "trimmed") -> None:
        """Lose the next deliveries, and report them as a `Gap`.

        Args:
            number: how many.
            cause: that of the gap; ``None`` reports none, which no transport of this library would do.
        """
        number = options.count("number", number)
        self._tell(lambda line: line.lose(number, cause))

    def duplicate(self, number: int = 1) -> None:
        """Make each of the next deliveries twice. A `Subscriber` passes on only the first of them."""
        number = options.count("number", number)
        self._tell(lambda line: line.duplicate(number))

    def reorder(self, number: int = 2) -> None:
        """Wait for so many deliveries, and make them the other way round."""
        number = options.count("number", number)
        self._tell(lambda line: line.reorder(number))

    def delay(self, number: int = 1) -> None:
        """Keep the next deliveries back until `heal`, and let later ones overtake them."""
        number = options.count("number", number)
        self._tell(lambda line: line.delay(number))

    def gap(self, cause: str = "restarted", *, lost: int | None = None) -> None:
        """Report a `Gap` although nothing is lost."""
        self._tell(lambda line: line.report(Gap(None, cause, lost)))

    def refuse_subscription(self, times: int = 1) -> None:
        """Refuse the next ones that want to open a receiver: `SubscriptionRefused`."""
        self._refused_subscriptions += options.count("times", times)

    def end_subscriptions(self) -> None:
        """Fail every receiver that is open, for good: `SubscriptionRefused`. A `Subscriber` ends."""
        for line in self._lines:
            line.refusal = SubscriptionRefused("the test ended the subscription")
            line.ring()

    def refuse(self, number: int = 1) -> None:
        """Refuse the next payloads that are sent: `PublishFailed`, and nothing arrives."""
        error = ServerRefused("the test refuses it", code="NOPERM")
        self._fates += [Fate(arrives=False, error=error)] * options.count("number", number)

    def leave_unknown(self, number: int = 1, *, arrives: bool = True) -> None:
        """Leave open what became of the next payloads that are sent: `PublishOutcomeUnknown`.

        Args:
            number: how many.
            arrives: what became of them in truth.
        """
        error = TransportError("the test leaves it open", maybe_done=True)
        self._fates += [Fate(arrives, error)] * options.count("number", number)

    def heal(self) -> None:
        """End all faults: reconnect, deliver what was kept back, and drop the orders that are left.

        What was lost stays lost, and a subscription that was ended stays so.
        """
        self._is_away = self._is_held = False
        self._refused_subscriptions = 0
        self._waiting.clear()
        self._fates.clear()
        for line in self._lines:
            line.heal()
            line.ring()

    def fate(self) -> Fate:
        """Say what becomes of a payload; for the transport."""
        if self._is_away:
            return Fate(arrives=False, error=ConnectionFailed("the test cut the connection"))
        return self._fates.popleft() if self._fates else Fate()

    @contextmanager
    def listening(self, *, is_live: bool) -> Iterator[Line]:
        """Open a line to a receiver; for the transport.

        Raises:
            TransportError: the receiver cannot be opened.
        """
        if self._refused_subscriptions:
            self._refused_subscriptions -= 1
            raise SubscriptionRefused("the test refuses the subscription")
        if self._is_away:
            raise ConnectionFailed("the test cut the connection")
        line = Line(is_live=is_live)
        if self._is_held:
            line.hold()
        waiting, self._waiting = self._waiting, []
        for order in waiting:
            order(line)
        self._lines.append(line)
        try:
            yield line
        finally:
            self._lines.remove(line)

    def _tell(self, order: Callable[[Line], None]) -> None:
        if not self._lines:
            self._waiting.append(order)
        for line in self._lines:
            order(line)
            line.ring()
