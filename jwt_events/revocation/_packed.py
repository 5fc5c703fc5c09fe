"""Compact storage for the rules of one kind: a million in about 100 MB, each look-up some twenty nanoseconds. Pure.

A rule is one integer in a set. The integer packs the hash of an identifier, the tick at which the rule expires, and its
cutoff; and it compares equal to every object with that hash, except another rule. So the identifier of a token finds
its rule in the set as it is, without any computation or allocation, although no identifier is stored. Python's hash of
a text has 64 bits and is keyed with a secret of the process: among a million rules, one token in 10¹³ is mistaken for
another one, and then refused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence

_CUTOFF_BITS = 42
_CUTOFF = (1 << _CUTOFF_BITS) - 1
_EXPIRY_BITS = 18
_PAYLOAD_BITS = _EXPIRY_BITS + _CUTOFF_BITS

EVERY_TOKEN = _CUTOFF
"""The cutoff that covers all tokens, whenever they were issued: the last millisecond that fits, in 2109."""

NEVER = (1 << _EXPIRY_BITS) - 1
"""The expiry tick of rules that never expire."""

# Rules removed at a time: well below a millisecond.
_SLICE = 1_000


class PackedRule(int):
    """A rule packed into one integer: hash of the identifier, expiry tick, cutoff."""

    __slots__ = ()

    def __hash__(self) -> int:
        return self >> _PAYLOAD_BITS

    def __eq__(self, other: object) -> bool:
        return int(self) == int(other) if isinstance(other, PackedRule) else hash(other) == self >> _PAYLOAD_BITS

    @property
    def cutoff(self) -> int:
        """Tokens issued up to this instant are covered, in milliseconds since 1970; or `EVERY_TOKEN`."""
        return self & _CUTOFF

    @property
    def expiry_tick(self) -> int:
        """The tick at which the rule may be removed; or `NEVER`."""
        return (self >> _CUTOFF_BITS) & NEVER


class _Probe(PackedRule):
    """A key that finds the rule with its hash in a set and remembers it: membership alone says only that it exists."""

    found: PackedRule | None = None

    __hash__ = PackedRule.__hash__

    def __eq__(self, other: object) -> bool:
        if isinstance(other, PackedRule) and hash(other) == hash(self):
            self.found = other
            return True
        return False


class RuleSet:
    """The rules of one kind. They are monotone: neither a cutoff nor an expiry is ever lowered.

    Attributes:
        rules: all rules; an identifier is ``in`` it if there is a rule about it.
    """

    def __init__(self) -> None:
        self.rules: set[object] = set()
        self._by_expiry: defaultdict[int, list[PackedRule]] = defaultdict(list)

    def merge(self, digest: int, cutoff: int, expiry_tick: int) -> None:
        """Add a rule, or merge it with the rule about the same identifier: the maximum of both cutoffs and expiries."""
        if (old := self.find(digest)) is not None:
            if old.cutoff >= cutoff and old.expiry_tick >= expiry_tick:
                return
            cutoff, expiry_tick = max(cutoff, old.cutoff), max(expiry_tick, old.expiry_tick)
        new = PackedRule(digest << _PAYLOAD_BITS | expiry_tick << _CUTOFF_BITS | cutoff)
        self.rules.add(new)
        if old is not None:
            self.rules.discard(old)  # after the new one was added: another thread may be checking
        if expiry_tick != NEVER:
            self._by_expiry[expiry_tick].append(new)

    def restore(self, identifiers: Sequence[Hashable], cutoffs: Sequence[int], expiry_ticks: Sequence[int]) -> None:
        """Add many rules at once; the same as to merge each, with the hash of its identifier as its digest."""
        if len(set(identifiers)) < len(identifiers) or not self.rules.isdisjoint(identifiers):
            for identifier, cutoff, expiry_tick in zip(identifiers, cutoffs, expiry_ticks, strict=True):
                self.merge(hash(identifier), cutoff, expiry_tick)
            return
        payloads = [
            expiry_tick << _CUTOFF_BITS | cutoff for expiry_tick, cutoff in zip(expiry_ticks, cutoffs, strict=True)
        ]
        digests = map(hash, identifiers)
        new = [PackedRule(digest << _PAYLOAD_BITS | payload) for digest, payload in zip(digests, payloads, strict=True)]
        self.rules.update(new)
        by_expiry = self._by_expiry
        for rule, expiry_tick in zip(new, expiry_ticks, strict=True):
            if expiry_tick != NEVER:
                by_expiry[expiry_tick].append(rule)

    def find(self, digest: int) -> PackedRule | None:
        """Return the rule about the identifier with this hash, or ``None``."""
        probe = _Probe(digest << _PAYLOAD_BITS)
        return probe.found if probe in self.rules else None

    def sweep(self, tick: int) -> Iterator[int]:
        """Remove the rules that have expired at this tick, a slice at a time; yields the count after each slice."""
        for expired in sorted(expiry_tick for expiry_tick in self._by_expiry if expiry_tick <= tick):
            rules = self._by_expiry.pop(expired)
            for start in range(0, len(rules), _SLICE):
                # A rule that was merged since is still listed under its earlier expiry.
                removed = [rule for rule in rules[start : start + _SLICE] if self.find(hash(rule)) is rule]
                self.rules.difference_update(removed)
                yield len(removed)
