"""The revocation rules in force, and the decision whether one of them covers a token. Pure: the time is passed in.

A rule names a token, session, user, client or key, and says that its tokens issued up to a cutoff are revoked. Rules
keep these properties, in whatever order and however often events arrive:

- They are monotone: no event lowers a cutoff or an expiry, so none lets a revoked token in again. A rule is removed
  only when no token that it covers can be alive.
- The maximum of all cutoffs counts: of those for one identifier, and of those of all rules that match a token.
- Equal seconds count as revoked: a token is covered unless its ``iat`` is after the cutoff, and an ``iat`` in whole
  seconds is not after a cutoff within that second. A token without ``iat`` is covered by every cutoff.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, cast, get_args

from jwt_events.errors import InvalidOption
from jwt_events.events import (
    ALIAS_PREFIX,
    MAX_NUMERIC_DATE,
    Event,
    KeyRotated,
    SessionDestroyed,
    TokenRevoked,
    compromised_keys,
    is_plain,
)
from jwt_events.revocation._claims import RuleKind, Subjects, digest, subjects_of
from jwt_events.revocation._packed import EVERY_TOKEN, NEVER, RuleSet

# The expiry of a rule is counted in ticks of this length, in seconds, since the epoch. `NEVER` is five years away.
TICK = 600.0

# Seconds for which a rule is kept after everything that it covers has expired: services accept tokens for a while after
# their ``exp``, and clocks differ. A rule that is kept too long does no harm.
GRACE = 600.0


class Rule(NamedTuple):
    """The rule that an event puts in force.

    Attributes:
        kind: the kind of identifier that it names.
        digest: the digest of that identifier.
        cutoff: tokens issued up to this instant are revoked, in milliseconds since 1970; or `EVERY_TOKEN`.
        expires_at: when it may be removed, in seconds since 1970; ``None`` if the event does not say.
        is_aliased: whether the event names an identifier by another name than the claims of its tokens.
        names: that identifier, or both, as the event has them.
    """

    kind: RuleKind
    digest: int
    cutoff: int
    expires_at: float | None
    is_aliased: bool = False
    names: tuple[str, ...] = ()

    def ends_at(self, *, now: float, lasting: float | None) -> float:
        """Return when nothing that the rule covers can be alive, in seconds since 1970; infinite for never.

        Args:
            now: the time now, in seconds since 1970.
            lasting: how many seconds it is needed if the event does not say; ``None`` for ever.
        """
        if self.kind == "key":
            return math.inf  # an attacker with the key can sign tokens that never expire
        until, cutoff = self.expires_at, 0.0 if self.kind == "token" else self.cutoff / 1000
        if until is None or until < cutoff:  # a token that is issued at the cutoff cannot have expired before
            return math.inf if lasting is None else max(now, cutoff) + lasting
        return until


class Match(NamedTuple):
    """The rule that revoked a token.

    Attributes:
        kind: the kind of identifier that it names.
        issued_before: tokens issued up to this instant are revoked; ``None`` if all are.
    """

    kind: RuleKind
    issued_before: datetime | None


class Rules:
    """All rules in force; decides whether one of them covers a token.

    Args:
        epoch: the time now, in seconds since 1970.
        retention: how long to keep a rule that does not say when it expires; ``None`` for ever.
        leeway: seconds by which the clock that issues tokens may be ahead of the one that revokes them.
    """

    def __init__(self, *, epoch: float, retention: timedelta | None, leeway: float = 0.0) -> None:
        self._epoch = epoch
        self._retention = None if retention is None else retention.total_seconds()
        self._leeway = leeway
        self._leeway_ms = leeway * 1000
        self._rule_sets: dict[RuleKind, RuleSet] = {kind: RuleSet() for kind in get_args(RuleKind)}
        # The fast path looks into each of them at every check.
        self._tokens = self._rule_sets["token"].rules
        self._sessions = self._rule_sets["session"].rules
        self._users = self._rule_sets["user"].rules
        self._users_at_clients = self._rule_sets["user_at_client"].rules
        self._clients = self._rule_sets["client"].rules
        self._keys = self._rule_sets["key"].rules
        self._has_aliases = False

    @property
    def counts(self) -> Mapping[RuleKind, int]:
        """The count of rules of each kind."""
        return {kind: len(rule_set.rules) for kind, rule_set in self._rule_sets.items()}

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
            self._has_aliases = self._has_aliases or rule.is_aliased
            self._rule_sets[rule.kind].merge(rule.digest, rule.cutoff, self._expiry_tick(rule, now))
        return rules

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
        expiry_ticks = {instant: self._expiry_tick_at(instant) for instant in set(until)}
        if not self._has_aliases:
            parts = map("".join, names) if kind == "user_at_client" else cast("Sequence[str]", names)
            self._has_aliases = ALIAS_PREFIX in "".join(parts)  # of all together, which costs next to nothing
        self._rule_sets[kind].restore(names, cutoffs, [expiry_ticks[instant] for instant in until])

    def _expiry_tick(self, rule: Rule, now: float) -> int:
        return self._expiry_tick_at(rule.ends_at(now=now, lasting=self._retention))

    def _expiry_tick_at(self, until: float) -> int:
        if until == math.inf:
            return NEVER
        return max(0, min(NEVER, math.ceil((until + self._leeway + GRACE - self._epoch) / TICK)))

    def revokes(self, claims: Mapping[str, object]) -> bool:
        """Return whether a rule covers the token with these claims.

        Raises:
            InvalidClaims: ``claims`` is not a mapping, or a claim has the wrong type.
        """
        if type(claims) is dict:
            get = claims.get
            jti, sub, sid, kid, iat = get("jti"), get("sub"), get("sid"), get("kid"), get("iat")
            client, party = get("client_id"), get("azp")
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
                and not (self._has_aliases and _may_have_alias(jti, sub, sid, client, party))
            ):
                return False
        return self.match(subjects_of(claims)) is not None

    def match(self, subjects: Subjects) -> Match | None:
        """Return the rule that covers a token, of several the one with the latest cutoff; ``None`` if none does."""
        latest, decisive = -1, None
        for kind, digest_ in subjects.digests:
            rule = self._rule_sets[kind].find(digest_)
            if rule is not None and rule.cutoff > latest:
                latest, decisive = rule.cutoff, kind
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


def rules_of(event: Event) -> tuple[Rule, ...]:
    """Return the rules that an event puts in force, nearly always one; empty if it revokes nothing.

    Raises:
        InvalidOption: ``event`` is not an event.
    """
    make_rules = _RULE_MAKERS.get(type(event))
    if make_rules is None:
        if not isinstance(event, Event):
            raise InvalidOption("event", f"must be an event, not {type(event).__name__}")
        return ()
    return make_rules(event)


def _rules_of_token_revoked(event: TokenRevoked) -> tuple[Rule]:
    if event.token_id is not None:
        return (_rule("token", event.token_id, cutoff=EVERY_TOKEN, expires_at=event.expires_at),)
    cutoff = _cutoff(event.issued_before or event.occurred_at)
    named: tuple[tuple[RuleKind, tuple[str | None, ...]], ...] = (
        ("session", (event.session_id,)),
        ("user_at_client", (event.user_id, event.client_id)),
        ("user", (event.user_id,)),
        ("client", (event.client_id,)),
    )
    for kind, identifiers in named:
        given = [name for name in identifiers if name is not None]
        if len(given) == len(identifiers):
            return (_rule(kind, *given, cutoff=cutoff, expires_at=event.expires_at),)
    raise AssertionError("models refuse an event without any identifier")


def _rules_of_session_destroyed(event: SessionDestroyed) -> tuple[Rule]:
    return (_rule("session", event.session_id, cutoff=_cutoff(event.occurred_at), expires_at=event.expires_at),)


def _rule(kind: RuleKind, *names: str, cutoff: int, expires_at: datetime | None) -> Rule:
    is_aliased = kind != "key" and any(name.startswith(ALIAS_PREFIX) for name in names)
    until = None if expires_at is None else expires_at.timestamp()
    return Rule(kind, digest(*names), cutoff, until, is_aliased, names)


def _rules_of_key_rotated(event: KeyRotated) -> tuple[Rule, ...]:
    return tuple(_rule("key", key, cutoff=EVERY_TOKEN, expires_at=None) for key in compromised_keys(event))


_RULE_MAKERS: Mapping[type[Event], Callable[..., tuple[Rule, ...]]] = {
    TokenRevoked: _rules_of_token_revoked,
    SessionDestroyed: _rules_of_session_destroyed,
    KeyRotated: _rules_of_key_rotated,
}


def _may_have_alias(*identifiers: str | None) -> bool:
    """Return whether events may name one of these by another name."""
    together = "".join(filter(None, identifiers))
    if " " not in together and together.isprintable() and is_plain(together):
        return False  # quicker than to look at each of them, and nearly always enough
    return any(text and not is_plain(text) for text in identifiers)


def _cutoff(instant: datetime) -> int:
    """Return an instant in milliseconds since 1970, rounded up: a token issued within that millisecond is covered.

    An instant too late to be stored becomes `EVERY_TOKEN`.
    """
    return max(0, min(EVERY_TOKEN, math.ceil(instant.timestamp() * 1000)))
