"""Decide it: which tokens are revoked. Pure: events and the time go in, answers come out.

A rule says that the tokens of somebody, issued up to a cutoff, are revoked. Rules only ever grow: a cutoff is never
lowered, and a rule is forgotten only when no token that it covers can be alive.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import NamedTuple, get_args

from jwt_events.errors import InvalidOption
from jwt_events.events import MAX_NUMERIC_DATE, Event, KeyRotated, SessionDestroyed, TokenRevoked
from jwt_events.revocation._claims import RuleKind, Subjects, digest, subjects_of
from jwt_events.revocation._packed import EVERY_TOKEN, NEVER, RuleSet

# When to forget a rule is counted in ticks, in seconds, since the rules were made. `NEVER` is five years away.
TICK = 600.0

# Clocks of those who issue, revoke and check tokens differ; a rule that stays a minute too long does no harm.
_GRACE = 60.0


class Rule(NamedTuple):
    """A rule that an event makes.

    Attributes:
        kind: what it is about.
        digest: of what it is about.
        cutoff: tokens issued up to then are revoked, in milliseconds since 1970; or `EVERY_TOKEN`.
        expires_at: when it may be forgotten, in seconds since 1970; ``None`` if the event does not say.
    """

    kind: RuleKind
    digest: int
    cutoff: int
    expires_at: float | None


class Match(NamedTuple):
    """The rule that decided.

    Attributes:
        kind: what it is about.
        issued_before: tokens issued up to this instant are revoked; ``None`` if all are.
    """

    kind: RuleKind
    issued_before: datetime | None


class Rules:
    """All rules that are in force, and the question whether one of them covers a token.

    Args:
        epoch: the time now, in seconds since 1970.
        retention: for how long to keep a rule that does not say when it expires; ``None`` for ever.
        leeway: seconds by which the clock that issues tokens may be ahead of the one that revokes them.
    """

    def __init__(self, *, epoch: float, retention: timedelta | None, leeway: float = 0.0) -> None:
        self._epoch = epoch
        self._retention = None if retention is None else retention.total_seconds()
        self._leeway = leeway
        self._leeway_ms = leeway * 1000
        self._shelves: dict[RuleKind, RuleSet] = {kind: RuleSet() for kind in get_args(RuleKind)}
        # The fast path asks all of them at every check.
        self._tokens = self._shelves["token"].rules
        self._sessions = self._shelves["session"].rules
        self._users = self._shelves["user"].rules
        self._users_at_clients = self._shelves["user_at_client"].rules
        self._clients = self._shelves["client"].rules
        self._keys = self._shelves["key"].rules

    @property
    def counts(self) -> Mapping[RuleKind, int]:
        """How many rules of each kind there are."""
        return MappingProxyType({kind: len(shelf.rules) for kind, shelf in self._shelves.items()})

    def apply(self, event: Event, *, now: float) -> Rule | None:
        """Put the rule of an event in force. Any order, and any number of times, lead to the same rules.

        Args:
            event: what happened.
            now: the time in seconds since 1970, on a clock that was never set back since the epoch.

        Returns:
            The rule; ``None`` if such an event makes none.

        Raises:
            InvalidOption: it is no event.
        """
        make = _MAKERS.get(type(event))
        if make is None:
            if not isinstance(event, Event):
                raise InvalidOption("event", f"must be an event, not {type(event).__name__}")
            return None
        if (rule := make(event)) is not None:
            self._shelves[rule.kind].put(rule.digest, rule.cutoff, self._tick_to_forget(rule, now))
        return rule

    def _tick_to_forget(self, rule: Rule, now: float) -> int:
        if rule.kind == "key":
            return NEVER  # whoever has a key can make tokens that never expire
        until = rule.expires_at
        if until is None:
            if self._retention is None:
                return NEVER
            latest = now if rule.kind == "token" else max(now, rule.cutoff / 1000)
            until = latest + self._retention
        return max(0, min(NEVER, math.ceil((until + self._leeway + _GRACE - self._epoch) / TICK)))

    def revokes(self, claims: Mapping[str, object]) -> bool:
        """Whether a rule covers the token with these claims.

        Raises:
            InvalidClaims: they are no claims.
        """
        if type(claims) is dict:
            get = claims.get
            jti, sub, sid, kid, iat = get("jti"), get("sub"), get("sid"), get("kid"), get("iat")
            if (client := get("client_id")) is None:
                client = get("azp")
            # Nearly all claims are of the right types and hit no rule; all others take the way that explains itself.
            if (
                (type(jti) is str or jti is None)
                and (type(sub) is str or sub is None)
                and (type(sid) is str or sid is None)
                and (type(client) is str or client is None)
                and (type(kid) is str or kid is None)
                and (type(iat) is int and iat < MAX_NUMERIC_DATE)
                and jti not in self._tokens
                and sub not in self._users
                and sid not in self._sessions
                and client not in self._clients
                and kid not in self._keys
                and not (self._users_at_clients and (sub, client) in self._users_at_clients)
            ):
                return False
        return self.match(subjects_of(claims)) is not None

    def match(self, subjects: Subjects) -> Match | None:
        """Return the rule that covers a token, the one with the latest cutoff if there are several, or ``None``."""
        latest, decisive = -1, None
        for kind, digest_ in subjects.digests:
            filed = self._shelves[kind].find(digest_)
            if filed is not None and filed.cutoff > latest:
                latest, decisive = filed.cutoff, kind
        if decisive is None:
            return None
        if latest == EVERY_TOKEN:
            return Match(decisive, None)
        if subjects.issued_at is not None and subjects.issued_at > latest + self._leeway_ms:
            return None
        return Match(decisive, datetime.fromtimestamp(latest / 1000, UTC))

    def sweep(self, *, now: float) -> Iterator[int]:
        """Forget the rules whose time has come, a slice at a time. One sweep at a time.

        Args:
            now: the time in seconds since 1970; if in doubt, the earliest that it may be.

        Yields:
            How many were forgotten, after each slice.
        """
        tick = math.floor((now - self._epoch) / TICK)
        for shelf in self._shelves.values():
            yield from shelf.sweep(tick)


def _of_token_revoked(event: TokenRevoked) -> Rule:
    expires_at = _timestamp(event.expires_at)
    if event.token_id is not None:
        return Rule("token", digest(event.token_id), EVERY_TOKEN, expires_at)
    cutoff = _cutoff(event.issued_before or event.occurred_at)
    if event.session_id is not None:
        return Rule("session", digest(event.session_id), cutoff, expires_at)
    if event.user_id is None:
        assert event.client_id is not None  # noqa: S101 - an event without any subject cannot be made
        return Rule("client", digest(event.client_id), cutoff, expires_at)
    if event.client_id is None:
        return Rule("user", digest(event.user_id), cutoff, expires_at)
    return Rule("user_at_client", digest(event.user_id, event.client_id), cutoff, expires_at)


def _of_session_destroyed(event: SessionDestroyed) -> Rule:
    return Rule("session", digest(event.session_id), _cutoff(event.occurred_at), _timestamp(event.expires_at))


def _of_key_rotated(event: KeyRotated) -> Rule | None:
    return Rule("key", digest(event.key_id), EVERY_TOKEN, None) if event.compromised else None


_MAKERS: Mapping[type[Event], Callable[..., Rule | None]] = {
    TokenRevoked: _of_token_revoked,
    SessionDestroyed: _of_session_destroyed,
    KeyRotated: _of_key_rotated,
}


def _timestamp(instant: datetime | None) -> float | None:
    return None if instant is None else instant.timestamp()


def _cutoff(instant: datetime) -> int:
    """Return milliseconds since 1970, rounded up: what was issued within that millisecond counts as before.

    An instant that is too far away to be told covers every token.
    """
    return max(0, min(EVERY_TOKEN, math.ceil(instant.timestamp() * 1000)))
