"""The revocation rules in force, and the decision whether one of them covers a token. Pure: the time is passed in.

A rule names a token, session, user, client or key, or other claims, and says that its tokens issued up to a cutoff are
revoked. Rules keep these properties, in whatever order and however often events arrive:

- They are monotone: no event lowers a cutoff or an expiry, so none lets a revoked token in again. A rule is removed
  only when no token that it covers can be alive.
- The maximum of all cutoffs counts: of those for one identifier, and of those of all rules that match a token, which
  those do not that spare its session, or whose conditions it does not meet.
- Equal seconds count as revoked: a token is covered unless its ``iat`` is after the cutoff, and an ``iat`` in whole
  seconds is not after a cutoff within that second. A token without ``iat`` is covered by every cutoff.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, cast, get_args

from jwt_events.events import (
    ALIAS_PREFIX,
    MAX_NUMERIC_DATE,
    STANDARD,
    ClaimNames,
    Event,
    is_plain,
)
from jwt_events.revocation._claims import RuleKind, Subjects, subjects_of
from jwt_events.revocation._narrowed import NONE, WITHOUT_IDENTIFIER, NarrowedRules, end_of, may_hold
from jwt_events.revocation._packed import EVERY_TOKEN, NEVER, RuleSet
from jwt_events.revocation._rule import GRACE, Rule, rules_of

# The expiry of a rule is counted in ticks of this length, in seconds, since the epoch. `NEVER` is five years away.
TICK = 600.0

_IDENTIFIED: tuple[RuleKind, ...] = tuple(kind for kind in get_args(RuleKind) if kind not in WITHOUT_IDENTIFIER)


class Match(NamedTuple):
    """The rule that revoked a token.

    Attributes:
        kind: the kind of identifier that it names.
        issued_before: tokens issued up to this instant are revoked; ``None`` if all are.
    """

    kind: RuleKind
    issued_before: datetime | None


class _Ticks(dict[float, int]):
    """Ticks by how many there are, negative, to the first one: always the same integers, which the rules share."""

    def __missing__(self, to_first: float) -> int:
        if not to_first > -NEVER:  # or not a number, as what never ends divided by anything
            return NEVER
        tick = self[to_first] = max(0, -int(to_first))
        return tick

    def forget(self, swept: int) -> None:
        """Forget those of which the rules were removed."""
        for to_first in [to_first for to_first, tick in self.items() if tick <= swept]:
            del self[to_first]


class Rules:
    """All rules in force; decides whether one of them covers a token.

    Args:
        epoch: the time now, in seconds since 1970.
        retention: how long to keep a rule that does not say when it expires; ``None`` for ever.
        leeway: seconds by which the clock that issues tokens may be ahead of the one that revokes them.
        claim_names: the names of the claims that rules look at.
    """

    def __init__(
        self,
        *,
        epoch: float,
        retention: timedelta | None,
        leeway: float = 0.0,
        claim_names: ClaimNames = STANDARD,
    ) -> None:
        self.claim_names: ClaimNames = claim_names
        first, second, *more = (*claim_names.clients, None, None)
        self._has_more_clients = bool(more[:-2])
        names = claim_names.token, claim_names.user, claim_names.session, claim_names.issued_at
        self._claims: tuple[str | None, ...] = (*names, first, second)
        self._epoch = epoch
        self._first_tick = epoch - leeway - GRACE  # what ends then is removed at tick 0
        self._ticks = _Ticks()
        self._retention = None if retention is None else retention.total_seconds()
        self.leeway: float = leeway
        self._leeway_ms = leeway * 1000
        self._rule_sets: dict[RuleKind, RuleSet] = {kind: RuleSet() for kind in _IDENTIFIED}
        self._narrowed = NarrowedRules()
        # The fast path looks into each of them at every check.
        self._tokens = self._rule_sets["token"].rules
        self._sessions = self._rule_sets["session"].rules
        self._users = self._rule_sets["user"].rules
        self._users_at_clients = self._rule_sets["user_at_client"].rules
        self._clients = self._rule_sets["client"].rules
        self._keys = self._rule_sets["key"].rules
        self._has_aliases = False
        self._is_odd = (
            self._has_more_clients
        )  # whether a rule may cover tokens of which these sets do not contain any identifier

    @property
    def counts(self) -> Mapping[RuleKind, int]:
        """The count of rules of each kind; several about one identifier count once."""
        counts = {kind: len(rule_set.rules) for kind, rule_set in self._rule_sets.items()}
        return counts | {kind: self._narrowed.count(kind) for kind in WITHOUT_IDENTIFIER}

    def apply(self, event: Event, *, now: float) -> tuple[Rule, ...]:
        """Put the rules of an event in force. Idempotent; the order of events does not matter.

        Args:
            event: what happened.
            now: the time in seconds since 1970, on a clock that was never set back since the epoch.

        Returns:
            The rules, nearly always one; empty if the event revokes nothing.

        Raises:
            InvalidOption: ``event`` is not an event.
        """
        rules = rules_of(event)
        for rule in rules:
            self.put(rule, now=now)
        return rules

    def put(self, rule: Rule, *, now: float) -> None:
        """Put a rule in force; see `apply`."""
        self._merge(rule, self._expiry_tick_at(rule.ends_at(now=now, lasting=self._retention)))

    def put_tokens(self, names: Sequence[str], expire_at: Sequence[float | None], *, now: float) -> None:
        """Put rules about tokens in force; see `apply`. Each expires then, in seconds since 1970, if that is known."""
        unknown = math.inf if self._retention is None else now + self._retention
        until = [unknown if at is None or at < 0 else at for at in expire_at]
        self.restore("token", names, [EVERY_TOKEN] * len(names), until)

    def _merge(self, rule: Rule, expiry_tick: int) -> None:
        cutoff = rule.cutoff
        if rule.is_narrowed:
            scope = (rule.kind, rule.digest, rule.conditions)
            self._narrowed.merge(scope, cutoff, expiry_tick, rule.spared_session)
            cutoff = NONE  # in the set below, for the fast path to notice the identifier
        if rule.kind not in WITHOUT_IDENTIFIER:
            self._rule_sets[rule.kind].merge(rule.digest, cutoff, expiry_tick)
        self._has_aliases = self._has_aliases or rule.is_aliased
        self._is_odd = self._is_odd or rule.is_aliased or rule.kind in WITHOUT_IDENTIFIER

    def restore(
        self,
        kind: RuleKind,
        names: Sequence[str] | Sequence[tuple[str, ...]],
        cutoffs: Sequence[int],
        until: Sequence[float],
    ) -> None:
        """Put rules of one kind in force that were stored; the same as to apply their events.

        Args:
            kind: the kind of identifier that they name.
            names: that identifier of each; of a user at a client, both.
            cutoffs: the cutoff of each.
            until: when nothing that each covers can be alive, in seconds since 1970; infinite for never.
        """
        ticks, first = self._ticks, self._first_tick
        expiry_ticks = [ticks[(first - at) // TICK] for at in until]
        if not self._has_aliases:
            parts = map("".join, names) if kind == "user_at_client" else cast("Sequence[str]", names)
            self._has_aliases = ALIAS_PREFIX in "".join(parts)  # of all together, which costs next to nothing
            self._is_odd = self._is_odd or self._has_aliases
        self._rule_sets[kind].restore(names, cutoffs, expiry_ticks)

    def restore_one(self, rule: Rule, *, until: float) -> None:
        """Put any rule in force that was stored; see `restore`."""
        self._merge(rule, self._expiry_tick_at(until))

    def _expiry_tick_at(self, until: float) -> int:
        return self._ticks[(self._first_tick - until) // TICK]

    def subjects_of(self, claims: Mapping[str, object]) -> Subjects:
        """Read the claims that rules look at.

        Raises:
            InvalidClaims: ``claims`` is not a mapping, or a claim has the wrong type.
        """
        return subjects_of(claims, self.claim_names)

    def revokes(self, claims: Mapping[str, object]) -> bool:
        """Return whether a rule covers the token with these claims.

        Raises:
            InvalidClaims: ``claims`` is not a mapping, or a claim has the wrong type.
        """
        if type(claims) is dict:
            token_name, user_name, session_name, issued_name, client_name, party_name = self._claims
            jti, sub, sid = claims.get(token_name), claims.get(user_name), claims.get(session_name)
            client, party = claims.get(client_name), claims.get(party_name)
            kid, iat = claims.get("kid"), claims.get(issued_name)
            # Fast path: nearly all claims have the right types and match no rule. `match` decides about all others.
            if (
                (jti is None or (type(jti) is str and jti not in self._tokens))
                and (sub is None or (type(sub) is str and sub not in self._users))
                and (sid is None or (type(sid) is str and sid not in self._sessions))
                and (client is None or (type(client) is str and client not in self._clients))
                and (party is None or (type(party) is str and party not in self._clients))
                and (kid is None or (type(kid) is str and kid not in self._keys))
                and (type(iat) is int and iat < MAX_NUMERIC_DATE)
                and (
                    not (at_clients := self._users_at_clients)
                    or (
                        (client is None or (sub, client) not in at_clients)
                        and (party is None or (sub, party) not in at_clients)
                    )
                )
                and not (self._is_odd and self._may_be_odd(claims, iat))
            ):
                return False
        return self.match(self.subjects_of(claims)) is not None

    def _may_be_odd(self, claims: dict[str, Any], iat: int) -> bool:
        """Return whether a rule may cover a token without having one of its identifiers, as the claims have them."""
        if self._has_more_clients:
            return True
        narrowed = self._narrowed
        if narrowed.everyone_until and iat * 1000 <= narrowed.everyone_until + self._leeway_ms:
            return True
        for name, path, values in narrowed.names:
            value = claims.get(name)
            if value is not None and (value in values if type(value) is str else may_hold(value, values)):
                return True
            if path is not None and may_hold(end_of(path, claims), values):
                return True
        if not self._has_aliases:
            return False
        names = self.claim_names
        return _may_have_alias(*map(claims.get, (names.token, names.user, names.session, *names.clients)))

    def match(self, subjects: Subjects) -> Match | None:
        """Return the rule that covers a token, of several the one with the latest cutoff; ``None`` if none does."""
        latest, decisive = NONE, None
        for kind, digest_ in subjects.digests:
            rule = self._rule_sets[kind].find(digest_)
            if rule is not None and rule.cutoff > latest:
                latest, decisive = rule.cutoff, kind
        for kind, cutoff in self._narrowed.matching(subjects) if self._narrowed else ():
            if cutoff > latest:
                latest, decisive = cutoff, kind
        if decisive is None:
            return None
        if latest == EVERY_TOKEN:
            return Match(decisive, None)
        if subjects.issued_at is not None and subjects.issued_at > latest + self._leeway_ms:
            return None
        return Match(decisive, datetime.fromtimestamp(latest / 1000, UTC))

    def sweep(self, *, now: float) -> Iterator[int]:
        """Remove the rules that have expired, a slice at a time. Sweeps must not overlap.

        Args:
            now: the time in seconds since 1970; if in doubt, the earliest that it may be.

        Yields:
            The count of rules removed, after each slice.
        """
        tick = math.floor((now - self._epoch) / TICK)
        for rule_set in self._rule_sets.values():
            yield from rule_set.sweep(tick)
        yield from self._narrowed.sweep(tick)
        self._ticks.forget(tick)
        self._is_odd = (
            self._has_more_clients
            or self._has_aliases
            or any(self._narrowed.count(kind) for kind in WITHOUT_IDENTIFIER)
        )


def _may_have_alias(*identifiers: str | None) -> bool:
    """Return whether events may name one of these by another name."""
    together = "".join(filter(None, identifiers))
    if " " not in together and together.isprintable() and is_plain(together):
        return False  # quicker than to look at each of them, and nearly always enough
    return any(text and not is_plain(text) for text in identifiers)
