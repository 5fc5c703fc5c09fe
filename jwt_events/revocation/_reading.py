"""The rules that many messages put in force, read at once without making their events. Pure: the time is passed in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from jwt_events.envelope import read_revocation
from jwt_events.events import Event
from jwt_events.instrumentation import ViewObserver
from jwt_events.revocation._rule import Rule, rule_from
from jwt_events.revocation._rules import Rules
from jwt_events.transport.base import Delivery


class RulesRead:
    """The rules of messages that were read.

    Args:
        deliveries: the messages.

    Attributes:
        left: those that were not read: their events are needed.
    """

    def __init__(self, deliveries: Iterable[Delivery]) -> None:
        self.left: list[Delivery] = []
        self._classes: list[type[Event]] = []
        self._tokens: list[str] = []
        self._ends: list[float | None] = []  # of the rules about these tokens
        self._others: list[Rule] = []
        for delivery in deliveries:
            self._read(delivery)

    def _read(self, delivery: Delivery) -> None:
        found = read_revocation(delivery.payload)
        if found is None:
            self.left.append(delivery)
            return
        cls, occurred_at, fields = found
        self._classes.append(cls)
        if "token_id" in fields:  # as nearly all of them are
            expires_at = fields.get("expires_at")
            self._tokens.append(fields["token_id"])
            self._ends.append(None if expires_at is None else expires_at.timestamp())
        else:
            self._others.append(rule_from(occurred_at, fields))

    @property
    def counts(self) -> Mapping[type[Event], int]:
        """How many messages of each class were read."""
        return Counter(self._classes)

    def report(self, observer: ViewObserver | None) -> None:
        """Tell metrics what was read."""
        if observer is not None:
            for cls, count in self.counts.items():
                observer.caught_up(cls, count)

    def put_in_force(self, rules: Rules, *, now: float) -> None:
        """Put the rules in force, as their events would; see `Rules.apply`."""
        rules.put_tokens(self._tokens, self._ends, now=now)
        for rule in self._others:
            rules.put(rule, now=now)
