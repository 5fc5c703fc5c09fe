"""Rules that an identifier alone does not tell: with an exemption or conditions, about claims, about everyone. Pure.

Rules about the same tokens merge: of those about one user, or with equal conditions, two cutoffs are kept, one that
covers all of these tokens and one that spares a session. That is exact, however many sessions are spared: with the
latest cutoff that spares session S, and the latest one that spares any other, T, every token up to the earlier of the
two is covered, as no token is both in S and in T. So the earlier one counts for all tokens.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator
from typing import Any, NamedTuple

from jwt_events.events import ComparedValue, compared_values, path_of
from jwt_events.revocation._claims import RuleKind, Subjects
from jwt_events.revocation._packed import NEVER

Conditions = frozenset[tuple[str, ComparedValue]]
"""What the claims of a token must be, all of it: pairs of a name and a value."""

Scope = tuple[RuleKind, int, Conditions]
"""Which tokens a rule covers: the kind and digest of an identifier, and conditions."""

WITHOUT_IDENTIFIER = frozenset[RuleKind](("claims", "everyone"))
"""The kinds of rules that name no identifier."""

NONE = 0
"""The cutoff that covers no token, not even one without ``iat``."""

# Rules about one identifier are found by it up to so many; more of them by one of their conditions.
_FEW = 8
_SLICE = 1_000

_Bucket = dict[Scope, "NarrowedRule"]


class NarrowedRule(NamedTuple):
    """All rules about the same tokens, merged.

    Attributes:
        cutoff: tokens issued up to then are covered, in milliseconds since 1970; or `NONE`.
        expiry_tick: when this may be forgotten.
        spared_session: the session that the other cutoff spares; ``None`` without one.
        sparing_cutoff: tokens issued up to then are covered, except those of that session; or `NONE`.
        sparing_expiry_tick: when that may be forgotten.
    """

    cutoff: int = NONE
    expiry_tick: int = 0
    spared_session: str | None = None
    sparing_cutoff: int = NONE
    sparing_expiry_tick: int = 0

    def merged(self, cutoff: int, expiry_tick: int, spared_session: str | None) -> NarrowedRule:
        """Return the rule that covers what this one covers, and what the new one does."""
        own = self.spared_session, self.sparing_cutoff, self.sparing_expiry_tick
        new = spared_session, cutoff, expiry_tick
        if spared_session is None or (own[0] is not None and own[0] != spared_session and cutoff <= own[1]):
            kept, for_all = own, new
        elif own[0] == spared_session:
            kept, for_all = (spared_session, max(cutoff, own[1]), max(expiry_tick, own[2])), (None, NONE, 0)
        else:
            kept, for_all = new, own
        to_all, to_all_until = max(self.cutoff, for_all[1]), max(self.expiry_tick, for_all[2])
        if to_all >= kept[1]:  # nothing is spared any more
            return NarrowedRule(to_all, max(to_all_until, kept[2]))
        return NarrowedRule(to_all, to_all_until, *kept)

    def at(self, tick: int) -> NarrowedRule | None:
        """Return what is left of the rule at a tick; ``None`` if nothing is."""
        is_good, spares = self.expiry_tick > tick, self.sparing_expiry_tick > tick
        if is_good and spares:
            return self
        if spares:
            return NarrowedRule(NONE, 0, *self[2:])
        return NarrowedRule(*self[:2]) if is_good else None

    def cutoff_for(self, session: str | None) -> int:
        """Return until when tokens of a session are covered; or `NONE`."""
        return self.cutoff if self.spared_session == session else max(self.cutoff, self.sparing_cutoff)


class NarrowedRules:
    """The narrowed rules in force. Read by any thread, changed by one.

    Each is found by one thing that all of its tokens have: its identifier, or the value of one claim, of several the
    one that the fewest rules have in common so far.

    Attributes:
        names: the claims by whose values rules are found: the name, its path if it has dots, and rules by value.
        everyone_until: the cutoff of the rule about everyone; `NONE` without one.
    """

    def __init__(self) -> None:
        self.names: tuple[tuple[str, tuple[str, ...] | None, dict[ComparedValue, _Bucket]], ...] = ()
        self.everyone_until: int = NONE
        self._by_identifier: dict[tuple[RuleKind, int], _Bucket] = {}
        self._by_value: dict[str, dict[ComparedValue, _Bucket]] = {}
        self._places: dict[Scope, tuple[str, ComparedValue] | None] = {}
        self._counts: Counter[RuleKind] = Counter()
        self._by_expiry: defaultdict[int, set[Scope]] = defaultdict(set)

    def __len__(self) -> int:
        return len(self._places)

    def count(self, kind: RuleKind) -> int:
        """Return the count of rules of a kind."""
        return self._counts[kind]

    def merge(self, scope: Scope, cutoff: int, expiry_tick: int, spared_session: str | None) -> None:
        """Add a rule, or merge it with the rule about the same tokens."""
        if scope not in self._places:
            self._places[scope] = self._place(scope)
            self._counts[scope[0]] += 1
        old = self._bucket(scope).get(scope, NarrowedRule())
        self._keep(scope, old.merged(cutoff, expiry_tick, spared_session))

    def matching(self, subjects: Subjects) -> Iterator[tuple[RuleKind, int]]:
        """Yield the kind and the cutoff of each rule that covers a token, if it was issued up to then."""
        for scope, rule in self._candidates(subjects):
            kind, digest, conditions = scope
            if kind not in WITHOUT_IDENTIFIER and (kind, digest) not in subjects.digests:
                continue
            if all(value in compared_values(subjects.claims, name) for name, value in conditions):
                yield kind, rule.cutoff_for(subjects.session)

    def sweep(self, tick: int) -> Iterator[int]:
        """Remove the rules that have expired at this tick, a slice at a time; yields the count after each slice."""
        for expired in sorted(expiry_tick for expiry_tick in self._by_expiry if expiry_tick <= tick):
            scopes = tuple(self._by_expiry.pop(expired))
            for start in range(0, len(scopes), _SLICE):
                yield sum(self._forget(scope, tick) for scope in scopes[start : start + _SLICE])

    def _candidates(self, subjects: Subjects) -> Iterator[tuple[Scope, NarrowedRule]]:
        for subject in (*subjects.digests, ("everyone", 0)):
            yield from _items(self._by_identifier.get(subject))
        for name, _, values in self.names:
            for value in dict.fromkeys(compared_values(subjects.claims, name)):
                yield from _items(values.get(value))

    def _place(self, scope: Scope) -> tuple[str, ComparedValue] | None:
        """Return the condition by which to find a rule; ``None`` to find it by its identifier."""
        kind, digest, conditions = scope
        about_it = self._by_identifier.get((kind, digest), {})
        if not conditions or (kind not in WITHOUT_IDENTIFIER and len(about_it) < _FEW):
            return None
        return min(conditions, key=lambda place: (len(self._by_value.get(place[0], {}).get(place[1], ())), place[0]))

    def _bucket(self, scope: Scope) -> _Bucket:
        place = self._places[scope]
        if place is None:
            return self._by_identifier.setdefault(scope[:2], {})
        name, value = place
        if name not in self._by_value:
            self._by_value[name] = {}
            self._list_names()
        return self._by_value[name].setdefault(value, {})

    def _keep(self, scope: Scope, rule: NarrowedRule) -> None:
        self._bucket(scope)[scope] = rule
        if scope[0] == "everyone":
            self.everyone_until = rule.cutoff
        for expiry_tick in (rule.expiry_tick, rule.sparing_expiry_tick):
            if 0 < expiry_tick != NEVER:
                self._by_expiry[expiry_tick].add(scope)

    def _forget(self, scope: Scope, tick: int) -> bool:
        """Remove what has expired of a rule; return whether nothing is left of it."""
        if scope not in self._places:
            return False
        bucket = self._bucket(scope)
        left = bucket[scope].at(tick)
        if left is not None:
            self._keep(scope, left)
            return False
        del bucket[scope]
        self._remove_place(scope, is_last=not bucket)
        return True

    def _remove_place(self, scope: Scope, *, is_last: bool) -> None:
        place = self._places.pop(scope)
        self._counts[scope[0]] -= 1
        if scope[0] == "everyone":
            self.everyone_until = NONE
        if not is_last:
            return
        if place is None:
            del self._by_identifier[scope[:2]]
            return
        name, value = place
        del self._by_value[name][value]
        if not self._by_value[name]:
            del self._by_value[name]
            self._list_names()

    def _list_names(self) -> None:
        paths = {name: path_of(name) for name in self._by_value}
        self.names = tuple(
            (name, paths[name] if len(paths[name]) > 1 else None, values) for name, values in self._by_value.items()
        )


def end_of(path: tuple[str, ...], claims: object) -> Any:
    """Return the value that a path leads to; where an object ends early, what is there instead."""
    value: Any = claims
    for part in path:
        if type(value) is not dict:
            break
        value = value.get(part)
    return value


def may_hold(value: Any, values: Container[ComparedValue]) -> bool:
    """Return whether the value of a claim, or a member of its list, may be one of these: a quick look, in doubt yes."""
    if type(value) is list:
        for member in value:  # noqa: SIM110 - `any` with an expression takes three times as long
            if type(member) is not str or member in values:
                return True
        return False
    return (type(value) is not str and value is not None) or value in values


def _items(bucket: _Bucket | None) -> Iterable[tuple[Scope, NarrowedRule]]:
    return () if bucket is None else bucket.copy().items()  # another thread may add to it
