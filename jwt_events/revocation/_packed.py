"""Compact storage for the rules of one kind: a million in about 100 MB, each look-up some twenty nanoseconds. Pure.

A rule in a set holds the hash of an identifier, the tick at which the rule expires, and its cutoff; and it compares
equal to every object with that hash, except another rule. So the identifier of a token finds its rule in the set as it
is, without any computation or allocation, although no identifier is stored. Python's hash of a text has 64 bits and is
keyed with a secret of the process: among a million rules, one token in 10¹³ is mistaken for another one, and then
refused.

A rule with a cutoff of its own is one integer; one that covers all tokens of an identifier, as most do, is a
`LightRule`, as large, which Python's garbage collector neither counts nor visits.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from typing import ClassVar, TypeAlias, cast

import msgspec

_CUTOFF_BITS = 42
_CUTOFF = (1 << _CUTOFF_BITS) - 1
_EXPIRY_BITS = 18
_PAYLOAD_BITS = _EXPIRY_BITS + _CUTOFF_BITS

# An integer of so many bits takes 32 bytes, and one more bit costs 16 bytes: the others of a hash are in the class.
_LOW_BITS = 60
_LOW = (1 << _LOW_BITS) - 1

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
        if type(other) is str:  # first, as in nearly all comparisons
            return hash(other) == self >> _PAYLOAD_BITS
        if type(other) is _Probe:
            return NotImplemented
        if isinstance(other, (PackedRule, LightRule)):
            return type(other) is PackedRule and int(self) == int(other)
        return hash(other) == self >> _PAYLOAD_BITS

    @property
    def cutoff(self) -> int:
        """Tokens issued up to this instant are covered, in milliseconds since 1970; or `EVERY_TOKEN`."""
        return self & _CUTOFF

    @property
    def expiry_tick(self) -> int:
        """The tick at which the rule may be removed; or `NEVER`."""
        return (self >> _CUTOFF_BITS) & NEVER


class LightRule(msgspec.Struct, eq=False, gc=False):
    """A rule that covers all tokens: hash of the identifier, and the expiry tick, an integer that rules share."""

    low: int
    expiry_tick: int

    high: ClassVar[int] = 0

    def __hash__(self) -> int:
        return self.low | self.high

    def __eq__(self, other: object) -> bool:
        if type(other) is str:
            return hash(other) == self.low | self.high
        if type(other) is _Probe:
            return NotImplemented
        if isinstance(other, (LightRule, PackedRule)):
            return type(other) is type(self) and (self.low, self.expiry_tick) == (other.low, other.expiry_tick)
        return hash(other) == self.low | self.high

    @property
    def cutoff(self) -> int:
        """The cutoff: `EVERY_TOKEN`."""
        return EVERY_TOKEN


AnyRule: TypeAlias = PackedRule | LightRule

# By the highest bits of a hash: those from 8 on are of negative ones.
_LIGHT_RULES = [
    cast(
        "type[LightRule]",
        msgspec.defstruct(
            f"LightRule{high}",
            (),
            bases=(LightRule,),
            namespace={"high": (high - 16 * (high > 7)) << _LOW_BITS},
            gc=False,
        ),
    )
    for high in range(16)
]


class _Probe:
    """A key that finds the rule with its hash in a set and remembers it: membership alone says only that it exists."""

    __slots__ = ("digest", "found")

    def __init__(self, digest: int) -> None:
        self.digest = digest
        self.found: AnyRule | None = None

    def __hash__(self) -> int:
        return self.digest

    def __eq__(self, other: object) -> bool:
        if isinstance(other, (PackedRule, LightRule)) and hash(other) == self.digest:
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
        self._by_expiry: defaultdict[int, list[AnyRule]] = defaultdict(list)

    def merge(self, digest: int, cutoff: int, expiry_tick: int) -> None:
        """Add a rule, or merge it with the rule about the same identifier: the maximum of both cutoffs and expiries."""
        if (old := self.find(digest)) is not None:
            if old.cutoff >= cutoff and old.expiry_tick >= expiry_tick:
                return
            cutoff, expiry_tick = max(cutoff, old.cutoff), max(expiry_tick, old.expiry_tick)
        new: AnyRule
        if cutoff == EVERY_TOKEN:
            new = _LIGHT_RULES[digest >> _LOW_BITS](digest & _LOW, expiry_tick)
        else:
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
        digests = map(hash, identifiers)
        new: list[AnyRule]
        if cutoffs.count(EVERY_TOKEN) == len(cutoffs):
            kinds = _LIGHT_RULES
            new = [kinds[one >> _LOW_BITS](one & _LOW, tick) for one, tick in zip(digests, expiry_ticks, strict=True)]
        else:
            columns = zip(digests, expiry_ticks, cutoffs, strict=True)
            new = [PackedRule((one << _EXPIRY_BITS | tick) << _CUTOFF_BITS | cutoff) for one, tick, cutoff in columns]
        self.rules.update(new)
        by_expiry = self._by_expiry
        for rule, expiry_tick in zip(new, expiry_ticks, strict=True):
            by_expiry[expiry_tick].append(rule)
        by_expiry.pop(NEVER, None)

    def find(self, digest: int) -> AnyRule | None:
        """Return the rule about the identifier with this hash, or ``None``."""
        probe = _Probe(digest)
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
