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
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, get_args

from jwt_events.errors import InvalidOption
from jwt_events.events import (
    ALIAS_PREFIX,
    MAX_NUMERIC_DATE,
    STANDARD,
    ClaimNames,
    Event,
    KeyRotated,
    SessionDestroyed,
    TokenRevoked,
    compared,
    compromised_keys,
    is_plain,
)
from jwt_events.revocation._claims import RuleKind, Subjects, digest, subjects_of
from jwt_events.revocation._narrowed import NONE, WITHOUT_IDENTIFIER, Conditions, NarrowedRules
from jwt_events.revocation._packed import EVERY_TOKEN, NEVER, RuleSet

# The expiry of a rule is counted in ticks of this length, in seconds, since the epoch. `NEVER` is five years away.
TICK = 600.0

_IDENTIFIED: tuple[RuleKind, ...] = tuple(kind for kind in get_args(RuleKind) if kind not in WITHOUT_IDENTIFIER)

# Seconds for which a rule is kept after everything that it covers has expired: services accept tokens for a while after
# their ``exp``, and clocks differ. A rule that is kept too long does no harm.
_GRACE = 600.0


class Rule(NamedTuple):
    """The rule that an event puts in force.

    Attributes:
        kind: the kind of identifier that it names.
        digest: the digest of that identifier.
        cutoff: tokens issued up to this instant are revoked, in milliseconds since 1970; or `EVERY_TOKEN`.
        expires_at: when it may be removed, in seconds since 1970; ``None`` if the event does not say.
        is_aliased: whether the event names an identifier by another name than the claims of its tokens.
        spared_session: the session whose tokens live; ``None`` if there is none.
        conditions: what the claims of its tokens are.
    """

    kind: RuleKind
    digest: int
    cutoff: int
    expires_at: float | None
    is_aliased: bool = False
    spared_session: str | None = None
    conditions: Conditions = frozenset()

    @property
    def is_narrowed(self) -> bool:
        """Whether one identifier does not tell which tokens it covers."""
        return self.spared_session is not None or bool(self.conditions) or self.kind in WITHOUT_IDENTIFIER


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
        make_rules = _RULE_MAKERS.get(type(event))
        if make_rules is None:
            if not isinstance(event, Event):
                raise InvalidOption("event", f"must be an event, not {type(event).__name__}")
            return ()
        rules = make_rules(event)
        for rule in rules:
            self._merge(rule, self._expiry_tick(rule, now))
        return rules

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

    def _expiry_tick(self, rule: Rule, now: float) -> int:
        if rule.kind == "key":
            return NEVER  # an attacker with the key can sign tokens that never expire
        until, cutoff = rule.expires_at, 0.0 if rule.kind == "token" else rule.cutoff / 1000
        if until is None or until < cutoff:  # a token that is issued at the cutoff cannot have expired before
            if self._retention is None:
                return NEVER
            until = max(now, cutoff) + self._retention
        return max(0, min(NEVER, math.ceil((until + self.leeway + _GRACE - self._epoch) / TICK)))

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
            get = claims.get
            token_name, user_name, session_name, issued_name, client_name, party_name = self._claims
            jti, sub, sid, kid, iat = get(token_name), get(user_name), get(session_name), get("kid"), get(issued_name)
            client, party = get(client_name), get(party_name)
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
        get = claims.get
        for name, path, values in narrowed.names:
            value = get(name)
            if value is None and path is not None:
                value = claims
                for part in path:  # where an object ends early, what is there instead decides: perhaps
                    value = value.get(part)
                    if type(value) is not dict:
                        break
            if value is not None and (type(value) is not str or value in values):
                return True  # perhaps, and `match` knows
        if not self._has_aliases:
            return False
        names = self.claim_names
        return _may_have_alias(*(get(name) for name in (names.token, names.user, names.session, *names.clients)))

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
        self._is_odd = (
            self._has_more_clients
            or self._has_aliases
            or any(self._narrowed.count(kind) for kind in WITHOUT_IDENTIFIER)
        )


def _rules_of_token_revoked(event: TokenRevoked) -> tuple[Rule]:
    cutoff = _cutoff(event.issued_before or event.occurred_at)
    if event.everyone:  # from elsewhere, also beside an identifier: no token is trusted that may be revoked
        return (_rule("everyone", cutoff=cutoff, expires_at=event.expires_at),)
    conditions = frozenset((name, compared(value)) for name, value in (event.claims or {}).items())
    named: tuple[tuple[RuleKind, tuple[str | None, ...]], ...] = (
        ("token", (event.token_id,)),
        ("session", (event.session_id,)),
        ("user_at_client", (event.user_id, event.client_id)),
        ("user", (event.user_id,)),
        ("client", (event.client_id,)),
        ("claims", ()),
    )
    kind, identifiers = next((kind, identifiers) for kind, identifiers in named if None not in identifiers)
    rule = _rule(
        kind,
        *(name for name in identifiers if name is not None),
        cutoff=EVERY_TOKEN if kind == "token" else cutoff,
        expires_at=event.expires_at,
    )
    spared = event.except_session_id if kind in ("user_at_client", "user") else None
    return (rule._replace(conditions=conditions, spared_session=spared),)


def _rules_of_session_destroyed(event: SessionDestroyed) -> tuple[Rule]:
    return (_rule("session", event.session_id, cutoff=_cutoff(event.occurred_at), expires_at=event.expires_at),)


def _rule(kind: RuleKind, *names: str, cutoff: int, expires_at: datetime | None) -> Rule:
    is_aliased = any(name.startswith(ALIAS_PREFIX) for name in names)
    named = digest(*names) if names else 0
    return Rule(kind, named, cutoff, None if expires_at is None else expires_at.timestamp(), is_aliased)


def _rules_of_key_rotated(event: KeyRotated) -> tuple[Rule, ...]:
    return tuple(Rule("key", digest(key), EVERY_TOKEN, None) for key in compromised_keys(event))


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
    return max(1, min(EVERY_TOKEN, math.ceil(instant.timestamp() * 1000)))
