"""Keep them: the rules of one kind, a million of them in about 100 MB, each found in some twenty nanoseconds. Pure.

A rule is one integer in a set. The integer holds the hash of an identifier, when to forget the rule, and its cutoff;
and it counts as equal to whatever has that hash, except another rule. So the identifier of a token finds its rule by
itself, without anything being computed or made, although no identifier is kept. Python's hash of a text has 64 bits and
is keyed with a secret of the process: among a million rules, one token in 10¹³ is taken for another one, and then
refused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

_CUTOFF_BITS = 42
_CUTOFF = (1 << _CUTOFF_BITS) - 1
_TICK_BITS = 18
_TERM_BITS = _TICK_BITS + _CUTOFF_BITS

EVERY_TOKEN = _CUTOFF
"""The cutoff that covers all tokens, whenever they were issued: the last millisecond that can be told, in 2109."""

NEVER = (1 << _TICK_BITS) - 1
"""The tick at which nothing is forgotten."""

# How many rules are forgotten in one go: well below a millisecond.
_SLICE = 1_000


class PackedRule(int):
    """A rule as it is kept."""

    __slots__ = ()

    def __hash__(self) -> int:
        return self >> _TERM_BITS

    def __eq__(self, other: object) -> bool:
        return int(self) == int(other) if isinstance(other, PackedRule) else hash(other) == self >> _TERM_BITS

    @property
    def cutoff(self) -> int:
        """Tokens issued up to then are covered, in milliseconds since 1970; or `EVERY_TOKEN`."""
        return self & _CUTOFF

    @property
    def tick(self) -> int:
        """When to forget it; or `NEVER`."""
        return (self >> _CUTOFF_BITS) & NEVER


class _Probe(PackedRule):
    """Looks for a rule in a set and notes what it found: a set only says that there is one."""

    found: PackedRule | None = None

    __hash__ = PackedRule.__hash__

    def __eq__(self, other: object) -> bool:
        if isinstance(other, PackedRule) and hash(other) == hash(self):
            self.found = other
            return True
        return False


class RuleSet:
    """The rules of one kind. They only grow: a cutoff is never lowered, and none is forgotten earlier than planned.

    Attributes:
        rules: all of them; contains an identifier if there is a rule about it.
    """

    def __init__(self) -> None:
        self.rules: set[object] = set()
        self._due: defaultdict[int, list[PackedRule]] = defaultdict(list)

    def put(self, digest: int, cutoff: int, tick: int) -> None:
        """Put a rule in force, or widen the one that is there."""
        if (old := self.find(digest)) is not None:
            if old.cutoff >= cutoff and old.tick >= tick:
                return
            cutoff, tick = max(cutoff, old.cutoff), max(tick, old.tick)
        new = PackedRule(digest << _TERM_BITS | tick << _CUTOFF_BITS | cutoff)
        self.rules.add(new)
        if old is not None:
            self.rules.discard(old)  # only now: another thread may be looking
        if tick != NEVER:
            self._due[tick].append(new)

    def find(self, digest: int) -> PackedRule | None:
        """Return the rule about what has this hash."""
        probe = _Probe(digest << _TERM_BITS)
        return probe.found if probe in self.rules else None

    def sweep(self, tick: int) -> Iterator[int]:
        """Forget what is due, a slice at a time; yields how many after each."""
        for due in sorted(due for due in self._due if due <= tick):
            rules = self._due.pop(due)
            for start in range(0, len(rules), _SLICE):
                # One that was widened meanwhile is still on the list of its earlier tick.
                gone = [rule for rule in rules[start : start + _SLICE] if self.find(hash(rule)) is rule]
                self.rules.difference_update(gone)
                yield len(gone)
